"""What is told of cohorts that were timed: contenders' turns become JSON lines."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.runner import Target

__all__ = ["Case", "Turn", "lines_of"]

_Line = dict[str, object]


@dataclass(frozen=True, slots=True)
class Turn:
    """What one contender did in one turn.

    Parameters
    ----------
    cpu, wall : seconds
    peak_mb : largest resident memory, of processes at once added up; None where it was not asked for
    others : CPU seconds that everything else on the machine took meanwhile; None where that is not known
    stages : seconds by stage, by what was measured
    statuses : how many volumes ended how
    masks : digest of each mask that was written, by its name
    """

    cpu: float
    wall: float
    peak_mb: float | None = None
    others: float | None = None
    stages: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    statuses: Mapping[str, int] = field(default_factory=dict)
    masks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Case:
    """Work that several contenders do, what the rest is compared with first.

    Parameters
    ----------
    title : what is done, for the table
    contenders : what does it once, by name
    facts : about the files
    targets : what has to be reached
    floor : contender whose CPU seconds, divided by the workers, are the least wall time that there can be
    above_floor : contenders whose wall time is compared with that
    above_first : contenders that do what the first does, and more
    """

    title: str
    contenders: Mapping[str, Callable[[], Turn]]
    facts: Mapping[str, object]
    targets: tuple[Target, ...] = ()
    floor: str = ""
    above_floor: tuple[str, ...] = ()
    above_first: tuple[str, ...] = ()


def lines_of(name: str, case: Case, turns: Mapping[str, Sequence[Turn]], workers: int) -> list[_Line]:
    """Make the lines of a case.

    Parameters
    ----------
    turns : of each contender, in the order in which they were taken; as many for each
    workers : that share the floor out
    """
    first = next(iter(turns.values()))
    lines = []
    for contender, own in turns.items():
        line: _Line = {"case": name, "title": case.title, "contender": contender, **_times(own)}
        line["ratio"] = _over(own, first, "cpu")
        line["wall_ratio"] = _over(own, first, "wall")
        if contender in case.above_first:
            line["more_cpu_ms_per_volume"] = _more_ms(own, first, len(own[-1].masks))
        if contender in case.above_floor:
            line |= _to_floor(own, [turn.cpu / workers for turn in turns[case.floor]])
        if own[0].peak_mb is not None:
            peaks = [turn.peak_mb or 0.0 for turn in own]
            line["rss_mb_peak"] = round(max(peaks), 1)
            line["rss_mb_median"] = round(statistics.median(peaks), 1)
            if first[0].peak_mb is not None:
                line["rss_ratio"] = _over(own, first, "peak_mb")
        line |= _stages(own)
        line |= {"statuses": dict(own[-1].statuses), "masks": len(own[-1].masks)}
        # Volumes of which both wrote a mask: of 20 and 1000, the first 20 are the same.
        line["different_masks"] = sum(
            digest != first[0].masks.get(mask, digest) for turn in own for mask, digest in turn.masks.items()
        )
        for target in case.targets:
            if target.contender == contender:
                line |= target.judge(line)
        lines.append({**line, **case.facts})
    return lines


def _times(turns: Sequence[Turn]) -> _Line:
    line: _Line = {"repetitions": len(turns)}
    for name in ("cpu", "wall"):
        seconds = [getattr(turn, name) for turn in turns]
        line[f"{name}_seconds_min"] = round(min(seconds), 3)
        line[f"{name}_seconds_median"] = round(statistics.median(seconds), 3)
    known = [(turn, turn.others) for turn in turns if turn.others is not None]
    if known:
        cores = os.cpu_count() or 1
        idle = [max(1 - (turn.cpu + others) / (turn.wall * cores), 0.0) for turn, others in known]
        line["others_cpu_seconds_median"] = round(statistics.median(others for _, others in known), 3)
        line["idle_share_median"] = round(statistics.median(idle), 3)
    return line


def _to_floor(turns: Sequence[Turn], floors: Sequence[float]) -> _Line:
    """How far above its floor a contender is; turn by turn, because the machine is not always the same."""
    pairs = list(zip(turns, floors, strict=True))
    line: _Line = {"wall_to_floor": round(statistics.median(turn.wall / floor for turn, floor in pairs), 3)}
    cores = os.cpu_count() or 1
    # The least that it can have been: as if the stream had used all the time that others took.
    without = [(turn.wall - turn.others / cores) / floor for turn, floor in pairs if turn.others is not None]
    if without:
        line["wall_to_floor_without_others"] = round(statistics.median(without), 3)
    return line


def _over(own: Sequence[Turn], first: Sequence[Turn], name: str) -> float:
    medians = [statistics.median(getattr(turn, name) for turn in turns) for turns in (own, first)]
    return round(medians[0] / medians[1], 3)


def _more_ms(own: Sequence[Turn], first: Sequence[Turn], volumes: int) -> float:
    """CPU time on top of the first contender's, turn by turn: the machine is not always the same."""
    more = statistics.median(turn.cpu - other.cpu for turn, other in zip(own, first, strict=True))
    return round(1000 * more / max(volumes, 1), 2)


def _stages(turns: Sequence[Turn]) -> _Line:
    """Medians of the stages' seconds, and each one's share of the CPU time of all."""
    line: _Line = {}
    for what, stages in turns[0].stages.items():
        line[what] = {
            stage: round(statistics.median(turn.stages[what][stage] for turn in turns), 4) for stage in stages
        }
    cpu = line.get("stages_cpu_seconds")
    if isinstance(cpu, dict):
        line["stages_share"] = {stage: round(own / sum(cpu.values()), 3) for stage, own in cpu.items()}
        line["busiest_stage"] = max(cpu, key=cpu.__getitem__)
    return line
