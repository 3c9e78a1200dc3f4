"""fastseg centerline: where the cord's centre is on each slice, as a volume and as numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastseg.cli import Exit
from fastseg.cli.shared import compute_of, load_needed_kernels, locating_options, usable_threads
from fastseg.cohort.plan.places import Folders
from fastseg.errors import InputError, OptionError
from fastseg.outputs import is_volume_name, outputs_of, publish, split_suffix, write_file

if TYPE_CHECKING:
    from fastseg.centerline import Centerline
    from fastseg.nifti import Frame
    from fastseg.volume import Grid

__all__ = ["command"]

_BESIDE = "beside OUT"


@click.command("centerline", context_settings={"show_default": True})
@click.argument("volume", metavar="INPUT", type=click.Path(path_type=Path))
@locating_options
@click.option(
    "-o",
    "out",
    metavar="OUT",
    type=click.Path(path_type=Path),
    help="File ending in .nii.gz or .nii, or a folder.  [default: <input>_centerline in the current folder]",
)
@click.option(
    "--csv",
    metavar="[FILE]",
    is_flag=False,
    flag_value=_BESIDE,
    help="Write x,y,z of every slice as well; without FILE, beside OUT.",
)
@click.option(
    "--csv-space",
    type=click.Choice(["voxel", "mm"]),
    default="voxel",
    help="Voxels from 0 in the axes of INPUT, or RAS+ millimetres.",
)
def command(
    volume: Path,
    *,
    contrast: str,
    detector: str,
    file_centerline: Path | None,
    out: Path | None,
    csv: str | None,
    csv_space: str,
    brain: str | None,
    models: str,
    frame: Frame | None,
    threads: int | None,
    **given: str,
) -> int:
    """Find the centerline of the cord.

    OUT has one voxel per slice, on the grid of INPUT and in its orientation, and is replaced when it exists.
    The CSV has no header, as SCT's: x,y,z, one line a slice, from the lowest slice upwards.
    """
    if detector == "viewer" and file_centerline is not None:
        raise click.UsageError("--centerline viewer and --file-centerline exclude each other")
    if file_centerline is None and detector == "file":
        raise click.UsageError("--centerline file needs --file-centerline FILE")
    target, table = _targets(volume, out, csv, file_centerline)
    if detector == "viewer":
        file_centerline = _drawn(volume, target, frame)
        if file_centerline is None:
            return Exit.INTERRUPTED
    if file_centerline is not None:
        detector = "file"

    load_needed_kernels(detector, contrast, models)
    from fastseg.drawn import read_drawn
    from fastseg.locator import Locator
    from fastseg.nifti import read_volume, write_volume
    from fastseg.options import Options
    from fastseg.volume import SCT_RPI, Volume

    options = Options(
        contrast=contrast,
        detector=detector,  # type: ignore[arg-type]  # click has checked it
        brain=None if brain is None else brain == "1",
    )
    image, template = read_volume(volume, frame=frame)
    drawn, drawn_notes = read_drawn(file_centerline, image.grid) if file_centerline else (None, ())
    compute = compute_of(given, threads=threads or usable_threads())
    with Locator(options, models=models, compute=compute) as locator:
        found = locator.find(image, drawn)
    line = found.centerline
    grid = image.grid.reoriented(SCT_RPI)
    mask = Volume(line.mask(grid), grid).reoriented(image.grid.axcodes)
    for note in (*template.notes, *drawn_notes, *found.notes):
        click.echo(f"warning: {volume}: {note}", err=True)
    with publish(target) as stage:
        if table is not None:
            write_file(table, _rows(line, image.grid, csv_space).encode())
        write_volume(mask.voxels, template, stage / target.name)
    click.echo(str(target))
    if table is not None:
        click.echo(str(table))
    return Exit.OK


def _drawn(volume: Path, target: Path, frame: Frame | None) -> Path | None:
    """Let the user draw points, beside the target; None if they do not."""
    from fastseg.cli.sitting import hold_sitting
    from fastseg.viewer.drawing import Drawing

    stem = split_suffix(target)[0].removesuffix("_centerline")
    drawing = Drawing(volume.name, volume, target.with_name(f"{stem}_points.json"), frame, with_curve=False)
    return drawing.target if hold_sitting([drawing]).saved else None


def _targets(
    volume: Path, out: Path | None, csv: str | None, file_centerline: Path | None
) -> tuple[Path, Path | None]:
    """Where the centerline and its numbers go; refuses to write onto what is read."""
    read = [file_centerline] if file_centerline is not None else []
    if volume.is_dir():
        raise InputError(f"{volume}: is a folder, not a volume; centerline takes one volume")
    if out is not None and is_volume_name(out) and not out.is_dir():
        target = out  # the centerline itself
    else:
        target = outputs_of((out or Path()) / f"{split_suffix(volume)[0]}_seg.nii.gz").centerline
    Folders().check_writable(target.parent)
    if target.resolve() in {path.resolve() for path in (volume, *read)}:
        raise OptionError(f"{target} is an input and would be overwritten: choose another -o")
    if csv is None:
        return target, None
    table = outputs_of(target).sidecar.with_suffix(".csv") if csv == _BESIDE else Path(csv)
    if is_volume_name(table):
        raise OptionError(f"--csv {table}: is the name of a volume; put INPUT first, or name a .csv file")
    if not table.absolute().parent.is_dir() and table.absolute().parent != target.absolute().parent:
        raise OptionError(f"--csv {table}: its folder does not exist")
    return target, table


def _rows(line: Centerline, native: Grid, space: str) -> str:
    import numpy as np

    points = line.world()
    if space == "voxel":
        homogeneous = np.column_stack([points, np.ones(len(points))])
        points = (homogeneous @ np.linalg.inv(native.affine).T)[:, :3]
    # + 0.0 turns the -0.0000 of rounding into 0.0000
    return "".join(f"{x:.4f},{y:.4f},{z:.4f}\n" for x, y, z in np.round(points, 4) + 0.0)
