"""A real browser for the pages: one for the session, a fresh context for each test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Request

_ARGUMENTS = [
    "--no-sandbox",  # tests run as root in containers
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # WebGL2 without a GPU.
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]
_LOCAL = {"127.0.0.1", "localhost", "::1"}
# Milliseconds. Far more than anything here takes: only a hang meets it.
_PATIENCE = 120_000
# Read now: the fixture that hides FASTSEG_ variables from tests runs first.
_CHROMIUM = os.environ.get("FASTSEG_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: install fastseg[test]")
    if not _CHROMIUM:
        pytest.skip("no Chromium: tools/test --system-packages installs it, FASTSEG_CHROMIUM names another")
    playwright.expect.set_options(timeout=_PATIENCE)
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=_CHROMIUM, args=_ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture
def forgiven() -> list[str]:
    """Parts of the errors that a test expects its page to meet: the test fills it."""
    return []


@pytest.fixture
def page(browser: Browser, forgiven: list[str]) -> Iterator[Page]:
    """Page of a fresh context. Errors of scripts and requests that leave this machine fail the test."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, accept_downloads=True)
    wrong: list[str] = []

    def asked(request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme in ("http", "https", "ws", "wss") and address.hostname not in _LOCAL:
            wrong.append(f"request to {request.url}")

    context.on("request", asked)
    context.on("weberror", lambda error: wrong.append(f"exception: {error.error}"))
    context.on(
        "console", lambda said: wrong.append(f"console: {said.text}") if said.type == "error" else None
    )
    context.set_default_timeout(_PATIENCE)
    opened = context.new_page()
    opened.wrong = wrong  # type: ignore[attr-defined]
    yield opened
    context.close()
    left = [each for each in wrong if not any(part in each for part in forgiven)]
    assert not left, "\n".join(left)
