"""Spans: who listens hears, and nobody else is bothered."""

from __future__ import annotations

import threading

import pytest

from fastseg.profiling import Recorder, Span, recording, span


def test_spans_are_recorded_in_the_order_in_which_they_end() -> None:
    with recording() as recorder, span("outer"):
        with span("inner"):
            pass
        with span("second"):
            pass
    assert [step.name for step in recorder.spans] == ["inner", "second", "outer"]


def test_an_outer_span_holds_its_inner_ones() -> None:
    with recording() as recorder, span("outer"), span("inner"):
        pass
    inner, outer = recorder.spans
    assert 0 <= outer.start <= inner.start
    assert outer.seconds >= inner.seconds >= 0
    assert outer.cpu_seconds >= inner.cpu_seconds >= 0


def test_nobody_records_outside() -> None:
    with recording() as recorder:
        pass
    with span("late"):
        pass
    assert recorder.spans == []


def test_the_innermost_recorder_hears() -> None:
    with recording() as outer:
        with recording() as inner, span("a"):
            pass
        with span("b"):
            pass
    assert [step.name for step in inner.spans] == ["a"]
    assert [step.name for step in outer.spans] == ["b"]


def test_a_step_that_fails_is_recorded_and_its_error_passes() -> None:
    with pytest.raises(KeyError), recording() as recorder, span("fails"):
        raise KeyError
    assert [step.name for step in recorder.spans] == ["fails"]
    with span("afterwards"):
        pass
    assert len(recorder.spans) == 1


def test_seconds_of_steps_with_one_name_are_added() -> None:
    recorder = Recorder(spans=[Span("a", 0, 1.5, 1), Span("b", 2, 4.0, 1), Span("a", 6, 0.25, 1)])
    assert recorder.seconds() == {"a": 1.75, "b": 4.0}


def test_other_threads_do_not_write_into_the_recorder() -> None:
    def work() -> None:
        with span("elsewhere"):
            pass

    with recording() as recorder:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert recorder.spans == []
