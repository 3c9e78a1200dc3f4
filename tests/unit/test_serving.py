from __future__ import annotations

import http.client
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from fastseg import serving
from fastseg.errors import InputError, OptionError, OutputError
from fastseg.serving import Site, is_remote, open_browser
from fastseg.web import Refused, Reply, Request, open_file

# Far more than anything here takes: only a hang meets it.
_PATIENCE = 120.0


class _Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.text = response.read().decode()


def _ask(site: Site, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> _Answer:
    """Ask for a path below the token, or for one from the root if it begins with a slash."""
    whole = path if path.startswith("/") else urlsplit(site.url).path + path
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=_PATIENCE)
    try:
        connection.request(
            method, whole, body, {name.replace("_", "-"): each for name, each in headers.items()}
        )
        return _Answer(connection.getresponse())
    finally:
        connection.close()


def _raw(site: Site, content: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", site.port), timeout=_PATIENCE) as client:
        client.sendall(content)
        client.shutdown(socket.SHUT_WR)
        pieces = []
        while piece := client.recv(1 << 16):
            pieces.append(piece)
        return b"".join(pieces)


def _echo(request: Request) -> Reply:
    return Reply.json(
        [request.method, request.path, request.rest, dict(request.query), request.body.decode()]
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("files")
    (folder / "page.html").write_text("<p>page</p>")
    (folder / "large.bin").write_bytes(bytes(range(256)) * 4096)
    os.mkfifo(folder / "pipe")

    def fail(error: Exception) -> Callable[[Request], Reply]:
        def handler(request: Request) -> Reply:
            raise error

        return handler

    routes = {
        "GET ": lambda request: Reply(folder / "page.html"),
        "GET echo": _echo,
        "GET below/": _echo,
        "GET below/deeper/": lambda request: Reply(b"deeper " + request.rest.encode(), "text/plain"),
        "PUT echo": _echo,
        "POST act": lambda request: Reply(status=204),
        "POST json": lambda request: Reply.json(request.json()),
        "GET large": lambda request: Reply((folder / "large.bin").open("rb"), "application/x-large"),
        "GET missing": lambda request: Reply(folder / "missing.html"),
        "GET folder": lambda request: Reply(folder),
        "GET pipe": lambda request: Reply(folder / "pipe"),
        "GET gone": fail(Refused(410, "it went away")),
        "GET bug": fail(RuntimeError("secret of the house")),
        "GET input": fail(InputError("a.nii: is no volume")),
        "GET output": fail(OutputError("b.json: the disk is full")),
    }
    with Site(routes, body_limit=1000) as made:
        yield made


def test_page_is_at_the_url_itself_with_headers_that_let_nothing_in(site: Site) -> None:
    answer = _ask(site, "")
    assert (answer.status, answer.text) == (200, "<p>page</p>")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    rules = dict(rule.split(" ", 1) for rule in answer.headers["Content-Security-Policy"].split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == "'self'"
    assert "http" not in answer.headers["Content-Security-Policy"]


def test_two_sites_have_different_tokens_and_ports(site: Site) -> None:
    with Site({}) as other:
        assert other.port != site.port
        assert urlsplit(other.url).path != urlsplit(site.url).path
        assert len(urlsplit(other.url).path) > 30


@pytest.mark.parametrize(
    "path", ["/", "/x", "/x/echo", "//echo", "/echo", "/%00/echo", "/\u00e9/echo", "/?a"]
)
def test_wrong_token_is_not_found_and_told_nothing(site: Site, path: str) -> None:
    answer = _raw(site, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert answer.endswith(b"\r\n\r\nNot Found")


def test_token_that_is_nearly_right_is_not_found(site: Site) -> None:
    token = urlsplit(site.url).path.strip("/")
    for wrong in (token[:-1], token + "A", token.swapcase(), token + "%20", token[:5]):
        assert _ask(site, f"/{wrong}/echo").status == 404


def test_url_copied_without_its_slash_leads_to_the_page(site: Site) -> None:
    path = urlsplit(site.url).path
    answer = _ask(site, path.rstrip("/"))
    assert (answer.status, answer.headers["Location"]) == (308, path)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:65535", "[::1]"])
def test_any_name_and_port_of_the_loopback_is_a_host(site: Site, host: str) -> None:
    assert _ask(site, "echo", Host=host).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil@127.0.0.1",
        "127.0.0.2",
        "::1",
        "localhost:",
        "",
    ],
)
def test_foreign_host_is_not_found(site: Site, host: str) -> None:
    assert _ask(site, "echo", Host=host).status == 404


def test_request_without_host_or_of_another_server_is_not_found(site: Site) -> None:
    path = urlsplit(site.url).path
    assert b" 404 " in _raw(site, f"GET {path}echo HTTP/1.0\r\n\r\n".encode())
    whole = f"GET http://evil.example{path}echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert b" 404 " in _raw(site, whole.encode())


def test_site_listens_on_the_loopback_only(site: Site) -> None:
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))  # sends nothing; says which address would be used
            own = probe.getsockname()[0]
    except OSError:
        pytest.skip("this machine has no other address than the loopback's")
    assert not own.startswith("127.")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((own, site.port), timeout=_PATIENCE)
    assert site._server is not None
    assert site._server.server_address[0] == "127.0.0.1"


def test_exact_route_comes_before_a_prefix_and_the_longest_prefix_first(site: Site) -> None:
    assert json.loads(_ask(site, "echo?a=1&b=%3C&a=2").text) == ["GET", "echo", "", {"a": "2", "b": "<"}, ""]
    assert json.loads(_ask(site, "below/a/b%20c").text)[1:3] == ["below/a/b c", "a/b c"]
    assert _ask(site, "below/deeper/x").text == "deeper x"
    assert _ask(site, "below").status == 404
    assert _ask(site, "echo/").status == 404


@pytest.mark.parametrize(
    "path",
    [
        "below/../echo", "below/..", "below/%2e%2e/echo", "below/%2E./x", "below/.", "below/a%00",
        "below/a%0d%0ab", "below/..%2f..%2fetc", "below/..\\x", "below/%5c..%5cx", "below/%ff",
        "below/%c0%ae%c0%ae/x", "below/\x7f",
    ],
)  # fmt: skip
def test_path_that_is_not_plain_reaches_no_handler(site: Site, path: str) -> None:
    request = f"GET {urlsplit(site.url).path}{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert _raw(site, request.encode("latin-1")).startswith(b"HTTP/1.1 404 ")


def test_absolute_path_below_a_prefix_is_only_data(site: Site) -> None:
    assert json.loads(_ask(site, "below//etc/passwd").text)[2] == "/etc/passwd"


@pytest.mark.parametrize("method", ["DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH"])
def test_other_methods_are_refused(site: Site, method: str) -> None:
    assert _ask(site, "echo", method).status == 405


def test_method_that_a_route_does_not_have_is_refused(site: Site) -> None:
    assert _ask(site, "act").status == 405
    assert _ask(site, "large", "PUT", b"").status == 405
    assert _ask(site, "nothing", "PUT", b"").status == 404


def test_head_says_how_long_and_sends_nothing(site: Site) -> None:
    answer = _ask(site, "large", "HEAD")
    assert (answer.status, answer.text) == (200, "")
    assert answer.headers["Content-Length"] == str(1 << 20)


def test_body_reaches_the_handler(site: Site) -> None:
    assert json.loads(_ask(site, "echo", "PUT", b"hello").text)[-1] == "hello"
    answer = _ask(site, "act", "POST", b"")
    assert (answer.status, answer.text) == (204, "")


def test_body_that_is_no_json_is_a_bad_request(site: Site) -> None:
    assert json.loads(_ask(site, "json", "POST", b'{"a": 1}').text) == {"a": 1}
    for body in (b"{", b"[" * 900, b"\xff"):
        assert _ask(site, "json", "POST", body).status == 400


def test_body_too_large_or_of_unknown_length_is_not_read(site: Site) -> None:
    path = urlsplit(site.url).path
    head = f"PUT {path}echo HTTP/1.1\r\nHost: localhost\r\n"
    assert b" 413 " in _raw(site, f"{head}Content-Length: 1001\r\n\r\n".encode())
    for length in ("Content-Length: -1", "Content-Length: 0x5", "Transfer-Encoding: chunked", "X: y"):
        assert b" 411 " in _raw(site, f"{head}{length}\r\n\r\n".encode())


def test_client_that_breaks_off_within_its_body_reaches_no_handler(site: Site) -> None:
    head = f"PUT {urlsplit(site.url).path}echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc"
    assert _raw(site, head.encode()) == b""


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1:80", "http://127.0.0.1:1"]
)
def test_page_of_another_origin_changes_nothing(site: Site, origin: str) -> None:
    for method, path in (("PUT", "echo"), ("POST", "act")):
        assert _ask(site, path, method, b"x", Origin=origin).status == 403


def test_own_page_may_act_also_through_a_tunnel_of_another_port(site: Site) -> None:
    for host in (f"127.0.0.1:{site.port}", "localhost:9999"):
        assert _ask(site, "act", "POST", b"", Host=host, Origin=f"http://{host}").status == 204


def test_file_is_streamed_whole_and_its_connection_kept(site: Site) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=_PATIENCE)
    for _ in range(2):
        connection.request("GET", urlsplit(site.url).path + "large")
        response = connection.getresponse()
        assert response.read() == bytes(range(256)) * 4096
        assert response.headers["Content-Type"] == "application/x-large"
    connection.close()


@pytest.mark.parametrize("path", ["missing", "folder", "pipe"])
def test_what_is_no_regular_file_is_not_found(site: Site, path: str) -> None:
    assert _ask(site, path).status == 404


def test_file_that_shrinks_while_it_is_sent_ends_the_connection(tmp_path: Path) -> None:
    path = tmp_path / "shrinks"
    path.write_bytes(bytes(3_000_000))

    class Shrinking:
        def __init__(self) -> None:
            self._stream = path.open("rb")

        def __enter__(self) -> Any:
            return self._stream

        def __exit__(self, *_: object) -> None:
            self._stream.close()

        def fileno(self) -> int:
            return self._stream.fileno()

        def read(self, most: int) -> bytes:
            os.truncate(path, 1_000_000)
            return self._stream.read(most)

    def handler(request: Request) -> Reply:
        return Reply(Shrinking())  # type: ignore[arg-type]

    with Site({"GET file": handler}) as site, pytest.raises(http.client.IncompleteRead):
        _ask(site, "file")


def test_errors_are_one_line_and_never_a_traceback(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    assert (_ask(site, "gone").status, _ask(site, "gone").text) == (410, "it went away")
    assert (_ask(site, "input").status, _ask(site, "input").text) == (400, "a.nii: is no volume")
    assert (_ask(site, "output").status, _ask(site, "output").text) == (500, "b.json: the disk is full")
    assert not caplog.records
    answer = _ask(site, "bug")
    assert answer.status == 500
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert [(record.name, record.levelno) for record in caplog.records] == [
        ("fastseg.serving", logging.ERROR)
    ]


def test_token_is_in_no_log(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    _ask(site, "echo")
    _ask(site, "bug")
    _raw(site, b"nonsense\r\n\r\n")
    assert urlsplit(site.url).path.strip("/") not in caplog.text


def test_nonsense_gets_one_line(site: Site) -> None:
    for nonsense in (
        b"<script>alert(1)</script>\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\r\n\r\n",
        b"GET / HTTP/9\r\n\r\n",
    ):
        assert b"script" not in _raw(site, nonsense)
    # No more than is read of it: what is still being sent when the answer comes breaks the connection.
    long = b"GET /".ljust((1 << 16) + 1, b"a")
    with socket.create_connection(("127.0.0.1", site.port), timeout=_PATIENCE) as client:
        client.sendall(long)
        assert b" 414 " in client.recv(1 << 16)


def test_slow_clients_keep_nobody_waiting(site: Site) -> None:
    slow = [socket.create_connection(("127.0.0.1", site.port), timeout=_PATIENCE) for _ in range(30)]
    try:
        for client in slow:
            client.sendall(b"GET /")
        assert _ask(site, "echo").status == 200
    finally:
        for client in slow:
            client.close()


def test_client_that_says_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving._Connection, "timeout", 0.2)
    with Site({}) as site, socket.create_connection(("127.0.0.1", site.port), timeout=_PATIENCE) as client:
        client.sendall(b"GET /")
        assert client.recv(100) == b""


def test_reply_to_what_closes_the_site_reaches_its_page() -> None:
    def finish(request: Request) -> Reply:
        site.close_soon()
        time.sleep(0.3)  # the context ends meanwhile
        return Reply(b"over", "text/plain")

    heard: list[str] = []
    with Site({"POST finish": finish}) as site:
        assert not site.wait(0.01)
        client = threading.Thread(target=lambda: heard.append(_ask(site, "finish", "POST", b"").text))
        client.start()
        assert site.wait(_PATIENCE)
    client.join(_PATIENCE)
    assert heard == ["over"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", site.port), timeout=_PATIENCE)


def test_port_that_is_taken_is_an_error_that_names_it(site: Site) -> None:
    taken = f"port {site.port}: cannot be had .*in use.*; choose another"
    with pytest.raises(OptionError, match=taken), Site({}, site.port):
        pass
    with pytest.raises(OptionError, match="port 70000: cannot be had"), Site({}, 70000):
        pass


def test_port_can_be_chosen(site: Site) -> None:
    with Site({}) as other:
        port = other.port
    with Site({}, port) as again:
        assert again.port == port
        assert _ask(again, "").status == 404


def test_tunnel_command_names_port_user_and_machine(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    monkeypatch.setattr(serving.getpass, "getuser", lambda: "ada")
    monkeypatch.setattr(serving.socket, "getfqdn", lambda: "node1.uni.example")
    assert site.tunnel_command() == f"ssh -N -L {site.port}:127.0.0.1:{site.port} ada@node1.uni.example"
    monkeypatch.setattr(serving.getpass, "getuser", lambda: "UNI\\ada l")
    monkeypatch.setattr(serving.socket, "getfqdn", lambda: "localhost.localdomain")
    monkeypatch.setattr(serving.socket, "gethostname", lambda: "node1")
    assert site.tunnel_command().endswith(r" 'UNI\ada l@node1'")


@pytest.mark.parametrize(
    ("connection", "port"),
    [
        ("10.0.0.1 5 10.0.0.2 22", ""),
        ("::1 5 ::1 2222", "-p 2222 "),
        ("", ""),
        ("UNKNOWN", ""),
        ("a b c ;", ""),
    ],
)
def test_tunnel_goes_to_the_port_by_which_the_user_came(
    site: Site, connection: str, port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_CONNECTION", connection)
    before, _, _ = site.tunnel_command().rpartition(" ")
    assert f"{before} " == f"ssh -N -L {site.port}:127.0.0.1:{site.port} {port}"


def test_user_without_a_name_still_gets_a_tunnel_command(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(serving.getpass, "getuser", nobody)
    monkeypatch.setattr(serving.socket, "getfqdn", lambda: "node1")
    assert site.tunnel_command().endswith(" node1")


@pytest.mark.parametrize(
    ("environment", "system", "remote"),
    [
        ({"DISPLAY": ":0"}, "linux", False),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", False),
        ({"DISPLAY": ":0", "SSH_CONNECTION": "10.0.0.1 5 10.0.0.2 22"}, "linux", True),
        ({}, "linux", True),
        ({}, "darwin", False),
        ({"SSH_CONNECTION": "10.0.0.1 5 10.0.0.2 22"}, "darwin", True),
    ],
)
def test_user_is_elsewhere_with_ssh_or_without_a_screen(
    environment: Mapping[str, str], system: str, remote: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving.sys, "platform", system)
    assert is_remote(environment) is remote


def test_browser_of_a_terminal_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(serving.webbrowser, "open", lambda url: opened.append(url) or True)
    monkeypatch.setattr(serving, "is_remote", lambda: True)
    assert not open_browser("http://127.0.0.1:1/")
    monkeypatch.setattr(serving, "is_remote", lambda: False)
    assert open_browser("http://127.0.0.1:1/")
    assert opened == ["http://127.0.0.1:1/"]


def test_file_with_an_impossible_name_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(Refused):
        open_file(tmp_path / "a\0b")
