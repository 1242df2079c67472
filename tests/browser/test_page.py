"""The page for browsers, in Chromium, against a real server."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Error, FilePayload, Page, Route, expect

from davsql.dav.application import make_application
from davsql.dav.request import DavOptions
from davsql.paths import DavPath
from davsql.store.nodes import Stamp, insert_node, resolve
from davsql.store.store import Store
from davsql.store.transaction import WriteTx
from tests.accounts.account_steps import PASSWORD, gate_of, new_accounts
from tests.live_server import LiveServer, serving, serving_shares

EVIL = "<img src=x onerror=alert(1)>.html"
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360f8cfc000000301010018dd8db00000000049454e44ae426082"
)


@pytest.fixture
def server(server: LiveServer) -> LiveServer:
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


@pytest.fixture
def home(page: Page, server: LiveServer) -> Page:
    """The root, when it is ready."""
    page.goto(server.url)
    page.wait_for_selector(".list tbody a")
    return page


# --- looking ------------------------------------------------------------------------------------------------------


def test_page__shows_folders_first_and_sorts(home: Page) -> None:
    assert names(home) == ["Documents", "Photos", EVIL, "notes.txt", "pixel.png"]
    press(home, "Size")
    assert names(home)[2:] == ["pixel.png", EVIL, "notes.txt"]
    assert home.locator("th.size").get_attribute("aria-sort") == "descending"
    press(home, "Name")
    press(home, "Name")
    assert names(home)[2:] == ["pixel.png", "notes.txt", EVIL]
    expect(home.locator(".room")).to_contain_text("5 entries")
    expect(home.locator(".room")).to_contain_text("free")


def test_page__goes_into_folders_and_back_by_keys(home: Page, server: LiveServer) -> None:
    home.locator(".list").focus()
    for key in ("ArrowDown", "ArrowDown", "Enter"):
        home.keyboard.press(key)
    expect(home.locator("#crumbs")).to_have_text("HomePhotos")
    assert home.url == f"{server.url}/Photos/"
    home.keyboard.press("Backspace")
    expect(home.locator("#crumbs")).to_have_text("Home")
    home.go_back()
    expect(home.locator(".list tbody a")).to_have_text(["2026"])
    home.get_by_role("link", name="Home").click()
    expect(home.locator(".list tbody a")).to_have_count(5)


def test_page__searches_the_tree(home: Page) -> None:
    home.keyboard.press("/")
    home.keyboard.type("SEA")
    expect(home.locator(".empty")).to_be_visible()
    home.keyboard.press("Enter")
    expect(home.locator(".list tbody a")).to_have_text(["sea.png"])
    assert "Photos/2026/" in home.locator(".list tbody small").inner_text()
    home.keyboard.press("Escape")
    expect(home.locator(".list tbody a")).to_have_count(5)


def test_page__previews_pictures_and_text_and_runs_nothing(home: Page) -> None:
    home.on("dialog", lambda dialog: pytest.fail(dialog.message))
    home.get_by_role("link", name="pixel.png").click()
    shown = home.locator("dialog.preview")
    expect(shown.locator("img")).to_have_js_property("naturalWidth", 1)
    home.keyboard.press("ArrowLeft")
    expect(shown.locator("pre")).to_have_text("Hello, world.")
    home.keyboard.press("ArrowLeft")
    expect(shown.locator("pre")).to_have_text("<script>alert(1)</script>")
    home.keyboard.press("Escape")
    expect(shown).to_have_count(0)


def test_page__plays_sound_from_the_middle(home: Page, server: LiveServer) -> None:
    rate, seconds = 8000, 4
    head = b"RIFF" + (36 + rate * seconds).to_bytes(4, "little") + b"WAVEfmt \x10\0\0\0\1\0\1\0"
    sound = head + rate.to_bytes(4, "little") * 2 + b"\1\0\x08\0data" + (rate * seconds).to_bytes(4, "little")
    server.request("PUT", "/a.wav", sound + b"\x80" * rate * seconds)
    home.reload()
    home.get_by_role("link", name="a.wav").click()
    audio = home.locator("audio")
    expect(audio).to_have_js_property("duration", seconds)
    audio.evaluate("each => { each.currentTime = 3; }")
    expect(audio).to_have_js_property("currentTime", 3)


def test_page__scrolls_ten_thousand_entries_with_few_rows(home: Page, store: Store) -> None:
    def fill(tx: WriteTx) -> None:
        parent = resolve(tx, DavPath.parse("/Documents")).nodes[-1].inode
        for number in range(10_000):
            insert_node(tx, parent, f"f{number:05}", None, Stamp(""))

    store.write(fill)
    home.get_by_role("link", name="Documents").click()
    expect(home.locator(".room")).to_contain_text("10,000 entries")
    home.locator(".list").focus()
    home.keyboard.press("End")
    expect(home.get_by_role("link", name="f09999")).to_be_visible()
    home.evaluate("scrollTo(0, 44 * 5000)")
    expect(home.locator("a", has_text="f05005")).to_be_in_viewport()
    assert len(names(home)) < 60


def test_page__fits_a_phone(chromium: Browser, server: LiveServer) -> None:
    with chromium.new_context(viewport={"width": 375, "height": 700}, has_touch=True, is_mobile=True) as context:
        page = context.new_page()
        page.goto(server.url)
        page.get_by_role("button", name="Size").tap()
        expect(page.locator(".list tbody a")).to_have_text(["Documents", "Photos", "pixel.png", EVIL, "notes.txt"])
        choose(page, "notes.txt")
        expect(page.get_by_role("button", name="Delete")).to_be_in_viewport(ratio=1)
        assert page.evaluate("document.documentElement.scrollWidth") == 375
        page.locator(".list tbody tr", has_text="Photos").tap()
        expect(page.locator("#crumbs")).to_have_text("HomePhotos")


def test_page__works_without_script(chromium: Browser, server: LiveServer) -> None:
    with chromium.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(server.url)
        page.get_by_role("link", name="Photos/").click()
        page.get_by_role("link", name="2026/").click()
        page.get_by_role("navigation").get_by_role("link", name="Photos").click()
        with page.expect_download() as download:
            page.get_by_role("button", name="ZIP").click()
        assert download.value.suggested_filename == "Photos.zip"
        with zipfile.ZipFile(download.value.path()) as archive:
            assert archive.namelist() == ["2026/", "2026/sea.png"]


# --- changing -----------------------------------------------------------------------------------------------------


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
    choose(home, "notes.txt", "pixel.png")
    press(home, "Move")
    dialog = home.get_by_role("dialog")
    dialog.get_by_role("button", name="Photos").click()
    dialog.get_by_role("button", name="2026").click()
    press(home, "Move here")
    said(home, "2 entries were moved.")
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


# --- uploading ----------------------------------------------------------------------------------------------------


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


# --- who is there -------------------------------------------------------------------------------------------------


def test_page__signs_out(page: Page, store: Store, tmp_path: Path) -> None:
    accounts = new_accounts(tmp_path)
    with serving(make_application({"/": store}, DavOptions(), gate=gate_of(accounts))) as server:
        address = server.url.removeprefix("http://")
        page.goto(f"http://ann:{quote(PASSWORD)}@{address}/")
        expect(page.locator(".user")).to_have_text("ann")
        expect(page.locator(".room")).to_contain_text("free")
        press(page, "Sign out")
        expect(page.locator("h1")).to_have_text("You are signed out.")
        with pytest.raises(Error, match="ERR_INVALID_AUTH_CREDENTIALS"):  # the browser would ask for a password
            page.goto(server.url)
    accounts.close()


def test_page__lists_shares_and_offers_nothing_there(page: Page, store: Store) -> None:
    store.make_collection(DavPath.parse("/inside"))
    with serving_shares({"/drive": store}) as server:
        page.goto(server.url)
        page.get_by_role("link", name="drive").click()
        expect(page.get_by_role("link", name="inside")).to_be_visible()
        expect(page.get_by_role("button", name="New folder")).to_be_visible()
        page.get_by_role("link", name="Home").click()
        expect(page.get_by_role("link", name="drive")).to_be_visible()
        expect(page.get_by_role("button", name="New folder")).to_be_hidden()
