"""The first start: kernels are compiled once, visibly, and kept wherever they can be kept.

Kernels have explicit signatures and ``cache=True``, so numba compiles them, or loads them from its cache,
while their module is imported. Whoever imports `load_kernels` first decides where that cache is, tells the
user why the first start takes long, and lets only one of several first starts do the work.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib
import logging
import os
import pickle
import pkgutil
import stat
import sys
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import IO

__all__ = ["HOG_KERNELS", "kernel_cache", "load_kernels"]

#: Kernel modules that only the svm detector uses.
HOG_KERNELS = ("hog", "optic_resize")

_logger = logging.getLogger(__name__)

_PACKAGE = "fastseg.kernels"
# All kernels with numba 0.68 on one core of a 2020s server (tools/test prints it as the step "kernels").
_USUAL_SECONDS = 30
# Longer than any compilation; a stopped process must not stop the others for ever.
_PATIENCE_SECONDS = 180.0
# Where the cache goes when neither the installation nor the user's cache folder can be written.
_LAST_RESORTS = tuple(
    Path(root) for root in (os.environ.get("TMPDIR"), "/tmp", "/var/tmp", "/dev/shm") if root
)
# A full disk or quota, and what unpickling a truncated cache file raises.
_CACHE_TROUBLE = (OSError, EOFError, pickle.UnpicklingError)


def load_kernels(
    say: Callable[[str], None] = _logger.info,
    *,
    own_process: bool = False,
    skip: Collection[str] = (),
) -> None:
    """Import the kernel modules, compiling what is not in the cache.

    Call it before anything that imports kernels. It is safe when several processes start at once, with an
    installation or a home folder that cannot be written, with a damaged cache, and on a full disk.

    Parameters
    ----------
    say : gets a line when kernels are really compiled and one when they are done, or when this process has
        to wait for another one that compiles; nothing when all of them are in the cache
    own_process : whether nothing but fastseg runs here; numba then starts without BLAS, which no kernel
        uses, and saves the import of scipy.linalg: a fifth of a warm start
    skip : modules that need not be loaded when all are compiled already

    Notes
    -----
    numba looks for a writable cache in ``NUMBA_CACHE_DIR``, beside the source, and in the user's cache
    folder. Where it finds none it raises RuntimeError at the first kernel; then a private folder for
    temporary files is used, and without that the kernels are compiled for this process only. Entries
    depend on processor, numba, Python and the source's content, so a cache may be shared by a cluster.
    """
    modules = _kernel_modules()
    if all(name in sys.modules for name in modules):
        return
    import numba

    if numba.config.DISABLE_JIT:
        _import_all(modules)
        return
    with _announced(say), _without_blas() if own_process else contextlib.nullcontext():
        for folder in _cache_folders():
            try:
                with _one_at_a_time(folder, say) as compiled:
                    left_out = {f"{_PACKAGE}.{name}" for name in skip} if compiled else set()
                    _import_all([name for name in modules if name not in left_out])
            except _CACHE_TROUBLE as error:
                _logger.info("the kernel cache in %s is of no use (%s)", folder, error)
                _forget(folder)
            else:
                return
        say("no folder can keep the compiled kernels: set NUMBA_CACHE_DIR to one that can be written")
        _do_without_cache()
        _import_all(modules)


@contextlib.contextmanager
def _without_blas() -> Iterator[None]:
    """Let numba's look for BLAS fail; numba then cannot compile np.dot for the rest of the process."""
    if "scipy.linalg" in sys.modules:
        yield
        return
    sys.modules["scipy.linalg"] = None  # type: ignore[assignment]  # the documented way to block an import
    try:
        yield
    finally:
        del sys.modules["scipy.linalg"]


def kernel_cache() -> tuple[Path | None, bool]:
    """Folder in which compiled kernels are kept, if there is one, and whether all of them are there."""
    folder = _folder_of_numbas_choice()
    return folder, folder is not None and (folder / f"fastseg-{_fingerprint()}.ready").exists()


def _kernel_modules() -> list[str]:
    package = importlib.import_module(_PACKAGE)
    return sorted(f"{_PACKAGE}.{module.name}" for module in pkgutil.iter_modules(package.__path__))


def _import_all(modules: list[str]) -> None:
    for name in modules:
        importlib.import_module(name)


@contextlib.contextmanager
def _announced(say: Callable[[str], None]) -> Iterator[None]:
    """Say when numba really compiles; loading from the cache makes no such event."""
    from numba.core import event

    started: list[float] = []

    class Announcer(event.Listener):  # type: ignore[misc]  # numba has no annotations
        def on_start(self, event: object) -> None:
            if not started:
                started.append(time.monotonic())
                say(f"compiling kernels for this processor, once (about {_USUAL_SECONDS} s) ...")

        def on_end(self, event: object) -> None:
            pass

    with event.install_listener("numba:compile", Announcer()):
        yield
    if started:
        say(f"kernels compiled in {time.monotonic() - started[0]:.0f} s")


def _cache_folders() -> Iterator[Path]:
    """Folders to try in turn; numba uses the one that was given last."""
    folder = _folder_of_numbas_choice()
    if folder is not None:
        yield folder
        yield folder  # once more, now that damaged files are gone
    folder = _private_temporary_folder()
    if folder is not None:
        _logger.info("no other folder can keep the compiled kernels: they go to %s", folder)
        import numba

        # Both: child processes look at the variable, numba has read it already.
        os.environ["NUMBA_CACHE_DIR"] = numba.config.CACHE_DIR = str(folder)
        folder = _folder_of_numbas_choice()
        if folder is not None:
            yield folder


def _folder_of_numbas_choice() -> Path | None:
    """Ask numba where it would keep a function of the kernels' folder: it wants the folder of the source."""
    import numba

    source = importlib.import_module(_PACKAGE).__file__
    assert source is not None
    names: dict[str, Callable[[], None]] = {}
    exec(compile("def probe(): pass", source, "exec"), names)
    try:
        return Path(numba.njit(cache=True)(names["probe"]).stats.cache_path)
    except RuntimeError:  # "cannot cache function: no locator available"
        return None


def _private_temporary_folder() -> Path | None:
    """Give a folder that nobody else can write: what lies in a cache is executed."""
    for root in _LAST_RESORTS:
        folder = root / f"fastseg-kernels-{os.geteuid()}"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            status = folder.lstat()
        except OSError:
            continue
        mine = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
        if mine and not status.st_mode & 0o022 and os.access(folder, os.W_OK):
            return folder
    return None


@contextlib.contextmanager
def _one_at_a_time(folder: Path, say: Callable[[str], None]) -> Iterator[bool]:
    """Let one process compile while others wait, unless this very set of kernels is in the folder.

    Gives whether it is.
    """
    ready = folder / f"fastseg-{_fingerprint()}.ready"
    if ready.exists():
        yield True
        return
    with contextlib.ExitStack() as stack:
        try:
            lock = stack.enter_context((folder / "fastseg.lock").open("a"))
            _wait_for(lock, say)
        except OSError as error:  # a file system without locks: every process compiles
            _logger.debug("no lock in %s: %s", folder, error)
        if ready.exists():  # another process did it meanwhile: now all may load at once
            stack.close()
        yield False
        with contextlib.suppress(OSError):
            ready.touch()


def _wait_for(lock: IO[str], say: Callable[[str], None]) -> None:
    """Take the lock, which dies with its process."""
    import fcntl

    deadline = time.monotonic() + _PATIENCE_SECONDS
    waiting = False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES) or time.monotonic() > deadline:
                raise
        else:
            return
        if not waiting:
            say("waiting for another process that compiles the kernels ...")
            waiting = True
        time.sleep(0.05)


def _fingerprint() -> str:
    """Digest of everything that numba's cache entries depend on."""
    import numba
    from numba.core.registry import cpu_target

    digest = hashlib.sha256()
    processor = cpu_target.target_context.codegen().magic_tuple()
    digest.update(repr((numba.__version__, sys.version_info[:2], processor)).encode())
    for folder in importlib.import_module(_PACKAGE).__path__:
        for source in sorted(Path(folder).glob("*.py")):
            digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()[:16]


def _forget(folder: Path) -> None:
    """Delete the indexes of a damaged cache; numba then overwrites the rest."""
    for path in (*folder.glob("*.nbi"), *folder.glob("fastseg-*.ready")):
        with contextlib.suppress(OSError):
            path.unlink()


def _do_without_cache() -> None:
    from numba.core.dispatcher import Dispatcher

    def enable_caching(self: object) -> None:
        """Keep nothing: there is no place for it."""

    Dispatcher.enable_caching = enable_caching  # type: ignore[method-assign]
