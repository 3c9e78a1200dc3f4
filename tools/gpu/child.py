"""The process of one section: child.py SECTION SECONDS FILE SETTINGS; FILE gets a JSON object a finding."""

from __future__ import annotations

import faulthandler
import importlib
import json
import sys
from pathlib import Path

from tools.gpu.bench import Bench, NotHere, Settings, load_hardware

__all__: list[str] = []


def main() -> None:
    """Run a section; its end is the last line of the file."""
    section, seconds, file, told = sys.argv[1:]
    faulthandler.enable()
    settings = Settings.heard(told)
    with Path(file).open("a") as findings:
        ended: dict[str, str] = {"ended": ""}
        try:
            bench = Bench(findings, float(seconds), settings, load_hardware(settings.hardware))
            importlib.import_module(f"tools.gpu.{section}").check(bench)
        except NotHere as missing:
            ended = {"skipped": str(missing)}
        except Exception as error:
            print(json.dumps({"failed": f"{type(error).__name__}: {_one_line(error)}"}), file=findings)
            raise
        finally:
            print(json.dumps(ended), file=findings, flush=True)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


if __name__ == "__main__":
    main()
