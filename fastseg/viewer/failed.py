"""The volumes of a cohort in which no cord was found: what to draw on, and how to run them again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastseg.cohort.job import Status
from fastseg.cohort.ledger import History
from fastseg.outputs import points_name
from fastseg.viewer.drawing import Drawing

if TYPE_CHECKING:
    from fastseg.nifti_header import Frame

__all__ = ["Failed", "Found", "Rerun", "find_failed", "reruns"]


@dataclass(frozen=True, slots=True)
class Failed:
    """A volume of a past run that points would help.

    Parameters
    ----------
    drawing : where its points belong
    at : when its last run wrote down how it ended
    waits : whether it has points that no run has taken yet
    """

    drawing: Drawing
    at: str
    waits: bool


@dataclass(frozen=True, slots=True)
class Found:
    """What ledgers say of failed volumes.

    Parameters
    ----------
    volumes : that points would help, by name
    lost : names of those of which no ledger says where the data set is
    named : names of those whose centerline the user named, so that no points would be taken
    """

    volumes: list[Failed]
    lost: list[str]
    named: list[str]


@dataclass(frozen=True, slots=True)
class Rerun:
    """A command that takes points up.

    Parameters
    ----------
    words : after ``fastseg``
    cwd : the folder in which it was given; empty where the ledger does not say
    """

    words: tuple[str, ...]
    cwd: str

    @property
    def by_itself(self) -> bool:
        """Whether it needs nothing that is not written down."""
        return self.words[:1] == ("run",) and "-" not in self.words and Path(self.cwd or "?").is_dir()


def find_failed(
    history: History,
    out: Path,
    *,
    flagged: bool = False,
    inputs: Path | None = None,
    frame: Frame | None = None,
) -> Found:
    """Look for volumes in which no cord was found.

    Parameters
    ----------
    history : of the output folder
    out : the output folder
    flagged : whether those are meant, too, whose result has quality flags
    inputs : the data set; None: where it was when they were run
    frame : of 4D files, which of their volumes; None: as they were run
    """
    wanted = {Status.NO_CORD, *([Status.OK_FLAGGED] if flagged else [])}
    found = Found([], [], [])
    for mask, line in history.ends.items():
        if line.get("status") not in wanted:
            continue
        name, at = str(line.get("name", mask)), str(line.get("at", ""))
        run = _run_of(history, at)
        root = inputs if inputs is not None else run.get("root")
        target = out / mask
        target = target.with_name(points_name(target.name))
        known = line.get("inputs", {}).get("centerline")
        if known is not None and not target.exists():
            found.named.append(name)
        elif not isinstance(root, str | Path) or not str(root):
            found.lost.append(name)
        else:
            chosen = frame if frame is not None else _frame(line, run)
            drawing = Drawing(name, Path(root) / name, target, chosen, with_curve=False)
            found.volumes.append(Failed(drawing, at, _waits(target, known or {})))
    found.volumes.sort(key=lambda each: each.drawing.name.split("/"))
    return found


def reruns(history: History, volumes: Sequence[Failed]) -> list[Rerun]:
    """Find the commands that segmented volumes; of job arrays those of all parts.

    What is done is not done again, and a volume with new points is not, so that the same words take them up.
    """
    found: dict[Rerun, None] = {}
    for run in (_run_of(history, at) for at in dict.fromkeys(each.at for each in volumes)):
        alike = [run]
        if _value(run, "--shard"):
            alike = [other for other in history.runs if _without_shard(other) == _without_shard(run)]
        for each in alike:
            words = tuple(word for word in _words(each) if word not in ("--overwrite", "--retry-failed"))
            found[Rerun(words, str(each.get("cwd", "")))] = None
    return list(found)


def _run_of(history: History, at: str) -> Mapping[str, Any]:
    """The run that wrote a line at a time: the last that had begun; of job arrays, one of those."""
    begun = [run for run in history.runs if str(run.get("at", "")) <= at]
    return begun[-1] if begun else {}


def _waits(target: Path, known: Mapping[str, Any]) -> bool:
    """Whether there are points other than those that a run knew."""
    try:
        status = target.stat()
    except OSError:
        return False
    return bool((known.get("bytes"), known.get("mtime_ns")) != (status.st_size, status.st_mtime_ns))


def _words(run: Mapping[str, Any]) -> list[str]:
    words = run.get("command")
    return [str(word) for word in words] if isinstance(words, list) else []


def _frame(line: Mapping[str, Any], run: Mapping[str, Any]) -> Frame | None:
    """Of which frame a line tells; those of a list are its own, older lines have that of the command."""
    said = str(line.get("frame", _value(run, "--4d")))
    if said == "mean":
        return "mean"
    return int(said) if said.isdecimal() else None


def _value(run: Mapping[str, Any], option: str) -> str:
    """What an option of a run was set to; empty if it was not."""
    said = ""
    words = _words(run)
    for place, word in enumerate(words):
        if word == option:
            said = "".join(words[place + 1 : place + 2])
        elif word.startswith(f"{option}="):
            said = word.partition("=")[2]
    return said


def _without_shard(run: Mapping[str, Any]) -> tuple[str, list[str]]:
    return str(run.get("cwd", "")), list(_not_shard(_words(run)))


def _not_shard(words: Sequence[str]) -> Iterator[str]:
    for before, word in zip(["", *words], words, strict=False):
        if word != "--shard" and before != "--shard" and not word.startswith("--shard="):
            yield word
