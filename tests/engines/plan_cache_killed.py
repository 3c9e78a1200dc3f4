"""Kills processes at work on a plan cache, before each call to the operating system in turn.

``python plan_cache_killed.py ROOT ACTION``: ROOT/before is what the cache holds at first; ROOT/1, ROOT/2, ...
become what it holds after a process was killed before its first, second, ... call. The last one was not.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastseg.engines.tensorrt.plans import PlanCache, PlanKey

KEY = PlanKey({"network": "a network"})
OLD, NEW = b"an older plan" * 50, b"a newer plan" * 70
_CALLS = ("open", "write", "fsync", "close", "replace", "unlink", "utime")


def store(cache: PlanCache) -> None:
    with cache.building(KEY):
        cache.store(KEY, NEW, {"made": "new"})


def note(cache: PlanCache) -> None:
    plan = cache.fetch(KEY)
    assert plan is not None
    cache.note(plan, drivers=["580"])


def discard(cache: PlanCache) -> None:
    plan = cache.fetch(KEY)
    assert plan is not None
    cache.discard(plan)


def timing(cache: PlanCache) -> None:
    cache.keep_timing_cache("vendor 1", NEW)


def _deadly(number: int) -> None:
    """Let this process die before its call of that number; of what it writes then, half is written."""
    made = 0

    def wrapped(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*arguments: Any, **options: Any) -> Any:
            nonlocal made
            made += 1
            if made == number:
                if name == "write":
                    call(arguments[0], arguments[1][: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return instead

    for name in _CALLS:
        setattr(os, name, wrapped(name, getattr(os, name)))
    fcntl.flock = wrapped("flock", fcntl.flock)


def main(root: Path, action: Callable[[PlanCache], None]) -> None:
    number, status = 0, -1
    while status:
        number += 1
        folder = root / str(number)
        if (root / "before").exists():
            shutil.copytree(root / "before", folder)
        child = os.fork()
        if not child:
            _deadly(number)
            action(PlanCache(folder))
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, -signal.SIGKILL), status


if __name__ == "__main__":
    main(Path(sys.argv[1]), {each.__name__: each for each in (store, note, discard, timing)}[sys.argv[2]])
