"""fastseg deepseg-sc: SCT's sct_deepseg_sc, its command line and its results, quirks included."""

from __future__ import annotations

import argparse
import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from fastseg.cli import Exit
from fastseg.cli.shared import load_needed_kernels, logging_to_stderr, opening, say, usable_threads
from fastseg.errors import CordNotFound, InputError, OptionError, OutputError
from fastseg.outputs import is_volume_name, outputs_of, publish, split_suffix

if TYPE_CHECKING:
    from fastseg.nifti import Template
    from fastseg.options import Options
    from fastseg.segmenter import Segmentation
    from fastseg.volume import Volume

__all__ = ["command"]

# By -v.
_LEVELS = (logging.ERROR, logging.WARNING, logging.DEBUG)

_DESCRIPTION = """\
Segment the spinal cord as sct_deepseg_sc of the Spinal Cord Toolbox does: the same options, the same voxels
and the same header, its quirks included (docs/sct.md). One exception, quirk 10: with -centerline cnn the
curve runs on the heat map alone. SCT's own networks give SCT's results: import them once with
`fastseg models import --sct DIR --name sct`, then use --models sct. For new work use `fastseg run`."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise click.UsageError(f"{message} (-h shows the options)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="fastseg deepseg-sc",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )
    needed = parser.add_argument_group("mandatory arguments")
    needed.add_argument("-i", metavar="FILE", type=Path, required=True, help="volume to segment, 3D or 2D")
    needed.add_argument(
        "-c", dest="contrast", choices=["t1", "t2", "t2s", "dwi"], required=True, help="its contrast"
    )
    add = parser.add_argument_group("optional arguments").add_argument
    add("-h", "-help", "--help", action="help", help="show this help and exit")
    add(
        "-centerline",
        choices=["svm", "cnn", "viewer", "file"],
        help="how the centerline is found (default: svm, or cnn where the networks have no svm); viewer: by "
        "points that you click in a page",
    )
    add("-file_centerline", metavar="FILE", type=Path, help="centerline or mask; means -centerline file")
    add(
        "-thr",
        metavar="X",
        type=float,
        help="cord above this probability, 0 to 1, or -1 for the probabilities themselves "
        "(default: the network's own; with SCT's networks t1 0.15, t2 0.7, t2s 0.89, dwi 0.01)",
    )
    add(
        "-brain",
        type=int,
        choices=[0, 1],
        help="whether brain is in view, for -centerline cnn only (default: 1 for t1 and t2, else 0)",
    )
    add("-kernel", choices=["2d", "3d"], default="2d", help="kind of network (default: 2d)")
    add("-ofolder", metavar="DIR", type=Path, default=Path(), help="output folder (default: current folder)")
    add("-o", metavar="FILE", type=Path, help="output file, below -ofolder (default: <input>_seg<ext>)")
    add("-qc", metavar="DIR", type=Path, help="folder of the QC report, to which the volume is added")
    add("-qc-dataset", metavar="STR", default="", help="name of the data set, for -qc")
    add("-qc-subject", metavar="STR", default="", help="name of the subject, for -qc")
    add("-v", type=int, choices=[0, 1, 2], default=1, help="0: quiet, 1: normal, 2: every step (default: 1)")
    add(
        "-profile-time",
        metavar="FILE",
        nargs="?",
        type=Path,
        const=Path("time_profiling_results.txt"),
        help="where the time goes, as text (default: time_profiling_results.txt), or binary for .prof",
    )
    add(
        "-trace-memory",
        metavar="DIR",
        nargs="?",
        type=Path,
        const=Path(),
        help="write peak_memory.txt (KiB) and memory_snapshots.txt into DIR (default: current folder)",
    )
    add("-r", type=int, choices=[0, 1], default=1, help="accepted; there are no temporary files to remove")
    add("--models", metavar="PACK", default="default", help="networks: name of a pack or its folder")
    return parser


@click.command(
    "deepseg-sc",
    add_help_option=False,
    short_help="sct_deepseg_sc: SCT's options, SCT's voxels.",
    options_metavar="-i FILE -c {t1,t2,t2s,dwi}",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", metavar="[OPTIONS]", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> int:
    """Segment as sct_deepseg_sc does; takes its command line as it is."""
    given = _parser().parse_args(list(arguments))
    target = _checked_target(given)
    try:
        if given.qc is not None:
            from fastseg.qc.report import check_writable

            check_writable(given.qc)
        if given.centerline == "viewer" and not _draw(given, target):
            return Exit.INTERRUPTED
        with logging_to_stderr(_LEVELS[given.v]), _profiled(given.profile_time), _traced(given.trace_memory):
            _segment(given, target)
    except (CordNotFound, InputError, OutputError) as error:
        # 1 and not fastseg's own codes: scripts that call sct_deepseg_sc know nothing else.
        text = str(error).replace("--centerline file", "-file_centerline FILE")
        click.echo(f"fastseg: error: {text}", err=True)
        return Exit.UNEXPECTED
    if given.v:
        click.echo(str(target))
    return Exit.OK


def _checked_target(given: argparse.Namespace) -> Path:
    """Check what goes together, adapt what falls back, and name the output."""
    if given.file_centerline is not None:
        given.centerline = "file"
    if given.centerline == "file" and given.file_centerline is None:
        raise click.UsageError("-centerline file needs -file_centerline FILE")
    if given.thr is not None and given.thr != -1 and not 0 <= given.thr <= 1:
        raise click.UsageError(f"-thr {given.thr:g}: must lie between 0 and 1, or be -1 for a soft result")
    if given.brain == 1 and given.centerline in (None, "svm"):
        raise click.UsageError("-brain 1 goes with -centerline cnn only")
    if given.centerline is None:
        given.centerline = _default_detector(given)
    if given.kernel == "3d" and given.contrast == "dwi":
        if given.v:
            click.echo("There is no 3D network for dwi: the 2D network is used instead.")
        given.kernel = "2d"
    if given.qc is None and (given.qc_dataset or given.qc_subject):
        click.echo("warning: -qc-dataset and -qc-subject are of no use without -qc DIR", err=True)
    stem, suffix = split_suffix(given.i)
    target: Path = given.ofolder / (given.o or f"{stem}_seg{suffix}")
    if not is_volume_name(target):
        raise click.UsageError(f"-o {given.o}: the name of a volume ends in .nii.gz or .nii")
    for path in (given.i, given.file_centerline):
        if path is not None and path.resolve() == target.resolve():
            raise OptionError(f"{target} is an input and would be overwritten: choose another -o")
    return target


def _default_detector(given: argparse.Namespace) -> str:
    """SCT's default is svm; networks that come without one, like fastseg's own, have their detector."""
    from fastseg.networks.packs import find_pack

    if find_pack(given.models).has_svm(given.contrast):
        return "svm"
    if given.v:
        click.echo(f"pack {given.models} has no svm for {given.contrast}: -centerline cnn is used.", err=True)
    return "cnn"


def _draw(given: argparse.Namespace, target: Path) -> bool:
    """Let the user draw points, beside the mask; whether they did."""
    from fastseg.cli.sitting import hold_sitting
    from fastseg.viewer.drawing import Drawing

    drawing = Drawing(given.i.name, given.i, outputs_of(target).points, 0, with_curve=False)
    if not hold_sitting([drawing]).saved:
        return False
    given.centerline, given.file_centerline = "file", drawing.target
    return True


def _segment(given: argparse.Namespace, target: Path) -> None:
    load_needed_kernels(given.centerline, given.contrast, given.models, quiet=not given.v)
    from fastseg.engines.compute import Compute
    from fastseg.nifti import sct_header, write_volume
    from fastseg.segmenter import Segmenter

    volume, template = _read_3d(given.i)
    drawn = _read_centerline(given.file_centerline, volume) if given.file_centerline else None
    # The reference engine: it is the one whose results were compared with SCT's.
    compute = Compute("onnxruntime", threads=usable_threads())
    with Segmenter(_options(given), models=given.models, compute=compute) as segmenter:
        try:
            result = segmenter.segment(volume, drawn)
        except CordNotFound as error:
            if given.qc is not None:
                _show(given, target, volume, message=str(error))
            raise CordNotFound(f"{given.i}: {error}") from error
    for note in (*template.notes, *result.notes) if given.v else ():
        click.echo(f"warning: {given.i}: {note}", err=True)
    with publish(target) as stage:
        write_volume(result.mask.voxels, sct_header(template, volume.grid.affine), stage / target.name)
    if given.qc is not None:
        from fastseg.sidecar import sidecar

        description = sidecar(result, template, options=segmenter.options, pack=segmenter.pack)
        _show(given, target, volume, result, description)


def _show(
    given: argparse.Namespace,
    target: Path,
    volume: Volume,
    result: Segmentation | None = None,
    description: dict[str, Any] | None = None,
    *,
    message: str = "",
) -> None:
    """Add the volume to the QC report."""
    from fastseg.cohort.job import Job
    from fastseg.cohort.showing import Showing, show_alone
    from fastseg.past.build import show_corrected

    job = Job(given.i.name, given.i, outputs_of(target), _options(given))
    showing = Showing(given.qc.absolute(), given.qc_dataset, given.qc_subject)
    try:
        outcome = show_alone(showing, job, volume, result, description, message=message)
        remarks = show_corrected(outcome, showing, target.absolute().parent)
    except OutputError as error:  # no reason to fail: the mask is there
        click.echo(f"warning: not in the QC report: {error}", err=True)
        return
    for remark in remarks:
        click.echo(f"warning: {remark}", err=True)
    if given.v:
        say(f"QC report: {given.qc / 'index.html'}; to open it: {opening(given.qc)}")


def _read_centerline(path: Path, image: Volume) -> Volume:
    """As SCT takes it; points of the viewer, which SCT does not know, become the curve through them."""
    from fastseg.drawn import is_points_name, read_drawn
    from fastseg.nifti import read_volume

    return read_drawn(path, image.grid)[0] if is_points_name(path) else read_volume(path)[0]


def _options(given: argparse.Namespace) -> Options:
    from fastseg.options import Options
    from fastseg.quirks import SCT_QUIRKS

    soft = given.thr == -1
    return Options(
        contrast=given.contrast,
        kernel=given.kernel,
        detector=given.centerline,
        threshold=None if soft else given.thr,
        soft=soft,
        brain=None if given.brain is None else bool(given.brain),
        quirks=SCT_QUIRKS,
    )


def _read_3d(path: Path) -> tuple[Volume, Template]:
    """SCT refuses every 4D file, also one with a single volume; `fastseg run` takes those."""
    from fastseg.nifti import read_volume

    volume, template = read_volume(path, frame=0)
    dimensions = int(template.header["dim"][0])
    if dimensions > 3:
        raise InputError(
            f"{path}: the file has {dimensions} dimensions, 2 or 3 are taken; split it, or use `fastseg run`"
        )
    return volume, template


@contextlib.contextmanager
def _profiled(path: Path | None) -> Iterator[None]:
    """Say where the CPU time goes: text, or for snakeviz a binary .prof."""
    if path is None:
        yield
        return
    import cProfile
    import io
    import pstats

    profile = cProfile.Profile()
    try:
        with profile:
            yield
    finally:
        with _written(path):
            if path.suffix == ".prof":
                profile.dump_stats(path)
            else:
                text = io.StringIO()
                pstats.Stats(profile, stream=text).sort_stats("cumulative").print_stats()
                path.write_text(text.getvalue())


@contextlib.contextmanager
def _traced(folder: Path | None) -> Iterator[None]:
    """Follow Python's memory: the peak, and who holds most of it at the end."""
    if folder is None:
        yield
        return
    import tracemalloc

    tracemalloc.start()
    try:
        yield
    finally:
        peak, snapshot = tracemalloc.get_traced_memory()[1], tracemalloc.take_snapshot()
        tracemalloc.stop()
        lines = [str(statistic) for statistic in snapshot.statistics("lineno")[:50]]
        with _written(folder):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "peak_memory.txt").write_text(f"{peak / 1024:.1f} KiB\n")
            (folder / "memory_snapshots.txt").write_text("\n".join(lines) + "\n")


@contextlib.contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error
