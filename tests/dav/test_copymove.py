from __future__ import annotations

import threading

import pytest

from davsql.paths import DavPath
from davsql.store.store import Store
from tests.dav.locking import lock_of
from tests.http_client import Reply
from tests.live_server import LiveServer

BOTH = pytest.mark.parametrize("method", ["COPY", "MOVE"])


@pytest.fixture
def tree(server: LiveServer) -> None:
    """/c and /c/sub, the files /c/a, /c/sub/b and /f."""
    for path in ("/c", "/c/sub"):
        server.request("MKCOL", path)
    for path in ("/c/a", "/c/sub/b", "/f"):
        server.request("PUT", path, path.encode())


def to(server: LiveServer, method: str, source: str, destination: str, **headers: str) -> Reply:
    return server.request(method, source, headers={"Destination": destination, **headers})


def assert_whole(server: LiveServer) -> None:
    """The tree is as it was made."""
    for path in ("/c/a", "/c/sub/b", "/f"):
        assert server.request("GET", path).body == path.encode(), path


# --- what they do -------------------------------------------------------------------------------------------------


@BOTH
def test_copymove__a_file(server: LiveServer, tree: None, method: str) -> None:
    etag = server.request("HEAD", "/f").header("ETag")
    reply = to(server, method, "/f", server.url + "/c/f%20%C3%A9")
    assert (reply.status, reply.header("Location")) == (201, "/c/f%20%C3%A9")
    assert server.request("GET", "/c/f%20%C3%A9").body == b"/f"
    assert server.request("HEAD", "/c/f%20%C3%A9").header("ETag") == etag
    assert server.request("GET", "/f").status == (200 if method == "COPY" else 404)


@BOTH
@pytest.mark.parametrize("slash", ["", "/"])
def test_copymove__a_collection_with_all_it_holds(server: LiveServer, tree: None, method: str, slash: str) -> None:
    reply = to(server, method, "/c" + slash, "/d" + slash, Depth="infinity")
    assert (reply.status, reply.header("Location")) == (201, "/d" + slash)
    assert server.request("GET", "/d/sub/b").body == b"/c/sub/b"
    assert server.request("GET", "/c/sub/b").status == (200 if method == "COPY" else 404)


def test_copy__depth_0_takes_the_collection_alone(server: LiveServer, tree: None) -> None:
    assert to(server, "COPY", "/c", "/d", Depth="0").status == 201
    assert server.request("GET", "/d").status == 200
    assert server.request("GET", "/d/a").status == 404


def test_copy__depth_0_over_a_collection_leaves_no_old_member(server: LiveServer, tree: None) -> None:
    server.request("MKCOL", "/e")
    assert to(server, "COPY", "/e", "/c", Depth="0").status == 204
    assert server.request("GET", "/c/a").status == 404


@BOTH
def test_copymove__replaces_what_is_there(server: LiveServer, tree: None, method: str) -> None:
    assert to(server, method, "/f", "/c").status == 204
    assert server.request("GET", "/c").body == b"/f"
    assert server.request("GET", "/c/a").status in (404, 409)


@BOTH
@pytest.mark.parametrize("overwrite", ["F", "f"])
def test_copymove__overwrite_f_is_412(server: LiveServer, tree: None, method: str, overwrite: str) -> None:
    assert to(server, method, "/f", "/c/a", Overwrite=overwrite).status == 412
    assert_whole(server)
    assert to(server, method, "/f", "/g", Overwrite=overwrite).status == 201


@BOTH
@pytest.mark.parametrize(
    ("sent", "name"), [("/d;y", "d;y"), ("/q%3Fz", "q?z"), ("/h%23z", "h#z"), ("/%25x", "%x"), ("/%C3%A9", "é")]
)
def test_copymove__destination_means_what_a_target_means(
    server: LiveServer, store: Store, tree: None, method: str, sent: str, name: str
) -> None:
    assert to(server, method, "/f", sent).status == 201
    assert store.node(DavPath((name,))).size == 2
    assert server.request("GET", sent).body == b"/f"


def test_move__to_another_unicode_form_renames(server: LiveServer, store: Store) -> None:
    server.request("PUT", "/caf%C3%A9", b"x")
    assert to(server, "MOVE", "/caf%C3%A9", "/cafe%CC%81").status in (201, 204)
    assert server.request("GET", "/caf%C3%A9").body == b"x"
    assert store.node(DavPath.parse("/caf%C3%A9")).name == "cafe\u0301"


# --- what they refuse, and change nothing -------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ("/c/sub", "/c"),
        ("/c/sub/", "/c/"),
        ("/c", "/c/sub"),
        ("/c", "/c/sub/new"),
        ("/c", "/c"),
        ("/f", "/f"),
        ("/c", "/"),
    ],
)
def test_copymove__onto_itself_an_ancestor_or_a_descendant_is_403(
    server: LiveServer, tree: None, method: str, source: str, destination: str
) -> None:
    assert to(server, method, source, destination).status == 403
    assert_whole(server)


@BOTH
@pytest.mark.parametrize(
    ("destination", "status"),
    [
        ("http://other.example/x", 502),
        ("//other.example/x", 502),
        ("::::", 400),
        ("x", 400),
        ("/x?y", 400),
        ("/x#y", 400),
        ("/c/../x", 400),
        ("/c/%2e%2e/x", 400),
        ("/x%2Fy", 400),
        ("/x%00", 400),
        ("/x%0Ay", 400),
        ("/%ff", 400),
        ("/" + "n" * 256, 403),
        ("/" + "n/" * 3000, 414),
        ("/no/x", 409),
        ("/f/x", 409),
    ],
)
def test_copymove__impossible_destinations(
    server: LiveServer, tree: None, method: str, destination: str, status: int
) -> None:
    assert to(server, method, "/c", destination).status == status
    assert_whole(server)


@BOTH
def test_copymove__destination_is_needed(server: LiveServer, tree: None, method: str) -> None:
    assert server.request(method, "/f").status == 400
    assert_whole(server)


@BOTH
def test_copymove__malformed_headers_are_400(server: LiveServer, tree: None, method: str) -> None:
    for headers in ({"Depth": "1"}, {"Depth": "x"}, {"Overwrite": "X"}, {"If": "("}, {"If-Match": "x"}):
        assert server.request(method, "/c", headers={"Destination": "/d", **headers}).status == 400
    assert_whole(server)
    assert server.request("GET", "/d").status == 404


def test_move__of_a_part_of_a_collection_is_400(server: LiveServer, tree: None) -> None:
    assert to(server, "MOVE", "/c", "/d", Depth="0").status == 400
    assert_whole(server)
    assert to(server, "MOVE", "/f", "/g", Depth="0").status == 201


@BOTH
def test_copymove__a_missing_source_is_404(server: LiveServer, tree: None, method: str) -> None:
    assert to(server, method, "/no", "/c").status == 404
    assert_whole(server)


@BOTH
def test_copymove__a_body_is_415(server: LiveServer, tree: None, method: str) -> None:
    assert server.request(method, "/f", b"<x/>", {"Destination": "/g"}).status == 415
    assert_whole(server)


def test_move__the_root_stays(server: LiveServer, tree: None) -> None:
    assert to(server, "MOVE", "/", "/x").status == 403
    assert_whole(server)


# --- locks and conditions -----------------------------------------------------------------------------------------


def test_move__a_locked_member_protects_the_whole_tree(server: LiveServer, store: Store, tree: None) -> None:
    lock = lock_of(store, "/c/sub/b")
    for source in ("/c", "/c/"):
        refused = to(server, "MOVE", source, "/d")
        assert refused.status == 423
        assert refused.xml.findtext("{DAV:}lock-token-submitted/{DAV:}href") == "/c/sub/b"
        assert_whole(server)
    assert to(server, "MOVE", "/c", "/d", If=f"</c/sub/b> (<{lock.token}>)").status == 201


@BOTH
def test_copymove__a_locked_destination_needs_its_token(
    server: LiveServer, store: Store, tree: None, method: str
) -> None:
    lock = lock_of(store, "/c", is_depth_infinity=True)
    for destination in ("/c", "/c/a", "/c/new"):
        assert to(server, method, "/f", destination).status == 423
    assert_whole(server)
    assert to(server, method, "/f", "/c/a", If=f"</c/a> (<{lock.token}>)").status == 204


def test_move__conditions_are_about_the_source(server: LiveServer, tree: None) -> None:
    etag = server.request("HEAD", "/f").header("ETag") or ""
    assert to(server, "MOVE", "/f", "/c/a", **{"If-Match": '"other"'}).status == 412
    assert to(server, "MOVE", "/f", "/c/a", If=f"</c/a> ([{etag}])").status == 412
    assert_whole(server)
    assert to(server, "MOVE", "/f", "/c/a", **{"If-Match": etag}).status == 204


def test_move__one_of_four_moves_of_a_tree_wins(server: LiveServer, tree: None) -> None:
    statuses: list[int] = []
    threads = [
        threading.Thread(
            target=lambda name: statuses.append(to(server, "MOVE", "/c", name).status), args=(f"/d{number}",)
        )
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201, 404, 404, 404]
    assert [server.request("GET", f"/d{number}/sub/b").status for number in range(4)].count(200) == 1
