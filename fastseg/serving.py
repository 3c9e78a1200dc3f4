"""A small web server for one user's pages: this machine only, behind a token, nothing but the routes given.

It runs on machines where others work too, and beside a browser that shows other pages. So it listens on the
loopback address alone; every path begins with a secret token; a Host header must be loopback's (against DNS
rebinding: a foreign name that points here); what changes something must come from our own page; and pages may
load nothing from elsewhere. A route's handler looks things up in what it knows; no path is ever joined to a
folder here, and there is no listing.
"""

from __future__ import annotations

import getpass
import hmac
import io
import logging
import os
import re
import secrets
import shlex
import socket
import socketserver
import sys
import threading
import urllib.parse
import webbrowser
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from fastseg.errors import FastsegError, InputError, OptionError
from fastseg.web import KINDS, Handler, Refused, Reply, Request, Routes, open_file

__all__ = ["Site", "is_remote", "open_browser"]

_log = logging.getLogger(__name__)

_ADDRESS = "127.0.0.1"
# With any port: that of an SSH tunnel is its user's choice.
_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?", re.IGNORECASE)
_METHODS = ("GET", "PUT", "POST")
_SLOW_SECONDS = 30.0  # a client that says nothing for so long is left
_LAST_REPLIES_SECONDS = 2.0
_PIECE = 1 << 18
_HEADERS = {
    # data: and blob: are NiiVue's: fonts and pictures that it has within it.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Site:
    """Pages on this machine's loopback address, served by threads while the context lasts.

    A context manager. Handlers are called from several threads at once. What one raises becomes one line for
    the page: `Refused` with its status, InputError and OptionError with 400, other errors of fastseg 500;
    anything else 500 and no more than that, with a traceback in the log `fastseg.serving`.

    Parameters
    ----------
    routes : handlers by method and path, e.g. {"GET ": page, "GET image/": image, "PUT marks": save}
    port : to listen on; 0 for any that is free
    body_limit : bytes that PUT and POST may bring

    Raises
    ------
    OptionError
        The port cannot be had.

    Examples
    --------
    >>> from urllib.request import urlopen
    >>> with Site({"GET hello": lambda request: Reply(b"hi", "text/plain")}) as site:
    ...     urlopen(site.url + "hello").read()
    b'hi'
    """

    def __init__(self, routes: Routes, port: int = 0, *, body_limit: int = 1 << 25) -> None:
        self._routes = dict(routes)
        self._wanted_port = port
        self._body_limit = body_limit
        self._token = secrets.token_urlsafe(24)
        self._over = threading.Event()
        self._idle = threading.Condition()
        self._busy = 0
        self._server: _Server | None = None
        self.port = port

    def __enter__(self) -> Self:
        try:
            self._server = _Server(self, self._wanted_port)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise OptionError(
                f"port {self._wanted_port}: cannot be had ({reason}); choose another, or none for any"
            ) from error
        self.port = self._server.server_address[1]
        threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="fastseg-site", daemon=True
        ).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._server is not None:
            self._server.shutdown()
            with self._idle:  # the reply to what ended the site shall reach its page
                self._idle.wait_for(lambda: not self._busy, _LAST_REPLIES_SECONDS)
            self._server.server_close()

    @property
    def url(self) -> str:
        """Address with the token; ends with a slash."""
        return f"http://{_ADDRESS}:{self.port}/{self._token}/"

    def tunnel_command(self) -> str:
        """Give the command that makes the same URL work on another machine, by SSH."""
        try:
            user = f"{getpass.getuser()}@"
        except (KeyError, OSError):  # a number without a name, in containers
            user = ""
        host = socket.getfqdn()
        if host.startswith("localhost") or host.endswith(".arpa"):
            host = socket.gethostname()
        # The fourth word is the port at which this login came in.
        reached = os.environ.get("SSH_CONNECTION", "").split()[3:4]
        own_port = f"-p {reached[0]} " if reached and reached[0].isdecimal() and reached != ["22"] else ""
        return f"ssh -N -L {self.port}:{_ADDRESS}:{self.port} {own_port}{shlex.quote(user + host)}"

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until a handler calls `close_soon`; whether one did."""
        return self._over.wait(timeout)

    def close_soon(self) -> None:
        """Let `wait` return; for handlers, whose reply is still sent."""
        self._over.set()

    def _answer(self, method: str, target: str, headers: Message, body: Callable[[int], bytes]) -> Reply:
        """Check a request, then let its handler answer; raises what is not answered."""
        host = headers.get("Host", "")
        if not _HOST.fullmatch(host):
            raise Refused(404)
        raw, _, query = target.partition("?")
        _, token, *inner = raw.split("/", 2) if raw.startswith("/") else ("", "")
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            raise Refused(404)
        if not inner:  # copied without the slash at its end; pages' own addresses need it
            return Reply(status=308, location=f"/{self._token}/")
        path = _decoded(inner[0])
        found = self._route(method, path)
        if found is None:
            raise Refused(405 if any(self._route(other, path) for other in _METHODS) else 404)
        handler, rest = found
        content = b""
        if method != "GET":
            # A page of another site may send here, too, and has its own address in this header.
            if headers.get("Origin", f"http://{host}").lower() != f"http://{host}".lower():
                raise Refused(403, "only the site's own page may do that")
            content = body(_length(headers, self._body_limit))
        asked = dict(urllib.parse.parse_qsl(query))
        return handler(Request(method, path, rest, asked, content))

    def _route(self, method: str, path: str) -> tuple[Handler, str] | None:
        """Handler of a path, and what follows its prefix; the exact route, or else the longest prefix."""
        asked = f"{method} {path}"
        if asked in self._routes:
            return self._routes[asked], ""
        prefixes = [route for route in self._routes if route.endswith("/") and asked.startswith(route)]
        if not prefixes:
            return None
        longest = max(prefixes, key=len)
        return self._routes[longest], asked[len(longest) :]

    @contextmanager
    def _replying(self) -> Iterator[None]:
        with self._idle:
            self._busy += 1
        try:
            yield
        finally:
            with self._idle:
                self._busy -= 1
                self._idle.notify_all()


def is_remote(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the user most likely sits at another machine: SSH, or no screen."""
    if environment.get("SSH_CONNECTION"):
        return True
    own_screen = sys.platform in ("win32", "darwin")
    return not own_screen and not (environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"))


def open_browser(url: str) -> bool:
    """Show a page in the user's browser, where there is one with windows; whether that went well.

    One for terminals would take the terminal away.
    """
    if is_remote():
        return False
    try:
        return webbrowser.open(url)
    except (webbrowser.Error, OSError):
        return False


def _decoded(path: str) -> str:
    """Path below the token, if it is a plain one."""
    try:
        plain = urllib.parse.unquote(path, errors="strict")
    except UnicodeDecodeError as error:
        raise Refused(404) from error
    parts = plain.split("/")
    if not plain.isprintable() or "\\" in plain or any(part in (".", "..") for part in parts):
        raise Refused(404)
    return plain


def _length(headers: Message, most: int) -> int:
    """Bytes of the body."""
    said = headers.get("Content-Length", "")
    if not re.fullmatch(r"[0-9]{1,15}", said) or headers.get("Transfer-Encoding"):
        raise Refused(411)
    if int(said) > most:
        raise Refused(413, f"more than {most} bytes")
    return int(said)


def _refusal(error: Exception) -> Reply:
    """Say in one line why there is no answer."""
    if isinstance(error, Refused):
        status, message = error.status, str(error)
    elif isinstance(error, FastsegError):
        status, message = (400 if isinstance(error, InputError | OptionError) else 500), str(error)
    else:
        _log.error("a request failed", exc_info=error)
        status, message = 500, "that failed; the terminal says more"
    return Reply(message.encode(errors="replace"), "text/plain; charset=utf-8", status)


class _Gone(Exception):
    """The client broke off within its request."""


class _Server(ThreadingHTTPServer):
    """A thread for each connection: none waits for a slow one."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, site: Site, port: int) -> None:
        self.site = site
        super().__init__((_ADDRESS, port), _Connection)

    def server_bind(self) -> None:
        """Bind, without HTTPServer's search for a name, which may wait for a DNS."""
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request: object, client_address: object) -> None:
        """Note a connection that broke."""
        _log.debug("a connection broke", exc_info=True)


class _Connection(BaseHTTPRequestHandler):
    """Speaks HTTP with one client."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "fastseg", ""
    timeout = _SLOW_SECONDS
    server: _Server

    def _serve(self) -> None:
        site, method = self.server.site, "GET" if self.command == "HEAD" else self.command
        with site._replying():
            try:
                reply = site._answer(method, self.path, self.headers, self._body)
                if isinstance(reply.content, Path):
                    kind = reply.kind or KINDS.get(reply.content.suffix, "")
                    reply = Reply(open_file(reply.content), kind, reply.status)
            except _Gone:
                self.close_connection = True
                return
            except Exception as error:
                reply = _refusal(error)
                self.close_connection = True  # a body that nobody read is no next request
            self._send(reply)

    do_GET = do_HEAD = do_PUT = do_POST = _serve

    def _body(self, length: int) -> bytes:
        try:
            content = self.rfile.read(length)
        except OSError as error:
            raise _Gone from error
        if len(content) < length:
            raise _Gone
        return content

    def _send(self, reply: Reply) -> None:
        assert not isinstance(reply.content, Path)
        if isinstance(reply.content, bytes):
            stream: IO[bytes] = io.BytesIO(reply.content)
            size = len(reply.content)
        else:
            stream = reply.content
            size = os.fstat(stream.fileno()).st_size
        with stream:
            self.send_response(reply.status)
            for name, value in _HEADERS.items():
                self.send_header(name, value)
            if reply.status != 204:
                self.send_header("Content-Type", reply.kind or "application/octet-stream")
                self.send_header("Content-Length", str(size))
            if reply.location:
                self.send_header("Location", reply.location)
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD" and reply.status != 204:
                self._copy(stream, size)

    def _copy(self, stream: IO[bytes], size: int) -> None:
        """Send so many bytes: a file may grow meanwhile; one that shrinks ends the connection early."""
        while size and (piece := stream.read(min(size, _PIECE))):
            self.wfile.write(piece)
            size -= len(piece)
        self.close_connection = self.close_connection or size > 0

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what is no request of ours in one line, without a page that repeats it."""
        self.close_connection = True
        self._send(_refusal(Refused(405 if code == HTTPStatus.NOT_IMPLEMENTED else code)))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep the terminal for the user; addresses, which hold the token, go nowhere."""
