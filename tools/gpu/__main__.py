"""The command line of tools/gpu_check."""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.gpu import report
from tools.gpu.bench import PRECISIONS, REAL, Settings
from tools.gpu.running import Outcome, run_sections
from tools.gpu.sections import SECTIONS

_CHECKOUT = Path(__file__).resolve().parents[2]
_RESULTS = _CHECKOUT / "benchmarks" / "results" / "gpu"
_DESCRIPTION = """\
Check and measure everything that needs an NVIDIA GPU, in under eight minutes, and write a report.

  tools/gpu_check                          in an environment that it makes: .venv-gpu, with fastseg[gpu,test]
  tools/gpu_check --no-install             in a Python that has it all: FASTSEG_PYTHON, or the first >= 3.11
  tools/gpu_check --only device --only throughput
  tools/gpu_check --data DIR               a cohort of real volumes instead of phantoms

Works with what it finds: TensorRT, TensorRT-RTX, or only the device layer; what could not be checked is said,
with what it would take. Each section is a process with its part of the time: one that crashes or hangs costs
only itself. The report is written after each section, to benchmarks/results/gpu/GPU-DATE.json and .md;
without a GPU it goes to stdout, unless --out names a folder.

Exit codes: 0 nothing was wrong in what could be checked, 1 something was, 2 usage, 3 nothing could be checked
(no GPU, no driver), 130 interrupted.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the check.

    Returns
    -------
    code : see `_DESCRIPTION`
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = _parse(words)
    chosen = [each for each in SECTIONS if not options.only or each.name in ("found", *options.only)]
    facts: dict[str, object] = {
        "date": datetime.date.today().isoformat(),
        "host": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "command": shlex.join(["tools/gpu_check", *_public(words)]),
    }
    outcomes: list[Outcome] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fastseg-gpu-check-", ignore_cleanup_errors=True) as work:
        settings = Settings(
            gpu=options.gpu,
            precisions=tuple(options.precision or PRECISIONS),
            data=options.data.resolve() if options.data else None,
            volumes=options.volumes,
            largest=options.largest,
            work=Path(work),
            hardware=options.hardware,
        )
        try:
            for outcome in run_sections(chosen, settings, options.seconds, _say):
                outcomes.append(outcome)
                facts["gpu"] = report.gpu_name(outcomes, options.gpu)
                facts["seconds"] = round(time.monotonic() - began, 1)
                written = _write(facts, outcomes, options.out)
        except KeyboardInterrupt:
            _say("interrupted; the report has what was done before")
            return 130
    if written is None:
        print(report.as_markdown(facts, outcomes), end="")
    else:
        print(written)
    code, sentence = report.verdict(outcomes)
    _say(f"{sentence} ({facts['seconds']} s)")
    return code


def _write(facts: Mapping[str, object], outcomes: Sequence[Outcome], out: Path | None) -> Path | None:
    """Write both files; gives the one for people, None where there is no place for them."""
    folder = out or (_RESULTS if facts["gpu"] else None)
    if folder is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    stem = report.file_stem(str(facts["gpu"]), str(facts["date"]))
    (folder / f"{stem}.json").write_text(json.dumps(report.as_json(facts, outcomes), indent=1) + "\n")
    (folder / f"{stem}.md").write_text(report.as_markdown(facts, outcomes))
    return folder / f"{stem}.md"


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/gpu_check", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [section.name for section in SECTIONS]
    parser.add_argument("--seconds", metavar="S", type=float, default=450.0, help="time for all of it (450)")
    parser.add_argument("--only", action="append", choices=names, metavar="SECTION", help=", ".join(names))
    parser.add_argument("--gpu", metavar="N", type=int, default=0, help="number of the GPU (0)")
    parser.add_argument(
        "--precision",
        action="append",
        choices=PRECISIONS,
        help="may be repeated; default: all that the GPU has",
    )
    parser.add_argument(
        "--data", metavar="DIR", type=Path, help="volumes for the cohort; without it, phantoms"
    )
    parser.add_argument("--volumes", metavar="N", type=int, default=40, help="phantoms in the cohort (40)")
    parser.add_argument("--largest", metavar="N", type=int, default=256, help="largest batch (256)")
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder of the report")
    parser.add_argument("--hardware", default=REAL, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    if options.seconds <= 0 or min(options.volumes, options.largest) < 1 or options.gpu < 0:
        parser.error("--seconds is above 0, --volumes and --largest at least 1, --gpu at least 0")
    if options.data is not None and not options.data.is_dir():
        parser.error(f"--data {options.data}: there is no such folder")
    return options


def _public(words: Sequence[str]) -> list[str]:
    """The command line without folders of this machine: the report goes into the repository."""
    told, hidden = [], False
    for word in words:
        told.append("DIR" if hidden else word if "=" not in word else word.partition("=")[0])
        hidden = word in ("--data", "--out", "--hardware")
    return told


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)  # sections are killed before this process ends
    sys.exit(main())
