"""Debian's packages, for what pip cannot install."""

from __future__ import annotations

import os
import shutil
import subprocess

__all__ = ["install_packages"]


def install_packages(*names: str) -> bool:
    """Install packages, where there is apt-get; whether that went well. Its errors go to stderr."""
    if not shutil.which("apt-get"):
        return False
    print(f"installing {', '.join(names)} ...", flush=True)
    for arguments in (["update"], ["install", "--yes", "--no-install-recommends", *names]):
        done = subprocess.run(
            ["apt-get", *arguments],
            env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            check=False,
        )
    return done.returncode == 0
