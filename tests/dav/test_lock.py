from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from davsql.dav.request import DavOptions
from davsql.model import Guard, LockRequest, LockScope
from davsql.store.store import Store
from tests.dav.answers import DAV, lock_body, locks_in, only_response, propfind_body, token_of
from tests.http_client import Reply
from tests.live_server import LiveServer, serving_shares
from tests.store_steps import at, mkcol, put, read

OWNER = '<D:owner>me <x:a xmlns:x="urn:x" k="1">&lt;here&gt;</x:a> too</D:owner>'


@pytest.fixture(autouse=True)
def tree(store: Store) -> None:
    """/c with /c/a.txt and /c/d/b.txt."""
    mkcol(store, "/c")
    put(store, "/c/a.txt", b"a")
    mkcol(store, "/c/d")
    put(store, "/c/d/b.txt", b"b")


def lock(server: LiveServer, path: str, scope: str = "exclusive", **headers: str) -> Reply:
    return server.request(
        "LOCK", path, lock_body(scope), {name.replace("_", "-"): text for name, text in headers.items()}
    )


def refresh(server: LiveServer, path: str, token: str, **headers: str) -> Reply:
    return server.request("LOCK", path, None, {"If": f"(<{token}>)", **headers})


def unlock(server: LiveServer, path: str, token: str) -> Reply:
    return server.request("UNLOCK", path, None, {"Lock-Token": token})


def shown(server: LiveServer, path: str) -> list[str]:
    """Tokens of the locks that lockdiscovery shows."""
    reply = server.request("PROPFIND", path, propfind_body("lockdiscovery"), {"Depth": "0"})
    return [each["locktoken"] for each in locks_in(only_response(reply)[200][f"{DAV}lockdiscovery"])]


def condition(reply: Reply) -> tuple[str, list[str | None]]:
    """The condition that an error names, and its hrefs."""
    (element,) = reply.xml
    return str(element.tag).removeprefix(DAV), [href.text for href in element]


# --- new locks ----------------------------------------------------------------------------------------------------


def test_lock__answers_with_the_lock(server: LiveServer) -> None:
    reply = server.request("LOCK", "/c/a.txt", lock_body("shared", OWNER), {"Depth": "0", "Timeout": "Second-100"})
    token = token_of(reply)
    assert reply.status == 200
    assert reply.header("Content-Type") == "application/xml; charset=utf-8"
    assert reply.xml.tag == f"{DAV}prop"
    (said,) = locks_in(reply.xml)
    assert said.pop("timeout") in ("Second-100", "Second-99")
    assert said == {
        "locktype": "",
        "lockscope": "shared",
        "depth": "0",
        "owner": "me <here> too",
        "locktoken": token,
        "lockroot": "/c/a.txt",
    }
    assert reply.xml.find(f".//{DAV}owner/{{urn:x}}a[@k='1']") is not None
    assert shown(server, "/c/a.txt") == [token]


def test_lock__depth_is_infinity_unless_said(server: LiveServer) -> None:
    for headers, depth in (({}, "infinity"), ({"Depth": "infinity"}, "infinity"), ({"Depth": "0"}, "0")):
        reply = lock(server, "/c", **headers)
        (said,) = locks_in(reply.xml)
        assert (said["depth"], said["lockroot"]) == (depth, "/c/")
        assert unlock(server, "/c", token_of(reply)).status == 204
    for depth in ("1", "2", "all"):
        assert lock(server, "/c", Depth=depth).status == 400
    assert shown(server, "/c") == []


@pytest.mark.parametrize(
    ("timeout", "granted"),
    [
        (None, 50),
        ("Second-30", 30),
        ("second-30", 30),
        ("Infinite", 100),
        ("Second-4294967295", 100),
        ("Second-99999999999999999999, Second-40", 40),
        ("Extend, Second-40, Second-30", 40),
        ("Infinite, Second-40", 100),
        ("Second-0", 1),
        ("Second--5", 50),
        ("nonsense", 50),
    ],
)
def test_lock__timeout_is_within_bounds(store: Store, timeout: str | None, granted: int) -> None:
    options = DavOptions(lock_timeout_default_s=50, lock_timeout_max_s=100)
    with serving_shares({"/": store}, dav=options) as server:
        headers = {} if timeout is None else {"Timeout": timeout}
        (said,) = locks_in(lock(server, "/c/a.txt", **headers).xml)
        assert granted - 1 <= int(said["timeout"].removeprefix("Second-")) <= granted


def test_lock__of_an_unmapped_url_makes_an_empty_file(server: LiveServer, store: Store) -> None:
    reply = lock(server, "/c/new.txt")  # RFC 4918 7.3
    assert reply.status == 201
    assert read(store, "/c/new.txt") == b""
    assert shown(server, "/c/new.txt") == [token_of(reply)]
    assert server.request("PUT", "/c/new.txt", b"x").status == 423


def test_lock__without_a_parent_is_409(server: LiveServer) -> None:
    assert lock(server, "/missing/new.txt").status == 409
    assert lock(server, "/c/a.txt/new.txt").status == 409


@pytest.mark.parametrize("depth", ["0", "infinity"])
def test_lock__refused_on_an_unmapped_url_leaves_no_file(server: LiveServer, depth: str) -> None:
    # WsgiDAV makes the file before it looks: it stays after the 423.
    token = token_of(lock(server, "/c", Depth=depth))
    assert lock(server, "/c/new.txt").status == 423
    assert server.request("HEAD", "/c/new.txt").status == 404
    assert unlock(server, "/c", token).status == 204
    assert lock(server, "/c/new.txt").status == 201


def test_lock__conflict_names_the_locks_in_the_way(server: LiveServer) -> None:
    lock(server, "/c/d/b.txt", "shared")
    for path in ("/c", "/c/d", "/c/d/b.txt", "/"):
        reply = lock(server, path)
        assert reply.status == 423
        assert condition(reply) == ("no-conflicting-lock", ["/c/d/b.txt"])
        assert shown(server, path) == ([] if path != "/c/d/b.txt" else shown(server, "/c/d/b.txt"))
    assert lock(server, "/c", Depth="0").status == 200


def test_lock__shared_locks_stand_side_by_side(server: LiveServer) -> None:
    tokens = [token_of(lock(server, "/c/a.txt", "shared")) for _ in range(3)]
    reply = lock(server, "/c/a.txt", "shared")
    assert [said["locktoken"] for said in locks_in(reply.xml)] == [token_of(reply), *tokens]  # its own one first
    assert lock(server, "/c/a.txt").status == 423


@pytest.mark.parametrize(
    "body",
    [
        b"<lockinfo/>",
        b"text",
        lock_body().replace(b"write", b"read"),
        lock_body().replace(b"<D:exclusive/>", b""),
        b'<!DOCTYPE x [<!ENTITY e "x">]>' + lock_body(),
    ],
)
def test_lock__refuses_other_bodies(server: LiveServer, body: bytes) -> None:
    assert server.request("LOCK", "/c/a.txt", body).status == 400
    assert server.request("LOCK", "/c/new.txt", body).status == 400
    assert server.request("HEAD", "/c/new.txt").status == 404


def test_lock__chunked_body_counts(server: LiveServer) -> None:
    body = lock_body()
    reply = server.request("LOCK", "/c/a.txt", iter([body[:30], body[30:]]))
    assert shown(server, "/c/a.txt") == [token_of(reply)]


def test_lock__conditions_count(server: LiveServer) -> None:
    assert lock(server, "/c/a.txt", If='(["other"])').status == 412
    assert lock(server, "/c/new.txt", If_Match="*").status == 412
    assert server.request("HEAD", "/c/new.txt").status == 404
    assert lock(server, "/c/a.txt", If="nonsense").status == 400
    assert shown(server, "/c/a.txt") == []


def test_lock__survives_a_restart(store: Store) -> None:
    with serving_shares({"/": store}) as server:
        token = token_of(lock(server, "/c/a.txt"))
    with serving_shares({"/": store}) as server:
        assert shown(server, "/c/a.txt") == [token]
        assert server.request("PUT", "/c/a.txt", b"x").status == 423


# --- what a lock protects -----------------------------------------------------------------------------------------


def test_lock__writes_without_the_token_name_the_condition(server: LiveServer) -> None:
    # WsgiDAV's 423 has another element.
    token = token_of(lock(server, "/c"))
    for method, path in (("PUT", "/c/a.txt"), ("DELETE", "/c/d"), ("MKCOL", "/c/e"), ("PUT", "/c/new")):
        reply = server.request(method, path, b"x" if method == "PUT" else None)
        assert reply.status == 423
        assert condition(reply)[0] == "lock-token-submitted"
        assert condition(reply)[1] in (["/c"], ["/c/"])
    submitted = {"If": f"(<{token}>)"}
    assert server.request("PUT", "/c/a.txt", b"x", submitted).status == 204
    assert server.request("MKCOL", "/c/e", None, submitted).status == 201


def test_lock__tree_with_a_locked_member_moves_with_its_token(server: LiveServer) -> None:
    # WsgiDAV answers 423 even with the token.
    token = token_of(lock(server, "/c/d/b.txt"))
    assert server.request("MOVE", "/c", None, {"Destination": "/e"}).status == 423
    headers = {"Destination": "/e", "If": f"</c/d/b.txt> (<{token}>)"}
    assert server.request("MOVE", "/c", None, headers).status == 201
    assert shown(server, "/e/d/b.txt") == []  # RFC 4918 7.6: a lock does not move


def test_lock__survives_many_clients_at_one_resource(server: LiveServer) -> None:
    # WsgiDAV's storage deadlocks and raises.
    def clash(_: int) -> set[tuple[str, int]]:
        seen = set()
        with server.client() as client:
            for _ in range(25):
                reply = client.request("LOCK", "/c/a.txt", lock_body())
                seen.add(("LOCK", reply.status))
                if reply.status == 200:
                    freed = client.request("UNLOCK", "/c/a.txt", None, {"Lock-Token": f"<{token_of(reply)}>"})
                    seen.add(("UNLOCK", freed.status))
        return seen

    with ThreadPoolExecutor(8) as pool:
        seen = set().union(*pool.map(clash, range(8)))
    assert {("LOCK", 200), ("UNLOCK", 204)} <= seen <= {("LOCK", 200), ("LOCK", 423), ("UNLOCK", 204)}
    assert shown(server, "/c/a.txt") == []


# --- refresh ------------------------------------------------------------------------------------------------------


def test_refresh__gives_more_time(server: LiveServer) -> None:
    token = token_of(lock(server, "/c", Timeout="Second-60"))
    for path in ("/c", "/c/d/b.txt"):  # RFC 4918 9.10.2: any resource within the lock
        reply = refresh(server, path, token, Timeout="Second-600", Depth="0")
        assert reply.status == 200
        assert reply.header("Lock-Token") is None
        (said,) = locks_in(reply.xml)
        assert (said["locktoken"], said["depth"], said["lockroot"]) == (token, "infinity", "/c/")
        assert int(said["timeout"].removeprefix("Second-")) > 590


def test_refresh__needs_the_token_of_a_lock_that_covers_the_resource(server: LiveServer) -> None:
    token = token_of(lock(server, "/c/a.txt"))
    for path, submitted in (("/c/a.txt", "urn:uuid:other"), ("/c/d/b.txt", token), ("/c", token)):
        reply = refresh(server, path, submitted)
        assert reply.status == 412
        assert condition(reply)[0] == "lock-token-matches-request-uri"
    assert refresh(server, "/c/new.txt", token).status == 412
    assert server.request("HEAD", "/c/new.txt").status == 404


def test_refresh__needs_exactly_one_token(server: LiveServer) -> None:
    tokens = [token_of(lock(server, "/c/a.txt", "shared")) for _ in range(2)]
    etag = server.request("HEAD", "/c/a.txt").header("ETag")
    assert server.request("LOCK", "/c/a.txt").status == 400
    for header in ("".join(f"(<{token}>)" for token in tokens), f"([{etag}])", "nonsense"):
        assert server.request("LOCK", "/c/a.txt", None, {"If": header}).status == 400
    assert refresh(server, "/c/a.txt", tokens[1]).status == 200


# --- unlock -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["<{}>", "{}", " <{}> "])
def test_unlock__ends_the_lock(server: LiveServer, form: str) -> None:
    token = token_of(lock(server, "/c/a.txt"))
    reply = unlock(server, "/c/a.txt", form.format(token))
    assert (reply.status, reply.body) == (204, b"")
    assert shown(server, "/c/a.txt") == []
    assert server.request("PUT", "/c/a.txt", b"x").status == 204


def test_unlock__works_from_within_a_locked_tree(server: LiveServer) -> None:
    token = token_of(lock(server, "/c"))
    assert unlock(server, "/c/d/b.txt", f"<{token}>").status == 204  # RFC 4918 9.11
    assert shown(server, "/c") == []


def test_unlock__through_a_member_of_a_depth_0_lock_is_refused(server: LiveServer) -> None:
    # WsgiDAV accepts it.
    token = token_of(lock(server, "/c", Depth="0"))
    for path in ("/c/a.txt", "/c/d", "/"):
        reply = unlock(server, path, f"<{token}>")
        assert reply.status == 409
        assert condition(reply)[0] == "lock-token-matches-request-uri"
    assert shown(server, "/c") == [token]


def test_unlock__of_a_lock_that_is_gone_is_409(server: LiveServer) -> None:
    token = token_of(lock(server, "/c/a.txt"))
    assert [unlock(server, "/c/a.txt", f"<{token}>").status for _ in range(2)] == [204, 409]
    assert unlock(server, "/c/a.txt", "<urn:uuid:never>").status == 409


@pytest.mark.parametrize("token", ["", "<>", "no-uri", "<urn:uuid:1> <urn:uuid:2>", "<urn:uuid:1", "(<urn:uuid:1>)"])
def test_unlock__without_a_usable_token_is_400(server: LiveServer, token: str) -> None:
    assert unlock(server, "/c/a.txt", token).status == 400
    assert server.request("UNLOCK", "/c/a.txt").status == 400


def test_unlock__with_a_body_is_415(server: LiveServer) -> None:
    token = token_of(lock(server, "/c/a.txt"))
    assert server.request("UNLOCK", "/c/a.txt", b"x", {"Lock-Token": f"<{token}>"}).status == 415
    assert shown(server, "/c/a.txt") == [token]


def test_unlock__of_somebody_elses_lock_is_403(server: LiveServer, store: Store) -> None:
    request = LockRequest(LockScope.EXCLUSIVE, is_depth_infinity=True, owner_xml=None, timeout_s=600)
    token = store.lock(at("/c/a.txt"), request, Guard(principal="alice")).lock.token
    assert unlock(server, "/c/a.txt", f"<{token}>").status == 403
    assert refresh(server, "/c/a.txt", token).status == 403
    assert server.request("PUT", "/c/a.txt", b"x", {"If": f"(<{token}>)"}).status == 423
    with store.snapshot() as view:
        assert [lock.token for lock in view.locks_covering(at("/c/a.txt"))] == [token]
