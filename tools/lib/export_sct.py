"""The export of a pack for SCT, in the environment of the tests."""

from __future__ import annotations

import os
import sys

from environment import CHECKOUT, SetupError, ensure_environment


def main() -> None:
    """Make or reuse the environment, and become the program that exports."""
    try:
        binaries = ensure_environment(CHECKOUT / ".venv-test", extras="[test]")
    except SetupError as error:
        sys.exit(f"tools/export_sct: error: {error}")
    # The folder of the caller stays: what it names is relative to it.
    path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    python = str(binaries / "python")
    arguments = [python, "-P", "-m", "tools.export.sct", *sys.argv[1:]]
    os.execve(python, arguments, os.environ | {"PYTHONPATH": path})


if __name__ == "__main__":
    main()
