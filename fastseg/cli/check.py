"""fastseg check: what is wrong with volumes, and how long a run on them will take, before one is started."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastseg.cli import Exit
from fastseg.cli.shared import frame_option, load_needed_kernels, usable_threads
from fastseg.errors import FastsegError, OptionError

if TYPE_CHECKING:
    from fastseg.cohort.forecast import Speed
    from fastseg.cohort.job import Refused
    from fastseg.cohort.plan.planning import Wanted
    from fastseg.cohort.preflight import Candidate, Checked, Finding

__all__ = ["command"]

# Findings that the table shows, and how many of one kind: each kind is to be seen.
_SHOWN, _SHOWN_OF_KIND = 20, 5


@dataclass(frozen=True, slots=True)
class _Report:
    """All that a check found; `whole` are findings of no single volume."""

    checked: Sequence[Checked]
    whole: tuple[Finding, ...]
    remarks: tuple[str, ...]
    skipped: int
    deep: bool
    seconds: float
    cores: int
    disk: int
    speed: Speed | None = None
    no_speed: str = ""

    @property
    def errors(self) -> int:
        """Volumes that will fail."""
        return sum(each.severity == "error" for each in self.checked)

    @property
    def forecast(self) -> float | None:
        """Wall seconds of a run."""
        if self.speed is None:
            return None
        sound = [each.facts for each in self.checked if each.facts is not None and each.severity != "error"]
        return self.speed.seconds(sound, self.cores)


def _labels(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that choose volumes."""
    text: dict[str, Any] = {"multiple": True, "metavar": "LABEL"}
    options = (
        click.option("--participant-label", "participants", help="Of a BIDS data set, only these.", **text),
        click.option("--session-label", "sessions", help="Of a BIDS data set, only these.", **text),
        click.option(
            "--suffix", "suffixes", help="Of a BIDS data set, these instead of T1w, T2w, T2*.", **text
        ),
        click.option("--exclude", "excluded", multiple=True, metavar="PATTERN", help="Leave these out."),
        click.option(
            "--exclude-yml", "excluded_yml", multiple=True, metavar="FILE", help="SCT's qc_fail.yml."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command("check", context_settings={"show_default": True})
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@click.option(
    "-c",
    "--contrast",
    default="auto",
    type=click.Choice(["auto", "t1", "t2", "t2s", "dwi"]),
    help="That the run will be told.",
)
@frame_option
@click.option(
    "-o", "out", metavar="OUT", type=click.Path(path_type=Path), help="Folder of the run's results."
)
@click.option("--soft", is_flag=True, help="The run will write probabilities.")
@click.option("--kernel", type=click.Choice(["2d", "2d-light", "3d"]), default="2d", help="Of the run.")
@click.option("--models", metavar="PACK", default="default", help="Of the run.")
@click.option("--mem-gb", type=float, metavar="GB", help="Memory of the run.  [default: 4/5 of what is free]")
@click.option("--jobs", type=click.IntRange(min=1), help="Cores to use.  [default: those at hand]")
@_labels
@click.option("--deep", is_flag=True, help="Read the voxels of all volumes, not only of files up to 4 MB.")
@click.option("--estimate/--no-estimate", default=True, help="Measure how long the run will take.")
@click.option(
    "--format", "form", type=click.Choice(["table", "tsv", "json"]), help="Of the report.  [default: table]"
)
@click.option(
    "--out",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the report there (.tsv, .json, or as --format says), and the table to stdout.",
)
def command(
    inputs: tuple[str, ...],
    *,
    contrast: str,
    frame: Any,
    out: Path | None,
    soft: bool,
    kernel: Any,
    models: str,
    mem_gb: float | None,
    jobs: int | None,
    deep: bool,
    estimate: bool,
    form: str | None,
    file: Path | None,
    **chosen: tuple[str, ...],
) -> int:
    """Find what is wrong with volumes before a run, and how long that will take; changes nothing.

    INPUT is what `fastseg run` takes: files, folders, patterns, lists, or BIDS_DIR OUT_DIR participant.

    Errors are what a run would fail on: files that are missing, truncated, corrupt or no NIfTI volumes, 4D
    ones without --4d, constant ones, too large ones, and a disk too full for the results. Warnings are what
    deserves a look: NaN, duplicates, sform and qform that disagree, no orientation, coarse voxels, a small
    field of view, a contrast that is unknown or not that of the name.

    Exit codes: 0 nothing or only warnings, 2 usage, 3 errors in some volumes or no room for the results,
    4 errors in all, 5 no volume found.
    """
    from fastseg.cohort.memory import budget_bytes
    from fastseg.cohort.plan.planning import Wanted
    from fastseg.options import Options

    if file is not None and not file.absolute().parent.is_dir():
        raise OptionError(f"--out {file}: its folder does not exist; make it, or choose another")
    began = time.perf_counter()
    options = Options(contrast=contrast, kernel=kernel, soft=soft)
    wanted = Wanted(options, contrast != "auto", frame)
    candidates, failures, remarks, skipped, out = _found(inputs, out, wanted, chosen)
    if not candidates and not failures:
        click.echo(f"fastseg: error: no .nii or .nii.gz volume in {_shown(', '.join(inputs))}", err=True)
        return Exit.NOTHING_MATCHED
    cores = jobs or usable_threads()
    from fastseg.cohort.preflight import check, disk_bytes, disk_finding, with_duplicates

    found = with_duplicates(list(check(candidates, deep=deep, threads=cores, budget=budget_bytes(mem_gb))))
    found += [_refused(each, options) for each in failures]
    disk = disk_bytes(found)
    full = disk_finding(out if out is not None else Path(), disk)
    seconds = time.perf_counter() - began
    speed, why = _speed(options, models) if estimate and disk else (None, "")
    whole = () if full is None else (full,)
    report = _Report(found, whole, remarks, skipped, deep, seconds, cores, disk, speed, why)
    _tell(report, form, file)
    if report.errors == len(found):
        return Exit.NONE_SUCCEEDED
    return Exit.SOME_FAILED if report.errors or whole else Exit.OK


def _found(
    inputs: tuple[str, ...], out: Path | None, wanted: Wanted, chosen: dict[str, tuple[str, ...]]
) -> tuple[list[Candidate], Sequence[Refused], tuple[str, ...], int, Path | None]:
    """What a run would work on: volumes, unreadable folders, remarks, how many are excluded, and OUT."""
    from fastseg.cohort.plan.exclusion import Exclusions
    from fastseg.cohort.plan.lists import Row
    from fastseg.cohort.plan.places import Folders
    from fastseg.cohort.plan.planning import PARTICIPANT, Selection, plan
    from fastseg.cohort.plan.words import gather
    from fastseg.cohort.preflight import Candidate

    selection = Selection(**chosen)
    of_data_set = len(inputs) == 3 and inputs[2] == PARTICIPANT
    if out is not None or of_data_set or selection.participants or selection.sessions or selection.suffixes:
        planned = plan(inputs, out, wanted, selection)  # which also finds outputs that clash
        jobs = [job for job in planned.jobs if not job.skip]
        candidates = [Candidate.of(job) for job in jobs]
        return candidates, planned.failures, planned.remarks, len(planned.jobs) - len(jobs), planned.out
    if "-" in inputs:
        raise OptionError("- reads from stdin, which cannot be checked before: name files, folders or lists")
    # Nobody said where results will go, and maybe nothing can be written here.
    excluded = Exclusions(selection.excluded, selection.excluded_yml)
    gathered = gather(inputs, Row("", "", wanted.options, wanted.frame), Folders())
    items = [item for item in gathered.items if not excluded.reason(item.name)]
    candidates = [Candidate(item.name, Path(item.path), item.row.options, item.row.frame) for item in items]
    remarks = (*gathered.remarks, *excluded.unmet())
    return candidates, gathered.failures, remarks, len(gathered.items) - len(items), None


def _refused(refused: Refused, options: Any) -> Checked:
    """A folder that cannot be read, as if it were one volume: what is in it would be missing."""
    from fastseg.cohort.preflight import Candidate, Checked, Finding, Severity

    finding = Finding("unreadable", Severity.ERROR, refused.message)
    return Checked(Candidate(refused.name, Path(refused.name), options), (finding,))


def _speed(options: Any, models: str) -> tuple[Speed | None, str]:
    from fastseg.cohort.forecast import measure_speed
    from fastseg.engines.compute import Compute

    try:
        load_needed_kernels(options.detector, options.contrast, models, quiet=True)
        return measure_speed(options, models=models, compute=Compute(device="cpu")), ""
    except FastsegError as error:
        return None, str(error)


def _tell(report: _Report, form: str | None, file: Path | None) -> None:
    writers = {"table": _table, "tsv": _tsv, "json": _json}
    if file is None:
        click.echo(writers[form or "table"](report), nl=False)
        return
    from fastseg.outputs import write_file

    by_name = file.suffix.lower().removeprefix(".")
    chosen = form or (by_name if by_name in writers else "table")
    write_file(file, writers[chosen](report).encode())
    click.echo(_table(report), nl=False)


def _table(report: _Report) -> str:
    from fastseg.cohort.plan.words import counted

    volumes = len(report.checked)
    warned = sum(each.severity == "warning" for each in report.checked)
    fine = volumes - report.errors - warned
    lines = [f"{_shown(remark)}" for remark in report.remarks]
    lines.append(
        f"{counted(volumes)} checked in {report.seconds:.1f} s: {report.errors} with errors, {warned} with "
        f"warnings, {fine} without" + (f"; {report.skipped} excluded" if report.skipped else "")
    )
    read = sum(each.read for each in report.checked)
    left = any(not each.read and each.severity != "error" for each in report.checked)
    more = " (--deep reads those of larger files too)" if left else ""
    lines.append(f"looked at: headers of all; voxels and checksums of {read}{more}")
    findings = [(finding, each) for each in report.checked for finding in each.findings]
    findings.sort(key=lambda pair: pair[0].severity != "error")
    counts = Counter((str(finding.severity), finding.kind) for finding, _ in findings)
    lines += ["", *(f"{severity:<8} {kind:<20} {n:>6}" for (severity, kind), n in counts.items())]
    if findings:
        lines.append("")
    told: Counter[str] = Counter()
    for finding, each in findings:
        if told[finding.kind] < _SHOWN_OF_KIND and told.total() < _SHOWN:
            told[finding.kind] += 1
            lines.append(f"{finding.severity:<8} {_shown(each.candidate.name)}: {_shown(finding.message)}")
    if len(findings) > told.total():
        lines.append(f"... and {len(findings) - told.total()} more: --format tsv lists them all")
    if lines[-1]:
        lines.append("")
    lines += [f"{finding.severity:<8} {_shown(finding.message)}" for finding in report.whole]
    if report.disk and not report.whole:
        lines.append(f"results take up to {_bytes(report.disk)}")
    if report.speed is not None and report.forecast is not None:
        lines.append(
            f"a run takes about {_duration(report.forecast)} on {report.cores} cores, reckoned from phantoms "
            f"segmented here just now ({report.speed.per_slice * 1e3:.2g} ms of CPU time a slice)"
        )
    elif report.no_speed:
        lines.append(f"how long a run takes could not be measured: {_shown(report.no_speed)}")
    return "\n".join(lines).rstrip("\n") + "\n"


def _tsv(report: _Report) -> str:
    """One row a finding, and one for each volume without."""
    rows = [("file", "severity", "finding", "message", "shape", "zooms_mm", "orientation", "dtype", "read")]
    for each in report.checked:
        facts = each.facts
        of_file = ("n/a",) * 4
        if facts is not None:
            shape, zooms = "x".join(map(str, facts.shape)), "x".join(f"{zoom:.4g}" for zoom in facts.zooms)
            of_file = (shape, zooms, "".join(facts.axcodes), facts.dtype.name)
        for finding in each.findings or (None,):
            told = (
                ("ok", "n/a", "n/a") if finding is None else (finding.severity, finding.kind, finding.message)
            )
            rows.append((each.candidate.name, *told, *of_file, "yes" if each.read else "no"))
    rows += [("n/a", each.severity, each.kind, each.message, *("n/a",) * 5) for each in report.whole]
    return "".join("\t".join(map(_shown, row)) + "\n" for row in rows)


def _json(report: _Report) -> str:
    from fastseg import __version__

    def told(finding: Finding) -> dict[str, str]:
        return {
            "Finding": finding.kind,
            "Severity": str(finding.severity),
            "Message": _text(finding.message),
        }

    volumes = []
    for each in report.checked:
        facts = each.facts
        volume: dict[str, object] = {
            "Input": _text(each.candidate.name),
            "Severity": "ok" if each.severity is None else str(each.severity),
            "VoxelsRead": each.read,
            "Findings": [told(finding) for finding in each.findings],
        }
        if facts is not None:
            volume |= {
                "Shape": list(facts.shape),
                "Frames": facts.frames,
                "ZoomsMm": [round(zoom, 6) for zoom in facts.zooms],
                "Orientation": "".join(facts.axcodes),
                "StoredAs": facts.dtype.name,
                "Bytes": facts.file_bytes,
            }
        volumes.append(volume)
    forecast = report.forecast
    record = {
        "GeneratedBy": [{"Name": "fastseg", "Version": __version__}],
        "Seconds": round(report.seconds, 3),
        "Deep": report.deep,
        "Excluded": report.skipped,
        "Remarks": [_text(remark) for remark in report.remarks],
        "Counts": dict(Counter(str(volume["Severity"]) for volume in volumes)),
        "Findings": [told(finding) for finding in report.whole],
        "ResultBytesAtMost": report.disk,
        "Cores": report.cores,
        "RunSeconds": None if forecast is None else round(forecast, 1),
        "Volumes": volumes,
    }
    return json.dumps(record, indent=2) + "\n"


def _text(text: str) -> str:
    """Text that any program can read: bytes of names that are no UTF-8 become escapes."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _shown(text: str) -> str:
    """Text on one line and in one cell."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in _text(str(text)))


def _bytes(count: int) -> str:
    from fastseg.nifti_header import human

    return human(count)


def _duration(seconds: float) -> str:
    if seconds < 1:
        return "a second"
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
