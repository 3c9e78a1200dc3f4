"""What is released: wheel and sdist hold every file of the program and run far from the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from environment import CHECKOUT, SetupError, install, make_environment

# Folder in the checkout -> folder in the wheel, as in pyproject.toml.
_FOLDERS = {"fastseg": "fastseg", "kernels": "fastseg/kernels", "engines": "fastseg/engines"}

# What a new user would do, with the built-in networks and no other file.
_TRIAL = (
    "--version",
    "--help",
    "models list",
    "models verify",
    "doctor",
    "engines list",
    "demo demo",
    "run demo/phantom_t2.nii.gz -c t2 -o result",
)
_LOOK = """
import sys, pathlib, fastseg, nibabel
assert pathlib.Path(fastseg.__file__).is_relative_to(sys.prefix), fastseg.__file__
mask = nibabel.load("result/phantom_t2_seg.nii.gz")
print(f"{int(mask.get_fdata().sum())} voxels of cord in the demo's phantom")
"""


class PackageError(Exception):
    """What is wrong with the wheel or the sdist."""


def build(binaries: Path, scratch: Path) -> list[Path]:
    """Build sdist and wheel from a clean copy, check their files, and give their paths.

    A copy, because the build folder of an earlier build can hide a missing file, or add one that is gone.
    """
    source = scratch / "source"
    _copy_tracked_files(source)
    expected = {
        inside + name.removeprefix(outside): (source / name).read_bytes()
        for outside, inside in _FOLDERS.items()
        for name in _files(source / outside, source)
    }
    _run(
        [binaries / "python", "-m", "build", "--no-isolation", "--outdir", scratch / "dist", source], scratch
    )
    (sdist,) = (scratch / "dist").glob("*.tar.gz")
    (wheel,) = (scratch / "dist").glob("*.whl")

    in_wheel = _contents(wheel)
    _compare(
        {name: content for name, content in in_wheel.items() if ".dist-info/" not in name},
        expected,
        "the wheel",
        "the package's tracked files (see packages and package-data in pyproject.toml)",
    )
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in in_wheel):
        raise PackageError(f"{wheel.name} holds no LICENSE")

    # `build` makes its wheel from the sdist; the checkout must give the same.
    direct = scratch / "direct"
    _run(
        [binaries / "python", "-m", "build", "--no-isolation", "--wheel", "--outdir", direct, source], scratch
    )
    _compare(_contents(direct / wheel.name), in_wheel, "the wheel of the checkout", "the wheel of the sdist")
    with tarfile.open(sdist) as archive:
        if not any(name.endswith("/pyproject.toml") for name in archive.getnames()):
            raise PackageError(f"{sdist.name} holds no pyproject.toml")
    return [wheel, sdist]


def try_elsewhere(distributions: list[Path], scratch: Path) -> str:
    """Install the wheel into a fresh environment and use it in an empty folder, with an empty home."""
    if not distributions:
        raise PackageError("there is no wheel to try")
    fresh, folder, home = (scratch / name for name in ("fresh", "elsewhere", "home"))
    make_environment(fresh)
    install(fresh / "bin", distributions[0], compiled=False)  # most of it is never imported
    folder.mkdir()
    home.mkdir()
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FASTSEG_", "NUMBA_", "PYTHON", "XDG_")) and name != "VIRTUAL_ENV"
    }
    variables |= {"HOME": str(home), "PATH": f"{fresh / 'bin'}{os.pathsep}{os.defpath}"}
    for arguments in _TRIAL:
        _run([fresh / "bin" / "fastseg", *arguments.split()], folder, variables)
    return _run([fresh / "bin" / "python", "-c", _LOOK], folder, variables)


def _copy_tracked_files(target: Path) -> None:
    """Copy what git tracks, or would track: a file that was just made counts."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        names = (
            subprocess.run(listing, cwd=CHECKOUT, capture_output=True, check=True).stdout.decode().split("\0")
        )
    except (OSError, subprocess.CalledProcessError):  # an unpacked archive
        ignored = shutil.ignore_patterns(
            ".*", "__pycache__", "*.egg-info", "build", "dist", "quickstart-output"
        )
        shutil.copytree(CHECKOUT, target, symlinks=True, ignore=ignored)
        return
    for name in filter(None, names):
        if os.path.lexists(CHECKOUT / name):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, target / name, follow_symlinks=False)


def _files(folder: Path, root: Path) -> list[str]:
    """Names of the files below a folder, not through links."""
    return [
        (Path(parent) / name).relative_to(root).as_posix()
        for parent, _, names in os.walk(folder)
        for name in names
        if not (Path(parent) / name).is_symlink()
    ]


def _contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _compare(found: dict[str, bytes], expected: dict[str, bytes], what: str, other: str) -> None:
    differences = [
        *(f"  missing: {name}" for name in sorted(expected.keys() - found.keys())),
        *(f"  too much: {name}" for name in sorted(found.keys() - expected.keys())),
        *(
            f"  differs: {name}"
            for name in sorted(found.keys() & expected.keys())
            if found[name] != expected[name]
        ),
    ]
    if differences:
        raise PackageError("\n".join([f"{what} is not {other}:", *differences]))


def _run(command: list[str | Path], folder: Path, variables: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        shown = " ".join(Path(part).name if isinstance(part, Path) else part for part in command)
        raise PackageError(f"`{shown}` ended with {done.returncode}:\n{done.stdout}")
    return done.stdout.strip()


def main() -> None:
    """Check the packages with the Python that runs this; it needs `build` and setuptools."""
    with tempfile.TemporaryDirectory(prefix="fastseg-test-") as scratch:
        try:
            print(try_elsewhere(build(Path(sys.executable).parent, Path(scratch)), Path(scratch)))
        except (PackageError, SetupError) as error:
            sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
