from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastseg.cohort.failures import failure_of, where
from fastseg.cohort.job import Status
from fastseg.errors import (
    CordNotFound,
    EngineUnavailable,
    FastsegError,
    InferenceError,
    InputError,
    NetworkError,
    OptionError,
    OutputError,
)
from fastseg.phantom import make_phantom

_PATH = Path("in/a b.nii.gz")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (CordNotFound("no spinal cord was found"), "no_cord"),
        (InputError("is truncated; copy it again"), "bad_input"),
        (MemoryError(), "out_of_memory"),
        (np._core._exceptions._ArrayMemoryError((1 << 40,), np.dtype(float)), "out_of_memory"),  # type: ignore[attr-defined]
        (InferenceError("n.onnx: onnxruntime failed (std::bad_alloc)"), "out_of_memory"),
        (InferenceError("n.onnx: onnxruntime failed (Failed to allocate memory for x)"), "out_of_memory"),
        (InferenceError("n.onnx: onnxruntime failed (wrong shape)"), "error"),
        (OutputError("cannot be written"), "error"),
        (NetworkError("is damaged"), "error"),
        (EngineUnavailable("no GPU"), "error"),
        (OptionError("do not go together"), "error"),
        (ZeroDivisionError("division by zero"), "error"),
        (OSError(5, "Input/output error"), "error"),
    ],
)
def test_every_error_is_an_outcome_with_one_line(error: Exception, status: str) -> None:
    found, message = failure_of(error, _PATH)
    assert str(found) == status
    assert message
    assert "\n" not in message
    assert found is not Status.OK


def test_a_message_does_not_repeat_the_volume_it_is_about() -> None:
    assert failure_of(InputError(f"{_PATH}: is truncated"), _PATH)[1] == "is truncated"
    assert failure_of(InputError("other.nii: is truncated"), _PATH)[1] == "other.nii: is truncated"


def test_a_message_of_several_lines_becomes_one() -> None:
    assert failure_of(FastsegError("first\n  second\tthird "), _PATH)[1] == "first second third"


def test_memory_that_does_not_suffice_comes_with_a_remedy() -> None:
    assert failure_of(MemoryError("x"), _PATH)[1].endswith("close other programs, or crop the volume")


def test_a_bug_says_where_in_fastseg_it_is() -> None:
    with pytest.raises(TypeError) as caught:
        make_phantom(n_slices="six")  # type: ignore[arg-type]
    message = failure_of(caught.value, _PATH)[1]
    assert message.startswith("TypeError: ")
    assert "in fastseg/phantom.py:" in message
    assert message.endswith("a bug: please report it, with -v)")


def test_an_error_from_elsewhere_is_placed_in_fastseg_as_a_whole() -> None:
    assert where(ValueError("never raised")) == "fastseg"
