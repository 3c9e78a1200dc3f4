"""From a fresh clone to a first mask, through fastseg's command line only."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from environment import CHECKOUT, SetupError, ensure_environment

_CONTRASTS = ("auto", "t1", "t2", "t2s", "dwi")
_OUTPUT = CHECKOUT / "quickstart-output"


def _demo_command(folder: Path) -> list[str | Path]:
    return ["demo", folder, "--overwrite"]


def _run_command(volume: Path, contrast: str) -> list[str | Path]:
    return ["run", volume, "-c", contrast, "-o", _OUTPUT, "--preview", "--save-centerline", "--overwrite"]


_DEMO_VOLUME = "phantom_t2.nii.gz"
_RESULTS = {
    "mask": "{stem}_seg.nii.gz",
    "centerline": "{stem}_centerline.nii.gz",
    "overlay picture": "{stem}_overlay.png",
}


def main() -> int:
    """Set up, segment, and say where the results are."""
    options = _parse()
    volume = options.volume
    if volume is not None and not volume.is_file():
        return _complain(f"{volume}: there is no such file")

    environment = CHECKOUT / ".venv"
    if not environment.exists():
        print(f"installing into {environment}: this takes a minute or two, once ...", flush=True)
    try:
        fastseg = ensure_environment(environment) / "fastseg"
    except SetupError as error:
        return _complain(str(error))

    if volume is None:
        code = _call(fastseg, _demo_command(_OUTPUT))
        if code:
            return code
        volume = _OUTPUT / _DEMO_VOLUME
    code = _call(fastseg, _run_command(volume.resolve(), options.contrast))
    if code:
        return code

    stem = volume.name.removesuffix(".gz").removesuffix(".nii")
    print()
    missing = False
    for what, pattern in _RESULTS.items():
        path = _OUTPUT / pattern.format(stem=stem)
        missing |= not path.is_file()
        print(f"{what + ':':17}{path}{'' if path.is_file() else '  (MISSING)'}")
    print(f"\nnext: {shlex.quote(str(fastseg))} run --help")
    return 1 if missing else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/quickstart",
        description="Set fastseg up in this checkout and segment a volume, or a phantom that it makes.",
    )
    parser.add_argument("volume", nargs="?", type=Path, metavar="VOLUME", help="NIfTI file of an MR volume")
    parser.add_argument(
        "-c",
        dest="contrast",
        choices=_CONTRASTS,
        default="auto",
        help="contrast of the volume  [%(default)s]",
    )
    return parser.parse_args()


def _call(fastseg: Path, arguments: list[str | Path]) -> int:
    print("$", shlex.join(map(str, [fastseg, *arguments])), flush=True)
    return subprocess.run([fastseg, *arguments], check=False).returncode


def _complain(message: str) -> int:
    print(f"tools/quickstart: error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
