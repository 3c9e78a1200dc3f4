"""Traces: nested, in order, and readable whatever becomes of the run."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fastseg.profiling import recording, span
from fastseg.tracing import Trace, active_trace, tracing


def _events(path: Path) -> list[dict[str, Any]]:
    events = json.loads(path.read_text())
    assert isinstance(events, list)
    return events


def _of_kind(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["ph"] == kind]


def _lanes(events: list[dict[str, Any]]) -> dict[int, str]:
    named = [event for event in _of_kind(events, "M") if event["name"] == "thread_name"]
    lanes = {event["tid"]: event["args"]["name"] for event in named}
    assert len(lanes) == len(set(lanes.values())) == len(named)
    return lanes


def _work(volume: str) -> None:
    trace = active_trace()
    assert trace is not None
    lane, start = threading.current_thread().name, time.perf_counter()
    with recording(volume=volume), span("outer"):
        with span("inner"):
            pass
        with span("inner"):
            pass
    trace.task("infer", volume, lane, start, time.perf_counter())


def test_steps_lie_within_their_task_in_the_lane_of_their_thread(tmp_path: Path) -> None:
    with tracing(tmp_path / "run.json"):
        threads = [
            threading.Thread(
                target=lambda: [_work(f"{volume}.nii") for volume in range(50)], name=f"worker {n}"
            )
            for n in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    events = _events(tmp_path / "run.json")
    complete = _of_kind(events, "X")
    assert len(complete) == 3 * 50 * 4
    assert {event["pid"] for event in events} == {os.getpid()}
    lanes = _lanes(events)
    assert {lanes[event["tid"]] for event in complete} == {"worker 0", "worker 1", "worker 2"}
    for lane in lanes:
        # As a viewer does it: by start, the longer one first; each ends before those around it.
        around: list[dict[str, Any]] = []
        depths = []
        mine = sorted((e for e in complete if e["tid"] == lane), key=lambda e: (e["ts"], -e["dur"]))
        for event in mine:
            while around and around[-1]["ts"] + around[-1]["dur"] <= event["ts"]:
                around.pop()
            if around:
                assert (
                    event["ts"] + event["dur"] <= around[-1]["ts"] + around[-1]["dur"] + 1e-6
                )  # float noise
                assert event["args"]["volume"] == around[-1]["args"]["volume"]
            depths.append((len(around), event["name"]))
            around.append(event)
        assert depths == [(0, "infer"), (1, "outer"), (2, "inner"), (2, "inner")] * 50
        inner = [event for event in mine if event["name"] == "inner"]
        assert all(a["ts"] + a["dur"] <= b["ts"] for a, b in pairwise(inner))
        assert all(event["ts"] >= 0 and event["dur"] >= 0 for event in mine)


def test_queues_and_marks_have_their_times(tmp_path: Path) -> None:
    with tracing(tmp_path / "run.json") as trace:
        now = time.perf_counter()
        trace.counter("queues", {"read": 3, "write": 0}, now)
        trace.counter("queues", {"read": 2, "write": 1}, now + 0.5)
        trace.instant("retried", volume="a.nii", attempt=2)
    events = _events(tmp_path / "run.json")
    first, second = _of_kind(events, "C")
    assert (first["name"], first["args"]) == ("queues", {"read": 3, "write": 0})
    assert second["ts"] - first["ts"] == pytest.approx(500_000)
    [mark] = _of_kind(events, "i")
    assert (mark["name"], mark["args"]) == ("retried", {"volume": "a.nii", "attempt": 2})
    assert _lanes(events)[mark["tid"]] == threading.current_thread().name


def test_names_of_any_kind_are_kept(tmp_path: Path) -> None:
    name = 'a "b"\n\\ \u4f60 \udcff.nii'
    with tracing(tmp_path / "run.json") as trace:
        trace.task("read", name, "w", 0.0, 1.0)
    assert _of_kind(_events(tmp_path / "run.json"), "X")[0]["args"]["volume"] == name


def test_events_are_written_on_the_way(tmp_path: Path) -> None:
    with tracing(tmp_path / "run.json") as trace:
        for n in range(2000):
            trace.counter("n", {"n": n})
        on_the_way = (tmp_path / "run.json").read_text()
    assert 1000 < on_the_way.count('"ph": "C"') < 2000
    assert len(json.loads(on_the_way + "]")) >= 1000
    assert len(_of_kind(_events(tmp_path / "run.json"), "C")) == 2000


def test_an_error_leaves_a_whole_file_and_no_trace_behind(tmp_path: Path) -> None:
    with pytest.raises(KeyError), tracing(tmp_path / "run.json"), span("fails"):
        raise KeyError
    assert [event["name"] for event in _of_kind(_events(tmp_path / "run.json"), "X")] == ["fails"]
    assert active_trace() is None


def test_late_events_are_dropped(tmp_path: Path) -> None:
    with tracing(tmp_path / "run.json") as trace:
        pass
    before = (tmp_path / "run.json").read_text()
    trace.instant("late")
    trace.close()
    assert (tmp_path / "run.json").read_text() == before


def test_a_killed_run_leaves_all_but_its_last_events(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom fastseg.tracing import tracing\n"
        "with tracing(Path(sys.argv[1])) as trace:\n"
        "    for n in range(10**9):\n"
        "        trace.counter('n', {'n': n})\n"
        "        if n == 3000: print('go', flush=True)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    # The kernel stops also within a write: of the last line, a part may be there.
    whole_lines = (tmp_path / "run.json").read_text().rpartition(",\n")[0]
    counted = [event["args"]["n"] for event in json.loads(whole_lines + "]")[1:]]
    assert len(counted) >= 2400  # of the 3001 before the signal, 511 may have waited and some been in writing
    assert counted == list(range(len(counted)))


class _FullDisk(io.FileIO):
    """Takes a thousand bytes, the last of them by a short write."""

    left = 1000

    def write(self, data: Any) -> int:
        if not self.left:
            raise OSError(28, "No space left on device")
        written = super().write(data[: self.left])
        self.left -= written
        return written


def test_a_full_disk_ends_the_trace_and_not_the_run(tmp_path: Path) -> None:
    trace = Trace(_FullDisk(tmp_path / "run.json", "w"))
    for n in range(2000):
        trace.counter("n", {"n": n})
    trace.close()
    assert trace.problem is not None
    assert "No space left" in str(trace.problem)
    assert (tmp_path / "run.json").stat().st_size == 1000


def test_a_handler_of_signals_may_write_while_its_thread_does(tmp_path: Path) -> None:
    """Python runs handlers between two instructions of the main thread, also within the trace's lock."""
    heard = []
    with tracing(tmp_path / "run.json") as trace:

        def alarm(*_: object) -> None:
            trace.instant("alarm")
            heard.append(1)

        before = signal.signal(signal.SIGALRM, alarm)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        try:
            while len(heard) < 200:
                trace.counter("n", {"n": 1})
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    assert len(_of_kind(_events(tmp_path / "run.json"), "i")) == len(heard)
