"""The page of a drive that is a part of a site: it never leaves its path."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from davsql.dav.application import make_application
from davsql.dav.peer import ProxyOptions
from davsql.dav.request import DavOptions
from davsql.store.store import Store
from tests.live_server import serving
from tests.store_steps import mkcol, put, tree


def test_page__below_a_path_stays_there(page: Page, store: Store) -> None:
    mkcol(store, "/Documents")
    put(store, "/Documents/notes.txt", b"Hello.")
    proxy = ProxyOptions(public_url="https://example.org/my%20files")
    with serving(make_application({"/": store}, DavOptions(), proxy=proxy)) as server:
        page.goto(f"{server.url}/my%20files/")
        page.locator(".list tbody a", has_text="Documents").click()
        expect(page.locator(".list tbody a")).to_have_text(["notes.txt"])
        assert page.locator("#crumbs a").all_inner_texts() == ["Home", "Documents"]
        page.get_by_role("button", name="New folder", exact=True).click()
        page.get_by_role("textbox").last.fill("new")
        page.keyboard.press("Enter")
        expect(page.locator(".list tbody a")).to_have_count(2)
        page.locator("#crumbs a", has_text="Home").click()
        expect(page).to_have_url(f"{server.url}/my%20files/")
        expect(page.locator(".list tbody a")).to_have_text(["Documents"])
    assert set(tree(store)) == {"/Documents", "/Documents/notes.txt", "/Documents/new"}
