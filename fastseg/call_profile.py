"""Which functions the time goes into: the calls of every thread that asks for it."""

from __future__ import annotations

import marshal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import TypeAlias

__all__ = ["CallProfile", "profiling_calls", "thread_profile"]

# (file, line, name), as pstats knows functions; those written in C have no file.
_Function: TypeAlias = tuple[str, int, str]
# Calls, those not recursive, seconds of its own, seconds with all it called: pstats' order for callers.
_Counts: TypeAlias = tuple[int, int, float, float]


class _Node:
    """A function as called by that of the node above it: a place in the tree of calls."""

    __slots__ = ("above", "below", "calls", "function", "key", "seconds", "start")

    def __init__(self, function: _Function, above: _Node | None, key: object = None) -> None:
        self.function = function
        self.above = above
        self.key = key  # kept alive, so that its id stays its own
        self.below: dict[object, _Node] = {}
        self.calls = 0
        self.seconds = 0.0
        self.start = 0.0


class _Calls:
    """The tree of calls of one thread, grown by what `sys.setprofile` tells."""

    def __init__(self) -> None:
        self.root = self.current = _Node(("", 0, ""), None)

    def hear(
        self, frame: FrameType, event: str, argument: object, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """Take what `sys.setprofile` tells: twice for each call of the program, hence so plain."""
        now = clock()
        here = self.current
        if event == "call":
            code = frame.f_code
            node = here.below.get(id(code))
            if node is None:
                function = (code.co_filename, code.co_firstlineno, code.co_qualname)
                node = here.below[id(code)] = _Node(function, here, code)
        elif event == "c_call":
            names = getattr(argument, "__module__", None), getattr(argument, "__qualname__", "?")
            node = here.below.get(names)
            if node is None:
                name = ".".join(str(each) for each in names if each)
                function = ("~", 0, f"<built-in {name}>")
                node = here.below[names] = _Node(function, here)
        else:
            if here.above is not None:  # else it returns from what was called before we listened
                here.seconds += now - here.start
                self.current = here.above
            return
        node.calls += 1
        node.start = now
        self.current = node

    def still_open(self) -> dict[_Node, float]:
        """Seconds that the calls have taken which have not returned."""
        now, taken, node = time.perf_counter(), {}, self.current
        while node.above is not None:
            taken[node] = now - node.start
            node = node.above
        return taken

    def finish(self) -> None:
        """Close the calls that have not returned."""
        for node, seconds in self.still_open().items():
            node.seconds += seconds
        self.current = self.root

    def add_to(self, totals: _Totals) -> None:
        """Add what each function took, by caller; the thread may still be running."""
        still_open = self.still_open()
        around: dict[_Function, int] = {}
        todo: list[tuple[_Node, bool]] = [(node, False) for node in tuple(self.root.below.values())]
        while todo:
            node, done = todo.pop()
            function, above = node.function, node.above
            if done:
                around[function] -= 1
                continue
            # Of a recursion only the outermost call counts with all of its time.
            outermost = not around.get(function)
            around[function] = around.get(function, 0) + 1
            below = tuple(node.below.values())
            todo.append((node, True))
            todo += [(each, False) for each in below]
            seconds = node.seconds + still_open.get(node, 0.0)
            own = seconds - sum(each.seconds + still_open.get(each, 0.0) for each in below)
            caller = above.function if above is not None else ("", 0, "")
            counts = totals.setdefault(function, {}).setdefault(caller, [0, 0, 0.0, 0.0])
            counts[0] += node.calls
            counts[1] += node.calls * outermost
            counts[2] += own
            counts[3] += seconds * outermost


# Counts by function and caller; the caller of what the thread began with is the root's nameless function.
_Totals: TypeAlias = dict[_Function, dict[_Function, list[float]]]


# Non-recursive calls, calls, seconds, seconds with inner calls, and the callers, by function.
_Stats: TypeAlias = dict[_Function, tuple[int, int, float, float, dict[_Function, _Counts]]]


class CallProfile:
    """Calls of all threads that were profiled; `pstats.Stats` takes it as it does a `cProfile.Profile`.

    Notes
    -----
    Why not cProfile: since Python 3.12 it hears the calls of all threads, takes them for those of one, and
    refuses to run in a second thread ("Another profiling tool is already active"). `sys.setprofile` has
    stayed a thread's own. It costs more for each call, but fastseg computes in few calls.
    """

    def __init__(self) -> None:
        self.stats: _Stats = {}
        self._threads: list[_Calls] = []

    @contextmanager
    def thread(self) -> Iterator[None]:
        """Profile the thread of the block; nothing changes where it is profiled already."""
        before = sys.getprofile()
        if isinstance(getattr(before, "__self__", None), _Calls):
            yield
            return
        calls = _Calls()
        self._threads.append(calls)
        sys.setprofile(calls.hear)
        try:
            yield
        finally:
            sys.setprofile(before)
            calls.finish()

    @property
    def n_threads(self) -> int:
        """Number of threads that were profiled so far."""
        return len(self._threads)

    def create_stats(self) -> None:
        """Fill `stats`; threads that are still running are in it up to now."""
        totals: _Totals = {}
        for calls in tuple(self._threads):
            calls.add_to(totals)
        self.stats = {}
        for function, callers in totals.items():
            n_calls, n_outermost, own, with_inner = (
                sum(each) for each in zip(*callers.values(), strict=True)
            )
            by_caller = {
                caller: (int(each[0]), int(each[1]), each[2], each[3])
                for caller, each in callers.items()
                if caller[2]
            }
            self.stats[function] = int(n_outermost), int(n_calls), own, with_inner, by_caller

    def dump_stats(self, path: Path) -> None:
        """Write the binary form, for snakeviz and `pstats.Stats`."""
        self.create_stats()
        path.write_bytes(marshal.dumps(self.stats))


_call_profile: CallProfile | None = None


@contextmanager
def profiling_calls() -> Iterator[CallProfile]:
    """Profile the calls of this thread inside the block, and of those that ask by `thread_profile`."""
    global _call_profile
    before, _call_profile = _call_profile, CallProfile()
    try:
        with _call_profile.thread():
            yield _call_profile
    finally:
        _call_profile = before


def thread_profile() -> AbstractContextManager[None]:
    """Profile the calls of this thread inside the block, if the process is being profiled.

    A thread that others start runs all of its work in this.
    """
    return nullcontext() if _call_profile is None else _call_profile.thread()
