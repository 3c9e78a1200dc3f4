"""NiiVue, which shows volumes in pages: vendored as it is published, see README.md here."""

from __future__ import annotations

from pathlib import Path

__all__ = ["SCRIPT", "VERSION"]

VERSION = "0.69.0"
#: A classic script, which defines `niivue`.
SCRIPT = Path(__file__).with_name("niivue.umd.js")
