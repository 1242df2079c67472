"""Races of several clients with real threads on a real server; those that the stock server loses are in races.py."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Event, Thread

import pytest

from davsql.maintenance.gc import collect_garbage
from davsql.model import ROOT_INODE
from davsql.store.check import check
from davsql.store.store import Store
from tests.http_client import Client
from tests.live_server import Served, serving_processes, serving_shares
from tests.lost_data.races import Answer, sending, together

ROUNDS = 15
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux spreads connections over processes")
BIG = b"big" * 200_000  # several chunks of the store


@pytest.fixture(params=[1, pytest.param(4, marks=ON_LINUX)], ids=["1 process", "4 workers"])
def server(request: pytest.FixtureRequest, store: Store) -> Iterator[Served]:
    """A server over `store`: in this process, or in processes beside it."""
    if request.param == 1:
        with serving_shares({"/": store}) as served:
            yield served
    else:
        with serving_processes(store.file, request.param) as processes:
            yield processes


@contextmanager
def meanwhile(*loops: Callable[[], object]) -> Iterator[None]:
    """Run functions again and again, each in a thread of its own, as long as the block lasts; their errors are ours."""
    is_over = Event()
    errors: list[BaseException] = []

    def repeat(loop: Callable[[], object]) -> None:
        try:
            while not is_over.is_set():
                loop()
        except BaseException as error:  # noqa: BLE001  # raised again below
            errors.append(error)

    threads = [Thread(target=repeat, args=(loop,)) for loop in loops]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    for error in errors:
        raise error


def test_delete_and_put__happen_one_after_the_other(server: Served) -> None:
    for content in [b"new", BIG] * ROUNDS:
        server.request("PUT", "/f", b"old")
        put, delete = together(server.address, [sending("PUT", "/f", content), sending("DELETE", "/f")])
        found = server.request("GET", "/f")
        assert delete == 204
        if put == 201:  # after the DELETE
            assert (found.status, found.body) == (200, content)
        else:
            assert (put, found.status) == (204, 404)


def test_delete_and_put_if_match__the_file_is_gone(server: Served) -> None:
    for content in [b"new", BIG] * ROUNDS:
        etag = server.request("PUT", "/f", b"old").header("ETag")
        answers = together(server.address, [sending("PUT", "/f", content, If_Match=str(etag)), sending("DELETE", "/f")])
        assert answers in ([204, 204], [412, 204])
        assert server.request("GET", "/f").status == 404


def test_put_and_delete_of_the_collection__nothing_acknowledged_is_left_behind(server: Served) -> None:
    for number in range(ROUNDS):
        server.request("MKCOL", f"/{number}/")
        put, delete = together(server.address, [sending("PUT", f"/{number}/f", BIG), sending("DELETE", f"/{number}/")])
        assert (put, delete) in ((201, 204), (409, 204))
        assert server.request("GET", f"/{number}/f").status == 404


def test_put_and_move_of_the_collection__the_file_is_where_it_was_put_or_moved_to(server: Served) -> None:
    for number in range(ROUNDS):
        server.request("MKCOL", f"/{number}/")
        put, move = together(
            server.address,
            [sending("PUT", f"/{number}/f", BIG), sending("MOVE", f"/{number}/", Destination=f"/moved{number}/")],
        )
        assert (put, move) in ((201, 201), (409, 201))
        found = server.request("GET", f"/moved{number}/f")
        assert (found.status, found.body == BIG) == ((200, True) if put == 201 else (404, False))


def test_moves_onto_each_other__one_of_both_is_left(server: Served) -> None:
    for number in range(ROUNDS):
        for name in ("a", "b"):
            server.request("PUT", f"/{name}", name.encode() * (number + 1))
        steps = [sending("MOVE", "/a", Destination="/b"), sending("MOVE", "/b", Destination="/a")]
        answers = sorted(map(str, together(server.address, steps)))
        # The second one moves back what the first one moved: nothing but one overwritten file is gone.
        assert answers == ["201", "204"]
        found = [server.request("GET", f"/{name}").status for name in ("a", "b")]
        assert sorted(found) == [200, 404]
        server.request("DELETE", "/a")
        server.request("DELETE", "/b")


def test_overwriting_moves__no_reader_sees_a_step_between(server: Served) -> None:
    """Two trees take each other's place in turn; a third name is always free or taken by a whole one."""
    files = 20
    with server.client() as client:
        for content in ("A", "B"):
            client.request("MKCOL", f"/{content}/")
            for number in range(files):
                client.request("PUT", f"/{content}/{number}", content.encode())
        assert client.request("COPY", "/A/", headers={"Destination": "/live/"}).status == 201
    seen: set[bytes] = set()

    def read() -> None:
        with server.client() as client:
            for number in range(files):
                reply = client.request("GET", f"/live/{number}")
                assert reply.status == 200
                seen.add(reply.body)
            listing = client.request("PROPFIND", "/live/", headers={"Depth": "1"})
            assert (listing.status, listing.body.count(b"<D:response>")) == (207, files + 1)

    with meanwhile(read, read, read), server.client() as client:
        for number in range(4 * ROUNDS):
            source = ("/A/", "/B/")[number % 2]
            assert client.request("COPY", source, headers={"Destination": "/next/"}).status == 201
            assert client.request("MOVE", "/next/", headers={"Destination": "/live/"}).status == 204
    assert seen == {b"A", b"B"}


def test_copy_of_a_large_tree_while_it_changes__members_that_do_not_change_are_all_there(
    store: Store, server: Served
) -> None:
    """A tree so large that the store copies it in steps."""
    fan = 17
    with server.client() as client:
        client.request("MKCOL", "/0/")
        for number in range(fan):
            assert client.request("PUT", f"/0/kept{number}", b"kept").status == 201
        for level in (1, 2):
            client.request("MKCOL", f"/{level}/")
            for number in range(fan):
                destination = {"Destination": f"/{level}/{number}/"}
                assert client.request("COPY", f"/{level - 1}/", headers=destination).status == 201
    kept = fan**3

    def change() -> None:
        with server.client() as client:
            for number in range(fan):
                place = f"/2/{number}/{fan - 1 - number}"
                client.request("PUT", f"{place}/new", b"new")
                client.request("MOVE", f"{place}/new", headers={"Destination": f"{place}/a"})
                client.request("DELETE", f"{place}/a")

    with meanwhile(change), server.client() as client:
        for number in range(3):
            assert client.request("COPY", "/2/", headers={"Destination": f"/copy{number}/"}).status == 201
    with store.snapshot() as view:
        tops = {node.name: node.inode for node in view.members(ROOT_INODE)}
        for number in range(3):
            nodes = view.descendants(tops[f"copy{number}"], 100_000)
            assert nodes is not None
            assert sum(node.name.startswith("kept") for node in nodes) == kept


def test_puts_of_the_same_bytes__with_gc_beside_them(store: Store, server: Served) -> None:
    """A blob that is an orphan at one moment and wanted at the next is there whole, or is stored again."""
    bodies = [BIG, b"small", BIG + b"tail"]

    def rewrite(name: str) -> Callable[[Client], Answer]:
        def run(client: Client) -> Answer:
            for body in bodies * 4:
                status = client.request("PUT", f"/{name}", body).status
                if status not in (201, 204) or client.request("DELETE", f"/{name}").status != 204:
                    return status
            return client.request("PUT", f"/{name}", BIG).status

        return run

    with meanwhile(partial(collect_garbage, store, grace_s=0, upload_expiry_s=60)):
        assert together(server.address, [rewrite(f"f{number}") for number in range(6)]) == [201] * 6
        for number in range(6):
            assert server.request("GET", f"/f{number}").body == BIG
    assert check(store, deep=True) == []


def test_readers__of_what_is_deleted_with_gc_beside_them(store: Store, server: Served) -> None:
    """A download that has begun ends whole, however soon its file is deleted and collected."""

    def read() -> None:
        with server.client() as client:
            reply = client.request("GET", "/f")
            assert (reply.status, reply.body) in ((200, BIG), (404, reply.body))

    collect = partial(collect_garbage, store, grace_s=0.2, upload_expiry_s=60)
    with meanwhile(read, read, collect), server.client() as client:
        for _ in range(4 * ROUNDS):
            assert client.request("PUT", "/f", BIG).status == 201
            assert client.request("DELETE", "/f").status == 204
