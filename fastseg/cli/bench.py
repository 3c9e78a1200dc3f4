"""fastseg bench: how fast fastseg is on this machine, as a table for an issue."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from fastseg.cli.measuring import Effort, measure_machine
from fastseg.cli.shared import say

__all__ = ["as_markdown", "command"]


@click.command("bench")
@click.option("--quick", is_flag=True, help="Half the time or less, and less certain numbers.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def command(quick: bool, as_json: bool) -> None:
    """Measure fastseg on this machine, and print tables that can be pasted into an issue.

    Kernels, every network on every engine, one volume step by step, and a cohort; on phantoms that it draws
    itself. Takes less than a minute on two cores. Close other programs first: the numbers are of the clock.
    """
    from fastseg.compilation import load_kernels

    load_kernels(say, own_process=True)
    began = time.perf_counter()
    effort = Effort.little() if quick else Effort()
    with tempfile.TemporaryDirectory(prefix="fastseg-bench-") as folder:
        facts = measure_machine(effort, Path(folder), lambda what: say(f"measuring: {what}"))
    facts |= {"quick": quick, "seconds": round(time.perf_counter() - began, 1)}
    click.echo(json.dumps(facts, indent=2) if as_json else as_markdown(facts), nl=as_json)


def as_markdown(facts: dict[str, Any]) -> str:
    """Tables of what was measured, each under a line that says what its numbers are.

    Parameters
    ----------
    facts : as `--json` writes them
    """
    parts = [_machine(facts), _kernels(facts), _networks(facts), _volume(facts), _cohort(facts)]
    how = "`fastseg bench --quick`" if facts["quick"] else "`fastseg bench`"
    end = f"Measured by {how} in {facts['seconds']:.0f} s; its own peak memory was {facts['peak_mb']} MB."
    return "\n\n".join([*parts, end]) + "\n"


def _machine(facts: dict[str, Any]) -> str:
    machine = facts["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"**fastseg {machine['fastseg']}** on {machine['processor']}, {machine['usable_cores']} of "
        f"{machine['cores']} cores, {machine['memory_gb']:g} GB, load {machine['load']:g} at the start; "
        f"{machine['system']}, Python {machine['python']}, {versions}; {machine['date']}"
    )


def _kernels(facts: dict[str, Any]) -> str:
    shape, zooms = (_times(facts["volume"][name]) for name in ("shape", "zooms_mm"))
    rows = [
        (each["name"], f"{each['milliseconds']:.2f}", f"{each['mvx_per_second']:.1f}")
        for each in facts["kernels"]
    ]
    what = f"Kernels: one thread, a phantom of {shape} voxels, {zooms} mm; median by the clock."
    return f"{what}\n\n{_table(('kernel', 'ms', 'million voxels a second'), rows)}"


def _networks(facts: dict[str, Any]) -> str:
    threads = facts["machine"]["usable_cores"]
    rows: list[tuple[str, ...]] = []
    lacking: dict[str, list[str]] = {}
    for each in facts["networks"]:
        if "error" in each:
            lacking.setdefault(each["error"].split(f"{each['network']}: ")[-1], []).append(
                f"{each['backend']} {each['precision']}"
            )
            continue
        one, every = each["per_second_one_thread"], each["per_second_all_threads"]
        gflops = f"{2e-3 * each['mmacs'] * one:.0f}" if each["mmacs"] else "-"
        rows.append((each["engine"], each["network"], each["item"], f"{one:.0f}", f"{every:.0f}", gflops))
    what = (
        "Networks of the default pack: images a second on noise, and 10^9 operations a second of one thread."
    )
    heads = ("engine", "network", "image", "1 thread", f"{threads} threads", "GFLOP/s")
    without = [f"Not {', '.join(dict.fromkeys(names))}: {error}" for error, names in lacking.items()]
    return "\n\n".join([what, _table(heads, rows, words=3), *without])


def _volume(facts: dict[str, Any]) -> str:
    volume = facts["volume"]
    rows = [(name, f"{1e3 * seconds:.1f}") for name, seconds in volume["steps"].items()]
    rows.append(("**from file to file**", f"**{1e3 * volume['seconds']:.1f}**"))
    what = (
        f"One volume, that phantom as .nii.gz: every step, networks open, {volume['engine']}, "
        f"{volume['threads']} threads for inference (predict); medians of {volume['repetitions']}."
    )
    return f"{what}\n\n{_table(('step', 'ms'), rows)}"


def _cohort(facts: dict[str, Any]) -> str:
    cohort = facts["cohort"]
    rows = [
        (
            f"{run['workers']}",
            f"{run['seconds']:.2f}",
            f"{run['cpu_seconds']:.2f}",
            f"{run['volumes_per_hour']}",
            f"{run['cpu_seconds'] / run['seconds']:.2f}",
        )
        for run in cohort["runs"]
    ]
    failed = [cohort["volumes"] - run["succeeded"] for run in cohort["runs"]]
    what = (
        f"A cohort of {cohort['volumes']} phantoms of {_times(cohort['shape'])}, four different ones, as "
        "`fastseg run` does it once networks are open: masks, sidecars and ledger."
    )
    if any(failed):
        what += f" {max(failed)} of them failed: see fastseg doctor."
    heads = ("workers", "seconds", "CPU seconds", "volumes an hour", "cores busy")
    return f"{what}\n\n{_table(heads, rows, words=0)}"


def _times(numbers: list[float]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)


def _table(heads: tuple[str, ...], rows: list[Any], *, words: int = 1) -> str:
    """A Markdown table; all columns but the first `words` hold numbers."""
    under = ["---" if column < words else "--:" for column in range(len(heads))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (heads, under, *rows))
