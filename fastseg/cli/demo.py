"""fastseg demo: make phantoms, segment one, and show what a result looks like."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

import click

from fastseg.cli.shared import load_needed_kernels, say, usable_threads
from fastseg.errors import OutputError

__all__ = ["command"]

_CONTRASTS = ("t1", "t2", "t2s", "dwi")
_SHOWN = "t2"


@click.command("demo")
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@click.option("--seed", default=0, show_default=True, help="Another neck.")
@click.option(
    "--bids", "people", type=click.IntRange(1, 9999), metavar="N", help="A BIDS data set of N people instead."
)
def command(folder: Path, overwrite: bool, seed: int, people: int | None) -> None:
    """Write phantoms into DIR, segment the T2 one, and compare it with its true mask.

    A phantom is an analytic neck of four contrasts: it shows what the commands do, and says nothing about
    accuracy in people. Paths of the files go to stdout.
    """
    if people is not None:
        _write_data_set(folder, people, overwrite=overwrite, seed=seed)
        return
    images = {contrast: folder / f"phantom_{contrast}.nii.gz" for contrast in _CONTRASTS}
    true, mask, line, overlay = (
        folder / f"phantom_{_SHOWN}_{what}"
        for what in ("true.nii.gz", "seg.nii.gz", "centerline.nii.gz", "overlay.png")
    )
    paths = [*images.values(), true, mask, line, overlay]
    there = [path for path in paths if path.exists()]
    if there and not overwrite:
        raise OutputError(f"{there[0]}: is there already; give --overwrite, or another folder")
    _make(folder)
    load_needed_kernels("auto", _SHOWN, "default")
    from fastseg.comparison import compare_masks
    from fastseg.engines.compute import Compute
    from fastseg.nifti import new_template, write_volume
    from fastseg.options import Options
    from fastseg.phantom import make_phantom
    from fastseg.preview import overlay_png
    from fastseg.segmenter import Segmenter
    from fastseg.volume import SCT_RPI, Volume

    for contrast, path in images.items():
        image, truth = make_phantom(contrast, shape=(96, 96), seed=seed)
        template = new_template(image.grid, "phantom made by fastseg")
        write_volume(image.voxels, template, path)
        if contrast == _SHOWN:
            shown, true_mask = image, truth
            write_volume(truth.voxels, template, true)
    compute = Compute(threads=usable_threads())
    with Segmenter(Options(contrast=_SHOWN), compute=compute) as segmenter:
        began = time.perf_counter()
        result = segmenter.segment(shown)
        seconds = time.perf_counter() - began
    write_volume(result.mask.voxels, template, mask)
    grid = shown.grid.reoriented(SCT_RPI)
    points = Volume(result.centerline.mask(grid), grid).reoriented(shown.grid.axcodes)
    write_volume(points.voxels, template, line)
    overlay_png(shown, result.mask, result.centerline, overlay, name=images[_SHOWN].name, contrast=_SHOWN)

    for path in paths:
        click.echo(path)
    dice = compare_masks(true_mask, result.mask).dice
    say(f"segmented {images[_SHOWN].name} in {seconds:.2f} s; Dice with its true mask {dice:.3f}")
    say(f"look at {overlay}")
    again = shlex.join(["fastseg", "run", str(images["t1"]), "-o", str(folder), "--preview"])
    say(f"now try: {again}")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from error


def _write_data_set(folder: Path, people: int, *, overwrite: bool, seed: int) -> None:
    """Two images of each person, to try cohorts on."""
    from fastseg.nifti import new_template, write_volume
    from fastseg.phantom import make_phantom
    from fastseg.sidecar import write_json

    description = folder / "dataset_description.json"
    if folder.exists() and any(folder.iterdir()) and not (overwrite and description.exists()):
        raise OutputError(f"{folder}: is not empty; give another folder, or --overwrite for a demo of before")
    _make(folder)
    facts = {"Name": "Phantoms made by fastseg", "BIDSVersion": "1.9.0", "DatasetType": "raw"}
    write_json(facts, description)
    for number in range(1, people + 1):
        person = f"sub-{number:02}"
        for contrast, suffix in (("t1", "T1w"), ("t2", "T2w")):
            path = folder / person / "anat" / f"{person}_{suffix}.nii.gz"
            _make(path.parent)
            image, _ = make_phantom(contrast, shape=(96, 96), seed=seed + number)
            write_volume(image.voxels, new_template(image.grid, "phantom made by fastseg"), path)
            click.echo(path)
    out = folder.parent / f"{folder.name}-derivatives" / "fastseg"
    say(f"now try: {shlex.join(['fastseg', 'run', str(folder), str(out), 'participant'])}")
