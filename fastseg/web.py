"""What a page asks for, and what it gets: the words between a server and the handlers of its routes."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any, Self

from fastseg.errors import FastsegError

__all__ = ["KINDS", "Handler", "Refused", "Reply", "Request", "Routes", "open_file"]

#: Content types by suffix.
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}


class Refused(FastsegError):
    """A request that gets a status and one line instead of what it asked for."""

    def __init__(self, status: int, message: str = "") -> None:
        super().__init__(message or HTTPStatus(status).phrase)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """What a page asks for.

    Parameters
    ----------
    method : GET (also of HEAD), PUT or POST
    path : below the token, decoded, without the query
    rest : what follows the prefix, where the route is one; data to look up, never a path to open
    query : the last value of each name
    body : what came with PUT and POST
    """

    method: str
    path: str
    rest: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        """Read the body as JSON.

        Raises
        ------
        Refused
            It is none: status 400.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise Refused(400, "the body is no JSON") from error


@dataclass(frozen=True, slots=True)
class Reply:
    """What a page gets.

    Parameters
    ----------
    content : bytes, or a file: its path, or open; it is streamed, and closed
    kind : content type; of a path without one, by its suffix
    status : of HTTP
    location : where a status of 3xx leads
    """

    content: bytes | Path | IO[bytes] = b""
    kind: str = ""
    status: int = 200
    location: str = ""

    @classmethod
    def json(cls, value: object) -> Self:
        """Answer with a value as JSON."""
        return cls(json.dumps(value).encode(), KINDS[".json"])


Handler = Callable[[Request], Reply]
#: "GET page.html", or for all below a prefix "GET volumes/"; "GET " is the page at the URL itself.
Routes = Mapping[str, Handler]


def open_file(path: Path) -> IO[bytes]:
    """Open a regular file; no pipe or device, which could block for ever.

    Raises
    ------
    Refused
        There is none that may be read: status 404.
    """
    try:
        stream = os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb")
    except (OSError, ValueError) as error:  # a NUL in the name
        raise Refused(404) from error
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise Refused(404)
    return stream
