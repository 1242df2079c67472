"""Chromium, a page of it that may not make mistakes in silence, and something to see there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.page_steps import EVIL, PIXEL
from tests.clients.programs import cannot_run
from tests.live_server import LiveServer

TIMEOUT_MS = 15_000
expect.set_options(timeout=TIMEOUT_MS)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, without a window."""
    path = shutil.which("chromium")
    if path is None:
        cannot_run("chromium is missing: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """An empty page; a script that fails, or that the policy stops, fails the test."""
    page = chromium.new_page(viewport={"width": 1100, "height": 720})
    page.set_default_timeout(TIMEOUT_MS)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if "Content Security" in message.text else None)
    yield page
    page.close()
    assert errors == []


@pytest.fixture
def server(server: LiveServer) -> LiveServer:
    """With a few files and folders."""
    for folder in ("/Documents", "/Photos", "/Photos/2026"):
        server.request("MKCOL", folder)
    for name, content in {
        "notes.txt": b"Hello, world.",
        "pixel.png": PIXEL,
        EVIL: b"<script>alert(1)</script>",
        "Photos/2026/sea.png": PIXEL,
    }.items():
        server.request("PUT", "/" + quote(name), content)
    return server


@pytest.fixture
def home(page: Page, server: LiveServer) -> Page:
    """The root, when it is ready."""
    page.goto(server.url)
    page.wait_for_selector(".list tbody a")
    return page
