"""A report in one file, for e-mail: the page and chosen volumes with their pictures, all of it inline."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastseg.errors import InputError, OutputError
from fastseg.outputs import write_file
from fastseg.qc.marks import read_flags
from fastseg.qc.report import Report, page_files, script_json

__all__ = ["write_single_file"]

_LINK = re.compile(r'<link\b[^>]*\bhref="page/(?P<name>[\w.-]+\.css)"[^>]*>')
_SCRIPT = re.compile(r'<script\b[^>]*\bsrc="(?:page/)?(?P<name>[\w.-]+\.js)"[^>]*>\s*</script>')
_ANY_FILE = re.compile(r'\b(?:src|href)="(?!data:|#)[^"]*"')
_INDEX = "index.js"
# Picture files of a volume: what the page calls them, how their names end, what they are.
_PICTURES = (
    ("sheet", ".jpg", "image/jpeg"),
    ("outline", ".png", "image/png"),
    ("thumb", "_thumb.jpg", "image/jpeg"),
)
# For what stands between and around the volumes, generously.
_FRAME_BYTES = 200


def write_single_file(
    report: Report, path: Path, ids: Sequence[str], limit_bytes: int = 20_000_000
) -> list[str]:
    """Write chosen volumes of a report as one page that needs nothing else.

    Parameters
    ----------
    report : that has them
    path : HTML to write; an existing one is replaced
    ids : of the volumes, the most important first
    limit_bytes : of the file; mail servers refuse what is larger

    Returns
    -------
    left : ids of the volumes that did not fit: the first that does not, and all after it

    Raises
    ------
    InputError
        The report has no such volume.
    OutputError
        The page cannot be written, or the report not be read.
    """
    rows = {row["id"]: row for row in report.rows()}
    unknown = [key for key in ids if key not in rows]
    if unknown:
        raise InputError(f"{report.folder}: has no volume {unknown[0][:40]!r}; see its table")
    page = _Page(page_files())
    marks = {mark["id"]: mark for mark in read_flags(report.folder)}
    size = page.n_bytes + _FRAME_BYTES + len(script_json(report.identity))
    volumes, left = [], list(dict.fromkeys(ids))
    while left:
        volume = _Volume(report, rows[left[0]], marks.get(left[0]))
        size += volume.n_bytes
        if size > limit_bytes:
            break
        volumes.append(volume)
        left.pop(0)
    write_file(path, page.filled(_index(report.identity, volumes)).encode(), place="place for it")
    return left


class _Page:
    """The page with its own files inside; the place of the report's index is still open."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._texts = {name: content.decode() for name, content in files.items()}
        self._used: list[str] = []
        page = self._texts.get("index.html", "")
        indices = [found for found in _SCRIPT.finditer(page) if found["name"] == _INDEX]
        if len(indices) != 1:
            raise _unlike(f"names {_INDEX} {len(indices)} times")
        self._before = self._inlined(page[: indices[0].start()])
        self._after = self._inlined(page[indices[0].end() :])
        if sorted(self._used) != sorted(name for name in self._texts if name.endswith((".js", ".css"))):
            raise _unlike("does not name each of its files once")
        others = _ANY_FILE.search(_SCRIPT.sub("", _LINK.sub("", page)))
        if others:
            raise _unlike(f"needs another file ({others[0]})")

    @property
    def n_bytes(self) -> int:
        return len(self._before.encode()) + len(self._after.encode())

    def filled(self, index: str) -> str:
        return f"{self._before}<script>\n{index}</script>{self._after}"

    def _inlined(self, part: str) -> str:
        return _SCRIPT.sub(self._inline, _LINK.sub(self._inline, part))

    def _inline(self, found: re.Match[str]) -> str:
        name = found["name"]
        text = self._texts.get(name, "")
        self._used.append(name)
        if name.endswith(".css"):
            return f"<style>\n{text}</style>"
        # A script says such a thing only inside a string, where it means the same with the backslash.
        return "<script>\n" + text.replace("</script", "<\\/script") + "</script>"


class _Volume:
    """What the file says of one volume, as texts of scripts."""

    def __init__(self, report: Report, row: dict[str, Any], mark: dict[str, Any] | None) -> None:
        key = row["id"]
        detail = report.detail(key)
        if detail is not None:  # whoever gets the mail has not our disks
            detail |= {"paths": {}, "commands": {}}
        self.row, self.mark = row, mark
        self.detail = f'fastsegDetail("{key}",{script_json(detail)});\n' if detail is not None else ""
        self.files = {}
        for kind, ending, mime in _PICTURES:
            with suppress(OSError):
                content = (report.folder / "volumes" / key[:2] / f"{key}{ending}").read_bytes()
                self.files[kind] = f"data:{mime};base64,{base64.b64encode(content).decode()}"
        self.n_bytes = len(script_json(row)) + len(script_json(mark)) + len(self.detail)
        self.n_bytes += len(script_json(self.files)) + _FRAME_BYTES


def _index(identity: Mapping[str, Any], volumes: Sequence[_Volume]) -> str:
    index = {
        **identity,
        "volumes": [volume.row for volume in volumes],
        "marks": [volume.mark for volume in volumes if volume.mark is not None],
    }
    files = {volume.row["id"]: volume.files for volume in volumes}
    details = "".join(volume.detail for volume in volumes)
    return f"window.fastsegFiles = {script_json(files)};\nfastsegIndex({script_json(index)});\n{details}"


def _unlike(what: str) -> OutputError:
    return OutputError(f"the page of the report (index.html) {what}; install fastseg again")
