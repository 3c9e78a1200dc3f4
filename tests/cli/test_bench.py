"""fastseg bench: everything is measured, and told in tables that can be passed on."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fastseg.cli import measuring
from fastseg.cli.bench import as_markdown
from fastseg.cli.measuring import Effort
from fastseg.engines import select
from fastseg.engines.compute import BACKENDS, Compute
from fastseg.errors import EngineUnavailable
from fastseg.networks.packs import find_pack
from tests.phantom_files import fastseg

_open_engine = select.open_engine


def _open_those_that_are_there(network: Any, compute: Compute) -> Any:
    if compute.engine != "onnxruntime":
        raise EngineUnavailable("absent does not load: install it")
    return _open_engine(network, compute)


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    """Measure as little as possible, on a machine where all engines but one are missing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Effort, "little", lambda: Effort(seconds=0, repetitions=1, volumes=4))
        patch.setattr(select, "open_engine", _open_those_that_are_there)
        code, out, err = fastseg("bench", "--quick", "--json")
    assert code == 0
    assert "measuring: cohort" in err
    return json.loads(out)


def test_the_first_time_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = iter([200.0, 2.0, 1.0, 3.0])
    now = 0.0

    def work() -> None:
        nonlocal now
        now += next(taken)

    monkeypatch.setattr(measuring.time, "perf_counter", lambda: now)
    assert Effort(seconds=0, repetitions=3).median(work) == (2.0, 3)
    assert list(taken) == []


def test_every_number_is_positive(facts: dict[str, Any]) -> None:
    assert len({each["name"] for each in facts["kernels"]}) == len(facts["kernels"])
    for each in facts["kernels"]:
        assert each["milliseconds"] > 0
        assert each["mvx_per_second"] > 0
    assert all(each >= 0 for each in facts["volume"]["steps"].values())
    assert facts["peak_mb"] > 50  # numpy and onnxruntime alone take that


def test_every_network_runs_on_every_engine_that_is_there(facts: dict[str, Any]) -> None:
    names = [network.path.stem for network in find_pack("default").networks]
    rows = facts["networks"]
    assert [row["network"] for row in rows if row["backend"] == "onnxruntime"] == names
    for backend in BACKENDS.values():
        for precision in backend.precisions:
            known = [each for each in rows if each["backend"] == backend.name]
            assert [row["network"] for row in known if row["precision"] == precision] == names
    for row in rows:
        if row["backend"] == "onnxruntime":
            assert row["engine"] == "onnxruntime cpu fp32"
            assert min(row["per_second_one_thread"], row["per_second_all_threads"]) > 0
        else:
            assert row["error"] == "absent does not load: install it"


def test_steps_of_a_volume_make_the_whole(facts: dict[str, Any]) -> None:
    steps, whole = facts["volume"]["steps"], facts["volume"]["seconds"]
    first, *_, last = steps
    assert (first, last) == ("read", "write")
    # One repetition, so the steps are of the run that the whole is of. Half of it is for another process
    # that gets the core between two steps; each number is rounded to 0.1 ms.
    assert 0.5 * whole < sum(steps.values()) <= whole + 1e-4 * len(steps)


def test_all_volumes_of_the_cohort_are_segmented(facts: dict[str, Any]) -> None:
    runs = facts["cohort"]["runs"]
    assert runs[0]["workers"] == 1
    assert {run["succeeded"] for run in runs} == {facts["cohort"]["volumes"]} == {4}


def test_nothing_tells_whose_machine_it_is(facts: dict[str, Any]) -> None:
    text = json.dumps(facts) + as_markdown(facts)
    assert str(Path.home()) not in text or Path.home() == Path("/")
    assert "fastseg-bench-" not in text
    assert str(Path(__file__).parents[2]) not in text


def test_tables_are_whole(facts: dict[str, Any]) -> None:
    text = as_markdown(facts)
    tables = [part.splitlines() for part in text.split("\n\n") if part.startswith("|")]
    assert len(tables) == 4
    for table in tables:
        assert len({line.count("|") for line in table}) == 1
    for kernel in facts["kernels"]:
        assert f"| {kernel['name']} |" in text
    assert (
        "Not tensorrt fp32, tensorrt tf32, tensorrt fp16, tensorrt bf16, tensorrt int8, openvino fp32, "
        in text
    )
    assert ": absent does not load: install it" in text
    assert "fastseg bench --quick" in text


def test_volumes_that_failed_are_told(facts: dict[str, Any]) -> None:
    assert "failed" not in as_markdown(facts)
    broken = copy.deepcopy(facts)
    broken["cohort"]["runs"][-1]["succeeded"] = 1
    assert "3 of them failed" in as_markdown(broken)


def test_the_command_prints_the_tables(facts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastseg.cli.bench.measure_machine", lambda effort, folder, tell: facts)
    code, out, _ = fastseg("bench")
    assert code == 0
    assert out.splitlines()[2:] == as_markdown({**facts, "quick": False, "seconds": 0.0}).splitlines()[2:]


def test_its_help_page_is_light() -> None:
    code = (
        "import fastseg.cli.bench, sys; print(*{'numpy', 'numba', 'scipy', 'onnxruntime'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
