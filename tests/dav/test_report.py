"""sync-collection (RFC 6578) as a client asks for it."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from davsql.store.store import Store
from tests.dav.answers import DAV, only_response, propfind_body, responses, set_body
from tests.http_client import Reply
from tests.live_server import LiveServer
from tests.store_steps import at, mkcol, put

FOREIGN = "http://example.org/sync/12"


def sync_body(token: str, inside: str = "<D:sync-level>1</D:sync-level>", prop: str = "<D:getetag/>") -> bytes:
    return (
        f'<?xml version="1.0" encoding="utf-8"?><D:sync-collection xmlns:D="DAV:"><D:sync-token>{token}</D:sync-token>'
        f"{inside}<D:prop>{prop}</D:prop></D:sync-collection>"
    ).encode()


DEEP = "<D:sync-level>infinite</D:sync-level>"


class Told(NamedTuple):
    """What an answer says."""

    changed: set[str]
    removed: set[str]
    truncated: list[str]  # hrefs with 507
    token: str


def told(reply: Reply) -> Told:
    assert reply.status == 207, reply
    found = Told(set(), set(), [], reply.xml.findtext(f"{DAV}sync-token") or "")
    for response in reply.xml.findall(f"{DAV}response"):
        href, status = response.findtext(f"{DAV}href") or "", response.findtext(f"{DAV}status")
        if status is None:
            assert response.find(f"{DAV}propstat") is not None
            found.changed.add(href)
        elif status == "HTTP/1.1 404 Not Found":
            found.removed.add(href)
        else:
            assert status == "HTTP/1.1 507 Insufficient Storage"
            assert response.find(f"{DAV}error/{DAV}number-of-matches-within-limits") is not None
            found.truncated.append(href)
    return found


def ask(server: LiveServer, path: str, body: bytes, depth: str | None = None) -> Reply:
    return server.request("REPORT", path, body, {} if depth is None else {"Depth": depth})


def condition(reply: Reply) -> tuple[int, str]:
    return reply.status, str(reply.xml[0].tag).removeprefix(DAV)


@pytest.fixture
def tree(store: Store) -> None:
    """/c with /c/a b, /c/d and /c/d/two."""
    mkcol(store, "/c")
    put(store, "/c/a b", b"one")
    mkcol(store, "/c/d")
    put(store, "/c/d/two", b"two")


@pytest.mark.usefixtures("tree")
def test_report__begins_with_all_and_goes_on_with_what_changed(server: LiveServer) -> None:
    first = told(ask(server, "/c/", sync_body("", DEEP)))
    assert first == Told({"/c/a%20b", "/c/d/", "/c/d/two"}, set(), [], first.token)
    assert told(ask(server, "/c/", sync_body(""))).changed == {"/c/a%20b", "/c/d/"}
    assert told(ask(server, "/c", sync_body(first.token, DEEP))) == Told(set(), set(), [], first.token)
    server.request("PUT", "/c/d/two", b"other")
    server.request("DELETE", "/c/a%20b")
    server.request("MOVE", "/c/d", headers={"Destination": "/c/e"})
    second = told(ask(server, "/c", sync_body(first.token, DEEP)))
    assert second == Told({"/c/e/", "/c/e/two"}, {"/c/a%20b", "/c/d/"}, [], second.token)
    assert second.token.startswith("http://")


@pytest.mark.usefixtures("tree")
def test_report__gives_the_properties_that_are_asked_for(server: LiveServer) -> None:
    prop = "<D:getetag/><D:getcontentlength/><D:lockdiscovery/><D:current-user-privilege-set/><x:y xmlns:x='urn:x'/>"
    prop += "<o:checksums xmlns:o='http://owncloud.org/ns'/>"
    server.request("PUT", "/c/a%20b", b"one", {"OC-Checksum": "MD5:f97c5d29941bfb1b2fdab0874906ab82"})
    server.request("LOCK", "/c/a%20b", _LOCK)
    reply = ask(server, "/c", sync_body("", prop=prop))
    (of_file,) = [each for each in reply.xml if each.findtext(f"{DAV}href") == "/c/a%20b"]
    found = {element.tag: element for element in of_file[1][0]}
    assert found[f"{DAV}getetag"].text == server.request("HEAD", "/c/a%20b").header("ETag")
    assert found[f"{DAV}getcontentlength"].text == "3"
    assert found[f"{DAV}lockdiscovery"].find(f"{DAV}activelock") is not None
    assert found[f"{DAV}current-user-privilege-set"].find(f"{DAV}privilege") is not None
    assert "MD5:f97c5d29941bfb1b2fdab0874906ab82" in "".join(found["{http://owncloud.org/ns}checksums"].itertext())
    assert of_file[2].findtext(f"{DAV}status") == "HTTP/1.1 404 Not Found"
    assert [element.tag for element in of_file[2][0]] == ["{urn:x}y"]


_LOCK = (
    b"<D:lockinfo xmlns:D='DAV:'><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype>"
    b"</D:lockinfo>"
)


def test_report__is_cut_to_the_limit_and_goes_on(server: LiveServer, store: Store) -> None:
    for number in range(5):
        put(store, f"/{number}", b"x")
    two = f"{DEEP}<D:limit><D:nresults>2</D:nresults></D:limit>"
    token, sizes = "", []
    for truncated in (["/"], ["/"], []):
        answer = told(ask(server, "/", sync_body(token, two)))
        assert answer.truncated == truncated
        sizes.append(len(answer.changed))
        token = answer.token
    assert sizes == [2, 2, 1]


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize("token", [FOREIGN, "http://davsql/ns/sync/", "x", "http://davsql/ns/sync/1/2/0/1-1"])
def test_report__of_a_foreign_token_is_403(server: LiveServer, token: str) -> None:
    assert condition(ask(server, "/c", sync_body(token))) == (403, "valid-sync-token")
    other = told(ask(server, "/c/d", sync_body(""))).token
    assert condition(ask(server, "/c", sync_body(other))) == (403, "valid-sync-token")


@pytest.mark.usefixtures("tree")
def test_report__of_another_kind_is_403(server: LiveServer) -> None:
    unknown = b"<D:expand-property xmlns:D='DAV:'/>"
    assert condition(ask(server, "/c", unknown)) == (403, "supported-report")
    assert condition(ask(server, "/c/d/two", sync_body(""))) == (403, "supported-report")
    assert ask(server, "/no", sync_body("")).status == 404


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<x",
        sync_body("", ""),
        sync_body("", "<D:sync-level>2</D:sync-level>"),
        sync_body("", f"{DEEP}<D:limit><D:nresults>0</D:nresults></D:limit>"),
        sync_body("", f"{DEEP}<D:limit><D:nresults>many</D:nresults></D:limit>"),
        sync_body("", f"{DEEP}<D:limit><D:nresults>{'9' * 20}</D:nresults></D:limit>"),
        b"<D:sync-collection xmlns:D='DAV:'><D:sync-level>1</D:sync-level><D:prop/></D:sync-collection>",
    ],
)
def test_report__that_cannot_be_understood_is_400(server: LiveServer, body: bytes) -> None:
    assert ask(server, "/c", body).status == 400


@pytest.mark.usefixtures("tree")
def test_report__has_depth_0_but_from_old_clients(server: LiveServer) -> None:
    assert ask(server, "/c", sync_body(""), "0").status == 207
    assert ask(server, "/c", sync_body(""), "1").status == 400
    assert told(ask(server, "/c", sync_body("", ""), "1")).changed == {"/c/a%20b", "/c/d/"}  # RFC 6578 appendix A
    assert "/c/d/two" in told(ask(server, "/c", sync_body("", ""), "infinity")).changed


@pytest.mark.usefixtures("tree")
def test_sync_token__is_a_property_of_collections(server: LiveServer) -> None:
    asked = propfind_body("sync-token", "supported-report-set")
    said = only_response(server.request("PROPFIND", "/c", asked, {"Depth": "0"}))
    (report,) = said[200][f"{DAV}supported-report-set"].iter(f"{DAV}report")
    assert [element.tag for element in report] == [f"{DAV}sync-collection"]
    token = said[200][f"{DAV}sync-token"].text or ""
    assert told(ask(server, "/c", sync_body(token))) == Told(set(), set(), [], token)
    listed = responses(server.request("PROPFIND", "/", asked, {"Depth": "infinity"}))
    assert len({listed[href][200][f"{DAV}sync-token"].text for href in ("/", "/c/", "/c/d/")}) == 3
    assert set(listed["/c/d/two"]) == {404}
    every = only_response(server.request("PROPFIND", "/c", headers={"Depth": "0"}))
    assert f"{DAV}sync-token" not in every[200]


@pytest.mark.usefixtures("tree")
def test_sync_token__is_a_condition(server: LiveServer, store: Store) -> None:
    token = told(ask(server, "/c", sync_body(""))).token
    put(store, "/elsewhere", b"x")
    assert server.request("PUT", "/c/new", b"x", {"If": f"</c/> (<{token}>)"}).status == 201
    assert server.request("PUT", "/c/newer", b"x", {"If": f"</c/> (<{token}>)"}).status == 412
    assert server.request("PUT", "/c/newer", b"x", {"If": f"</c/> (Not <{token}>)"}).status == 201
    assert server.request("PUT", "/c/newest", b"x", {"If": f"</c/d/> (<{token}>)"}).status == 412
    assert store.node(at("/c/new")).size == 1


@pytest.mark.usefixtures("tree")
def test_sync_token__cannot_be_set(server: LiveServer) -> None:
    body = set_body("<D:sync-token>x</D:sync-token>")
    assert set(only_response(server.request("PROPPATCH", "/c", body))) == {403}
