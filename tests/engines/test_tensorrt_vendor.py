"""Which of NVIDIA's modules is taken, and what its log says."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from fastseg.engines.tensorrt.vendor import Vendor, find_vendor, vendor_of
from fastseg.errors import EngineUnavailable

_NAMES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")


class Severity:
    """As the real one's, hashable and not ordered."""


for _name in ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"):
    setattr(Severity, _name, Severity())


class ILogger:
    """Does nothing until it is derived from."""

    Severity: Any = Severity


def module(name: str, version: str = "10.3.0") -> Any:
    made: Any = ModuleType(name)
    made.__version__, made.ILogger = version, ILogger
    return made


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Installs modules; those that are really there are hidden."""
    for name in _NAMES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", [])

    def install(*modules: Any) -> None:
        for each in modules:
            monkeypatch.setitem(sys.modules, each.__name__, each)

    return install


def said_by(vendor: Vendor, severity: str, message: str) -> None:
    logger: Any = vendor.log.logger
    logger.log(getattr(Severity, severity), message)


@pytest.mark.parametrize(
    ("names", "taken", "called"),
    [
        (_NAMES, "tensorrt", "TensorRT"),
        (_NAMES[1:], "tensorrt_rtx", "TensorRT-RTX"),
        (_NAMES[2:], "tensorrt_rtx_bindings", "TensorRT-RTX"),
    ],
)
def test_tensorrt_comes_before_tensorrt_rtx(
    names: tuple[str, ...], taken: str, called: str, installed: Any
) -> None:
    installed(*map(module, names))
    vendor = find_vendor()
    assert (vendor.module.__name__, vendor.name, vendor.version) == (taken, called, "10.3.0")  # type: ignore[attr-defined]
    assert vendor.just_in_time == (called == "TensorRT-RTX")


def test_without_any_the_remedy_is_said(installed: Any) -> None:
    with pytest.raises(EngineUnavailable) as caught:
        find_vendor()
    assert str(caught.value) == (
        "neither TensorRT nor TensorRT-RTX is installed: pip install 'fastseg[gpu]', or choose --device cpu"
    )


def test_one_that_is_too_old_is_passed_over(installed: Any) -> None:
    installed(module("tensorrt", "8.6.1"))
    with pytest.raises(EngineUnavailable, match=r"TensorRT 8\.6\.1 is too old, 10\.0 is needed"):
        find_vendor()
    installed(module("tensorrt_rtx", "1.7.1"))  # whose numbers are its own
    assert find_vendor().version == "1.7.1"


@pytest.mark.parametrize("error", ["ImportError", "OSError", "RuntimeError"])
def test_one_whose_libraries_are_missing_is_said(
    error: str, installed: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorrt.py").write_text(f"raise {error}('libnvinfer.so.10:\\ncannot open')")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    with pytest.raises(EngineUnavailable, match=r"tensorrt does not load \(libnvinfer.so.10: cannot open\)"):
        find_vendor()


def test_a_module_has_one_log_for_the_whole_process() -> None:
    one, other = module("tensorrt"), module("tensorrt")
    assert vendor_of(one).log is vendor_of(one).log
    assert vendor_of(one).log is not vendor_of(other).log


def test_the_log_gives_errors_on_one_line_once() -> None:
    vendor = vendor_of(module("tensorrt"))
    said_by(vendor, "INFO", "building")
    said_by(vendor, "ERROR", "no tactic\n  for  node 7")
    said_by(vendor, "WARNING", "slow")
    said_by(vendor, "INTERNAL_ERROR", "gave up")
    said_by(vendor, "ERROR", "no tactic\n  for  node 7")
    assert vendor.log.explain() == "no tactic for node 7; gave up"
    assert vendor.log.explain() == "no reason given"


def test_an_explanation_is_short_and_has_the_last_errors() -> None:
    vendor = vendor_of(module("tensorrt"))
    for k in range(1000):
        said_by(vendor, "ERROR", f"error {k}")
    assert vendor.log.explain() == "; ".join(f"error {k}" for k in range(992, 1000))
    said_by(vendor, "ERROR", "x" * 10_000)
    assert len(vendor.log.explain()) == 400


def test_what_tensorrt_rtx_says_of_every_call_is_no_error() -> None:
    vendor = vendor_of(module("tensorrt_rtx_bindings"))
    said_by(vendor, "INTERNAL_ERROR", "Thread context has not been set! Using global log stream.")
    assert vendor.log.explain() == "no reason given"
