"""The page for browsers, in Chromium, against a real server: looking around."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Error, Page, expect

from davsql.dav.access import RuleOptions, ShareRules
from davsql.dav.application import make_application
from davsql.dav.request import DavOptions
from davsql.paths import DavPath
from davsql.store.nodes import Stamp, insert_node, resolve
from davsql.store.store import Store
from davsql.store.transaction import WriteTx
from tests.accounts.account_steps import PASSWORD, gate_of, new_accounts
from tests.browser.page_steps import EVIL, choose, names, press
from tests.live_server import LiveServer, serving, serving_shares

VIDEO = (
    Path(__file__).parents[1] / "data" / "six-seconds.mp4"
)  # VP9, an intra frame each second; its index is at the end


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
    home.keyboard.press("Control+a")
    expect(home.locator(".selection strong")).to_have_text("5 selected")
    for key in ("Escape", "Home", "ArrowDown", "Enter"):
        home.keyboard.press(key)
    expect(home.locator("#crumbs")).to_have_text("HomePhotos")
    assert home.url == f"{server.url}/Photos/"
    home.keyboard.press("Backspace")
    expect(home.locator("#crumbs")).to_have_text("Home")
    expect(home.locator(".list tbody tr", has_text="Photos")).to_be_focused()  # where we come from
    home.go_back()
    expect(home.locator(".list tbody a")).to_have_text(["2026"])
    home.get_by_role("link", name="Home").click()
    expect(home.locator(".list tbody a")).to_have_count(5)


def test_page__does_not_act_on_a_folder_that_has_gone(home: Page, server: LiveServer) -> None:
    server.request("DELETE", "/Photos/")
    home.get_by_role("link", name="Photos").click()
    expect(home.locator(".empty")).to_have_text("It is not there any more.")
    expect(home.get_by_role("button", name="New folder")).to_be_hidden()
    home.get_by_role("link", name="Home").click()
    expect(home.locator(".list tbody a")).to_have_count(4)


def test_page__searches_the_tree(home: Page) -> None:
    home.keyboard.press("/")
    home.keyboard.type("SEA")
    expect(home.locator(".empty")).to_be_visible()
    home.keyboard.press("Enter")
    expect(home.locator(".list tbody a")).to_have_text(["sea.png"])
    assert "Photos/2026/" in home.locator(".list tbody small").inner_text()
    choose(home, "sea.png")
    home.keyboard.press("F2")
    home.keyboard.type("research")
    home.keyboard.press("Enter")
    expect(home.locator(".list tbody a")).to_have_text(["research.png"])  # it goes on searching
    home.get_by_role("searchbox").press("Escape")
    expect(home.locator(".list tbody a")).to_have_count(5)


def test_page__tells_when_the_server_cannot_be_reached(home: Page) -> None:
    home.route("**/Photos/", lambda route: route.abort("connectionreset"))
    home.get_by_role("link", name="Photos").click()
    expect(home.locator(".empty")).to_have_text("The server cannot be reached.")
    home.get_by_role("searchbox").fill("sea")
    home.keyboard.press("Enter")
    expect(home.locator(".empty")).to_have_text("The server cannot be reached.")
    home.unroute("**/Photos/")
    home.keyboard.press("Enter")
    expect(home.locator(".list tbody a")).to_have_text(["sea.png"])
    expect(home.locator(".list")).not_to_have_attribute("aria-busy", "true")


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


def test_page__downloads_what_it_cannot_show(home: Page, server: LiveServer) -> None:
    server.request("PUT", "/letter.docx", b"PK")
    home.reload()
    with home.expect_download() as download:
        home.get_by_role("link", name="letter.docx").click()
    assert download.value.suggested_filename == "letter.docx"
    server.request("PUT", "/no.png", b"no picture")
    home.reload()
    home.get_by_role("link", name="no.png").click()
    expect(home.get_by_role("dialog")).to_contain_text("This browser cannot show it.")


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


def test_page__plays_video_by_ranges(home: Page, server: LiveServer) -> None:
    video = VIDEO.read_bytes()
    index = video.rindex(b"moov") - 4
    gap_bytes = 32 * 1024 * 1024  # more than a player reads ahead
    gap = gap_bytes.to_bytes(4, "big") + b"free" + bytes(gap_bytes - 8)
    server.request("PUT", "/film.mp4", video[:index] + gap + video[index:])
    ranges: list[str] = []
    home.on("response", lambda reply: ranges.extend(reply.headers.get("content-range", "").split()[1:]))
    home.reload()
    home.get_by_role("link", name="film.mp4").click()
    film = home.locator("video")
    expect(film).to_have_js_property("duration", 6)
    assert max(int(each.partition("-")[0]) for each in ranges) > gap_bytes // 2  # it did not read all that is before
    film.evaluate("each => { each.currentTime = 4; }")
    expect(film).to_have_js_property("seeking", value=False)
    expect(film).to_have_js_property("currentTime", 4)
    expect(film).to_have_js_property("videoWidth", 96)


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


@contextmanager
def opened_by_ann(page: Page, store: Store, folder: Path, *rules: RuleOptions) -> Iterator[LiveServer]:
    """The page at the root of a drive that asks for a password; `rules` instead of everything for everybody."""
    accounts = new_accounts(folder)
    ruled = {"/": ShareRules("", rules)} if rules else None
    with serving(make_application({"/": store}, DavOptions(), gate=gate_of(accounts), rules=ruled)) as server:
        page.goto(f"{server.scheme}://ann:{quote(PASSWORD)}@{server.url.partition('//')[2]}/")
        yield server
    accounts.close()


def test_page__signs_out(page: Page, store: Store, tmp_path: Path) -> None:
    with opened_by_ann(page, store, tmp_path) as server:
        expect(page.locator(".user")).to_have_text("ann")
        expect(page.locator(".room")).to_contain_text("free")
        press(page, "Sign out")
        expect(page.locator("h1")).to_have_text("You are signed out.")
        with pytest.raises(Error, match="ERR_INVALID_AUTH_CREDENTIALS"):  # the browser would ask for a password
            page.goto(server.url)


@pytest.mark.usefixtures("server")  # which fills the store
def test_page__offers_what_the_rules_allow(page: Page, store: Store, tmp_path: Path) -> None:
    rules = RuleOptions(("ann",), allow=("read",)), RuleOptions(("ann",), path="/Photos", allow=("read", "write"))
    with opened_by_ann(page, store, tmp_path, *rules):
        choose(page, "notes.txt")
        expect(page.get_by_role("button", name="Copy")).to_be_visible()
        for button in ("Rename", "Move", "Delete", "New folder"):
            expect(page.get_by_role("button", name=button)).to_be_hidden()
        page.get_by_role("link", name="Photos").click()
        expect(page.get_by_role("button", name="New folder")).to_be_visible()


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
