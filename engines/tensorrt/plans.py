"""Built engines, kept between runs: plans and their records, in a folder that processes share.

A record is written after its plan, and removed before it. Whoever finds a plan that is not whole removes it,
once its writer is known to be dead: writers hold a lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastseg.engines.tensorrt import cache_files as files
from fastseg.engines.tensorrt.cache_files import Hold, Untrusted
from fastseg.engines.tensorrt.plan_records import (
    Entry,
    Plan,
    PlanKey,
    Sidecar,
    plan_key,
    plan_path,
    read_entry,
    read_plan,
    sidecar_path,
)

__all__ = ["Entry", "Plan", "PlanCache", "PlanKey", "plan_key"]

_logger = logging.getLogger(__name__)

# A policy: one that only grows is begun anew.
_MOST_TIMING = 64 << 20
# Larger than the longest build; a stopped process must not stop the others for ever.
_PATIENCE_SECONDS = 1800.0
_NAME = re.compile(r"[0-9a-f]{64}")

_warned: set[str] = set()


class PlanCache:
    """Plans in a folder. May be used from several threads and processes at once.

    Where the folder cannot be used, nothing is found and nothing is kept; a warning says why, once.

    Parameters
    ----------
    folder : None: `fastseg.engines.tensorrt.cache_files.usual_folder`
    limit_bytes : that it may hold; what was not used for longest goes first, never what was just stored.
        None: FASTSEG_ENGINES_GB, else 4 GB.
    say : gets a line when this process has to wait for another one that builds

    Raises
    ------
    OptionError
        FASTSEG_ENGINES_GB is no size.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        limit_bytes: int | None = None,
        say: Callable[[str], None] = _logger.info,
    ) -> None:
        self._folder = folder if folder is not None else files.usual_folder()
        self._limit = files.limit_bytes() if limit_bytes is None else limit_bytes
        self._say = say
        self._held: set[tuple[str, int]] = set()

    @property
    def folder(self) -> Path | None:
        """Where plans are kept; None where the user has no home."""
        return self._folder

    @property
    def problem(self) -> str:
        """Why nothing is taken from the folder; empty where nothing is wrong."""
        if self._folder is None:
            return "there is no folder for engines, because the user has no home: name one in FASTSEG_ENGINES"
        why = files.distrust(self._folder)
        if not why:
            return ""
        return (
            f"{self._folder}: {why}, and engines are native code: none are kept there or taken from there; "
            "mend that, or name another folder in FASTSEG_ENGINES"
        )

    def fetch(self, key: PlanKey) -> Plan | None:
        """Give a plan that is whole; a damaged one is removed."""
        folder = self._usable()
        if folder is None:
            return None
        found = read_plan(folder, key.digest)
        if isinstance(found, str) and found:
            # Perhaps it is just being written: then whoever builds waits for the lock, and looks again.
            with self._lock(folder, key.digest) as hold:
                if hold is Hold.BUSY:
                    return None
                found = read_plan(folder, key.digest)
                if isinstance(found, str) and found:
                    path = plan_path(folder, key.digest)
                    _logger.warning("%s: %s; the engine will be built again", path, found)
                    _remove(folder, key.digest)
        if isinstance(found, str):
            return None
        with contextlib.suppress(OSError):  # of folders that cannot be written
            os.utime(sidecar_path(folder, key.digest))
        return found

    @contextlib.contextmanager
    def building(self, key: PlanKey) -> Iterator[None]:
        """Build while no other process builds the same; `fetch` again inside, it may have done so by now."""
        folder = self._made()
        if folder is None:
            yield
            return

        def waiting() -> None:
            self._say("waiting for another process that builds the same engine ...")

        with self._lock(folder, key.digest, _PATIENCE_SECONDS, waiting) as hold:
            if hold is Hold.BUSY:
                _warn(f"{folder}: another process builds the same engine for very long: not waiting for it")
            yield

    def store(self, key: PlanKey, content: bytes, record: Mapping[str, Any]) -> Plan:
        """Keep a plan; where that is impossible, a warning says why, and the plan has no path."""
        plan = Plan(key.digest, dict(record), None, content)
        folder = self._made()
        if folder is None:
            return plan
        path = plan_path(folder, key.digest)
        digest = hashlib.sha256(content).hexdigest()
        sidecar = Sidecar(digest, len(content), key.facts, plan.record).text()
        with self._lock(folder, key.digest, _PATIENCE_SECONDS):
            self._sweep(folder)
            self._make_room(folder, len(content) + len(sidecar), keep=key.digest)
            try:
                files.write_private(path, content)
                files.write_private(sidecar_path(folder, key.digest), sidecar)
            except OSError as error:
                _remove(folder, key.digest)
                _warn_of(folder, error)
                return plan
        return replace(plan, path=path)

    def note(self, plan: Plan, /, **facts: object) -> Plan:
        """Add to the record of a plan what has come to be known of it."""
        noted = replace(plan, record={**plan.record, **facts})
        if plan.path is None:
            return noted
        folder, sidecar = plan.path.parent, sidecar_path(plan.path.parent, plan.digest)
        with self._lock(folder, plan.digest, _PATIENCE_SECONDS):
            there = Sidecar.read(sidecar)
            if isinstance(there, str) or there.sha256 != hashlib.sha256(plan.content).hexdigest():
                return noted  # it was removed meanwhile, or replaced
            noted = replace(plan, record={**there.record, **facts})
            try:
                files.write_private(sidecar, replace(there, record=noted.record).text())
            except OSError as error:
                _warn_of(folder, error)
        return noted

    def discard(self, plan: Plan) -> None:
        """Remove a plan that is of no use, unless somebody has put another in its place."""
        if plan.path is None:
            return
        folder = plan.path.parent
        with self._lock(folder, plan.digest, _PATIENCE_SECONDS):
            there = Sidecar.read(sidecar_path(folder, plan.digest))
            if isinstance(there, str) or there.sha256 == hashlib.sha256(plan.content).hexdigest():
                _remove(folder, plan.digest)

    def entries(self) -> list[Entry]:
        """What is there, most recently used first; plans are not read."""
        folder = self._usable()
        if folder is None:
            return []
        names = {path.stem for suffix in ("plan", "json") for path in folder.glob(f"*.{suffix}")}
        found = [read_entry(folder, name) for name in names if _NAME.fullmatch(name)]
        return sorted((each for each in found if each.size), key=lambda each: -each.used)

    def prune(
        self,
        *,
        everything: bool = False,
        older_than_days: float | None = None,
        limit_bytes: int | None = None,
    ) -> list[Entry]:
        """Remove plans that cannot be loaded, what killed processes left, and what is asked for.

        Parameters
        ----------
        everything : all plans and timing caches
        older_than_days : what was not used since
        limit_bytes : as of `PlanCache`

        Returns
        -------
        entries : the plans that are gone. What another process is at work on stays.
        """
        folder = self._usable()
        if folder is None or not folder.is_dir():
            return []
        self._sweep(folder)
        oldest = -1.0 if older_than_days is None else time.time() - older_than_days * 86_400
        old = [each for each in self.entries() if everything or each.problem or each.used < oldest]
        gone = [each for each in old if self._evict(folder, each.digest)]
        for path in folder.glob("timing-*.cache"):
            with contextlib.suppress(FileNotFoundError):
                if everything or path.lstat().st_mtime < oldest:
                    self._evict(folder, path.stem)
        limit = self._limit if limit_bytes is None else limit_bytes
        return [*gone, *self._make_room(folder, 0, limit=limit)]

    def timing_cache(self, name: str) -> bytes:
        """What TensorRT has measured before, by the name it was kept under; empty where nothing is known."""
        folder = self._usable()
        if folder is None:
            return b""
        path = _timing(folder, name)
        with contextlib.suppress(OSError, Untrusted):
            content = files.read_private(path, _MOST_TIMING + 64)
            if _timing_digest(name, content[64:]) == content[:64]:
                return content[64:]
            files.remove(path)
        return b""

    def keep_timing_cache(self, name: str, content: bytes) -> None:
        """Keep it for the next build: the last one that is kept counts."""
        folder = self._made()
        if folder is None or not content:
            return
        path = _timing(folder, name)
        with self._lock(folder, path.stem, _PATIENCE_SECONDS):
            if len(content) > _MOST_TIMING:
                files.remove(path)
                return
            try:
                files.write_private(path, _timing_digest(name, content) + content)
            except OSError as error:
                _warn_of(folder, error)

    def _usable(self) -> Path | None:
        """The folder, if what is in it may be loaded."""
        if self.problem:
            _warn(self.problem)
            return None
        return self._folder

    def _made(self) -> Path | None:
        """The same, made when missing."""
        folder = self._usable()
        if folder is None:
            return None
        try:
            files.make_private(folder)
        except OSError as error:
            _warn_of(folder, error)
            return None
        return self._usable()

    @contextlib.contextmanager
    def _lock(
        self,
        folder: Path,
        stem: str,
        patience_seconds: float = 0.0,
        waiting: Callable[[], None] = lambda: None,
    ) -> Iterator[Hold]:
        """Lock files that begin with `stem`; whoever holds them already goes on."""
        mine = (stem, threading.get_ident())
        if mine in self._held:
            yield Hold.OURS
            return
        path = folder / f"{stem}.lock"
        with files.locked(path, patience_seconds=patience_seconds, waiting=waiting) as hold:
            if hold is Hold.OURS:
                self._held.add(mine)
            try:
                yield hold
            finally:
                self._held.discard(mine)

    def _sweep(self, folder: Path) -> None:
        """Remove what killed processes left: half-written files, and locks."""
        left = {path.name[1:].partition(".")[0] for path in folder.glob(".*.tmp")}
        left |= {path.stem for path in folder.glob("*.lock")}
        for stem in left:
            with self._lock(folder, stem) as hold:
                if hold is not Hold.BUSY:
                    files.forget_leftovers(folder, stem, hold)

    def _make_room(
        self, folder: Path, needed: int, *, keep: str = "", limit: int | None = None
    ) -> list[Entry]:
        """Remove what was not used for longest, until so many bytes fit; gives the plans that are gone."""
        limit = self._limit if limit is None else limit
        entries = {each.digest: each for each in self.entries()}
        sizes = {name: (each.used, each.size) for name, each in entries.items()}
        for path in folder.glob("timing-*.cache"):
            with contextlib.suppress(FileNotFoundError):
                status = path.lstat()
                sizes[path.stem] = status.st_mtime, status.st_size
        sizes.pop(keep, None)
        total, gone = needed + sum(size for _, size in sizes.values()), []
        for name in sorted(sizes, key=lambda name: sizes[name]):
            if total <= limit:
                break
            if self._evict(folder, name):
                total -= sizes[name][1]
                gone.append(name)
        return [entries[name] for name in gone if name in entries]

    def _evict(self, folder: Path, stem: str) -> bool:
        with self._lock(folder, stem) as hold:
            return hold is not Hold.BUSY and _remove(folder, stem)


def _timing(folder: Path, name: str) -> Path:
    return folder / f"timing-{re.sub('[^A-Za-z0-9]+', '-', name)[:100]}.cache"


def _timing_digest(name: str, content: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\0" + content).hexdigest().encode()


def _remove(folder: Path, stem: str) -> bool:
    """Remove the record before the plan: a plan alone is never loaded. Gives whether all is gone."""
    return all(files.remove(folder / f"{stem}.{suffix}") for suffix in ("json", "plan", "cache"))


def _warn_of(folder: Path, error: OSError) -> None:
    why = error.strerror or str(error)
    _warn(
        f"{folder}: engines cannot be kept there ({why}) and are built anew each time: mend that, or name "
        "another folder in FASTSEG_ENGINES"
    )


def _warn(text: str) -> None:
    """Once in the life of this process: there is a cache for every network."""
    if text not in _warned:
        _warned.add(text)
        _logger.warning("%s", text)
