"""fastseg view: draw the centerline of volumes by hand, in a page of the browser."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastseg.cli import Exit
from fastseg.cli.shared import frame_option, put, say
from fastseg.cli.sitting import hold_sitting
from fastseg.errors import InputError, OptionError
from fastseg.outputs import split_suffix

if TYPE_CHECKING:
    from fastseg.nifti import Frame
    from fastseg.viewer.drawing import Drawing
    from fastseg.viewer.failed import Failed, Rerun

__all__ = ["command"]


@click.command("view", context_settings={"show_default": True})
@click.argument("volume", metavar="[INPUT]", required=False, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "out",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="File of the points, ending in .json; what is in it already is shown.  "
    "[default: <input>_points.json in the current folder]",
)
@click.option(
    "--failed",
    metavar="OUT_DIR",
    type=click.Path(path_type=Path),
    help="Instead of INPUT: the volumes of a run in which no cord was found; then run them again.",
)
@click.option("--flagged", is_flag=True, help="With --failed: those with quality flags, too.")
@click.option(
    "--inputs",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="With --failed: the data set, where it moved or OUT_DIR is of an old version.",
)
@click.option("--no-run", is_flag=True, help="With --failed: only say how to run them again.")
@frame_option
@click.option("--port", type=click.IntRange(1, 65535), help="Of the page.  [default: any that is free]")
@click.option("--no-browser", is_flag=True, help="Open none; the address is printed.")
def command(
    volume: Path | None,
    *,
    out: Path | None,
    failed: Path | None,
    flagged: bool,
    inputs: Path | None,
    no_run: bool,
    frame: Frame | None,
    port: int | None,
    no_browser: bool,
) -> int:
    """Click points on the cord; a smooth curve through them becomes its centerline.

    The page is served to this machine only, behind a secret address, and ends when all is drawn. From another
    machine, an SSH tunnel leads to it; its command is printed.

    FILE is for --file-centerline of fastseg run and fastseg centerline. Beside it go the points as labels,
    <input>_labels.nii.gz, and the curve, <input>_centerline.nii.gz. With --failed, the points go beside the
    masks, where the next run into OUT_DIR finds them.

    Exit codes: 0 all fine, 4 nothing was drawn, 5 no run of fastseg in OUT_DIR, 130 cancelled; of the run
    that follows, those of fastseg run.
    """
    if (volume is None) == (failed is None):
        raise click.UsageError("give INPUT, or --failed OUT_DIR")
    if failed is None and (flagged or no_run or inputs is not None):
        raise click.UsageError("--flagged, --inputs and --no-run go with --failed OUT_DIR")
    if failed is not None:
        if out is not None:
            raise click.UsageError("-o goes with INPUT: with --failed, points go beside the masks")
        return _view_failed(failed, flagged, inputs, frame, port or 0, browser=not no_browser, run=not no_run)
    assert volume is not None
    return _view(volume, out, frame, port or 0, browser=not no_browser)


def _view(volume: Path, out: Path | None, frame: Frame | None, port: int, *, browser: bool) -> int:
    from fastseg.cohort.plan.places import Folders
    from fastseg.viewer.drawing import Drawing

    if volume.is_dir():
        raise InputError(f"{volume}: is a folder, not a volume; --failed OUT_DIR shows those of a run")
    target = out if out is not None else Path(f"{split_suffix(volume)[0]}_points.json")
    if not target.name.lower().endswith(".json") or target.is_dir():
        raise OptionError(f"-o {target}: the points are JSON: give a name that ends in .json")
    Folders().check_writable(target.parent)
    drawing = Drawing(volume.name, volume, target, frame)
    held = hold_sitting([drawing], port=port, browser=browser, on_saved=lambda each: put(str(each.target)))
    if held.cancelled:
        return _cancelled(len(held.saved))
    if not held.saved:
        say("nothing was drawn")
        return Exit.NONE_SUCCEEDED
    return Exit.OK


def _cancelled(saved: int) -> int:
    say(f"cancelled; {'what was saved stays' if saved else 'nothing was saved'}")
    return Exit.INTERRUPTED


# --- volumes of a run


def _view_failed(
    out: Path,
    flagged: bool,
    inputs: Path | None,
    frame: Frame | None,
    port: int,
    *,
    browser: bool,
    run: bool,
) -> int:
    from fastseg.cohort.ledger import read_ledgers
    from fastseg.cohort.plan.words import counted
    from fastseg.viewer.failed import find_failed, reruns

    history = read_ledgers(out)
    if not history.ends and not history.runs:
        click.echo(
            f"fastseg: error: {out}: no run of fastseg wrote there (no .fastseg/ledger.jsonl)", err=True
        )
        return Exit.NOTHING_MATCHED
    found = find_failed(history, out, flagged=flagged, inputs=inputs, frame=frame)
    for count, why in (
        (len(found.lost), "the ledger does not say where they lie: give the data set, --inputs DIR"),
        (len(found.named), "their centerlines are named in a list or by --file-centerline: mend those"),
    ):
        if count:
            say(f"{counted(count)} left out, {why}")
    volumes = found.volumes
    if not volumes and (found.lost or found.named):
        return Exit.NONE_SUCCEEDED
    if not volumes:
        kinds = "without a cord or with quality flags" if flagged else "without a cord"
        say(f"{out}: the ledger knows no volume {kinds}")
        return Exit.OK
    drawn = [each for each in volumes if each.waits]
    if drawn:
        say(f"{counted(len(drawn))} with points already, which no run has taken yet")
    ahead = {each.drawing: each for each in volumes if not each.waits}
    if ahead:
        held = hold_sitting([*ahead], port=port, browser=browser, on_saved=_say_saved)
        if held.cancelled:
            return _cancelled(len(held.saved))
        drawn += [ahead[drawing] for drawing in held.saved]
    if not drawn:
        say("nothing was drawn")
        return Exit.NONE_SUCCEEDED
    return _run_again(reruns(history, drawn), drawn, run=run)


def _say_saved(drawing: Drawing) -> None:
    put(f"fastseg: {drawing.name}: points saved", err=True)


def _run_again(commands: list[Rerun], drawn: list[Failed], *, run: bool) -> int:
    """Run what takes the points up, or say what would."""
    from fastseg.cohort.plan.words import counted

    codes = [int(Exit.OK)]
    for each in commands:
        text = shlex.join(["fastseg", *each.words])
        where = f"cd {shlex.quote(each.cwd)} && " if each.cwd else ""
        if run and each.by_itself:
            put(f"fastseg: taking up the points of {counted(len(drawn))}: {text}", err=True)
            codes.append(_run(each))
        else:
            put(f"fastseg: to segment them, in the same way as before: {where}{text}", err=True)
    return max(codes)


def _run(command: Rerun) -> int:
    """Run fastseg in a process of its own, to which signals are left."""
    process: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, frame: object) -> None:
        if process is not None and number == signal.SIGTERM:  # Ctrl-C reaches it from the terminal
            process.terminate()

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        # -P: what lies in that folder is data, also where it is called fastseg.
        words = [sys.executable, "-P", "-m", "fastseg", *command.words]
        process = subprocess.Popen([os.fsencode(word) for word in words], cwd=os.fsencode(command.cwd))
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code
