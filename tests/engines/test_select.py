"""Which engine is chosen, why, and what is said of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastseg.engines import machine, select
from fastseg.engines.base import Engine
from fastseg.engines.compute import Compute
from fastseg.engines.select import Choice, Engines, choices, open_engine, problem_of
from fastseg.errors import EngineBuildError, EngineUnavailable
from fastseg.networks.network import Acceptance, EngineRecord, Network, Precision
from tests.engines.onnx_networks import convolution
from tests.fake_engines import FakeEngine, network

_GOOD = Precision(0.002, 3.0, 0.99998)
_POOR = Precision(0.3, 400.0, 0.9967)
_ACCEPTED = Acceptance(flipped_per_million=10.0, dice=0.9999)


def _record(
    precision: str, speed: float, *, capability: str = "avx2", lost: Precision = _GOOD
) -> EngineRecord:
    return EngineRecord(
        f"openvino {precision}", capability, lost.max_difference, lost.flipped_per_million, lost.dice, speed
    )


def _network(**facts: Any) -> Network:
    return replace(network(), acceptance=_ACCEPTED, **facts)


@pytest.fixture(autouse=True)
def _nothing_was_said_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select, "_told", set())
    monkeypatch.setattr(machine, "capability", lambda: "avx2")


@pytest.fixture
def problems(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Why engines cannot run; one that is not named can."""
    found = {"tensorrt": "no NVIDIA driver"}
    monkeypatch.setattr(select, "problem_of", lambda engine, compute=None: found.get(engine, ""))
    return found


def _names(found: tuple[Choice, ...]) -> list[tuple[str, str]]:
    return [(each.engine, each.precision) for each in found]


# --- on the CPU


def test_the_reference_is_taken_where_nothing_else_is_known_to_be_as_good(problems: dict[str, str]) -> None:
    assert _names(choices(_network())) == [("onnxruntime", "fp32")]
    assert _names(choices(network())) == [("onnxruntime", "fp32")]


def test_it_is_said_why_there_is_no_gpu(problems: dict[str, str]) -> None:
    assert choices(_network())[0].reason == "no GPU engine: no NVIDIA driver"
    assert choices(_network(), Compute(device="cpu"))[0].reason == "the reference"


def test_openvino_is_taken_where_it_was_measured_good_and_faster(problems: dict[str, str]) -> None:
    found = choices(_network(engines=(_record("fp32", 1.5), _record("bf16", 5.0))))
    assert _names(found) == [("openvino", "bf16"), ("openvino", "fp32"), ("onnxruntime", "fp32")]
    assert found[0].reason == "5.0 times as fast as the reference on such a CPU, by its pack"


@pytest.mark.parametrize(
    "record",
    [
        _record("fp32", 1.05),
        _record("fp32", 3.0, capability="amx"),
        _record("fp32", 3.0, lost=_POOR),
        _record("fp32", 3.0, lost=replace(_GOOD, dice=0.9998)),
    ],
    ids=["hardly-faster", "measured-elsewhere", "flips-voxels", "dice"],
)
def test_openvino_is_left_where_it_is_not_worth_it(record: EngineRecord, problems: dict[str, str]) -> None:
    assert _names(choices(_network(engines=(record,)))) == [("onnxruntime", "fp32")]


def test_a_pack_that_accepts_nothing_keeps_the_reference(problems: dict[str, str]) -> None:
    silent = replace(_network(engines=(_record("fp32", 3.0),)), acceptance=None)
    assert _names(choices(silent)) == [("onnxruntime", "fp32")]


def test_openvino_by_name_needs_no_record(problems: dict[str, str]) -> None:
    assert _names(choices(_network(), Compute("openvino"))) == [("openvino", "fp32")]
    assert _names(choices(_network(), Compute("openvino", precision="bf16"))) == [("openvino", "bf16")]
    assert _names(choices(_network(), Compute(device="cpu", precision="bf16"))) == [("openvino", "bf16")]


def test_openvino_by_name_takes_the_fastest_precision_that_was_good(problems: dict[str, str]) -> None:
    known = _network(engines=(_record("fp32", 1.0), _record("bf16", 5.0)))
    assert _names(choices(known, Compute("openvino"))) == [("openvino", "bf16"), ("openvino", "fp32")]


def test_fp32_by_name_keeps_other_precisions_out(problems: dict[str, str]) -> None:
    known = _network(engines=(_record("fp32", 1.5), _record("bf16", 5.0)))
    found = choices(known, Compute(precision="fp32"))
    assert _names(found) == [("openvino", "fp32"), ("onnxruntime", "fp32")]


# --- on a GPU


@pytest.fixture
def gpu(problems: dict[str, str]) -> dict[str, str]:
    del problems["tensorrt"]
    return problems


def test_the_fastest_precision_that_the_pack_accepts_runs_on_the_gpu(gpu: dict[str, str]) -> None:
    known = _network(precision={"int8": _POOR, "fp16": _GOOD, "bf16": _POOR, "tf32": _GOOD})
    found = choices(known)
    assert _names(found) == [
        ("tensorrt", "fp16"),
        ("tensorrt", "tf32"),
        ("tensorrt", "fp32"),
        ("onnxruntime", "fp32"),
    ]
    assert found[0].reason == "its pack accepts fp16: Dice 0.99998 to fp32"


def test_networks_of_which_nothing_is_known_stay_fp32(gpu: dict[str, str]) -> None:
    imported = replace(network(), precision={"fp16": _GOOD}, acceptance=None)
    assert _names(choices(imported)) == [("tensorrt", "fp32"), ("onnxruntime", "fp32")]


def test_a_gpu_by_name_never_falls_back_to_the_cpu(gpu: dict[str, str]) -> None:
    found = choices(_network(), Compute(device="cuda:2,1"))
    assert found == (Choice("tensorrt", "fp32", 2, "the exact precision on a GPU"),)


def test_a_precision_by_name_never_becomes_another(gpu: dict[str, str]) -> None:
    known = _network(precision={"fp16": _GOOD})
    assert _names(choices(known, Compute(precision="int8"))) == [("tensorrt", "int8")]
    assert _names(choices(known, Compute(precision="tf32"))) == [("tensorrt", "tf32")]


@pytest.mark.parametrize(
    "compute",
    [Compute(device="cuda"), Compute("tensorrt"), Compute(precision="fp16"), Compute(device="cuda:0,1")],
)
def test_what_was_asked_for_by_name_and_cannot_run_is_said(
    compute: Compute, problems: dict[str, str]
) -> None:
    with pytest.raises(EngineUnavailable, match="no NVIDIA driver"):
        choices(_network(), compute)


# --- what is there


def test_a_vendor_that_is_not_installed_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    assert problem_of("openvino") == "openvino is not installed: pip install 'fastseg[cpu-fast]'"
    with pytest.raises(EngineUnavailable, match=r"fastseg\[cpu-fast\]"):
        choices(_network(), Compute("openvino"))


@pytest.mark.parametrize("driver", [False, True])
def test_where_tensorrt_is_missing_the_driver_is_not_woken(
    driver: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from fastseg.engines.cuda import probe

    def woken() -> Any:
        raise AssertionError("cuInit")

    file = tmp_path / "version"
    monkeypatch.setattr(select, "KERNEL_DRIVER", file)
    monkeypatch.setattr(select, "_installed", lambda module: False)
    if driver:
        file.touch()
        monkeypatch.setattr(probe, "probe", woken)
        assert problem_of("tensorrt") == "tensorrt is not installed: pip install 'fastseg[gpu]'"
    else:
        gpus = probe.Probe((), None, "no NVIDIA driver: libcuda.so.1 does not load")
        monkeypatch.setattr(probe, "probe", lambda: gpus)
        assert problem_of("tensorrt") == gpus.problem


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastseg.engines.cuda import open as layer
    from fastseg.engines.cuda import probe
    from fastseg.engines.cuda.base import GpuFacts

    facts = GpuFacts(0, "NVIDIA H200", (9, 0), 132, 150_000_000_000, (13, 0))
    monkeypatch.setattr(select, "_installed", lambda module: True)
    monkeypatch.setattr(probe, "probe", lambda: probe.Probe((facts,), (13, 0), ""))
    monkeypatch.setattr(layer, "layer_problem", lambda: "")
    assert problem_of("tensorrt", Compute(device="cuda:0")) == ""
    told = problem_of("tensorrt", Compute(device="cuda:1"))
    assert told == "there is no GPU 1: this machine shows GPU 0 only (CUDA_VISIBLE_DEVICES?)"


def test_a_gpu_behind_a_broken_one_keeps_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastseg.engines.cuda import open as layer
    from fastseg.engines.cuda import probe
    from fastseg.engines.cuda.base import GpuFacts

    found = tuple(GpuFacts(number, "NVIDIA H200", (9, 0), 132, 150 << 30, (13, 0)) for number in (0, 2))
    monkeypatch.setattr(select, "_installed", lambda module: True)
    monkeypatch.setattr(probe, "probe", lambda: probe.Probe(found, (13, 0), ""))
    monkeypatch.setattr(layer, "layer_problem", lambda: "")
    assert problem_of("tensorrt", Compute(device="cuda:2")) == ""
    told = problem_of("tensorrt", Compute(device="cuda:1"))
    assert told == "there is no GPU 1: this machine shows GPUs 0, 2 (CUDA_VISIBLE_DEVICES?)"


@pytest.mark.parametrize("engine", ["auto", "onnxruntime"])
def test_an_engine_is_made_that_runs(engine: str, tmp_path: Path) -> None:
    made = open_engine(convolution(tmp_path, spatial=(8, 8)), Compute(engine, device="cpu", threads=2))
    assert isinstance(made, Engine)
    with made:
        assert made.infer(np.zeros((2, 1, 8, 8), np.float32)).shape == (2, 1, 8, 8)


def test_choosing_loads_nothing() -> None:
    open_engine(network(), Compute(device="cpu"))


# --- opening


class _Refused(FakeEngine):
    def __enter__(self) -> Any:
        raise EngineBuildError("fp16 differs by 0.3: it is refused")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, gpu: dict[str, str]) -> Iterator[list[Choice]]:
    """Engines that are made; those in fp16 cannot be opened."""
    seen: list[Choice] = []

    def make(_network: Network, choice: Choice, _compute: Compute) -> Any:
        seen.append(choice)
        return _Refused() if choice.precision == "fp16" else FakeEngine()

    monkeypatch.setattr(select, "make_engine", make)
    return seen


def test_auto_takes_the_next_best_where_one_fails_and_warns(
    made: list[Choice], caplog: pytest.LogCaptureFixture
) -> None:
    known = _network(precision={"fp16": _GOOD, "tf32": _GOOD})
    with caplog.at_level(logging.INFO, "fastseg.engines"), Engines() as engines:
        engines.open(known)
        engines.open(replace(known, sha256="another"))
    assert [each.precision for each in made] == ["fp16", "tf32"] * 2
    warnings = [each.message for each in caplog.records if each.levelno == logging.WARNING]
    assert len(warnings) == 1  # said once
    assert "tensorrt fp16 does not run" in warnings[0]
    assert "fp16 differs by 0.3: it is refused" in warnings[0]
    assert warnings[0].endswith("tensorrt tf32 runs it instead")


def test_what_was_asked_for_by_name_fails_where_it_fails(made: list[Choice]) -> None:
    with Engines(Compute(precision="fp16")) as engines, pytest.raises(EngineBuildError, match="refused"):
        engines.open(_network(precision={"tf32": _GOOD}))
    assert [each.precision for each in made] == ["fp16"]


def test_auto_says_once_what_it_took_and_why(
    problems: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = convolution(tmp_path, spatial=(8, 8))
    with caplog.at_level(logging.INFO, "fastseg.engines"):
        for _ in range(2):
            with Engines() as engines:
                engines.open(file)
    (said,) = caplog.records
    assert said.levelno == logging.INFO
    assert said.message.endswith("runs on onnxruntime cpu fp32 (no GPU engine: no NVIDIA driver)")


def test_a_gpu_that_lies_idle_is_a_warning(
    problems: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "version").touch()
    monkeypatch.setattr(select, "KERNEL_DRIVER", tmp_path / "version")
    with caplog.at_level(logging.INFO, "fastseg.engines"), Engines() as engines:
        engines.open(convolution(tmp_path, spatial=(8, 8)))
    assert [each.levelno for each in caplog.records] == [logging.WARNING]


def test_what_was_asked_for_in_full_is_not_talked_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    compute = Compute("onnxruntime", "cpu", "fp32")
    with caplog.at_level(logging.INFO, "fastseg.engines"), Engines(compute) as engines:
        engines.open(convolution(tmp_path, spatial=(8, 8)))
    assert caplog.records == []
