"""Write the table of a README from JSON lines of the benchmarks.

    python -m benchmarks.table RESULTS.jsonl... [--into README.md]

The table replaces what stands between the lines `<!-- benchmarks -->` and `<!-- /benchmarks -->` of the file;
without --into it is printed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

_START, _END = "<!-- benchmarks -->", "<!-- /benchmarks -->"
_Line = dict[str, Any]


def table(lines: list[_Line]) -> str:
    """Markdown of all cases: fastseg's own line, what it is compared with, and the target."""
    runs: list[_Line] = [line for line in lines if "machine" in line]
    cases: dict[str, list[_Line]] = {}
    for line in lines:
        if "case" in line:
            cases.setdefault(line["case"], []).append(line)
    rows = [
        "| what | fastseg | compared with | ratio | target | reached |",
        "|---|--:|---|--:|---|---|",
    ]
    for own, *others in cases.values():
        compared = [other for other in others if not other["contender"].startswith("fastseg")]
        if own["case"].startswith(("workers", "report")):  # ways of fastseg itself
            compared = others
        names = "<br>".join(f"{o['contender']}: {_taken(o)}" for o in compared)
        ratios = "<br>".join(f"{o.get('wall_ratio', o['ratio']):.3g}x" for o in compared)
        judged = next((line for line in (own, *others) if "target" in line), None)
        rows.append(f"| {own['title']} | {_own(own)} | {names} | {ratios} | {_target(judged)} |")
    commands = ", ".join(f"`{command}`" for command in dict.fromkeys(run["command"] for run in runs))
    first = runs[0]
    machine = (
        f"{first['machine']}, {first['cpus']} CPUs, Python {first['python']}, numba {first['numba']}, "
        f"onnxruntime {first['onnxruntime']}; {first['date']}."
    )
    note = f"Median CPU seconds of one run, for cohorts seconds by the clock, from {commands}. {machine}"
    return "\n".join([note, "", *rows])


def _own(line: _Line) -> str:
    text = _taken(line)
    if "steps" in line:
        text += f", of it {_time(line['steps']['everything_else'])} neither inference nor gzip"
    if "memory" in line["case"] or line["case"] == "budget":
        text += f", {line['rss_mb_peak']} MB"
    if line["case"] == "help":
        text += f", {_time(line['wall_seconds_median'])} by the clock"
    return text


def _target(line: _Line | None) -> str:
    if line is None:
        return " | "
    measure, sign, limit = line["target"].split()
    value = line["target_value"]
    if "ratio" in measure or "floor" in measure:
        words, reached = f"{limit}x", f"{value:.3g}x"
    elif measure == "rss_mb_peak":
        words, reached = f"{limit} MB", f"{value} MB"
    elif measure == "more_cpu_ms_per_volume":
        words, reached = (f"{each} ms of CPU more a volume" for each in (limit, value))
    else:
        words, reached = _time(float(limit)), _time(value)
    bound = "at least" if sign == ">=" else "under"
    return f"{bound} {words} | {'yes' if line['target_holds'] else 'no'}, {reached}"


def _taken(line: _Line) -> str:
    """What a contender took: of what uses several cores, the clock's time."""
    return _time(line["wall_seconds_median" if "wall_ratio" in line else "cpu_seconds_median"])


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def replaced(text: str, content: str) -> str:
    """The text with the content between the two markers."""
    before, start, rest = text.partition(_START)
    _, end, after = rest.partition(_END)
    if not start or not end:
        raise SystemExit(f"there is no {_START} ... {_END} to write into")
    return f"{before}{_START}\n{content}\n{_END}{after}"


def main() -> None:
    """Print the table, or write it into a file."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.table",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument(
        "results", nargs="+", type=Path, help="JSON lines; of a case in several, the last counts"
    )
    parser.add_argument("--into", type=Path, help="file with the two markers")
    options = parser.parse_args()
    lines: list[_Line] = []
    for path in options.results:
        new = [json.loads(line) for line in path.read_text().splitlines()]
        cases = {line.get("case") for line in new if "case" in line}
        lines = [line for line in lines if line.get("case") not in cases] + new
    text = table(lines)
    if options.into is None:
        print(text)
    else:
        options.into.write_text(replaced(options.into.read_text(), text))


if __name__ == "__main__":
    main()
