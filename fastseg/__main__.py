"""``python -m fastseg``."""

from fastseg.cli import main

main()
