"""The page for browsers, in Chromium, against a real server: changing what is there."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.page_steps import PIXEL, choose, content, press, said
from tests.live_server import LiveServer


def test_page__makes_renames_and_takes_it_back(home: Page, server: LiveServer) -> None:
    press(home, "New folder")
    home.get_by_role("textbox", name="Name").fill("a & b #1")
    home.keyboard.press("Enter")
    expect(home.get_by_role("link", name="a & b #1")).to_be_visible()
    choose(home, "notes.txt")
    home.keyboard.press("F2")
    home.get_by_role("textbox", name="Name").fill("50% ä.txt")
    home.keyboard.press("Enter")
    said(home, "was renamed")
    assert content(server, "/50%25%20%C3%A4.txt") == b"Hello, world."
    press(home, "Undo")
    expect(home.get_by_role("link", name="notes.txt")).to_be_visible()
    assert content(server, "/notes.txt") == b"Hello, world."


def test_page__moves_many_and_takes_it_back(home: Page, server: LiveServer) -> None:
    choose(home, "notes.txt", "pixel.png", "Documents")
    press(home, "Move")
    dialog = home.get_by_role("dialog")
    expect(dialog.locator("li")).to_have_text(["Photos"])  # no folder goes into itself
    dialog.get_by_role("button", name="Photos").click()
    dialog.get_by_role("button", name="2026").click()
    press(home, "Move here")
    said(home, "3 entries were moved.")
    expect(home.locator(".list tbody tr:focus")).to_have_count(1)
    assert content(server, "/Photos/2026/notes.txt") == b"Hello, world."
    press(home, "Undo")
    expect(home.locator(".list tbody a")).to_have_count(5)
    assert content(server, "/Photos/2026/notes.txt") is None


def test_page__copies_beside_the_original(home: Page, server: LiveServer) -> None:
    choose(home, "notes.txt")
    press(home, "Copy")
    press(home, "Copy here")
    expect(home.get_by_role("link", name="notes (2).txt")).to_be_visible()
    assert content(server, "/notes%20(2).txt") == b"Hello, world."
    press(home, "Undo")
    expect(home.get_by_role("link", name="notes (2).txt")).to_have_count(0)
    assert content(server, "/notes.txt") == b"Hello, world."


@pytest.mark.parametrize("is_changed", [False, True])
def test_page__takes_a_copied_folder_back_if_it_is_unchanged(home: Page, server: LiveServer, is_changed: bool) -> None:
    choose(home, "Photos")
    press(home, "Copy")
    press(home, "Copy here")
    said(home, "“Photos” was copied.")
    if is_changed:
        server.request("PUT", "/Photos%20(2)/2026/new.txt", b"precious")
    press(home, "Undo")
    said(home, "It has been changed since then, so it stays." if is_changed else "Undone.")
    assert content(server, "/Photos%20(2)/2026/sea.png") == (PIXEL if is_changed else None)
    assert content(server, "/Photos%20(2)/2026/new.txt") == (b"precious" if is_changed else None)
    more = server.request("PUT", "/Photos%20(2)/more.txt", b"")  # no lock is left
    assert more.status == (201 if is_changed else 409)


def test_page__makes_nothing_of_a_folder_that_is_gone_when_it_is_taken_back(home: Page, server: LiveServer) -> None:
    press(home, "New folder")
    home.keyboard.press("Enter")
    said(home, "“New folder” was made.")
    assert server.request("DELETE", "/New%20folder/").status == 204
    press(home, "Undo")
    said(home, "It is not there any more.")
    assert content(server, "/New%20folder") is None


def test_page__takes_a_new_folder_back(home: Page, server: LiveServer) -> None:
    press(home, "New folder")
    home.keyboard.press("Enter")
    said(home, "“New folder” was made.")
    press(home, "Undo")
    expect(home.get_by_role("link", name="New folder")).to_have_count(0)
    assert server.request("PROPFIND", "/New%20folder/", headers={"Depth": "0"}).status == 404


def test_page__deletes_after_a_question(home: Page, server: LiveServer) -> None:
    choose(home, "notes.txt")
    home.keyboard.press("Delete")
    press(home, "Cancel")
    assert content(server, "/notes.txt") is not None
    home.keyboard.press("Delete")
    home.get_by_role("dialog").get_by_role("button", name="Delete").click()
    said(home, "“notes.txt” was deleted.")
    expect(home.locator(".list tbody tr:focus")).to_have_count(1)  # so the keys go on from there
    assert content(server, "/notes.txt") is None


def test_page__tells_what_was_refused(home: Page, server: LiveServer) -> None:
    choose(home, "notes.txt")
    press(home, "Rename")
    home.get_by_role("textbox", name="Name").fill("pixel.png")
    home.keyboard.press("Enter")
    said(home, "There is something of that name already.")
    assert content(server, "/notes.txt") == b"Hello, world."


def test_page__downloads_a_selection_as_zip(home: Page) -> None:
    choose(home, "notes.txt", "Photos")
    with home.expect_download() as download:
        press(home, "Download")
    with zipfile.ZipFile(io.BytesIO(Path(download.value.path()).read_bytes())) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == ["Photos/", "Photos/2026/", "Photos/2026/sea.png", "notes.txt"]
