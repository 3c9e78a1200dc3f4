"""What errors of CUDA leave behind."""

from __future__ import annotations

import pytest

from fastseg.engines.cuda import failures
from fastseg.engines.cuda.failures import failure, lost_gpu


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "_lost", [])


@pytest.mark.parametrize("saying", ["CUDA_ERROR_OUT_OF_MEMORY", "invalid argument", "never heard of"])
def test_an_error_of_one_call_leaves_the_gpu_usable(saying: str) -> None:
    failure("cuMemAlloc", saying, 0, wanted=4)
    assert lost_gpu() == ""


@pytest.mark.parametrize(
    "saying",
    ["CUDA_ERROR_ILLEGAL_ADDRESS", "unspecified launch failure", "CUDA_ERROR_ECC_UNCORRECTABLE"],
)
def test_an_error_that_all_later_calls_repeat_loses_the_gpu_for_the_process(saying: str) -> None:
    first = failure("cuStreamSynchronize", saying, 1)
    failure("cuMemFree", saying, 1)
    assert lost_gpu() == str(first)
    assert "start it again" in lost_gpu()
