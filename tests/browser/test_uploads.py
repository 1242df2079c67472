"""The page for browsers, in Chromium, against a real server: uploads."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, Route, expect

from tests.browser.page_steps import content, file, names, said
from tests.live_server import LiveServer


def test_page__uploads_what_is_dropped(home: Page, server: LiveServer) -> None:
    transfer = home.evaluate_handle(
        "() => { const all = new DataTransfer(); all.items.add(new File(['dropped'], 'new file.txt')); return all; }"
    )
    home.dispatch_event("main", "dragover", {"dataTransfer": transfer})
    expect(home.locator("#drop")).to_be_visible()
    home.dispatch_event("main", "drop", {"dataTransfer": transfer})
    expect(home.get_by_role("link", name="new file.txt")).to_be_visible()
    assert content(server, "/new%20file.txt") == b"dropped"


def test_page__uploads_a_folder(home: Page, server: LiveServer, tmp_path: Path) -> None:
    inner = tmp_path / "trip" / "day 1"
    inner.mkdir(parents=True)
    for number in range(5):
        (inner / f"{number}.txt").write_bytes(b"%d" % number)
    home.locator("input[type=file][webkitdirectory]").set_input_files(tmp_path / "trip")
    said(home, "5 files uploaded.")
    assert content(server, "/trip/day%201/4.txt") == b"4"


def test_page__asks_before_it_replaces(home: Page, server: LiveServer) -> None:
    picker = home.locator("input[type=file]:not([webkitdirectory])")
    picker.set_input_files([file("notes.txt", b"new"), file("pixel.png", b"new")])
    expect(home.locator("#uploads")).to_contain_text("2 names taken")
    assert content(server, "/notes.txt") == b"Hello, world."
    home.get_by_role("button", name="Keep both: notes.txt").click()
    expect(home.get_by_role("link", name="notes (2).txt")).to_be_visible()
    home.get_by_role("button", name="Replace: pixel.png").click()
    expect(home.locator("#uploads")).to_be_hidden()
    found = [content(server, f"/{name}") for name in ("notes.txt", "notes%20(2).txt", "pixel.png")]
    assert found == [b"Hello, world.", b"new", b"new"]


def test_page__goes_on_after_a_lost_connection(home: Page, server: LiveServer) -> None:
    lost: list[str] = []

    def lose(route: Route) -> None:
        lost.append("")
        if len(lost) == 1:
            route.abort("connectionreset")
        else:
            route.continue_()

    home.route("**/lost.txt", lose)
    home.locator("input[type=file]").first.set_input_files([file("lost.txt", b"whole")])
    expect(home.locator("#uploads")).to_contain_text("Connection lost")
    said(home, "1 file uploaded.")
    assert content(server, "/lost.txt") == b"whole"


def test_page__goes_on_with_a_large_file_where_it_stopped(home: Page, server: LiveServer, tmp_path: Path) -> None:
    large = tmp_path / "large.bin"
    large.write_bytes(bytes(range(250)) * 80_000)  # three pieces
    seen: list[str] = []

    def lose_the_third(route: Route) -> None:
        if route.request.method in ("PUT", "PATCH"):
            seen.append(f"{route.request.method} {route.request.headers.get('x-update-range')}")
        if len(seen) == 3 and route.request.method == "PATCH":
            route.abort("connectionreset")
        else:
            route.continue_()

    home.route("**/.upload-*", lose_the_third)
    home.locator("input[type=file]").first.set_input_files(large)
    said(home, "1 file uploaded.")
    third = f"PATCH bytes={2**24}-{large.stat().st_size - 1}"
    assert seen == ["PUT None", f"PATCH bytes={2**23}-{2**24 - 1}", third, third]
    assert content(server, "/large.bin") == large.read_bytes()
    assert len(names(home)) == 6


def test_page__cancels_an_upload(home: Page, server: LiveServer) -> None:
    home.route("**/never.txt", lambda _: None)
    home.locator("input[type=file]").first.set_input_files([file("never.txt", b"x")])
    home.get_by_role("button", name="Cancel never.txt").click()
    expect(home.locator("#uploads")).to_be_hidden()
    assert content(server, "/never.txt") is None
