"""A command of tools/train, in the environment of training: torch, and what else it needs."""

from __future__ import annotations

import os
import sys

from environment import CHECKOUT, SetupError, ensure_environment


def main() -> None:
    """Make or reuse the environment, and become the program."""
    try:
        binaries = ensure_environment(CHECKOUT / ".venv-train", extras="[train]")
    except SetupError as error:
        sys.exit(f"tools/train: error: {error}")
    os.environ["PYTHONPATH"] = str(CHECKOUT)
    python = str(binaries / "python")
    os.execv(python, [python, "-m", *sys.argv[1:]])


if __name__ == "__main__":
    main()
