"""What the viewer's page may ask for, and what it gets: the protocol between page and sitting.

======================== ====================================================================================
request                  answer
======================== ====================================================================================
GET                      the page; ``page/NAME`` its parts; ``niivue.js``
GET sitting.json         a record: volumes with number, name, state, points, image; current, over, cancelled;
                         and change, a number that grows
GET image/N.nii.gz       a volume
POST curve               of {number, points}: {curve, notes}
PUT points               of {number, points}: what the page has, each time that it changes: {change}
POST save                of {number, points, if not put before}: a record. 400 where there is nothing to save
POST skip                of {number}: a record
POST cancel, finish      a record, in which it is over
POST alive               a record; with {change}, only when that is no longer the last, or after a while: the
                         page that asks again at once follows what is typed in the terminal
======================== ====================================================================================

Points are [x, y, z] in RAS+ mm of the image's own affine. What fails has a status of 400 and more, and one
line of text.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastseg.niivue import SCRIPT
from fastseg.viewer.sitting import Sitting
from fastseg.web import Handler, Refused, Reply, Request, Routes

__all__ = ["PageClock", "sitting_routes"]

_PAGE = Path(__file__).with_name("page")
_IMAGE = re.compile(r"([0-9]{1,9})\.nii(\.gz)?")
# How long an answer waits for a change: less than tunnels and browsers leave a silent connection open.
_HOLD_SECONDS = 10.0


class PageClock:
    """When the page was last heard of."""

    def __init__(self) -> None:
        self._last = 0.0

    def tick(self) -> None:
        """Note that it is there."""
        self._last = time.monotonic()

    @property
    def silent_seconds(self) -> float:
        """Since it was heard of; 0 before it was there at all."""
        return time.monotonic() - self._last if self._last else 0.0


def sitting_routes(sitting: Sitting, clock: PageClock) -> Routes:
    """Make the routes of a sitting.

    Parameters
    ----------
    sitting : that the page shows
    clock : is told of every request
    """
    files = {path.name: path for path in _PAGE.iterdir() if path.is_file()}

    def page(request: Request) -> Reply:
        if request.rest not in files:
            raise Refused(404)
        return Reply(files[request.rest])

    def image(request: Request) -> Reply:
        found = _IMAGE.fullmatch(request.rest)
        if not found:
            raise Refused(404)
        return Reply(sitting.image(int(found[1])), "application/gzip")

    def curve(request: Request) -> Reply:
        said = _said(request)
        line, notes = sitting.curve(said.get("number"), said.get("points"))
        return Reply.json({"curve": line, "notes": notes})

    def put(request: Request) -> Reply:
        said = _said(request)
        return Reply.json({"change": sitting.put(said.get("number"), said.get("points"))})

    def save(said: dict[str, Any]) -> None:
        sitting.save(said.get("number"), said.get("points"))

    def alive(request: Request) -> Reply:
        known = _said(request).get("change")
        if isinstance(known, int):
            sitting.wait_for_change(known, _HOLD_SECONDS)
        return Reply.json(sitting.record())

    def changing(act: Callable[[dict[str, Any]], None]) -> Handler:
        def handler(request: Request) -> Reply:
            act(_said(request))
            return Reply.json(sitting.record())

        return handler

    def ticking(handler: Handler) -> Handler:
        def ticked(request: Request) -> Reply:
            clock.tick()
            try:
                return handler(request)
            finally:  # an answer may have been held for a while
                clock.tick()

        return ticked

    routes: dict[str, Handler] = {
        "GET ": lambda _: Reply(_PAGE / "index.html"),
        "GET page/": page,
        "GET niivue.js": lambda _: Reply(SCRIPT),
        "GET sitting.json": lambda _: Reply.json(sitting.record()),
        "GET image/": image,
        "POST curve": curve,
        "PUT points": put,
        "POST save": changing(save),
        "POST skip": changing(lambda said: sitting.skip(said.get("number"))),
        "POST cancel": changing(lambda _: sitting.finish(cancel=True)),
        "POST finish": changing(lambda _: sitting.finish()),
        "POST alive": alive,
    }
    return {route: ticking(handler) for route, handler in routes.items()}


def _said(request: Request) -> dict[str, Any]:
    """What came with a request; nothing is as good as an empty object."""
    said = request.json() if request.body else {}
    if not isinstance(said, dict):
        raise Refused(400, "the body is no JSON object")
    return said
