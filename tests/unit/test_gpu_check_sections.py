"""The sections of tools/gpu_check over a fake GPU: every one's code runs, and what they tell is so."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastseg.networks.network import Role
from fastseg.networks.packs import find_pack
from tests.gpu import fake_hardware
from tests.phantom_files import save_phantom
from tools.gpu import (
    build,
    cohort,
    conformance,
    device,
    found,
    memory,
    neighbours,
    networks,
    onnxruntime_cuda,
    throughput,
)
from tools.gpu.bench import Bench, Hardware, NotHere, Settings


class _Section:
    """Runs a section in this process; gives what it told, by kind."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.settings: dict[str, Any] = {
            "gpu": 0,
            "precisions": ("fp32", "fp16"),
            "data": None,
            "volumes": 2,
            "largest": 4,
        }

    def __call__(
        self, check: Callable[[Bench], None], hardware: Hardware, *, seconds: float = 600.0
    ) -> dict[str, list[Any]]:
        told = io.StringIO()
        try:
            check(Bench(told, seconds, Settings(work=self.work, **self.settings), hardware))
        finally:
            self.told: dict[str, list[Any]] = {"row": [], "left_out": [], "failed": [], "doing": []}
            for line in told.getvalue().splitlines():
                for kind, what in json.loads(line).items():
                    self.told[kind].append(what)
        return self.told


@pytest.fixture
def section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Section:
    """The smallest network stands for those of the pack."""
    light = find_pack("default").network(Role.SEGMENT_2D_LIGHT, "t2")
    for module in (build, memory, neighbours, onnxruntime_cuda, throughput):
        monkeypatch.setattr(module, "networks", lambda: [light])
    return _Section(tmp_path)


def _numbers(row: dict[str, Any]) -> list[float]:
    return [value for value in row.values() if isinstance(value, int | float)]


def test_what_is_here_has_gpu_versions_and_builder(section: _Section) -> None:
    told = section(found.check, fake_hardware.whole())
    facts = {row["what"]: row["value"] for row in told["row"]}
    assert facts["GPU 0"] == "Fake H200, compute capability 9.0, 132 multiprocessors, 0.3 GB"
    assert facts["driver"] == "for CUDA 13.0"
    assert facts["engine builder"] == "TensorRT 10.16.1.11"
    assert "numpy" in facts
    assert told["failed"] == []


def test_all_that_is_missing_is_told_at_once(section: _Section, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(found, "_there", lambda module: False)
    problem = "no binding: pip install cuda-bindings"
    told = section(found.check, fake_hardware.nothing(layer_problem=lambda: problem))
    assert told["left_out"] == [
        "no NVIDIA driver: install one",
        problem,
        "neither TensorRT nor TensorRT-RTX is installed: pip install 'fastseg[gpu]'",
        "onnx is not installed, for engines of networks: pip install onnx",
        "pytest is not installed, for the conformance suite: pip install pytest",
    ]


def test_device_layer_is_tried_and_measured(section: _Section) -> None:
    told = section(device.check, fake_hardware.whole())
    facts = {row["what"]: row["value"] for row in told["row"]}
    assert facts["memory comes back"].startswith("passed")
    for what in ("upload, 16 MiB, GB/s", "both at once, 16 MiB, GB/s", "64 crops as a graph, us"):
        assert facts[what] > 0
    assert told["failed"] == []


def test_device_layer_without_graphs_says_what_it_could_not_measure(section: _Section) -> None:
    told = section(device.check, fake_hardware.old())
    assert "starts of CUDA graphs: fake 1.0 has none" in told["left_out"]
    assert told["failed"] == []


def test_device_layer_that_loses_bytes_is_a_failure(
    section: _Section, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_hardware.Strict, "download", lambda *_: None)
    told = section(device.check, fake_hardware.whole())
    assert any("bytes came back changed" in line for line in told["failed"])


def test_engines_are_built_accepted_and_loaded_in_every_precision(section: _Section) -> None:
    told = section(build.check, fake_hardware.whole())
    assert [(row["precision"], row["network"]) for row in told["row"]] == [
        ("fp32", "segmenter_2d_light"),
        ("fp16", "segmenter_2d_light"),
    ]
    for row in told["row"]:
        assert row["dice"] > 0.99
        assert row["plan_kb"] > 0
        assert row["load_seconds"] > 0
    assert told["row"][0]["max_difference"] < 1e-5 < told["row"][1]["max_difference"]
    assert told["failed"] == []


def test_engine_with_wrong_numbers_is_a_failure_with_the_numbers(section: _Section) -> None:
    told = section(build.check, fake_hardware.wrong())
    assert told["row"] == []
    assert len(told["failed"]) == 2
    assert told["failed"][0].startswith("segmenter_2d_light in fp32: ")
    assert "0.25" in told["failed"][0]


def test_engines_that_were_refused_are_not_built_again_by_later_sections(section: _Section) -> None:
    section(build.check, fake_hardware.wrong())
    for later in (neighbours.check, throughput.check, memory.check):
        told = section(later, fake_hardware.whole())
        assert told["failed"] == []
        assert "segmenter_2d_light in fp32: it could not be built, or was refused" in told["left_out"]
        assert not any("tensorrt" in str(row) for row in told["row"])


def test_precision_that_the_gpu_lacks_is_left_out_by_name(section: _Section) -> None:
    section.settings["precisions"] = ("fp16", "tf32", "bf16")
    told = section(build.check, fake_hardware.old())
    assert {row["precision"] for row in told["row"]} == {"fp16"}
    assert told["left_out"] == [
        "tf32: needs compute capability 8.0 or more",
        "bf16: needs compute capability 8.0 or more",
    ]


def test_what_there_is_no_time_for_is_named(section: _Section) -> None:
    told = section(build.check, fake_hardware.whole(), seconds=0)
    assert told["row"] == []
    assert told["left_out"] == [
        "building segmenter_2d_light in fp32: no time was left",
        "building segmenter_2d_light in fp16: no time was left",
    ]


def test_verdicts_of_the_tests_are_counted_and_failures_named(section: _Section) -> None:
    told = section(conformance.check, fake_hardware.whole())
    assert told["row"] == [{"tests": 4, "passed": 2, "failed": 1, "skipped": 1}]
    (failure,) = told["failed"]
    assert "verdicts.py::test_that_fails[1]: assert 1 == 2" in failure
    (skip,) = told["left_out"]
    assert skip.endswith("of what is not here")


def test_tests_that_were_all_skipped_are_no_check(section: _Section) -> None:
    hardware = fake_hardware.whole(tests=(f"{fake_hardware.VERDICTS}::test_that_is_skipped",))
    with pytest.raises(NotHere, match="of what is not here"):
        section(conformance.check, hardware)


def test_tests_that_cannot_be_collected_are_a_failure(section: _Section) -> None:
    told = section(conformance.check, fake_hardware.whole(tests=("tests/gpu/nothing_of_that_name.py",)))
    assert told["failed"]
    assert "nothing_of_that_name" in told["failed"][0]


def test_tests_that_outlast_their_time_are_counted_as_far_as_they_came(section: _Section) -> None:
    tests = section.work / "test_sleeper.py"
    tests.write_text("import time\n\ndef test_that_sleeps():\n    time.sleep(600)\n")
    told = section(conformance.check, fake_hardware.whole(tests=(str(tests),)), seconds=3)
    assert told["row"] == [{"tests": 0, "passed": 0, "failed": 0, "skipped": 0}]
    assert told["left_out"] == ["the tests that had not run when the time was spent"]


def test_what_neighbours_change_is_measured(section: _Section) -> None:
    told = section(neighbours.check, fake_hardware.whole())
    assert len(told["row"]) == 2
    for row in told["row"]:
        assert row["images"] == 5
        assert row["max_difference"] < 1e-2
        assert row["max_difference_of_a_second_run"] == 0
    assert told["failed"] == []


def test_throughput_has_a_row_for_each_batch_beside_the_cpu(section: _Section) -> None:
    told = section(throughput.check, fake_hardware.whole())
    assert told["failed"] == []
    assert told["row"][0]["engine"] == "onnxruntime cpu fp32, threads 1"
    gpu = [row for row in told["row"] if "fp16" in row["engine"]]
    assert [row["batch"] for row in gpu] == [1, 4]
    for row in gpu:
        assert row["images_per_second"] > 0
        assert row["times_the_cpu"] > 0
        assert row["share_of_flop_floor"] is None  # nobody promises anything of a fake
    assert any("beyond --largest" in line for line in told["left_out"])


def test_memory_is_watched_from_opening_to_closing(section: _Section) -> None:
    told = section(memory.check, fake_hardware.whole())
    assert told["failed"] == []
    for row in told["row"]:
        assert row["device_mb_after_a_batch"] >= row["device_mb_open"] >= 0
        assert row["device_mb_after_a_batch"] > 0
        assert row["device_mb_kept_later"] == 0


def test_memory_that_engines_keep_is_a_failure(section: _Section, monkeypatch: pytest.MonkeyPatch) -> None:
    left = count(10**12, -(40 << 20))
    monkeypatch.setattr(memory, "_free", lambda _: next(left))
    told = section(memory.check, fake_hardware.whole())
    assert any("MB of the GPU were lost" in line for line in told["failed"])


def test_cohort_on_both_is_timed_and_its_masks_are_compared(section: _Section) -> None:
    for number in (1, 2):
        save_phantom(section.work / "volumes" / f"phantom{number}.nii.gz", seed=number)
    section.settings |= {"data": section.work / "volumes", "precisions": ("fp16",)}
    told = section(cohort.check, fake_hardware.whole())
    assert told["failed"] == []
    assert told["left_out"] == ["a cohort spread over several GPUs: there is one only"]
    assert [row["engine"] for row in told["row"]] == ["cpu fp32", "cuda:0 fp16"]
    for row in told["row"]:
        assert row["volumes"] == 2
        assert row["flipped_voxels"] == 0
        assert row["least_dice"] == 1
        assert row["host_mb_peak"] > 50


def test_cohort_goes_to_all_gpus_together_too(section: _Section) -> None:
    save_phantom(section.work / "volumes" / "phantom.nii.gz")
    section.settings |= {"data": section.work / "volumes", "precisions": ("fp32", "fp16"), "gpu": 1}
    told = section(cohort.check, fake_hardware.pair())
    assert told["failed"] == told["left_out"] == []
    ways = ["cpu fp32", "cuda:1 fp32", "cuda:1,0 fp32", "cuda:1 fp16"]
    assert [row["engine"] for row in told["row"]] == ways
    assert [row["flipped_voxels"] for row in told["row"]] == [0] * 4


def test_masks_of_fp32_that_differ_are_a_failure_with_their_dice(section: _Section) -> None:
    save_phantom(section.work / "volumes" / "phantom.nii.gz")
    section.settings |= {"data": section.work / "volumes", "precisions": ("fp32",)}
    told = section(cohort.check, fake_hardware.whole(fastseg=fake_hardware.fastseg_with("0.9")))
    assert told["row"][1]["flipped_voxels"] > 0
    assert told["row"][1]["masks_that_differ"] == 1
    (failure,) = told["failed"]
    assert failure.startswith("cuda:0 fp32: a mask has Dice 0.")


def test_cohort_that_fails_is_told_with_its_last_line(section: _Section) -> None:
    save_phantom(section.work / "volumes" / "phantom.nii.gz")
    section.settings["data"] = section.work / "volumes"
    command = ("/bin/sh", "-c", "echo fastseg: error: the GPU fell off; exit 4")
    told = section(cohort.check, fake_hardware.whole(fastseg=command))
    assert told["row"] == []
    assert told["failed"][0] == "the first volume on cpu fp32: exit code 4: fastseg: error: the GPU fell off"


def test_folder_without_volumes_is_said(section: _Section) -> None:
    section.settings["data"] = section.work
    with pytest.raises(NotHere, match="no volume"):
        section(cohort.check, fake_hardware.whole())


def test_onnxruntime_without_cuda_is_said(section: _Section) -> None:
    with pytest.raises(NotHere, match="onnxruntime-gpu"):
        section(onnxruntime_cuda.check, fake_hardware.whole())


def test_onnxruntime_with_cuda_is_measured(section: _Section, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    real = onnxruntime.InferenceSession

    class _Session:
        """Runs on the CPU whatever it is told, and says otherwise."""

        def __init__(self, path: str, options: Any, providers: Any) -> None:
            assert providers[0][0] == "CUDAExecutionProvider"
            self.session = real(path, options, providers=["CPUExecutionProvider"])
            self.run, self.get_inputs = self.session.run, self.session.get_inputs

        def get_providers(self) -> list[str]:
            return ["CUDAExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", _Session)
    told = section(onnxruntime_cuda.check, fake_hardware.whole())
    assert {row["engine"] for row in told["row"]} == {"onnxruntime cuda fp32", "onnxruntime cuda tf32"}
    assert all(row["images_per_second"] > 0 for row in told["row"])


@pytest.mark.parametrize(
    "check", [build.check, conformance.check, neighbours.check, throughput.check, memory.check, cohort.check]
)
def test_sections_that_need_tensorrt_say_how_to_get_it(
    check: Callable[[Bench], None], section: _Section
) -> None:
    with pytest.raises(NotHere, match=r"pip install 'fastseg\[gpu\]'"):
        section(check, fake_hardware.only_the_device_layer())


def test_images_have_the_sizes_that_are_counted() -> None:
    for role, spatial in {
        Role.SEGMENT_2D: (64, 64),
        Role.SEGMENT_3D: (64, 64, 48),
        Role.DETECT_SLICES: (144, 144),
    }.items():
        network = find_pack("default").network(role, "t2")
        batch = networks.images(network, 3)
        assert batch.shape == (3, 1, *spatial)
        assert batch.dtype == np.float32
        assert np.isfinite(batch).all()


def test_rates_are_told_of_known_gpus_only() -> None:
    gpu = fake_hardware.whole().probe().gpus[0]
    known = fake_hardware.gpu(name="NVIDIA H200")
    assert networks.nominal_rate(gpu, "fp16") is None
    assert networks.nominal_rate(known, "fp16") == 989e12
    # A variant is another GPU.
    assert networks.nominal_rate(fake_hardware.gpu(name="NVIDIA H200 NVL"), "fp16") is None
