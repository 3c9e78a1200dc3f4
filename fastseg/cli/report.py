"""fastseg report: what the ledgers of an output folder say, all shards together."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import click

from fastseg.cli import Exit
from fastseg.cli.cohort import exit_code
from fastseg.cli.shared import put, say

__all__ = ["command"]

_GOOD = ("ok", "ok_flagged", "skipped", "cached")


@click.command("report", context_settings={"show_default": True})
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "json", "tsv"]),
    default="text",
    help="Counts and failures for people, or a record of each volume.",
)
@click.option("--summary/--no-summary", default=True, help="Write OUT/summary.tsv anew.")
def command(out: Path, *, style: str, summary: bool) -> int:
    """Say what became of the volumes of an output folder.

    Reads the ledgers of all runs and shards in OUT; nothing is segmented. May be called while runs go on.

    Exit codes: 0 all volumes succeeded, 3 some failed, 4 all failed, 5 no ledger there.
    """
    from fastseg.cohort.ledger import read_ledgers
    from fastseg.cohort.report import SUMMARY, causes, summary_rows, summary_text, write_summary

    history = read_ledgers(out)
    if not history.ends and not history.runs:
        click.echo(
            f"fastseg: error: {out}: no run of fastseg wrote there (no .fastseg/ledger.jsonl)", err=True
        )
        return Exit.NOTHING_MATCHED
    counts = Counter(str(line.get("status", "")) for line in history.ends.values())
    failed = [row for row in summary_rows(history) if row["status"] not in _GOOD]
    if style == "json":
        volumes = list(summary_rows(history))
        click.echo(json.dumps({"Counts": dict(counts), "Volumes": volumes}, indent=2))
    elif style == "tsv":
        put(summary_text(history).removesuffix("\n"))
    else:
        flags = Counter(flag for line in history.ends.values() for flag in line.get("flags", ()))
        put(
            f"{len(history.ends)} volumes: "
            + ", ".join(f"{n} {status}" for status, n in counts.most_common())
        )
        if flags:
            put("quality flags: " + ", ".join(f"{n} {flag}" for flag, n in flags.most_common()))
        for count, cause in causes((str(row["status"]), str(row["message"])) for row in failed):
            put(f"{count} x {cause}")
        for row in failed:
            put(f"{row['status']:<13} {row['name']}  {row['message']}")
        if history.begun:
            put(f"{len(history.begun)} volumes were begun and not ended: their run goes on, or was killed")
    if history.foreign:
        say(f"{history.foreign} lines of the ledgers are not fastseg's: they are passed over")
    if summary:
        write_summary(history, out)
        say(f"table of all volumes: {out / SUMMARY}")
    return exit_code(len(history.ends) - len(failed), len(failed), None)
