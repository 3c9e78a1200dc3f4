"""What a server gives of a report: its page, its pictures, and the volumes themselves for a look in 3D.

The report's own files are found by the form of their names and must lie in its folder; images and masks are
those that its rows and details name, and only if they begin as volumes do. Nothing else of the disk is given.
"""

from __future__ import annotations

import io
import os
import re
import threading
import zlib
from collections.abc import Callable
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import IO, Any

from fastseg.errors import InputError
from fastseg.nifti_header import checked_geometry, read_header
from fastseg.niivue import SCRIPT
from fastseg.qc.journal import FOLDER as JOURNALS
from fastseg.qc.journal import is_id
from fastseg.qc.marks import read_flags, save_flags
from fastseg.qc.report import Report, page_files, script_json
from fastseg.web import Refused, Reply, Request, Routes, open_file

__all__ = ["report_routes"]

_PICTURE = re.compile(r"([0-9a-f]{2})/(\1[0-9a-f]{14}(?:\.js|\.jpg|\.png|_thumb\.jpg))")
_VOLUME = re.compile(r"([0-9a-f]{16})(\.nii|\.nii\.gz)")
_VOLUME_PAGE = ("volume.html", "volume.js", "volume.css")
_SCRIPT = "text/javascript; charset=utf-8"
#: Files of a volume that its details name, and what a page calls them.
_KINDS = ("image", "mask", "manual")


def report_routes(folder: Path) -> Routes:
    """Routes of a site for one report; what runs add to it meanwhile is told to the page, which can show it.

    Parameters
    ----------
    folder : of the report; marks are kept there if it may be written

    Raises
    ------
    OutputError
        It is no report, or one of another version.
    """
    shown = _Shown(folder)
    shown.report.identity  # noqa: B018 - checks it
    page = resources.files("fastseg.qc").joinpath("page")
    static = page_files()
    routes: dict[str, Callable[[Request], Reply]] = {
        "GET ": _always(static["index.html"], "index.html"),
        "GET index.js": shown.index,
        "GET served.json": shown.served,
        "GET news.json": shown.news,
        "GET volumes/": shown.picture,
        "GET volume.json": shown.volume,
        "GET niivue.js": lambda request: Reply(SCRIPT),
        "PUT marks": shown.mark,
    }
    routes |= {f"GET {kind}/": shown.file for kind in _KINDS}
    routes |= {f"GET page/{name}": _always(content, name) for name, content in static.items()}
    routes |= {f"GET {name}": _always(page.joinpath(name).read_bytes(), name) for name in _VOLUME_PAGE}
    return routes | {"GET index.html": routes["GET "]}


def _always(content: bytes, name: str) -> Callable[[Request], Reply]:
    kinds = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": _SCRIPT}
    reply = Reply(content, kinds.get(Path(name).suffix, "application/octet-stream"))
    return lambda request: reply


class _Shown:
    """A report that is shown: its handlers, and its rows as long as no journal has changed."""

    def __init__(self, folder: Path) -> None:
        self.report = Report(folder)
        self._folder = folder.resolve()
        self._lock = threading.Lock()
        self._state: object = None
        self._rows: dict[str, dict[str, Any]] = {}

    def index(self, request: Request) -> Reply:
        """index.js as it would be made now."""
        rows = self._newest()
        if not rows and (self._folder / "index.js").exists():  # somebody left the journals behind
            return Reply(self._own("index.js"), _SCRIPT)
        record = {**self.report.identity, "volumes": list(rows.values()), "marks": read_flags(self._folder)}
        return Reply(f"fastsegIndex({script_json(record)});\n".encode(), _SCRIPT)

    def served(self, request: Request) -> Reply:
        """What the page can do here that it cannot where it is only a file."""
        return Reply.json({"marks": os.access(self._folder, os.W_OK), "news": True, "viewer": True})

    def news(self, request: Request) -> Reply:
        """How many entries are newer than what a page has: its newest, and how many it has."""
        rows, since, known = self._newest(), request.query.get("since", ""), request.query.get("known", "")
        newer = sum(row["at"] > since for row in rows.values())
        # What a machine wrote whose clock is behind is not newer, but one more.
        more = len(rows) - int(known) if re.fullmatch(r"[0-9]{1,9}", known) else 0
        return Reply.json({"count": max(newer, more)})

    def mark(self, request: Request) -> Reply:
        """Keep the marks that a page sends."""
        record = request.json()
        if not isinstance(record, dict):
            raise Refused(400, "the body is no record of marks")
        rows = list(self._newest().values())
        with self._lock:
            save_flags(self._folder, record, rows)
        return Reply(status=204)

    def picture(self, request: Request) -> Reply:
        """One file of a volume in the report."""
        found = _PICTURE.fullmatch(request.rest)
        if not found:
            raise Refused(404)
        kinds = {".js": _SCRIPT, ".jpg": "image/jpeg", ".png": "image/png"}
        return Reply(self._own("volumes", *found.groups()), kinds[Path(found[2]).suffix])

    def volume(self, request: Request) -> Reply:
        """What the page of one volume has to know: names, and where its files are or why they are not."""
        key = request.query.get("id", "")
        row, paths = self._row(key), self._paths(key)
        files = {kind: _state_of(key, kind, paths.get(kind, "")) for kind in _KINDS}
        if not files["manual"]["url"]:  # most volumes have no corrected mask
            files["manual"] = {"url": "", "name": "", "problem": "", "affine": None}
        facts = {name: row[name] for name in ("name", "subject", "contrast", "status", "message")}
        return Reply.json({"id": key, **facts, **files})

    def file(self, request: Request) -> Reply:
        """An image or mask that the details of a volume name."""
        found = _VOLUME.fullmatch(request.rest)
        if not found:
            raise Refused(404)
        path = self._paths(found[1]).get(request.path.partition("/")[0], "")
        if _suffix(path) != found[2]:
            raise Refused(404)
        return Reply(_open_volume(Path(path))[0], "application/octet-stream")

    def _own(self, *parts: str) -> IO[bytes]:
        """A file of the report's folder; a link that leads out of it is not followed."""
        path = self._folder.joinpath(*parts).resolve()
        if not path.is_relative_to(self._folder):
            raise Refused(404)
        return open_file(path)

    def _newest(self) -> dict[str, dict[str, Any]]:
        """Rows by id, the worst first."""
        with self._lock:
            state = _journals(self._folder)
            if state != self._state:
                self._rows = {row["id"]: row for row in self.report.rows()}
                self._state = state
            return self._rows

    def _row(self, key: str) -> dict[str, Any]:
        row = self._newest().get(key)
        if row is None:
            raise Refused(404, "the report has no such volume")
        return row

    def _paths(self, key: str) -> dict[str, str]:
        """Files that belong to a volume of the report."""
        self._row(key)
        detail = self.report.detail(key) if is_id(key) else None
        paths = (detail or {}).get("paths")
        if not isinstance(paths, dict):
            return {}
        return {
            kind: path for kind, path in paths.items() if isinstance(path, str) and Path(path).is_absolute()
        }


def _journals(folder: Path) -> object:
    """Changes when a row is written."""
    found = []
    for path in sorted((folder / JOURNALS).glob("*.jsonl")):
        with suppress(FileNotFoundError):
            known = path.stat()
            found.append((path.name, known.st_size, known.st_mtime_ns))
    return found


def _suffix(path: str) -> str:
    """Ending of a volume's name, as the page's addresses have it."""
    found = re.search(r"\.nii(\.gz)?$", path, re.IGNORECASE)
    return found[0].lower() if found else ""


def _state_of(key: str, kind: str, path: str) -> dict[str, Any]:
    """Address of a file for the page and where it lies in space, or what is wrong with it."""
    state: dict[str, Any] = {"url": "", "name": Path(path).name, "problem": "", "affine": None}
    if not path:
        return state | {"problem": "the report names no such file"}
    try:
        stream, header = _open_volume(Path(path))
    except Refused:
        there = Path(path).exists()
        return state | {
            "problem": f"{path}: " + ("cannot be read as NIfTI" if there else "is not there any more")
        }
    stream.close()
    with suppress(InputError):  # the page takes what it can of a bad one
        state["affine"] = checked_geometry(Path(path), header)[0].tolist()
    return state | {"url": f"{kind}/{key}{_suffix(path)}"}


def _open_volume(path: Path) -> tuple[IO[bytes], Any]:
    """Open a file that begins as a NIfTI volume does, whatever its name; gives its header, too.

    Raises
    ------
    Refused
        It does not, or cannot be read.
    """
    if not _suffix(os.fspath(path)):
        raise Refused(404)
    stream = open_file(path)
    try:
        begin = stream.read(4096)
        if begin[:2] == b"\x1f\x8b":
            begin = zlib.decompressobj(wbits=31).decompress(begin, 1024)
        header = read_header(path, io.BytesIO(begin))
        stream.seek(0)
    except (OSError, zlib.error, InputError) as error:
        stream.close()
        raise Refused(404) from error
    return stream, header
