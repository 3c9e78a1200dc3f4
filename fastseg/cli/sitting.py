"""A sitting at the centerline viewer: the page is served, and the terminal listens meanwhile."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from fastseg.cli import Exit
from fastseg.cli.shared import say, terminable
from fastseg.errors import FastsegError

if TYPE_CHECKING:
    from fastseg.cohort.job import Job
    from fastseg.serving import Site
    from fastseg.viewer.drawing import Drawing
    from fastseg.viewer.routes import PageClock
    from fastseg.viewer.sitting import Sitting

__all__ = ["Held", "hold_sitting", "with_points"]

# How often the terminal and the page are looked after.
_TICK_SECONDS = 0.1
# A page that is silent for so long is closed: browsers let pages in the background speak once a minute.
_SILENCE_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class Held:
    """How a sitting ended.

    Parameters
    ----------
    saved : drawings that have points now
    left_out : those that could not be shown
    cancelled : whether the user wants nothing to be done with them
    """

    saved: tuple[Drawing, ...]
    left_out: tuple[Drawing, ...]
    cancelled: bool


def hold_sitting(
    drawings: Sequence[Drawing],
    *,
    port: int = 0,
    browser: bool = True,
    on_saved: Callable[[Drawing], None] = lambda _: None,
) -> Held:
    """Let the user draw, in a page and until all is drawn, skipped, finished or cancelled.

    Parameters
    ----------
    port : of the page; 0: any
    browser : whether one is opened, where there is a screen
    on_saved : is told of each drawing when it is saved

    Raises
    ------
    InputError
        None of the volumes can be read.
    OptionError
        Something else would be overwritten, or the port cannot be had.
    KeyboardInterrupt
        Ctrl-C; what was saved stays.
    """
    from fastseg.serving import Site
    from fastseg.viewer.routes import PageClock, sitting_routes
    from fastseg.viewer.sitting import Sitting

    sitting, clock = Sitting(drawings), PageClock()
    for message in sitting.left_out.values():
        say(f"left out: {message}")
    told: list[Drawing] = []
    try:
        with terminable(), Site(sitting_routes(sitting, clock), port) as site:
            typed = _Typed()
            _invite(site, len(sitting), browser=browser, typing=typed.listens)
            warned = False
            while not sitting.over:
                for line in typed.lines(_TICK_SECONDS):
                    _obey(line, sitting)
                warned = _look_after(site, clock, warned=warned)
                _tell(sitting, told, on_saved)
    except KeyboardInterrupt:
        _tell(sitting, told, on_saved)
        say(f"interrupted; {len(told)} of {len(sitting)} volumes have points, which stay")
        raise
    _tell(sitting, told, on_saved)
    return Held(tuple(told), tuple(sitting.left_out), sitting.cancelled)


def with_points(
    jobs: Sequence[Job], *, again: bool = False, port: int = 0, browser: bool = True
) -> list[Job]:
    """Let the user draw the centerlines of a run's volumes, in one sitting before it begins.

    Volumes that have points beside their mask, a centerline of their own, or a detector that a list says, are
    not drawn on.

    Parameters
    ----------
    jobs : planned with the detector ``auto``
    again : whether those that have points are shown as well, to change them

    Returns
    -------
    jobs : those that were drawn on with their points; those that the user passed over are skipped, and say
        so; what cannot be shown fails by itself

    Raises
    ------
    click.exceptions.Exit
        The user cancelled.
    """
    from fastseg.viewer.drawing import Drawing

    drawings: dict[Drawing, int] = {}
    for number, job in enumerate(jobs):
        new = job.centerline is None and job.options.detector == "auto"
        if not job.skip and (new or (again and job.centerline == job.outputs.points)):
            drawing = Drawing(job.name, job.source, job.outputs.points, job.frame, with_curve=False)
            drawings[drawing] = number
    if not drawings:
        return [*jobs]
    held = hold_sitting([*drawings], port=port, browser=browser)
    if held.cancelled:
        say(f"cancelled, nothing was segmented; {len(held.saved)} volumes have points, which stay")
        raise click.exceptions.Exit(Exit.INTERRUPTED)
    drawn = [*jobs]
    for drawing, number in drawings.items():
        job = jobs[number]
        if drawing in held.saved:
            options = replace(job.options, detector="file")
            drawn[number] = replace(job, centerline=drawing.target, options=options)
        elif job.centerline is None and drawing not in held.left_out:
            drawn[number] = replace(job, skip="no points were drawn on it")
    return drawn


def _invite(site: Site, count: int, *, browser: bool, typing: bool) -> None:
    """Say where the page is, and open it."""
    from fastseg.serving import is_remote, open_browser

    volumes = "1 volume" if count == 1 else f"{count} volumes"
    say(f"{volumes} to draw on, in a browser: {site.url}")
    if is_remote():
        say(f"on your own machine, run before that: {site.tunnel_command()}")
    elif browser and not open_browser(site.url):
        say("no browser could be opened; open the address in one")
    if typing:
        say(
            "here, Enter saves the volume that is shown, s skips it, q cancels; so do the buttons of the page"
        )


def _obey(line: str, sitting: Sitting) -> None:
    """Do what was typed."""
    word = line.strip().lower()
    try:
        if word == "":
            sitting.save(sitting.current)
        elif word == "s":
            sitting.skip(sitting.current)
        elif word == "q":
            sitting.finish(cancel=True)
        else:
            say("Enter saves the volume that is shown, s skips it, q cancels")
    except FastsegError as error:
        say(str(error))


def _look_after(site: Site, clock: PageClock, *, warned: bool) -> bool:
    """Say once when the page seems to be closed; whether that is said."""
    silent = clock.silent_seconds > _SILENCE_SECONDS
    if silent and not warned:
        say(f"the page seems to be closed; what was drawn is kept. To go on, open it again: {site.url}")
    return silent


def _tell(sitting: Sitting, told: list[Drawing], on_saved: Callable[[Drawing], None]) -> None:
    """Say what was saved since."""
    for drawing in sitting.saved:
        if drawing not in told:
            told.append(drawing)
            on_saved(drawing)


class _Typed:
    """Lines that are typed into the terminal, if it is one."""

    def __init__(self) -> None:
        self._rest = b""
        self._stream: int | None = None
        with suppress(OSError, ValueError, AttributeError):  # closed, or not even there
            self._stream = sys.stdin.fileno() if sys.stdin.isatty() else None

    @property
    def listens(self) -> bool:
        """Whether there is a terminal."""
        return self._stream is not None

    def lines(self, seconds: float) -> list[str]:
        """What was typed; waits so long for it."""
        if self._stream is None or not self._in_foreground(self._stream):
            time.sleep(seconds)
            return []
        if not select.select([self._stream], [], [], seconds)[0]:
            return []
        typed = b""
        with suppress(OSError):
            typed = os.read(self._stream, 4096)
        if not typed:  # the terminal was closed, or Ctrl-D
            self._stream = None
        *lines, self._rest = (self._rest + typed).split(b"\n")
        return [line.decode(errors="replace") for line in lines]

    @staticmethod
    def _in_foreground(stream: int) -> bool:
        """Whether this process may read: one in the background would be stopped."""
        with suppress(OSError):
            return os.tcgetpgrp(stream) == os.getpgrp()
        return True
