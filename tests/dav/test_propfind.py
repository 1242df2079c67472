from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import quote

import pytest
from lxml import etree

from davsql.access import Access
from davsql.dav import multistatus
from davsql.dav.methods import propfind
from davsql.dav.properties import PROTECTED, QUOTA, Group, Plan
from davsql.dav.request import DavOptions
from davsql.model import NO_GUARD, DeadProperty, Inode, LockRequest, LockScope, PropertyUpdate
from davsql.paths import ROOT
from davsql.store.store import Store
from davsql.store.transaction import ReadTx
from tests.dav.answers import (
    DAV,
    lock_body,
    locks_in,
    names,
    only_response,
    propfind_body,
    proppatch_body,
    responses,
    token_of,
)
from tests.http_client import Reply
from tests.live_server import LiveServer, serving_shares
from tests.store_steps import at, mkcol, put

EXCLUSIVE = LockRequest(LockScope.EXCLUSIVE, is_depth_infinity=True, owner_xml=None, timeout_s=600)


def ask(server: LiveServer, path: str, body: bytes | None = None, *, depth: str | None = "0", **headers: str) -> Reply:
    if depth is not None:
        headers["Depth"] = depth
    return server.request("PROPFIND", path, body, {name.replace("_", "-"): text for name, text in headers.items()})


@pytest.fixture
def tree(store: Store) -> None:
    """/c with /c/one.txt, /c/d and /c/d/two.txt."""
    mkcol(store, "/c")
    put(store, "/c/one.txt", b"one")
    mkcol(store, "/c/d")
    put(store, "/c/d/two.txt", b"two")


# --- depth --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tree")
def test_propfind__depth_says_how_far_it_goes(server: LiveServer) -> None:
    body = propfind_body("resourcetype")
    whole = {"/c/", "/c/one.txt", "/c/d/", "/c/d/two.txt"}
    assert set(responses(ask(server, "/c", body, depth="0"))) == {"/c/"}
    assert set(responses(ask(server, "/c/", body, depth="1"))) == whole - {"/c/d/two.txt"}
    assert set(responses(ask(server, "/c", body, depth="infinity"))) == whole
    assert set(responses(ask(server, "/c", body, depth=None))) == whole  # RFC 4918 9.1
    assert set(responses(ask(server, "/", body, depth="Infinity"))) == whole | {"/"}
    for depth in ("0", "1", "infinity"):
        assert set(responses(ask(server, "/c/one.txt", body, depth=depth))) == {"/c/one.txt"}


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize("depth", ["5", "-1", "1,noroot", "all", ""])
def test_propfind__other_depths_are_400(server: LiveServer, depth: str) -> None:
    assert ask(server, "/c", depth=depth).status == 400


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize(("limit", "status"), [(4, 207), (3, 403), (0, 403)])
def test_propfind__depth_infinity_is_bounded(store: Store, limit: int, status: int) -> None:
    with serving_shares({"/": store}, dav=DavOptions(propfind_infinity_limit=limit)) as server:
        reply = ask(server, "/", propfind_body("resourcetype"), depth="infinity")
        assert reply.status == status
        if status == 403:
            assert [child.tag for child in reply.xml] == [f"{DAV}propfind-finite-depth"]
        assert ask(server, "/c/one.txt", depth="infinity").status == 207


def test_propfind__of_a_missing_path_is_404(server: LiveServer) -> None:
    for depth in ("0", "1", "infinity"):
        assert ask(server, "/missing", depth=depth).status == 404
        assert ask(server, "/missing/deeper/still", depth=depth).status == 404


# --- values -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tree")
def test_propfind__entity_tag_and_date_are_those_of_the_headers(server: LiveServer) -> None:
    # davfs2 compares them; WsgiDAV leaves out the quotes.
    head = server.request("HEAD", "/c/one.txt")
    asked = propfind_body("getetag", "getlastmodified", "getcontentlength", "getcontenttype")
    said = only_response(ask(server, "/c/one.txt", asked))[200]
    for name, header in (
        ("getetag", "ETag"),
        ("getlastmodified", "Last-Modified"),
        ("getcontentlength", "Content-Length"),
        ("getcontenttype", "Content-Type"),
    ):
        assert said[DAV + name].text == head.header(header)
    etag = head.header("ETag")
    assert etag is not None
    assert etag.startswith('"')


@pytest.mark.usefixtures("tree")
def test_propfind__empty_body_is_allprop(server: LiveServer) -> None:
    said = only_response(ask(server, "/c/one.txt", b""))
    assert set(said) == {200}
    assert {"getetag", "resourcetype", "supportedlock", "lockdiscovery"} <= names(said[200])


@pytest.mark.usefixtures("tree")
def test_propfind__propname_names_properties(server: LiveServer) -> None:
    # WsgiDAV has no propname.
    server.request("PROPPATCH", "/c/one.txt", proppatch_body('<D:set><D:prop><x xmlns="urn:x">1</x></D:prop></D:set>'))
    said = only_response(ask(server, "/c/one.txt", b'<propfind xmlns="DAV:"><propname/></propfind>'))
    assert set(said) == {200}
    assert {"getetag", "{urn:x}x"} <= names(said[200])
    assert all(not element.text for element in said[200].values())


@pytest.mark.usefixtures("tree")
def test_propfind__include_adds_to_allprop(server: LiveServer) -> None:
    body = b'<propfind xmlns="DAV:"><allprop/><include><quota-used-bytes/><acl/></include></propfind>'
    said = only_response(ask(server, "/c", body))
    assert {"quota-used-bytes", "resourcetype"} <= names(said[200])
    assert names(said[404]) == {"acl"}


@pytest.mark.usefixtures("tree")
def test_propfind__chunked_body_counts(server: LiveServer) -> None:
    # WsgiDAV takes it for empty, hence for allprop.
    body = propfind_body("getetag")
    reply = server.request("PROPFIND", "/c/one.txt", iter([body[:20], body[20:]]), {"Depth": "0"})
    assert names(only_response(reply)[200]) == {"getetag"}


@pytest.mark.usefixtures("tree")
def test_propfind__comments_are_ignored(server: LiveServer) -> None:
    # WsgiDAV answers 500.
    body = propfind_body("getetag").replace(b"<D:prop>", b"<!-- a --><D:prop><!-- b -->")
    assert names(only_response(ask(server, "/c/one.txt", body))[200]) == {"getetag"}


def test_propfind__hrefs_are_encoded_once_and_names_are_whole(server: LiveServer, store: Store) -> None:
    odd = ["a b", "100%", "q?x#y", "ü&<ö>", "semi;colon", "(round)", "'quote'", '"', "+", "a%20b", "日本"]
    mkcol(store, "/ö c")
    for name in odd:
        put(store, f"/ö c/{name}")
    said = responses(ask(server, quote("/ö c/"), propfind_body("displayname"), depth="1"))
    found = {href: element.text for href, by in said.items() for element in by[200].values()}
    top = quote("/ö c/")
    assert found == {top: "ö c"} | {top + quote(name, safe="()"): name for name in odd}
    for href in found:
        assert ask(server, href).status == 207


def test_propfind__names_a_mounted_share(store: Store) -> None:
    with serving_shares({"/Fotos & Co": store}) as server:
        put(store, "/a.jpg")
        said = responses(ask(server, "/Fotos%20%26%20Co/", propfind_body("displayname"), depth="1"))
        assert {href: by[200][f"{DAV}displayname"].text for href, by in said.items()} == {
            "/Fotos%20%26%20Co/": "Fotos & Co",
            "/Fotos%20%26%20Co/a.jpg": "a.jpg",
        }


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize("agent", ["WebDAVFS/3.0.0 (03008000) Darwin/24.5.0", "WebDAVLib/1.3"])
def test_propfind__quota_is_for_collections_and_not_for_macos(server: LiveServer, agent: str) -> None:
    body = propfind_body("quota-available-bytes", "quota-used-bytes")
    said = only_response(ask(server, "/c", body))
    assert {int(element.text or "") > 0 for element in said[200].values()} == {True}
    assert len(said[200]) == 2
    assert set(only_response(ask(server, "/c/one.txt", body))) == {404}
    assert set(only_response(ask(server, "/c", body, User_Agent=agent))) == {404}
    assert not any("quota" in name for name in names(only_response(ask(server, "/c"))[200]))  # RFC 4331 3


# --- conditions and bodies ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tree")
def test_propfind__if_header_counts(server: LiveServer) -> None:
    etag = server.request("HEAD", "/c/one.txt").header("ETag")
    assert ask(server, "/c/one.txt", If=f"([{etag}])").status == 207
    assert ask(server, "/c/one.txt", If='(["other"])').status == 412
    assert ask(server, "/c/one.txt", If="not a list").status == 400
    assert ask(server, "/missing", If="(<urn:uuid:1>)").status == 404


@pytest.mark.usefixtures("tree")
def test_propfind__refuses_bodies_that_attack(server: LiveServer) -> None:
    doctype = b'<!DOCTYPE x [<!ENTITY e "x">]>' + propfind_body("getetag")
    for body, status in (
        (doctype, 400),
        (doctype.decode().encode("utf-16"), 400),
        (propfind_body(*(f"p{number}" for number in range(50_000))), 400),
        (b"<a>" * 100_000, 400),
        (b" " * (1024 * 1024 + 1), 413),
    ):
        assert ask(server, "/c", body, depth="1").status == status
    chunks: Iterator[bytes] = iter([b"<a/>" * 50_000] * 10)
    with suppress(BrokenPipeError, ConnectionResetError):  # the server need not read all of it
        assert server.request("PROPFIND", "/c", chunks).status == 413
    assert ask(server, "/c").status == 207


# --- pages and queries --------------------------------------------------------------------------------------------


@pytest.fixture
def count_queries(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many statements readers ran since the last call."""
    ran: list[str] = []

    def counting(method: Callable[..., Any]) -> Callable[..., Any]:
        def run(self: ReadTx, sql: str, *args: Any) -> Any:
            ran.append(sql)
            return method(self, sql, *args)

        return run

    for name in ("rows", "row", "value"):
        monkeypatch.setattr(ReadTx, name, counting(getattr(ReadTx, name)))

    def count() -> int:
        number = len(ran)
        ran.clear()
        return number

    return count


@pytest.mark.parametrize("body", [b"", propfind_body("getetag"), propfind_body("lockdiscovery", "displayname")])
def test_propfind__number_of_queries_does_not_depend_on_the_members(
    server: LiveServer, store: Store, count_queries: Callable[[], int], body: bytes
) -> None:
    for collection, members in (("/small", 2), ("/large", 200)):
        mkcol(store, collection)
        for number in range(members):
            put(store, f"{collection}/{number}")
            update = PropertyUpdate("urn:x", "x", "<x xmlns='urn:x'/>")
            store.set_properties(at(f"{collection}/{number}"), [update])
    counts = []
    for collection, members in (("/small", 2), ("/large", 200)):
        count_queries()
        assert len(responses(ask(server, collection, body, depth="1"))) == members + 1
        counts.append(count_queries())
    assert counts[0] == counts[1] <= 7


@pytest.mark.parametrize(
    "namespace_and_name",
    sorted(PROTECTED - {(multistatus.DAV, name) for name in QUOTA}),  # what is free changes at any time
    ids="".join,
)
@pytest.mark.usefixtures("tree")
def test_propfind__says_of_a_member_what_it_says_of_it_alone(
    server: LiveServer, namespace_and_name: tuple[str, str]
) -> None:
    """Members come without columns that nobody asked for; each property by itself has those that it needs."""
    assert server.request("PUT", "/c/typed", b"typed", {"Content-Type": "text/x-own"}).status == 201
    namespace, name = namespace_and_name
    body = f'<D:propfind xmlns:D="DAV:"><D:prop><x:{name} xmlns:x="{namespace}"/></D:prop></D:propfind>'.encode()
    listed = responses(ask(server, "/c", body, depth="1"))
    for href in ("/c/one.txt", "/c/typed", "/c/d/"):
        alone = only_response(ask(server, href, body))
        assert listed[href].keys() == alone.keys()
        for status, found in alone.items():
            assert [etree.tostring(each) for each in listed[href][status].values()] == [
                etree.tostring(each) for each in found.values()
            ]


def test_propfind__asks_the_store_for_no_more_than_it_needs(
    server: LiveServer, store: Store, count_queries: Callable[[], int]
) -> None:
    put(store, "/a")
    count_queries()
    assert ask(server, "/", propfind_body("getetag", "getlastmodified"), depth="1").status == 207
    assert count_queries() == 2  # the collection, its members


def test_propfind__listing_of_several_pages_has_each_member_once(
    server: LiveServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(propfind, "PAGE_MEMBERS", 7)
    monkeypatch.setattr(propfind, "BLOCK_MEMBERS", 3)
    mkcol(store, "/c")
    expected = {"/c/"}
    for number in range(21):
        name = f"e\u0301{number}" if number % 3 else f"\u00e9{number}"  # order is that of the lookup keys
        if number % 2:
            mkcol(store, f"/c/{name}")
        else:
            put(store, f"/c/{name}")
        expected.add(quote(f"/c/{name}") + ("/" if number % 2 else ""))
        said = responses(ask(server, "/c", depth="1"))
        assert set(said) == expected
    assert set(responses(ask(server, "/c", depth="infinity"))) == expected


def test_propfind__large_answer_is_streamed_and_members_may_go_meanwhile(
    server: LiveServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(propfind, "PAGE_MEMBERS", 10)
    monkeypatch.setattr(propfind, "BLOCK_MEMBERS", 5)
    mkcol(store, "/c")
    for number in range(35):
        put(store, f"/c/{number:02}")
    whole = ask(server, "/c", depth="1")
    assert whole.header("Content-Length") is not None
    monkeypatch.setattr(multistatus, "WHOLE_BODY_BYTES", 2000)
    streamed = ask(server, "/c", depth="1")
    assert streamed.header("Content-Length") is None
    assert streamed.body == whole.body


def test_propfind__holds_no_reader_while_the_answer_travels(
    server: LiveServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(propfind, "PAGE_MEMBERS", 5)
    monkeypatch.setattr(multistatus, "WHOLE_BODY_BYTES", 0)
    for number in range(20):
        put(store, f"/{number:02}")
    held = 0
    held_at_blocks: list[int] = []
    responses_of, snapshot = Plan.responses, Store.snapshot

    @contextmanager
    def counted(self: Store, access: Access) -> Iterator[object]:
        nonlocal held
        with snapshot(self, access) as view:
            held += 1
            yield view
            held -= 1

    def noting(self: Plan, group: Group, dead: Mapping[Inode, Sequence[DeadProperty]]) -> list[str]:
        held_at_blocks.append(held)
        return responses_of(self, group, dead)

    monkeypatch.setattr(Store, "snapshot", counted)
    monkeypatch.setattr(Plan, "responses", noting)
    assert len(responses(ask(server, "/", depth="1"))) == 21
    assert held_at_blocks == [0] * 5  # the collection itself, and four pages of members


# --- locks shown --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tree")
def test_propfind__lock_of_a_tree_is_shown_on_its_members(server: LiveServer) -> None:
    # A member of a locked tree shows nothing on WsgiDAV.
    token = token_of(server.request("LOCK", "/c", lock_body(owner="<D:owner>me</D:owner>"), {"Timeout": "Second-100"}))
    body = propfind_body("lockdiscovery")
    for path, depth in (("/c", "1"), ("/c", "infinity"), ("/c/d/two.txt", "0"), ("/c/d", "1"), ("/", "infinity")):
        for href, by_status in responses(ask(server, path, body, depth=depth)).items():
            shown = locks_in(by_status[200][f"{DAV}lockdiscovery"])
            if href == "/":
                assert shown == []
                continue
            (lock,) = shown
            assert (lock["locktoken"], lock["lockroot"], lock["depth"]) == (token, "/c/", "infinity")
            assert (lock["owner"], lock["lockscope"]) == ("me", "exclusive")
            assert 90 <= int(lock["timeout"].removeprefix("Second-")) <= 100


@pytest.mark.usefixtures("tree")
def test_propfind__lock_of_depth_0_is_shown_on_its_root_only(server: LiveServer) -> None:
    server.request("LOCK", "/c", lock_body(), {"Depth": "0"})
    server.request("LOCK", "/c/one.txt", lock_body("shared"))
    server.request("LOCK", "/c/one.txt", lock_body("shared"))
    said = responses(ask(server, "/c", propfind_body("lockdiscovery"), depth="infinity"))
    shown = {href: locks_in(by[200][f"{DAV}lockdiscovery"]) for href, by in said.items()}
    assert {href: [lock["lockroot"] for lock in locks] for href, locks in shown.items()} == {
        "/c/": ["/c/"],
        "/c/one.txt": ["/c/one.txt", "/c/one.txt"],
        "/c/d/": [],
        "/c/d/two.txt": [],
    }


@pytest.mark.usefixtures("tree")
def test_propfind__shared_locks_of_several_levels_add_up(server: LiveServer, store: Store) -> None:
    for path in ("/c", "/c/d", "/c/d/two.txt"):
        store.lock(at(path), EXCLUSIVE._replace(scope=LockScope.SHARED), NO_GUARD)
    expected = {"/c/": ["/c/"], "/c/one.txt": ["/c/"], "/c/d/": ["/c/", "/c/d/"]}
    expected["/c/d/two.txt"] = ["/c/", "/c/d/", "/c/d/two.txt"]
    for path, depth in (("/", "infinity"), ("/c", "infinity"), ("/c/d", "1"), ("/c/d/two.txt", "0")):
        for href, by_status in responses(ask(server, path, depth=depth)).items():
            roots = [lock["lockroot"] for lock in locks_in(by_status[200][f"{DAV}lockdiscovery"])]
            assert sorted(roots) == expected.get(href, [])


def test_propfind__lock_on_the_root_is_shown_everywhere(server: LiveServer, store: Store) -> None:
    put(store, "/a")
    store.lock(ROOT, EXCLUSIVE)
    for by_status in responses(ask(server, "/", depth="1")).values():
        (lock,) = locks_in(by_status[200][f"{DAV}lockdiscovery"])
        assert lock["lockroot"] == "/"
