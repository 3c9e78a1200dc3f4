"""fastseg qc: make the report of past runs, and show a report in the browser."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastseg.cli import Exit
from fastseg.cli.shared import put, say, usable_threads
from fastseg.errors import OptionError

if TYPE_CHECKING:
    from fastseg.qc.report import Report

__all__ = ["command"]

_FOLDER = "qc"
_path = click.Path(path_type=Path)


@click.group("qc")
def command() -> None:
    """Look at results: the QC report, a page with all volumes of a cohort, worst first.

    `fastseg run ... --qc DIR` adds to a report while it runs; `build` makes one of runs of the past.
    DIR/index.html opens in any browser, without a network; `serve` and `open` add what needs a server: marks
    are kept in DIR, and volumes are shown in 3D.
    """


@command.command("build", short_help="Make the report of past runs, with masks corrected since.")
@click.argument("where", metavar="WHERE", type=_path)
@click.option("--qc", "folder", metavar="DIR", type=_path, help="Folder of the report.  [default: WHERE/qc]")
@click.option("--inputs", metavar="DIR", type=_path, help="Where the images lie, if they moved.")
@click.option("--qc-dataset", metavar="NAME", default="", help="Name of the data set in the report.")
@click.option(
    "--qc-subject", metavar="NAME", default="", help="Subject of all volumes; else from their names."
)
@click.option("--overwrite", is_flag=True, help="Make entries anew that are there and unchanged.")
@click.option(
    "--single-file", metavar="FILE", type=_path, help="Also write one HTML file for e-mail, of at most 20 MB."
)
@click.option(
    "--select",
    "patterns",
    metavar="PATTERN",
    multiple=True,
    help="Volumes for --single-file, * stands for anything; may be repeated.  [default: failed and flagged]",
)
def build(
    where: Path,
    *,
    folder: Path | None,
    inputs: Path | None,
    qc_dataset: str,
    qc_subject: str,
    overwrite: bool,
    single_file: Path | None,
    patterns: tuple[str, ...],
) -> int:
    """Make the report of what is in WHERE: an output folder of runs, or a report whose index is made anew.

    Masks corrected by hand (_desc-manual) are read into it. Entries that are unchanged are kept, so it can be
    called again at any time.

    Exit codes: 0 made, 4 there is nothing to make it of, or it cannot be written.
    """
    from fastseg.past.build import build_report, is_report
    from fastseg.qc.report import Report

    if patterns and single_file is None:
        raise OptionError("--select chooses volumes for --single-file; give that, too")
    itself = is_report(where)
    if itself and folder is not None:
        raise OptionError(f"{where}: is a report itself; leave --qc out")
    report = Report(where if itself else folder or where / _FOLDER)
    if itself:
        with report:
            pass  # entering and leaving it makes the page and the index
    else:
        built = build_report(
            where,
            report.folder,
            inputs=inputs,
            dataset=qc_dataset,
            subject=qc_subject,
            overwrite=overwrite,
            threads=usable_threads(),
            on_volume=_progress(),
        )
        for remark in built.remarks:
            say(remark)
        say(built.text())
    if single_file is not None:
        _write_single_file(report, single_file, patterns)
    put(str(report.folder / "index.html"))
    return Exit.OK


_port_option = click.option(
    "--port", type=click.IntRange(1, 65535), help="Port of the page.  [default: any that is free]"
)


@command.command("serve")
@click.argument("where", metavar="DIR", type=_path)
@_port_option
def serve(where: Path, *, port: int | None) -> int:
    """Serve the report in DIR to your browser, until Ctrl-C.

    Only this machine can reach it, with a secret in the address; another one through an SSH tunnel, whose
    command is printed. DIR may also be an output folder with a report in DIR/qc.

    Exit codes: 0 ended by Ctrl-C, 2 the port cannot be had, 5 no report there.
    """
    return _serve(where, port, show=False)


@command.command("open")
@click.argument("where", metavar="DIR", type=_path)
@_port_option
def open_(where: Path, *, port: int | None) -> int:
    """Serve the report in DIR and open it in the browser, until Ctrl-C.

    Exit codes: 0 ended by Ctrl-C, 2 the port cannot be had, 5 no report there.
    """
    return _serve(where, port, show=True)


def _serve(where: Path, port: int | None, *, show: bool) -> int:
    from fastseg.qc.serve import report_routes
    from fastseg.serving import Site, is_remote, open_browser

    folder = next((each for each in (where, where / _FOLDER) if (each / "report.json").is_file()), None)
    if folder is None:
        remedy = f"make one: fastseg qc build {shlex.quote(str(where))}"
        put(f"fastseg: error: {where}: no QC report there; {remedy}", err=True)
        return Exit.NOTHING_MATCHED
    with Site(report_routes(folder), port or 0) as site:
        try:
            put(site.url)
            if is_remote():
                say(f"on your own machine, run: {site.tunnel_command()}")
                say("then open the address above in its browser")
            elif show and not open_browser(site.url):
                say("no browser could be opened; open the address above in one")
            if not os.access(folder, os.W_OK):
                kept = "marks are kept in the browser alone; save them from there"
                say(f"{folder}: cannot be written, so {kept}")
            say(f"serving {folder} to this machine only; Ctrl-C ends it")
            site.wait()
        except KeyboardInterrupt:  # a program may press it as soon as it has the address
            say("no longer served")
    return Exit.OK


def _progress() -> Callable[[int, int, str], None] | None:
    """Show on a terminal how many volumes are done; elsewhere nothing."""
    if not sys.stderr.isatty():
        return None

    def show(done: int, total: int, name: str) -> None:
        end = "\n" if done == total else ""
        click.echo(f"\rfastseg: {done} of {total} volumes{end}", err=True, nl=False)

    return show


def _write_single_file(report: Report, path: Path, patterns: Sequence[str]) -> None:
    from fastseg.past.build import selection
    from fastseg.qc.single_file import write_single_file

    chosen = selection(report.rows(), patterns)
    if not chosen:
        say(f"{path}: not written: no volume failed or is flagged; choose some with --select, '*' for all")
        return
    left = write_single_file(report, path, chosen)
    say(f"{path}: {len(chosen) - len(left)} volumes")
    if left:
        say(f"{path}: {len(left)} volumes did not fit into 20 MB, the least urgent; choose with --select")
