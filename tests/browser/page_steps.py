"""What people do with the page, and what is there afterwards."""

from __future__ import annotations

from playwright.sync_api import FilePayload, Page, expect

from tests.live_server import LiveServer

EVIL = "<img src=x onerror=alert(1)>.html"
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360f8cfc000000301010018dd8db00000000049454e44ae426082"
)


def names(page: Page) -> list[str]:
    """The names in the list, from above."""
    return page.locator(".list tbody a").all_inner_texts()


def choose(page: Page, *wanted: str) -> None:
    for name in wanted:
        page.get_by_label(f"Select {name}", exact=True).click()


def press(page: Page, button: str) -> None:
    page.get_by_role("button", name=button, exact=True).click()


def said(page: Page, text: str) -> None:
    expect(page.locator("#toasts")).to_contain_text(text)


def content(server: LiveServer, path: str) -> bytes | None:
    reply = server.request("GET", path)
    return reply.body if reply.status == 200 else None


def file(name: str, content: bytes) -> FilePayload:
    """A file as somebody picks it."""
    return FilePayload(name=name, mimeType="text/plain", buffer=content)
