"""What litmus asks beyond version 0.13 (up to 0.18), asked with a client of our own where distributions have 0.13."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email.utils import format_datetime, parsedate_to_datetime
from urllib.parse import urljoin, urlsplit

import pytest

from davsql.store.store import Store
from tests.dav.answers import DAV, lock_body, only_response, propfind_body, proppatch_body, set_body, token_of
from tests.http_client import Client
from tests.live_server import LiveServer
from tests.store_steps import mkcol, put, tree

COLOUR = '<x:colour xmlns:x="urn:x">blue</x:colour>'
REMOVE_COLOUR = proppatch_body('<D:remove><D:prop><x:colour xmlns:x="urn:x"/></D:prop></D:remove>')

LOCK_THREADS = 20
LOCK_ROUNDS = int(os.environ.get("DAVSQL_TEST_LOCK_ROUNDS", "1000"))  # by all threads together; litmus: 400000


# --- basic --------------------------------------------------------------------------------------------------------


def test_put__location_names_the_new_resource(server: LiveServer) -> None:
    reply = server.request("PUT", "/put%23test", b"hello")
    assert reply.status == 201
    location = reply.header("Location")
    if location is not None:  # RFC 9110 15.3.2: without one it is the target itself
        assert urlsplit(urljoin(server.url, location)).path == "/put%23test"


def test_put_and_mkcol__without_a_parent_are_a_conflict(server: LiveServer) -> None:
    assert server.request("PUT", "/missing/a.txt", b"zero").status == 409
    assert server.request("MKCOL", "/missing/col/").status == 409


# --- copymove -----------------------------------------------------------------------------------------------------


def test_copy__destination_may_be_an_absolute_path(server: LiveServer, store: Store) -> None:
    put(store, "/a.txt", b"a")
    assert server.request("COPY", "/a.txt", None, {"Destination": "/b.txt"}).status == 201
    assert tree(store) == {"/a.txt": b"a", "/b.txt": b"a"}


def test_copy__shallow_over_a_collection_leaves_no_old_member(server: LiveServer, store: Store) -> None:
    for name in ("/source", "/target"):
        mkcol(store, name)
        put(store, f"{name}/foo", name.encode())
    headers = {"Destination": f"{server.url}/target/", "Depth": "0", "Overwrite": "T"}
    assert server.request("COPY", "/source/", None, headers).status == 204
    assert server.request("GET", "/target/foo").status == 404
    assert tree(store) == {"/source": None, "/source/foo": b"/source", "/target": None}


# --- props --------------------------------------------------------------------------------------------------------


def test_proppatch__removing_a_property_twice_succeeds(server: LiveServer, store: Store) -> None:
    put(store, "/a.txt")
    assert list(only_response(server.request("PROPPATCH", "/a.txt", set_body(COLOUR)))) == [200]
    for _ in range(2):
        assert list(only_response(server.request("PROPPATCH", "/a.txt", REMOVE_COLOUR))) == [200]


def test_propfind__getlastmodified_is_the_date_of_the_header(server: LiveServer, store: Store) -> None:
    put(store, "/a.txt", modified_at=1_700_000_000_123_456_789)
    reply = server.request("PROPFIND", "/a.txt", propfind_body("getlastmodified"), {"Depth": "0"})
    ((status, properties),) = only_response(reply).items()
    assert status == 200
    date = properties[f"{DAV}getlastmodified"].text
    assert date is not None
    assert format_datetime(parsedate_to_datetime(date), usegmt=True) == date  # RFC 9110 5.6.7: IMF-fixdate
    assert date == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert server.request("HEAD", "/a.txt").header("Last-Modified") == date


def test_propfind__answers_xml(server: LiveServer) -> None:
    for body in (None, propfind_body("resourcetype")):
        reply = server.request("PROPFIND", "/", body, {"Depth": "0", "Content-Type": "application/xml"})
        assert reply.status == 207
        assert (reply.header("Content-Type") or "").partition(";")[0] in ("text/xml", "application/xml")


# --- lockbomb -----------------------------------------------------------------------------------------------------


def lock_again_and_again(
    server: LiveServer, path: str, scope: str, rounds: int, while_locked: Callable[[Client], None]
) -> Counter[int]:
    """Lock and unlock a resource over one connection; how often LOCK answered what."""
    statuses: Counter[int] = Counter()
    with server.client() as client:
        for _ in range(rounds):
            reply = client.request("LOCK", path, lock_body(scope), {"Depth": "0"})
            statuses[reply.status] += 1
            if reply.status == 200:
                while_locked(client)
                unlock(client, path, token_of(reply))
    return statuses


def unlock(client: Client, path: str, token: str) -> None:
    reply = client.request("UNLOCK", path, None, {"Lock-Token": f"<{token}>"})
    assert reply.status == 204, reply


def bomb(server: LiveServer, paths: list[str], scope: str, while_locked: Callable[[Client], None]) -> Counter[int]:
    """One thread for each of `paths`, all at once."""
    with ThreadPoolExecutor(len(paths)) as pool:
        rounds = LOCK_ROUNDS // len(paths)
        runs = [pool.submit(lock_again_and_again, server, path, scope, rounds, while_locked) for path in paths]
        return sum((run.result() for run in runs), Counter())


def no_check(client: Client) -> None:
    """A shared lock, or one on a resource of one's own, excludes nobody."""


def test_lock__each_thread_its_own_resource(server: LiveServer, store: Store) -> None:
    mkcol(store, "/litmus")
    paths = [f"/litmus//lb-lock-{number:04}" for number in range(LOCK_THREADS)]  # litmus writes two slashes
    for path in paths:
        assert server.request("PUT", path, b"").status == 201
    assert bomb(server, paths, "exclusive", no_check) == {200: LOCK_ROUNDS}
    assert store.stats().locks == 0


def test_lock__all_threads_share_one_resource(server: LiveServer, store: Store) -> None:
    put(store, "/shared")
    assert bomb(server, ["/shared"] * LOCK_THREADS, "shared", no_check) == {200: LOCK_ROUNDS}
    assert store.stats().locks == 0


def test_lock__exclusive_on_one_resource_has_one_holder_at_a_time(server: LiveServer, store: Store) -> None:
    put(store, "/one")
    held = threading.Lock()

    def hold(client: Client) -> None:
        assert held.acquire(blocking=False), "two threads hold an exclusive lock"
        assert client.request("HEAD", "/one").status == 200
        held.release()

    statuses = bomb(server, ["/one"] * LOCK_THREADS, "exclusive", hold)
    assert set(statuses) == {200, 423}
    assert statuses.total() == LOCK_ROUNDS
    assert store.stats().locks == 0


@pytest.mark.parametrize("count", [LOCK_THREADS])
def test_lock__an_unmapped_url_is_created_once(server: LiveServer, store: Store, count: int) -> None:
    barrier = threading.Barrier(count)

    def create() -> int:
        barrier.wait()
        return server.request("LOCK", "/new", lock_body(), {"Depth": "0"}).status

    with ThreadPoolExecutor(count) as pool:
        statuses = Counter(run.result() for run in [pool.submit(create) for _ in range(count)])
    assert statuses == {201: 1, 423: count - 1}
    assert tree(store) == {"/new": b""}
