"""What a run says at its end: counts, summary.tsv, the JSON of the run, dataset_description.json."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fastseg import __version__
from fastseg.cohort.job import Outcome, Refused, Status
from fastseg.cohort.ledger import History
from fastseg.cohort.resume import relative
from fastseg.outputs import write_file

__all__ = [
    "SUMMARY",
    "causes",
    "run_report",
    "summary_rows",
    "summary_text",
    "volume_record",
    "write_summary",
]

#: Name of the table inside the output folder.
SUMMARY = "summary.tsv"

# What differs between volumes that failed for the same reason.
_BRACKETS = re.compile(r"\s*\([^()]*\)")
_NUMBER = re.compile(r"(?<![\w.-])\d[\d.,]*(?![\w])")

_FIRST = ("name", "status", "mask", "contrast", "flags", "message", "notes")
_STEPS = ("read", "prepare", "centerline", "crop", "predict", "clean", "back", "quality", "write")


def summary_rows(history: History) -> Iterator[dict[str, object]]:
    """One row for each volume of the ledgers, sorted by name.

    Yields
    ------
    row : name, status, mask, contrast, flags, message, notes, then quality measures, then seconds by step.
        Where a volume gave no number, there is "n/a", as in BIDS.
    """
    measures: dict[str, None] = {}
    steps: dict[str, None] = dict.fromkeys(_STEPS)
    order = []
    for mask, line in history.ends.items():
        order.append((str(line.get("name", "")), mask))
        measures |= dict.fromkeys(line.get("measures", {}))
        steps |= dict.fromkeys(line.get("seconds", {}))
    for _, mask in sorted(order):
        line = history.ends[mask]
        row: dict[str, object] = {
            "name": line.get("name", ""),
            "status": line.get("status", ""),
            "mask": mask if line.get("outputs") else "n/a",
            "contrast": line.get("contrast", ""),
            "flags": ",".join(line.get("flags", ())) or "n/a",
            "message": line.get("message") or "n/a",
            "notes": " | ".join(line.get("notes", ())) or "n/a",
        }
        row |= {name: line.get("measures", {}).get(name, "n/a") for name in measures}
        row |= {f"seconds_{name}": line.get("seconds", {}).get(name, "n/a") for name in steps}
        yield row


def summary_text(history: History) -> str:
    """Rows of all that the ledgers know, as tab-separated values under the names of their columns."""
    lines: list[str] = []
    for row in summary_rows(history):
        if not lines:
            lines.append("\t".join(row))
        lines.append("\t".join(map(_cell, row.values())))
    return "\n".join(lines or ["\t".join(_FIRST)]) + "\n"


def write_summary(history: History, out: Path, scratch: Path | None = None) -> Path:
    """Write summary.tsv.

    Parameters
    ----------
    history : of the output folder
    out : output folder
    scratch : see `fastseg.cohort.ledger.Ledger`; None: a file beside the table

    Raises
    ------
    OutputError
        It cannot be written.
    """
    path = out / SUMMARY
    write_file(path, summary_text(history).encode(errors="backslashreplace"), temporary=scratch)
    return path


def _cell(value: object) -> str:
    """Tabs and line ends of hostile names would break the table."""
    text = str(value)
    return (
        text
        if text.isprintable()
        else "".join(c if c.isprintable() or c > "\ud7ff" else repr(c)[1:-1] for c in text)
    )


def causes(outcomes: Iterable[tuple[str, str]]) -> list[tuple[int, str]]:
    """Failures by cause, the most frequent first.

    Parameters
    ----------
    outcomes : status and message of each volume that failed
    """
    counts = Counter(f"{status}: {_cause(message)}" for status, message in outcomes)
    return [(count, cause) for cause, count in counts.most_common()]


def _cause(message: str) -> str:
    """A message without what is particular to its volume: what stands in brackets, and numbers."""
    return _NUMBER.sub("N", _BRACKETS.sub("", message))


def volume_record(each: Outcome | Refused, out: Path) -> dict[str, Any]:
    """One volume for the JSON of a run, and for the lines of the streaming mode."""
    if isinstance(each, Refused):
        return {"Input": each.name, "Status": str(each.status), "Mask": None, "Message": each.message}
    written = each.status in (Status.OK, Status.OK_FLAGGED, Status.CACHED)
    return {
        "Input": each.job.name,
        "Status": str(each.status),
        "Mask": relative(each.job.outputs.mask, out) if written else None,
        "Message": each.message,
        "Notes": list(each.notes),
        "Flags": list(each.flags),
        "Quality": dict(each.measures),
        "Contrast": each.job.options.contrast,
        "Seconds": {step: round(seconds, 4) for step, seconds in each.seconds.items()},
        **({"Attempts": each.record["attempts"]} if "attempts" in each.record else {}),
    }


def run_report(
    volumes: list[dict[str, Any]], *, n_jobs: int, seconds: float, code: int, facts: Mapping[str, object]
) -> dict[str, Any]:
    """Describe a run.

    Parameters
    ----------
    volumes : from `volume_record`
    n_jobs : volumes that were named
    seconds : wall time of the whole
    code : exit code
    facts : what is the same for all volumes
    """
    flags = Counter(flag for volume in volumes for flag in volume.get("Flags", ()))
    return {
        "GeneratedBy": [{"Name": "fastseg", "Version": __version__}],
        **facts,
        "ExitCode": int(code),
        "Seconds": round(seconds, 4),
        "Counts": dict(Counter(volume["Status"] for volume in volumes)),
        "Flags": dict(flags.most_common()),
        "NotTried": n_jobs - len(volumes),
        "Volumes": volumes,
    }
