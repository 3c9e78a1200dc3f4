"""Runs a module of the checkout in an environment of its own: launch.py ENVIRONMENT EXTRA MODULE ..."""

from __future__ import annotations

import os
import sys

from environment import CHECKOUT, SetupError, ensure_environment


def main() -> None:
    """Make or reuse the environment, and become the program."""
    environment, extra, module, *arguments = sys.argv[1:]
    try:
        binaries = ensure_environment(CHECKOUT / environment, extras=f"[{extra}]")
    except SetupError as error:
        sys.exit(f"{module}: error: {error}")
    # The folder of the caller stays: what it names is relative to it.
    path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    python = str(binaries / "python")
    os.execve(python, [python, "-P", "-m", module, *arguments], os.environ | {"PYTHONPATH": path})


if __name__ == "__main__":
    main()
