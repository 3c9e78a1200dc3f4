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
def command(folder: Path, overwrite: bool, seed: int) -> None:
    """Write phantoms into DIR, segment the T2 one, and compare it with its true mask.

    A phantom is an analytic neck of four contrasts: it shows what the commands do, and says nothing about
    accuracy in people. Paths of the files go to stdout.
    """
    images = {contrast: folder / f"phantom_{contrast}.nii.gz" for contrast in _CONTRASTS}
    true, mask, line, overlay = (
        folder / f"phantom_{_SHOWN}_{what}"
        for what in ("true.nii.gz", "seg.nii.gz", "centerline.nii.gz", "overlay.png")
    )
    paths = [*images.values(), true, mask, line, overlay]
    there = [path for path in paths if path.exists()]
    if there and not overwrite:
        raise OutputError(f"{there[0]}: is there already; give --overwrite, or another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from error

    load_needed_kernels("auto", _SHOWN, "default")
    from fastseg.comparison import compare_masks
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
    with Segmenter(Options(contrast=_SHOWN), threads=usable_threads()) as segmenter:
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
