"""Tests with every verdict, for those of tools/gpu_check; pytest collects them only where they are named."""

from __future__ import annotations

import pytest


def test_that_passes() -> None:
    pass


@pytest.mark.parametrize("number", [1, 2])
def test_that_fails(number: int) -> None:
    assert number == 2


def test_that_is_skipped() -> None:
    pytest.skip("of what is not here")
