"""fastseg engines: build, list, check and remove the engines of networks."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from fastseg.cli import Exit
from fastseg.cli.shared import logging_to_stderr, say, terminable

if TYPE_CHECKING:
    from fastseg.cli.engine_trials import Trial
    from fastseg.engines.cuda.base import GpuFacts
    from fastseg.engines.tensorrt.plans import Entry, PlanCache
    from fastseg.networks.network import Network

__all__ = ["command"]

_json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON.")
_models_option = click.option(
    "--models", metavar="PACK", default="default", help="Networks: name of a pack or its folder."
)


@click.group("engines", context_settings={"show_default": True})
def command() -> None:
    """Engines of NVIDIA GPUs, and how far engines are from the reference: build, list, check, prune.

    TensorRT builds an engine for each network, model of GPU and precision; runs build what they need, and
    keep it in FASTSEG_ENGINES, else in the user's cache folder, up to FASTSEG_ENGINES_GB (4). An engine whose
    results on fixed inputs are too far from the reference's is refused.
    """


@command.command("build")
@_models_option
@click.option(
    "--kernel",
    type=click.Choice(["all", "2d", "2d-light", "3d"]),
    default="all",
    help="Build what runs with this kernel need: its networks and the detectors.",
)
@click.option("--device", metavar="cuda:0,1", help="GPUs.  [default: all]")
@click.option(
    "--precision",
    "precisions",
    metavar="fp16,...",
    default="auto",
    help="fp32, tf32, fp16, bf16, int8, some of them, or all; auto: what runs take by themselves.",
)
@_json_option
def build_command(models: str, kernel: str, device: str | None, precisions: str, as_json: bool) -> int:
    """Build engines ahead of a run, check them, and keep them.

    Exits with 3 when some could not be built or were refused, with 4 when all were.
    """
    from fastseg.cli.engine_trials import build
    from fastseg.errors import EngineUnavailable

    wanted = _precisions(precisions)
    gpus = _gpus(device)
    networks = _networks(models, kernel)
    with terminable(), logging_to_stderr(logging.WARNING):
        trials = list(build(networks, gpus, wanted, say))
    reasons = {each.why if each.unavailable else "" for each in trials}
    if len(reasons) == 1 and "" not in reasons:  # what is missing is missing for all
        raise EngineUnavailable(reasons.pop())
    return _conclude(trials, as_json)


@command.command("list")
@_json_option
def list_command(as_json: bool) -> None:
    """List the engines that are kept."""
    cache = _cache()
    entries = cache.entries()
    if as_json:
        told = {"folder": str(cache.folder), "engines": [_facts(entry) for entry in entries]}
        click.echo(json.dumps(told, indent=2))
        return
    if entries:
        _print_table(_COLUMNS_OF_LIST, [_cells(entry) for entry in entries])
    click.echo(f"{_engines(entries)}, {_size(sum(entry.size for entry in entries))}: {cache.folder}")


@command.command("check")
@_models_option
@_json_option
def check_command(models: str, as_json: bool) -> int:
    """Hold engines against the reference again: those that are kept, and others of the CPU.

    Of the kept engines of all packs those that this machine can load; of PACK all networks by every engine
    of the CPU that is installed. Exits with 3 when some were refused, with 4 when all were.
    """
    from fastseg.cli.engine_trials import check_cpu, check_plans
    from fastseg.engines.cuda.probe import probe
    from fastseg.engines.select import problem_of
    from fastseg.networks.packs import Pack, find_pack, list_packs

    _cache()
    named = find_pack(models).networks
    packs = [pack for pack in reversed(list_packs()) if isinstance(pack, Pack)]
    everything = [*(network for pack in packs for network in pack.networks), *named]
    problem = problem_of("tensorrt")
    gpus = () if problem else probe().gpus
    with terminable(), logging_to_stderr(logging.WARNING):
        trials = [*check_plans(everything, gpus, problem, say), *check_cpu(named, say)]
    return _conclude(trials, as_json)


@command.command("prune")
@click.option("--all", "everything", is_flag=True, help="Remove all of them.")
@click.option("--older-than", type=click.FloatRange(min=0), metavar="DAYS", help="Not used for so long.")
@click.option(
    "--limit-gb",
    type=click.FloatRange(min=0),
    metavar="GB",
    help="Those not used for longest, until the rest fits.  [default: FASTSEG_ENGINES_GB, else 4]",
)
@_json_option
def prune_command(everything: bool, older_than: float | None, limit_gb: float | None, as_json: bool) -> None:
    """Remove kept engines: what is damaged or left over, and what is asked for."""
    cache = _cache()
    limit = None if limit_gb is None else int(limit_gb * 1e9)
    gone = cache.prune(everything=everything, older_than_days=older_than, limit_bytes=limit)
    left = cache.entries()
    if as_json:
        told = {"removed": [_facts(entry) for entry in gone], "left": [_facts(entry) for entry in left]}
        click.echo(json.dumps(told, indent=2))
        return
    if gone:
        _print_table(_COLUMNS_OF_LIST, [_cells(entry) for entry in gone])
    removed = _size(sum(entry.size for entry in gone))
    click.echo(f"{_engines(gone)} removed, {removed}; {len(left)} left: {cache.folder}")


def _cache() -> PlanCache:
    """The cache, if it can be used."""
    from fastseg.engines.tensorrt.plans import PlanCache
    from fastseg.errors import EngineUnavailable

    cache = PlanCache()
    if cache.problem:
        raise EngineUnavailable(cache.problem)
    return cache


def _gpus(device: str | None) -> list[GpuFacts]:
    from fastseg.engines.compute import Compute
    from fastseg.engines.cuda.probe import probe
    from fastseg.engines.select import problem_of
    from fastseg.errors import EngineUnavailable

    compute = Compute("tensorrt", device or "cuda")
    for number in compute.gpus or (0,):
        problem = problem_of("tensorrt", compute.on_gpu(number))
        if problem:
            raise EngineUnavailable(problem)
    gpus = {each.number: each for each in probe().gpus}
    if device is None or device == "auto":
        return list(gpus.values())
    return [gpus[number] for number in compute.gpus or (0,)]


def _precisions(text: str) -> Callable[[Network, GpuFacts], Sequence[str]]:
    """What to build, for a network and a GPU."""
    from fastseg.engines.compute import PRECISIONS, Compute
    from fastseg.engines.select import choices

    if text == "auto":
        return lambda network, gpu: [choices(network, Compute("tensorrt", f"cuda:{gpu.number}"))[0].precision]
    names = PRECISIONS if text == "all" else tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in names:
        if name not in PRECISIONS:
            raise click.BadParameter(
                f"{name!r}: choose auto, all, or some of {', '.join(PRECISIONS)}", param_hint="--precision"
            )
    return lambda network, gpu: names


def _networks(models: str, kernel: str) -> list[Network]:
    from fastseg.networks.network import Role
    from fastseg.networks.packs import find_pack

    detectors = (Role.DETECT_BLOCKS, Role.DETECT_SLICES)
    roles = {
        "2d": (Role.SEGMENT_2D, *detectors),
        "2d-light": (Role.SEGMENT_2D_LIGHT, *detectors),
        "3d": (Role.SEGMENT_3D, *detectors),
        "all": tuple(Role),
    }[kernel]
    return [network for network in find_pack(models).networks if network.role in roles]


_COLUMNS = (
    "network",
    "device",
    "precision",
    "max difference",
    "flipped voxels",
    "Dice",
    "plan",
    "built",
    "verdict",
)
_COLUMNS_OF_LIST = (*_COLUMNS[:-1], "by", "last used", "digest", "problem")


def _conclude(trials: list[Trial], as_json: bool) -> int:
    """Print what came of the trials, and give the exit code."""
    tried = [each for each in trials if each.verdict != "not checked"]
    accepted = sum(each.verdict == "accepted" for each in tried)
    if as_json:
        click.echo(json.dumps([_finite(asdict(each)) for each in trials], indent=2))
    else:
        if trials:
            _print_table(_COLUMNS, [_cells_of_trial(each) for each in trials])
        parts = [f"{accepted} accepted"]
        parts += [
            f"{count} {verdict}"
            for verdict in ("refused", "failed", "not checked")
            if (count := sum(each.verdict == verdict for each in trials))
        ]
        click.echo(", ".join(parts))
    if accepted == len(tried):
        return Exit.OK
    return Exit.SOME_FAILED if accepted else Exit.NONE_SUCCEEDED


def _cells_of_trial(trial: Trial) -> list[str]:
    built = "cached" if trial.cached else _seconds(trial.seconds)
    where = [trial.network, trial.device, trial.precision]
    if trial.device == "cpu":
        where[1] = f"cpu, {trial.engine.partition(' ')[0]}"
    numbers = _numbers(asdict(trial))
    verdict = f"{trial.verdict}: {trial.why}" if trial.why else trial.verdict
    return [*where, *numbers, _size(trial.size), built, verdict]


def _cells(entry: Entry) -> list[str]:
    record = entry.record
    where = [str(record.get(name, "?")) for name in ("network", "device", "precision")]
    by = " ".join(str(record[name]) for name in ("vendor", "version") if name in record)
    used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
    built = _seconds(record.get("seconds"))
    size = _size(entry.size)
    return [*where, *_numbers(record), size, built, by or "?", used, entry.digest[:12], entry.problem or "-"]


def _numbers(facts: Any) -> list[str]:
    """Maximum difference, flipped voxels and Dice, of a trial or a record."""
    difference, flipped, pixels, dice = (
        facts.get(name) for name in ("max_difference", "flipped", "pixels", "dice")
    )
    return [
        "-" if difference is None else f"{difference:.2g}",
        "-" if flipped is None else f"{flipped} of {pixels}",
        "-" if dice is None else f"{dice:.6f}",
    ]


def _facts(entry: Entry) -> dict[str, object]:
    return {
        "digest": entry.digest,
        "path": str(entry.path),
        "bytes": entry.size,
        "used": entry.used,
        "problem": entry.problem,
        "record": dict(entry.record),
        "key": dict(entry.key.facts),
    }


def _finite(facts: dict[str, Any]) -> dict[str, object]:
    """JSON has no NaN and no infinity."""
    unsaid = {name for name, fact in facts.items() if isinstance(fact, float) and not math.isfinite(fact)}
    return {name: None if name in unsaid else fact for name, fact in facts.items()}


def _engines(entries: Sequence[object]) -> str:
    return f"{len(entries)} engine{'s' * (len(entries) != 1)}"


def _size(count: int | None) -> str:
    return "-" if count is None else f"{count / 1e6:.1f} MB"


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f} s"


def _print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """On a terminal with lines, elsewhere with tabs."""
    if not sys.stdout.isatty():
        for cells in (columns, *rows):
            click.echo("\t".join(cells))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table()
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for cells in rows:
        drawn.add_row(*(Text(cell) for cell in cells))
    Console().print(drawn)
