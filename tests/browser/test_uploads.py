"""The page for browsers, in Chromium, against a real server: uploads."""

from __future__ import annotations

import hashlib
import os
import random
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from davsql.dav.quotas import ShareQuotas, limit_of
from davsql.store.store import Store
from tests.browser.page_steps import content, file, names, press, said
from tests.http_client import Client
from tests.live_server import LiveServer, serving_shares
from tests.lost_data.torture.process import ServerProcess

PIECE_BYTES = 8 * 1024 * 1024


def test_page__uploads_what_is_dropped(home: Page, server: LiveServer) -> None:
    transfer = home.evaluate_handle(
        "() => { const all = new DataTransfer(); all.items.add(new File(['dropped'], 'new file.txt')); return all; }"
    )
    home.dispatch_event("main", "dragover", {"dataTransfer": transfer})
    expect(home.locator("#drop")).to_be_visible()
    home.dispatch_event("main", "drop", {"dataTransfer": transfer})
    expect(home.get_by_role("link", name="new file.txt")).to_be_visible()
    assert content(server, "/new%20file.txt") == b"dropped"


def test_page__uploads_folders_that_are_dropped(home: Page, server: LiveServer, tmp_path: Path) -> None:
    (tmp_path / "trip" / "empty").mkdir(parents=True)
    for number in range(120):  # browsers list a folder by the hundred
        (tmp_path / "trip" / f"{number}.txt").write_bytes(b"%d" % number)
    (tmp_path / "beside.txt").write_bytes(b"beside")
    data = {"items": [], "files": [str(tmp_path / "trip"), str(tmp_path / "beside.txt")], "dragOperationsMask": 1}
    devtools = home.context.new_cdp_session(home)
    for kind in ("dragEnter", "dragOver", "drop"):
        devtools.send("Input.dispatchDragEvent", {"type": kind, "x": 500, "y": 500, "data": data})
    said(home, "121 files uploaded.")
    assert content(server, "/beside.txt") == b"beside"
    assert content(server, "/trip/119.txt") == b"119"
    assert server.request("PROPFIND", "/trip/empty/", headers={"Depth": "0"}).status == 207


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


def test_page__goes_on_after_the_server_was_killed(page: Page, tmp_path: Path) -> None:
    large = tmp_path / "large.bin"
    large.write_bytes(os.urandom(3 * PIECE_BYTES))
    server = ServerProcess(tmp_path, "full")
    sent: list[str] = []
    page.on(
        "request",
        lambda each: sent.append(each.headers.get("x-update-range", each.method)) if ".part" in each.url else None,
    )
    try:
        server.start()
        server.wait_until_it_answers()
        page.goto(f"http://127.0.0.1:{server.address[1]}/")
        devtools = page.context.new_cdp_session(page)
        line = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 4_000_000}
        devtools.send("Network.emulateNetworkConditions", line)
        page.locator("input[type=file]").first.set_input_files(large)
        after_the_first_piece = re.compile(r"^(9\.\d|1\d|2[0-3]) MB of 25 MB")
        expect(page.locator("#uploads li small")).to_have_text(after_the_first_piece)
        server.kill()
        expect(page.locator("#uploads")).to_contain_text("Connection lost")
        devtools.send("Network.emulateNetworkConditions", line | {"uploadThroughput": -1})
        server.start()
        said(page, "1 file uploaded.")
        assert sent.count("PUT") == 1  # the first piece was kept
        with Client(server.address) as client:
            stored = client.request("GET", "/large.bin").body
        assert hashlib.sha256(stored).digest() == hashlib.sha256(large.read_bytes()).digest()
    finally:
        server.kill()


@pytest.mark.parametrize("method", ["PUT", "MOVE"])
def test_page__knows_what_arrived_when_the_answer_is_lost(
    home: Page, server: LiveServer, tmp_path: Path, method: str
) -> None:
    chosen = tmp_path / "new.bin"
    chosen.write_bytes(b"new" if method == "PUT" else bytes(PIECE_BYTES + 1))
    lost: list[str] = []

    def lose_the_answer(route: Route) -> None:
        if route.request.method == method and not lost:
            lost.append(route.request.url)
            route.fetch()
            route.abort("connectionreset")
        else:
            route.continue_()

    home.route("**/*new.bin*", lose_the_answer)
    home.locator("input[type=file]").first.set_input_files(chosen)
    said(home, "1 file uploaded.")
    assert lost
    assert content(server, "/new.bin") == chosen.read_bytes()
    expect(home.locator("#uploads")).to_be_hidden()


def test_page__tells_of_a_file_that_changes_while_it_is_read(home: Page, server: LiveServer, tmp_path: Path) -> None:
    changing = tmp_path / "changing.bin"
    changing.write_bytes(bytes(2 * PIECE_BYTES))

    def change(route: Route) -> None:
        changing.write_bytes(b"other" * PIECE_BYTES)
        route.continue_()

    home.route("**/.upload-*", change)
    home.locator("input[type=file]").first.set_input_files(changing)
    expect(home.locator("#uploads")).to_contain_text("It was changed or removed while it was read.")
    press(home, "Dismiss: changing.bin")
    expect(home.locator("#uploads")).to_be_hidden()
    assert content(server, "/changing.bin") is None


def test_page__tells_when_the_quota_is_used_up(page: Page, store: Store, tmp_path: Path) -> None:
    (tmp_path / "large.bin").write_bytes(bytes(PIECE_BYTES * 2))
    with serving_shares({"/": store}, quotas={"/": ShareQuotas(limit_of(mb=9, nodes=None))}) as server:
        page.goto(server.url)
        page.locator("input[type=file]").first.set_input_files(tmp_path / "large.bin")
        expect(page.locator("#uploads")).to_contain_text("The quota is used up.")
        press(page, "Dismiss: large.bin")
        expect(page.locator("#uploads")).to_be_hidden()
        page.reload()
        expect(page.locator(".empty")).to_be_visible()  # what had come of it has gone


def test_page__cancels_a_large_upload_and_leaves_nothing(home: Page, server: LiveServer, tmp_path: Path) -> None:
    (tmp_path / "large.bin").write_bytes(bytes(PIECE_BYTES * 2))
    home.route("**/.upload-*", lambda route: None if route.request.method == "PATCH" else route.continue_())
    home.locator("input[type=file]").first.set_input_files(tmp_path / "large.bin")
    expect(home.locator("#uploads li small")).to_have_text("8.4 MB of 17 MB")
    press(home, "Cancel uploads and close")
    press(home, "Cancel uploads")
    expect(home.locator("#uploads")).to_be_hidden()
    expect(home.locator(".list tbody a")).to_have_count(5)
    home.reload()
    expect(home.locator(".list tbody a")).to_have_count(5)


@pytest.mark.parametrize("is_same", [False, True])
def test_page__goes_on_only_with_what_the_file_begins_with(
    home: Page, server: LiveServer, tmp_path: Path, is_same: bool
) -> None:
    file = tmp_path / "box"
    file.write_bytes(random.Random(3).randbytes(17 << 20))  # noqa: S311  # content
    os.utime(file, (1_700_000_000, 1_700_000_000))
    begun = file.read_bytes()[: 8 << 20] if is_same else bytes(8 << 20)
    part = f"/.upload-{17 << 20}-1700000000000-box.part"
    assert server.request("PUT", part, begun).status == 201
    sent: list[str] = []
    home.on("request", lambda each: sent.append(each.method) if part in each.url else None)
    home.locator("input[type=file]").first.set_input_files(file)
    said(home, "1 file uploaded.")
    assert content(server, "/box") == file.read_bytes()
    assert ("PUT" in sent) is not is_same
