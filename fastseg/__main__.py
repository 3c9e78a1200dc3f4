"""``python -m fastseg``."""

from fastseg.cli import program

program()
