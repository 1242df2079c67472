"""What clients of a real server see while a store is under pressure, and what is in it afterwards."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

import pytest

from davsql.errors import StoreUnavailable
from davsql.maintenance.gc import collect_garbage
from davsql.maintenance.health import Status, look_at
from davsql.maintenance.thread import Maintenance
from davsql.store import wal
from davsql.store.check import check
from davsql.store.options import StoreOptions
from davsql.store.store import Store
from davsql.store.transaction import WriteTx
from tests.http_client import Reply
from tests.live_server import LiveServer, serving_shares
from tests.store_steps import put, tree

TIMEOUT_S = 30
CLIENTS = 12
BIG = b"the same bytes; " * 50_000  # several chunks
MIB = 1024 * 1024
LOCKER = """\
import sys, apsw
connection = apsw.Connection(sys.argv[1])
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def served(file: Path, options: StoreOptions) -> Iterator[tuple[Store, LiveServer]]:
    with Store.open(file, options, create=True) as store, serving_shares({"/": store}) as server:
        yield store, server


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Another process sits on the write lock."""
    command = [sys.executable, "-c", LOCKER, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        try:
            yield
        finally:
            process.communicate()


def hold_writer(store: Store) -> threading.Event:
    """Keep the writer at a command until the event is set."""
    taken, release = threading.Event(), threading.Event()

    def wait(_tx: WriteTx) -> None:
        taken.set()
        assert release.wait(TIMEOUT_S)

    store._writer.submit(wait)  # noqa: SLF001
    assert taken.wait(TIMEOUT_S)
    return release


def put_at_once(server: LiveServer) -> tuple[ThreadPoolExecutor, Callable[[], dict[str, Reply]]]:
    """Each client sends a file of its own; the answers by path."""
    pool = ThreadPoolExecutor(CLIENTS)
    futures = {f"/{n}": pool.submit(server.request, "PUT", f"/{n}", str(n).encode()) for n in range(CLIENTS)}
    return pool, lambda: {path: future.result(TIMEOUT_S) for path, future in futures.items()}


def is_told_truthfully(replies: dict[str, Reply], store: Store) -> bool:
    """Whether exactly what was confirmed is there."""
    return set(tree(store)) == {path for path, reply in replies.items() if reply.status == 201}


# --- the queue, the lock, the writer ----------------------------------------------------------------------------------


def test_full_queue__is_503_with_retry_after_and_nothing_is_lost(tmp_path: Path) -> None:
    with served(tmp_path / "a.db", StoreOptions(queue_size=3, queue_timeout_s=0.1)) as (store, server):
        release = hold_writer(store)
        pool, replies_of = put_at_once(server)
        with pool:
            deadline = time.monotonic() + TIMEOUT_S
            while store.vitals().writer.refused < CLIENTS - 3:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            release.set()
            replies = replies_of()
        statuses = [reply.status for reply in replies.values()]
        assert sorted(statuses) == [201] * 3 + [503] * (CLIENTS - 3)
        assert all(int(reply.header("Retry-After") or 0) > 0 for reply in replies.values() if reply.status == 503)
        assert is_told_truthfully(replies, store)
        assert server.request("PUT", "/after", b"x").status == 201


def test_lock_of_another_process__is_waited_for(tmp_path: Path) -> None:
    with served(tmp_path / "a.db", StoreOptions()) as (store, server):
        assert server.request("PUT", "/before", b"x").status == 201
        with locked(store.file):
            pool, replies_of = put_at_once(server)
            assert server.request("GET", "/before").body == b"x"  # reading goes on
            assert server.request("PROPFIND", "/", None, {"Depth": "1"}).status == 207
            time.sleep(0.5)
        with pool:
            assert {reply.status for reply in replies_of().values()} == {201}
        assert len(tree(store)) == CLIENTS + 1


def test_lock_of_another_process__that_lasts_is_503_and_nothing_is_changed(tmp_path: Path) -> None:
    with served(tmp_path / "a.db", StoreOptions(busy_timeout_s=1)) as (store, server):
        with locked(store.file):
            pool, replies_of = put_at_once(server)
            with pool:
                replies = replies_of()
            requests = [("DELETE", "/1"), ("MKCOL", "/c")]
            assert {server.request(*each).status for each in requests} <= {404, 503}
        assert {reply.status for reply in replies.values()} == {503}
        assert all(reply.header("Retry-After") for reply in replies.values())
        assert tree(store) == {}
        assert server.request("PUT", "/after", b"x").status == 201
        assert store.was_clean


def test_dead_writer__is_503_while_reading_goes_on(tmp_path: Path) -> None:
    def die(_tx: WriteTx) -> None:
        raise SystemExit

    with served(tmp_path / "a.db", StoreOptions()) as (store, server):
        assert server.request("PUT", "/f", b"x").status == 201
        with pytest.raises(StoreUnavailable, match="has stopped"):
            store.write(die)
        assert {server.request("PUT", f"/{n}", b"y").status for n in range(3)} == {503}
        assert server.request("DELETE", "/f").status == 503
        assert server.request("GET", "/f").body == b"x"
        health = look_at(store)
        assert health.status is Status.UNHEALTHY
        assert "the writer has stopped" in health.complaints[0].message
    with Store.open(tmp_path / "a.db") as store:
        assert tree(store) == {"/f": b"x"}


# --- the WAL ----------------------------------------------------------------------------------------------------------


@contextmanager
def slow_download(server: LiveServer, path: str) -> Iterator[None]:
    """A client that asked for a file and does not read it."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(server.address)
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert client.recv(12) == b"HTTP/1.1 200"
        yield


def test_wal__stays_bounded_under_writes_beside_slow_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body, bodies = MIB // 2, 160
    monkeypatch.setattr(wal, "CHECKPOINT_BYTES", MIB)
    monkeypatch.setattr(wal, "BYTES_LIMIT", 4 * MIB)
    with served(tmp_path / "a.db", StoreOptions(durability="normal")) as (store, server), ExitStack() as stack:
        put(store, "/slow", os.urandom(32 * MIB))
        store.checkpoint(truncate=True)
        maintenance = Maintenance(store)
        maintenance.start()
        stack.callback(maintenance.stop)
        for _ in range(20):
            stack.enter_context(slow_download(server, "/slow"))
        assert store.vitals().downloads_active == 20
        numbers, highest = count(), 0

        def write() -> None:
            nonlocal highest
            while (number := next(numbers)) < bodies:
                put(store, f"/{number % 7}", os.urandom(body))
                highest = max(highest, store.wal_bytes)

        with ThreadPoolExecutor(4) as pool:
            for future in [pool.submit(write) for _ in range(4)]:
                future.result(TIMEOUT_S)
        assert store.vitals().downloads_active > 0
        # Beyond the limit comes what is written while a checkpoint is at work: more on a busy disk.
        assert highest < bodies * body // 2


# --- damage and garbage -----------------------------------------------------------------------------------------------


def test_damaged_chunk__is_healed_by_put_of_the_same_bytes(tmp_path: Path) -> None:
    with served(tmp_path / "a.db", StoreOptions()) as (store, server):
        put(store, "/f", BIG)
        put(store, "/other", BIG)
        store.write(lambda tx: tx.change("UPDATE chunk_data SET data = zeroblob(length(data)) WHERE chunk_id = 1"))
        assert server.request("GET", "/f").status == 500
        assert [violation.rule for violation in check(store, deep=True)] == [15, 15]
        assert server.request("PUT", "/copy", BIG).status == 201
        assert server.request("GET", "/f").body == server.request("GET", "/other").body == BIG
        collect_garbage(store, grace_s=-1, upload_expiry_s=60)
        assert check(store, deep=True) == []


def test_copy_get_and_put_of_the_same_bytes__with_gc_beside_them(tmp_path: Path) -> None:
    """Content that one client takes away at the moment in which another copies, reads or sends it again."""
    rounds = 40
    with served(tmp_path / "a.db", StoreOptions(durability="normal")) as (store, server):
        put(store, "/0", BIG)
        is_over = threading.Event()

        def collect() -> None:
            while not is_over.is_set():
                collect_garbage(store, grace_s=0.2, upload_expiry_s=60)

        def run(step: Callable[[int], None]) -> None:
            for number in range(rounds):
                step(number)

        def copy(number: int) -> None:
            headers = {"Destination": f"{server.url}/{(number + 1) % 3}"}
            assert server.request("COPY", f"/{number % 3}", None, headers).status in (201, 204, 404)

        def delete(number: int) -> None:
            assert server.request("DELETE", f"/{number % 3}").status in (204, 404)

        def send(number: int) -> None:
            assert server.request("PUT", f"/{number % 3}", BIG).status in (201, 204)

        def read(number: int) -> None:
            reply = server.request("GET", f"/{number % 3}")
            assert (reply.status, reply.body) in ((200, BIG), (404, reply.body))

        collector = threading.Thread(target=collect)
        collector.start()
        try:
            with ThreadPoolExecutor(6) as pool:
                steps = (copy, delete, delete, send, read, read)
                for future in [pool.submit(run, step) for step in steps]:
                    future.result(TIMEOUT_S)
        finally:
            is_over.set()
            collector.join()
        assert set(tree(store).values()) <= {BIG}
        assert check(store, deep=True) == []
