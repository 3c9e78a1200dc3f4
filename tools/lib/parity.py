"""The table of SCT's reference outputs against ours, in the environment of the tests."""

from __future__ import annotations

import os
import sys

from environment import CHECKOUT, SetupError, ensure_environment


def main() -> None:
    """Make or reuse the environment, and become the program that prints the table."""
    try:
        binaries = ensure_environment(CHECKOUT / ".venv-test", extras="[test]")
    except SetupError as error:
        sys.exit(f"tools/parity: error: {error}")
    os.chdir(CHECKOUT)
    python = str(binaries / "python")
    os.execv(python, [python, "-m", "tests.golden.parity", *sys.argv[1:]])


if __name__ == "__main__":
    main()
