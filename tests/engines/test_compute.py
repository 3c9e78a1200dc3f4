"""What may be asked for, and what does not go together."""

from __future__ import annotations

import pytest

from fastseg.engines.compute import AUTO, BACKENDS, Compute
from fastseg.errors import OptionError


@pytest.mark.parametrize(
    ("device", "kind", "gpus", "first"),
    [
        ("auto", "auto", (), 0),
        ("cpu", "cpu", (), 0),
        ("cuda", "cuda", (), 0),
        ("cuda:3", "cuda", (3,), 3),
        ("cuda:2,0,11", "cuda", (2, 0, 11), 2),
    ],
)
def test_devices_are_read(device: str, kind: str, gpus: tuple[int, ...], first: int) -> None:
    compute = Compute(device=device)
    assert (compute.kind, compute.gpus, compute.first_gpu) == (kind, gpus, first)


@pytest.mark.parametrize(
    "device",
    [
        "",
        "gpu",
        "cuda:",
        "cuda:a",
        "cuda:-1",
        "cuda:0,",
        "cuda:0, 1",
        "CUDA",
        "cpu:0",
        "cuda:1234",
        "cuda:0\n",
    ],
)
def test_other_devices_are_refused_with_those_there_are(device: str) -> None:
    with pytest.raises(OptionError, match="choose auto, cpu, cuda, or GPUs as cuda:0"):
        Compute(device=device)


def test_a_gpu_cannot_be_named_twice() -> None:
    with pytest.raises(OptionError, match="a GPU is named twice"):
        Compute(device="cuda:1,0,1")


@pytest.mark.parametrize("engine", ["tensorflow", "", "AUTO"])
def test_another_engine_is_refused_with_the_names_there_are(engine: str) -> None:
    with pytest.raises(OptionError, match="choose auto or one of tensorrt, openvino, onnxruntime"):
        Compute(engine)


def test_another_precision_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(OptionError, match="'fp8': choose auto or one of fp32, tf32, fp16, bf16, int8"):
        Compute(precision="fp8")


def test_there_is_at_least_one_thread() -> None:
    with pytest.raises(OptionError, match="threads 0"):
        Compute(threads=0)


@pytest.mark.parametrize(
    ("engine", "device", "precision", "told"),
    [
        ("tensorrt", "cpu", "auto", "engine tensorrt runs on cuda, not on cpu"),
        ("onnxruntime", "cuda", "auto", "engine onnxruntime runs on cpu, not on cuda"),
        ("openvino", "cuda:1", "fp32", "engine openvino runs on cpu, not on cuda:1"),
        ("onnxruntime", "auto", "fp16", "engine onnxruntime runs in fp32, not in fp16"),
        ("openvino", "auto", "int8", "engine openvino runs in fp32 or bf16, not in int8"),
        ("auto", "cpu", "fp16", "device cpu runs in fp32 or bf16, not in fp16"),
    ],
)
def test_what_does_not_go_together_is_said(engine: str, device: str, precision: str, told: str) -> None:
    with pytest.raises(OptionError, match=told) as caught:
        Compute(engine, device, precision)
    assert "choose another of the two" in str(caught.value)


def test_every_engine_runs_in_each_of_its_precisions() -> None:
    for backend in BACKENDS.values():
        for precision in backend.precisions:
            compute = Compute(backend.name, backend.device, precision)
            assert [each.name for each in BACKENDS.values() if compute.allows(each)] == [backend.name]


def test_nothing_asked_allows_everything() -> None:
    assert all(map(AUTO.allows, BACKENDS.values()))


def test_a_precision_alone_narrows_the_engines() -> None:
    allowed = [each.name for each in BACKENDS.values() if Compute(precision="bf16").allows(each)]
    assert allowed == ["tensorrt", "openvino"]


def test_one_gpu_of_several_keeps_the_rest() -> None:
    compute = Compute(device="cuda:0,1", precision="fp16", threads=3)
    assert compute.on_gpu(1) == Compute("auto", "cuda:1", "fp16", 3)
