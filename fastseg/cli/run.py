"""fastseg run: segment volumes one after the other."""

from __future__ import annotations

import logging
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastseg.cli import Exit
from fastseg.cli.shared import (
    TERMINATED,
    load_needed_kernels,
    locating_options,
    logging_to_stderr,
    say,
    status_of,
    terminable,
    usable_threads,
)
from fastseg.errors import FastsegError, OptionError
from fastseg.outputs import Kind, Outputs, Source, expand, plan_outputs, publish

if TYPE_CHECKING:
    from fastseg.nifti import Frame
    from fastseg.options import Options
    from fastseg.segmenter import Segmenter

__all__ = ["command"]


@dataclass(frozen=True, slots=True)
class _Request:
    """Everything that is the same for all volumes."""

    options: Options
    kinds: tuple[Kind, ...]
    models: str
    engine: str
    threads: int
    frame: Frame | None
    centerline: Path | None
    overwrite: bool
    quiet: bool
    verbose: bool
    fail_fast: bool


@dataclass(frozen=True, slots=True)
class _Outcome:
    source: Source
    status: str
    seconds: float
    mask: Path | None = None
    message: str = ""
    notes: tuple[str, ...] = ()


@click.command("run", context_settings={"show_default": True})
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@locating_options
@click.option(
    "-o",
    "out",
    metavar="OUT",
    type=click.Path(path_type=Path),
    help="Folder, made when missing; or a file ending in .nii or .nii.gz.  [default: current folder]",
)
@click.option(
    "--kernel",
    type=click.Choice(["2d", "2d-light", "3d"]),
    default="2d",
    help="Slice by slice, the same with a smaller network, or blocks of slices.",
)
@click.option(
    "--thr", "threshold", type=float, help="Cord above this; -1 means --soft.  [default: the network's]"
)
@click.option("--soft", is_flag=True, help="Write probabilities instead of a mask.")
@click.option("--overwrite", is_flag=True, help="Replace outputs that exist.")
@click.option("--preview", is_flag=True, help="Write <input>_overlay.png.")
@click.option("--save-centerline", is_flag=True, help="Write <input>_centerline, one voxel a slice.")
@click.option("--sidecar/--no-sidecar", "with_sidecar", default=True, help="Write <input>_seg.json.")
@click.option("--report", metavar="FILE", type=click.Path(path_type=Path), help="Write a JSON of the run.")
@click.option("--quiet", is_flag=True, help="Tell failures and warnings only.")
@click.option("-v", "--verbose", is_flag=True, help="Tell every step, and tracebacks of bugs.")
@click.option("--fail-fast", is_flag=True, help="Stop at the first failure.")
def command(
    inputs: tuple[Path, ...],
    *,
    contrast: str,
    out: Path | None,
    detector: str,
    file_centerline: Path | None,
    threshold: float | None,
    soft: bool,
    brain: str | None,
    kernel: str,
    threads: int | None,
    preview: bool,
    save_centerline: bool,
    with_sidecar: bool,
    report: Path | None,
    **rest: Any,
) -> int:
    """Segment the spinal cord in volumes, and in all volumes below folders.

    The mask of INPUT is OUT/<input>_seg.nii.gz; volumes found below a folder keep their place below OUT.
    Paths of masks go to stdout, one line a volume to stderr.

    Exit codes: 0 all fine, 2 usage, 3 some volumes failed, 4 none succeeded, 5 no volume found,
    130 interrupted.
    """
    if threshold == -1:
        threshold, soft = None, True
    elif threshold is not None and soft:
        raise click.UsageError("--thr and --soft exclude each other")
    if file_centerline is not None:
        detector = "file"
    elif detector == "file":
        raise click.UsageError("--centerline file needs --file-centerline FILE")
    sources = _found(inputs)
    if not sources:
        click.echo(f"fastseg: error: no .nii or .nii.gz volume in {', '.join(map(str, inputs))}", err=True)
        return Exit.NOTHING_MATCHED
    if file_centerline is not None and len(sources) > 1:
        raise click.UsageError(f"--file-centerline is for one input, not for {len(sources)}")
    wanted: dict[Kind, bool] = {
        "mask": True,
        "sidecar": with_sidecar,
        "centerline": save_centerline,
        "overlay": preview,
    }
    kinds = tuple(kind for kind, is_wanted in wanted.items() if is_wanted)
    read = [file_centerline] if file_centerline is not None else []
    planned = plan_outputs(sources, out, kinds=kinds, also_read=read)
    if report is not None:
        _check_report(report, [*(source.path for source in sources), *read], planned)

    load_needed_kernels(detector, contrast, rest["models"], quiet=rest["quiet"])
    from fastseg.options import Options

    options = Options(
        contrast=contrast,
        kernel=kernel,  # type: ignore[arg-type]  # click has checked it
        detector=detector,  # type: ignore[arg-type]
        threshold=threshold,
        soft=soft,
        brain=None if brain is None else brain == "1",
    )
    request = _Request(
        options, kinds, threads=threads or usable_threads(), centerline=file_centerline, **rest
    )
    with logging_to_stderr(logging.DEBUG if rest["verbose"] else logging.WARNING):
        return _run(request, list(zip(sources, planned, strict=True)), report)


def _found(inputs: tuple[Path, ...]) -> list[Source]:
    """All sources, each once."""
    sources: dict[Path, Source] = {}
    for given, found in zip(inputs, expand(inputs), strict=True):
        if not found and len(inputs) > 1:
            click.echo(f"warning: {given}: holds no .nii or .nii.gz volume", err=True)
        for source in found:
            sources.setdefault(source.path.resolve(), source)
    return list(sources.values())


def _check_report(report: Path, read: list[Path], planned: list[Outputs]) -> None:
    taken = {path.resolve() for path in read}
    for outputs in planned:
        taken |= {path.resolve() for path in outputs.of_kinds(("mask", "sidecar", "centerline", "overlay"))}
    if report.resolve() in taken:
        raise OptionError(f"--report {report} is an input or an output: choose another name")
    if not report.absolute().parent.is_dir():
        raise OptionError(f"--report {report}: its folder does not exist")


def _run(request: _Request, jobs: list[tuple[Source, Outputs]], report: Path | None) -> int:
    began = time.perf_counter()
    outcomes: list[_Outcome] = []
    code: int | None = None
    try:
        with terminable():
            for outcome in _outcomes(request, jobs):
                outcomes.append(outcome)
                _tell(outcome, request)
                if request.fail_fast and outcome.status != "ok":
                    break
    except KeyboardInterrupt:
        click.echo(f"fastseg: error: interrupted, {len(outcomes)} of {len(jobs)} volumes done", err=True)
        code = Exit.INTERRUPTED
    except SystemExit:
        click.echo(f"fastseg: error: terminated, {len(outcomes)} of {len(jobs)} volumes done", err=True)
        code = TERMINATED
    seconds = time.perf_counter() - began
    succeeded = sum(outcome.status == "ok" for outcome in outcomes)
    if code is None:
        code = Exit.OK if succeeded == len(jobs) else Exit.SOME_FAILED if succeeded else Exit.NONE_SUCCEEDED
    if len(jobs) > 1 and not request.quiet:
        counts = ", ".join(f"{n} {status}" for status, n in Counter(o.status for o in outcomes).items())
        left = len(jobs) - len(outcomes)
        say(f"{len(jobs)} volumes in {seconds:.1f} s: {counts}" + (f", {left} not tried" if left else ""))
    if report is not None:
        _write_report(report, request, outcomes, len(jobs), seconds, code)
    return code


def _outcomes(request: _Request, jobs: list[tuple[Source, Outputs]]) -> Iterator[_Outcome]:
    """Volumes whose outputs exist first: that costs nothing."""
    todo = []
    for source, outputs in jobs:
        existing = [path for path in outputs.of_kinds(request.kinds) if path.exists() or path.is_symlink()]
        if existing and not request.overwrite:
            message = f"{existing[0]} exists: add --overwrite, or choose another -o"
            yield _Outcome(source, "error", 0.0, message=message)
        else:
            todo.append((source, outputs))
    if not todo:
        return
    from fastseg.segmenter import Segmenter

    with Segmenter(
        request.options, models=request.models, backend=request.engine, threads=request.threads
    ) as segmenter:
        for source, outputs in todo:
            began = time.perf_counter()
            try:
                notes = _segment(segmenter, request, source, outputs)
            except Exception as error:
                seconds = time.perf_counter() - began
                status, message = status_of(error, source.path)
                if request.verbose and not isinstance(error, FastsegError):
                    traceback.print_exception(error)
                del error  # it holds the volume through its traceback
                yield _Outcome(source, status, seconds, message=message)
            else:
                yield _Outcome(source, "ok", time.perf_counter() - began, outputs.mask, notes=notes)


def _segment(segmenter: Segmenter, request: _Request, source: Source, outputs: Outputs) -> tuple[str, ...]:
    """One volume, from file to files; gives what there is to note."""
    from fastseg.networks.network import ANY_CONTRAST
    from fastseg.nifti import read_volume, write_volume
    from fastseg.quality import name_note
    from fastseg.sidecar import sidecar, write_json
    from fastseg.volume import SCT_RPI, Volume

    contrast = request.options.contrast
    volume, template = read_volume(source.path, frame=request.frame)
    centerline = read_volume(request.centerline)[0] if request.centerline else None
    result = segmenter.segment(volume, centerline)
    with publish(outputs.mask) as stage:
        if "overlay" in request.kinds:
            from fastseg.preview import overlay_png

            overlay_png(
                volume,
                result.mask,
                result.centerline,
                stage / outputs.overlay.name,
                name=source.path.name,
                contrast=contrast if contrast != ANY_CONTRAST else "",
                threshold=result.threshold if request.options.soft else 0.5,
            )
        if "centerline" in request.kinds:
            grid = volume.grid.reoriented(SCT_RPI)
            line = Volume(result.centerline.mask(grid), grid).reoriented(volume.grid.axcodes)
            write_volume(line.voxels, template, stage / outputs.centerline.name)
        if "sidecar" in request.kinds:
            record = sidecar(
                result, template, options=request.options, pack=segmenter.pack, frame=request.frame
            )
            write_json(record, stage / outputs.sidecar.name)
        write_volume(result.mask.voxels, template, stage / outputs.mask.name)
    named = name_note(source.path.name, contrast)
    return (*([named] if named else []), *template.notes, *result.notes)


def _tell(outcome: _Outcome, request: _Request) -> None:
    for note in outcome.notes:
        click.echo(f"warning: {outcome.source.path}: {note}", err=True)
    if outcome.status != "ok" or not request.quiet:
        line = f"{outcome.status:<13} {outcome.source.path}  {outcome.seconds:.2f} s"
        click.echo(f"{line}  {outcome.message}".rstrip(), err=True)
    if outcome.mask is not None:
        click.echo(str(outcome.mask))


def _write_report(
    path: Path, request: _Request, outcomes: list[_Outcome], n_jobs: int, seconds: float, code: int
) -> None:
    from fastseg import __version__
    from fastseg.sidecar import write_json

    volumes = [
        {
            "Input": str(outcome.source.path),
            "Status": outcome.status,
            "Seconds": round(outcome.seconds, 4),
            "Mask": str(outcome.mask) if outcome.mask else None,
            "Message": outcome.message,
            "Notes": list(outcome.notes),
        }
        for outcome in outcomes
    ]
    record = {
        "GeneratedBy": [{"Name": "fastseg", "Version": __version__}],
        "Contrast": request.options.contrast,
        "Models": request.models,
        "ExitCode": int(code),
        "Seconds": round(seconds, 4),
        "Counts": dict(Counter(outcome.status for outcome in outcomes)),
        "NotTried": n_jobs - len(outcomes),
        "Volumes": volumes,
    }
    write_json(record, path)
