"""The first start compiles once and says so, wherever it runs and however many start at once.

Each test has an installation of its own with two small kernels, so that nothing here takes the time of the
real ones.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastseg

_COMPILING = "compiling kernels for this processor, once"
_COMPILED = "kernels compiled in"
_WAITING = "waiting for another process"

_KERNELS = {
    "doubling": "x + x",
    "squaring": "x * x",
}
_KERNEL = """
from numba import njit

@njit("float64(float64)", cache=True, nogil=True)
def apply(x):
    return {expression}
"""
_START = """
import pathlib, sys
import fastseg.compilation
fastseg.compilation._LAST_RESORTS = tuple(map(pathlib.Path, sys.argv[1:]))
fastseg.compilation.load_kernels(lambda line: print(line, file=sys.stderr))
from fastseg.kernels import doubling, squaring
print(doubling.apply(3.0), squaring.apply(3.0))
"""
_RESULT = "6.0 9.0\n"


class Installation:
    """A copy of fastseg's first-start code with kernels of its own."""

    def __init__(self, folder: Path) -> None:
        self.site = folder / "site"
        self.home = folder / "home"
        self.home.mkdir()
        package = self.site / "fastseg"
        kernels = package / "kernels"
        kernels.mkdir(parents=True)
        source = Path(fastseg.__file__).parent
        for name in ("__init__.py", "compilation.py"):
            shutil.copy(source / name, package / name)
        (kernels / "__init__.py").write_text("")
        for name, expression in _KERNELS.items():
            (kernels / f"{name}.py").write_text(_KERNEL.format(expression=expression))
        self.kernels = kernels

    def launch(self, *last_resorts: Path, **variables: str) -> subprocess.Popen[str]:
        """Start one process; a root that obeys permission bits, as an ordinary user does."""
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("NUMBA_", "XDG_", "PYTEST_", "COV_"))
        }
        environment |= {"HOME": str(self.home), "PYTHONPATH": str(self.site), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.Popen(
            [sys.executable, "-P", "-c", _START, *last_resorts],
            env=environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_obey_permissions,
        )

    def start(self, *last_resorts: Path, **variables: str) -> str:
        """Start one process, check that its kernels work, and give what it told the user."""
        return _told(self.launch(*last_resorts, **variables))

    def cached(self, folder: Path) -> list[str]:
        """Names of the kernels that the cache in a folder holds."""
        return sorted({path.name.split(".")[0] for path in folder.rglob("*.nbc")})


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


@pytest.fixture
def unwritable(installation: Installation) -> Iterator[Installation]:
    folders = [installation.site, *(path for path in installation.site.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    yield installation
    for folder in folders:
        folder.chmod(0o755)


def _obey_permissions() -> None:
    """Take root's right to ignore permission bits away from the process that is about to start."""
    drop_from_bounding_set, override, read_search = 24, 1, 2
    if os.geteuid() == 0 and sys.platform == "linux":
        for capability in (override, read_search):
            ctypes.CDLL(None).prctl(drop_from_bounding_set, capability, 0, 0, 0)


def _told(process: subprocess.Popen[str]) -> str:
    out, told = process.communicate(timeout=300)
    assert (process.returncode, out) == (0, _RESULT), told
    return told


def _skip_where_permissions_are_ignored(folder: Path) -> None:
    attempt = subprocess.run(
        [sys.executable, "-c", "import sys; open(sys.argv[1], 'w')", folder / "attempt"],
        capture_output=True,
        check=False,
        preexec_fn=_obey_permissions,
    )
    if attempt.returncode == 0:
        pytest.skip("this user may write into folders that are not writable")


def test_first_start_says_so_once_and_second_start_is_silent(installation: Installation) -> None:
    told = installation.start()
    assert told.count(_COMPILING) == 1
    assert told.count(_COMPILED) == 1
    assert len(told.splitlines()) == 2
    assert installation.cached(installation.kernels / "__pycache__") == sorted(_KERNELS)

    assert installation.start() == ""


def test_changed_kernel_is_compiled_again(installation: Installation) -> None:
    installation.start()
    path = installation.kernels / "doubling.py"
    path.write_text(path.read_text().replace("x + x", "2.0 * x"))
    assert _COMPILING in installation.start()
    assert installation.start() == ""


def test_four_first_starts_at_once_compile_once(installation: Installation, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    told = [_told(p) for p in [installation.launch(NUMBA_CACHE_DIR=str(cache)) for _ in range(4)]]
    compiling = [_COMPILING in lines for lines in told]
    assert sum(compiling) == 1, told
    for compiled, lines in zip(compiling, told, strict=True):
        if not compiled:  # it waited, or came so late that there was nothing to wait for
            assert _WAITING in lines or lines == ""
    assert installation.cached(cache) == sorted(_KERNELS)
    assert installation.start(NUMBA_CACHE_DIR=str(cache)) == ""


def test_lock_of_a_killed_process_holds_nobody_up(installation: Installation, tmp_path: Path) -> None:
    cache, never = tmp_path / "cache", tmp_path / "never"
    # The last one to be imported, so that the lock is held until the kill.
    (installation.kernels / "waiting.py").write_text(
        "import os, pathlib, time\n"
        "while 'HELD' in os.environ and not pathlib.Path(os.environ['HELD']).exists():\n"
        "    time.sleep(0.01)\n"
    )
    first = installation.launch(NUMBA_CACHE_DIR=str(cache), HELD=str(never))
    assert first.stderr is not None
    assert _COMPILING in first.stderr.readline()
    first.kill()
    first.communicate()
    assert _COMPILING in installation.start(NUMBA_CACHE_DIR=str(cache))


def test_read_only_installation_uses_the_cache_folder_of_the_user(unwritable: Installation) -> None:
    _skip_where_permissions_are_ignored(unwritable.kernels)
    assert _COMPILING in unwritable.start()
    assert unwritable.cached(unwritable.home) == sorted(_KERNELS)
    assert unwritable.cached(unwritable.site) == []
    assert unwritable.start() == ""


def test_cache_goes_to_a_private_temporary_folder_where_home_is_read_only_too(
    unwritable: Installation, tmp_path: Path
) -> None:
    _skip_where_permissions_are_ignored(unwritable.kernels)
    unwritable.home.chmod(0o555)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    assert _COMPILING in unwritable.start(temporary)
    (folder,) = temporary.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert unwritable.cached(folder) == sorted(_KERNELS)
    assert unwritable.start(temporary) == ""


def test_temporary_folder_that_others_can_write_is_not_trusted(
    unwritable: Installation, tmp_path: Path
) -> None:
    _skip_where_permissions_are_ignored(unwritable.kernels)
    unwritable.home.chmod(0o555)
    planted = tmp_path / f"fastseg-kernels-{os.geteuid()}"
    planted.mkdir()
    planted.chmod(0o777)
    unwritable.start(tmp_path)
    assert list(planted.iterdir()) == []


def test_without_any_writable_folder_kernels_work_uncached(unwritable: Installation) -> None:
    _skip_where_permissions_are_ignored(unwritable.kernels)
    unwritable.home.chmod(0o555)
    for _ in range(2):
        told = unwritable.start()
        assert "set NUMBA_CACHE_DIR" in told
        assert told.count(_COMPILING) == 1


def test_damaged_cache_is_replaced(installation: Installation) -> None:
    installation.start()
    for path in (installation.kernels / "__pycache__").glob("*.nbc"):
        path.write_bytes(path.read_bytes()[:100])
    assert _COMPILING in installation.start()
    assert installation.start() == ""


def test_full_disk_compiles_without_a_cache(installation: Installation, tmp_path: Path) -> None:
    """A device that is always full stands in for the disk; numba meets it when it writes an entry."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full on this system")
    broken = installation.site / "sitecustomize.py"
    broken.write_text(
        "import builtins\n"
        "real = builtins.open\n"
        "def open(file, mode='r', *args, **kwargs):\n"
        "    if '.nb' in str(file) and 'w' in mode:\n"
        "        file = '/dev/full'\n"
        "    return real(file, mode, *args, **kwargs)\n"
        "builtins.open = open\n"
    )
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    told = installation.start(temporary)
    assert "set NUMBA_CACHE_DIR" in told
    assert told.count(_COMPILING) == 1


def test_nothing_is_compiled_or_said_without_the_jit(installation: Installation) -> None:
    assert installation.start(NUMBA_DISABLE_JIT="1") == ""
