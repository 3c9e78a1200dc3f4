"""Virtual environments in the checkout, made once and made again when what they are made of changes."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from debian import install_packages

CHECKOUT = Path(__file__).resolve().parents[2]

_STAMP = "fastseg-stamp"
# Extras -> an extra that is installed besides, where that is possible.
_WHERE_POSSIBLE = {"[test]": "gpu-ci"}


class SetupError(Exception):
    """The environment cannot be made; the message says what to do."""


def ensure_environment(
    folder: Path, *, extras: str = "", system_packages: bool = False, compiled: bool = True
) -> Path:
    """Make or reuse an environment with an editable fastseg, and give its bin folder.

    Editable: the checkout is the program, so a pull or an edit needs no second installation. Only a change
    of pyproject.toml, of the Python version or of the checkout's place does.
    """
    binaries = folder / "bin"
    stamp = folder / _STAMP
    with _one_at_a_time(folder):
        wanted = _fingerprint(extras)
        if stamp.is_file() and stamp.read_text() == wanted and _runs(binaries / "python"):
            return binaries
        stamp.unlink(missing_ok=True)
        make_environment(folder, system_packages=system_packages)
        project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
        build_requirements = project["build-system"]["requires"]
        install(binaries, *build_requirements, "--editable", f"{CHECKOUT}{extras}", compiled=compiled)
        if optional := _WHERE_POSSIBLE.get(extras):
            try:
                install(binaries, *project["project"]["optional-dependencies"][optional], compiled=compiled)
            except SetupError:
                print(f"without [{optional}], which cannot be installed here: its tests skip", flush=True)
        stamp.write_text(wanted)
    return binaries


def make_environment(folder: Path, *, system_packages: bool = False) -> None:
    """Make an empty environment, in place of whatever is in the folder."""
    if Path(sys.prefix).resolve() == folder.resolve():
        raise SetupError(
            f"{folder} has to be made anew, but is in use by this command: run `deactivate` first"
        )
    _ensure_venv(system_packages=system_packages)
    shutil.rmtree(folder, ignore_errors=True)
    # In a process of its own: ensurepip writes to the output as it likes.
    made = subprocess.run([sys.executable, "-m", "venv", folder], capture_output=True, text=True, check=False)
    if made.returncode:
        raise SetupError(f"{sys.executable} cannot make {folder}:\n{made.stdout}{made.stderr}")


def install(binaries: Path, *requirements: str | Path, compiled: bool = True) -> None:
    """Run pip, silently unless it fails; without ``compiled``, importing a module compiles it."""
    how = ["--quiet"] if compiled else ["--quiet", "--no-compile"]
    command = [binaries / "python", "-m", "pip", "install", *how, *requirements]
    pip = subprocess.run(
        command,
        env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if pip.returncode:
        raise SetupError(
            f"pip failed:\n{pip.stdout}\n"
            "Is there a network, or a local index (PIP_INDEX_URL, PIP_FIND_LINKS)? Start again once there is."
        )


def _ensure_venv(*, system_packages: bool) -> None:
    if importlib.util.find_spec("ensurepip") is not None:
        return
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    if system_packages and install_packages(package):
        importlib.invalidate_caches()
        if importlib.util.find_spec("ensurepip") is not None:
            return
    raise SetupError(
        f"{sys.executable} has no venv module: apt-get install {package} (as root), "
        "or set FASTSEG_PYTHON to a complete Python >= 3.11"
    )


def _fingerprint(extras: str) -> str:
    pyproject = (CHECKOUT / "pyproject.toml").read_bytes()
    return "\n".join([hashlib.sha256(pyproject).hexdigest(), sys.version, str(CHECKOUT), extras, ""])


def _runs(python: Path) -> bool:
    """Say whether the environment still works: the Python that it was made with may be gone."""
    try:
        return (
            subprocess.run([python, "-c", "import fastseg"], capture_output=True, check=False).returncode == 0
        )
    except OSError:
        return False


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Two starts in one checkout must not install over each other; the lock dies with its process."""
    checkout = os.open(CHECKOUT, os.O_RDONLY)
    try:
        try:
            fcntl.flock(checkout, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print(f"waiting for another process that works on {folder.name} ...", flush=True)
            fcntl.flock(checkout, fcntl.LOCK_EX)
        yield
    finally:
        os.close(checkout)
