"""The admin port: health as it truly is, and where it listens."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from davsql.cli.monitoring import announcement, require_local, start_admin
from davsql.errors import ListenError, StoreError, StoreFull, StoreUnavailable
from davsql.maintenance import health
from davsql.maintenance.health import Status, Watched, look_at
from davsql.maintenance.replica_progress import ReplicaStatus
from davsql.server.admin import AdminServer, OneProcess
from davsql.server.http import HttpServer
from davsql.server.options import AdminOptions
from davsql.store.options import StoreOptions
from davsql.store.records import finish_task, start_task
from davsql.store.store import Store
from davsql.store.transaction import WriteTx
from tests import http_client
from tests.http_client import Headers, Reply
from tests.live_server import LiveServer
from tests.store_steps import mkcol, put, read

WITHIN_S = 10
LOOPBACK = "127.0.0.1"


class Ask(Protocol):
    """GET from an admin port."""

    def __call__(self, target: str, headers: Headers = ()) -> Reply: ...


@contextmanager
def admin_of(watched: Watched, server: HttpServer) -> Iterator[Ask]:
    admin = AdminServer((LOOPBACK, 0), OneProcess(watched, server))
    admin.start()
    try:
        yield lambda target, headers=(): http_client.request(admin.address, "GET", target, None, headers)
    finally:
        admin.stop()


@pytest.fixture
def ask(store: Store, server: LiveServer) -> Iterator[Ask]:
    """GET from the admin port of a server with one share."""
    with admin_of(Watched({"/": store}), server.http) as asked:
        yield asked


def ready(ask: Ask) -> tuple[int, str, list[str]]:
    """Status code, status, and what is complained of."""
    reply = ask("/health/ready")
    found = json.loads(reply.body)
    return reply.status, found["status"], [each["message"] for each in found["shares"]["/"]["complaints"]]


def share_of(ask: Ask) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ask("/health/ready").body)["shares"]["/"]
    return found


def soon(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def hold_writer(store: Store) -> threading.Event:
    """Keep the writer at a command until the event is set."""
    taken, release = threading.Event(), threading.Event()

    def wait(_tx: WriteTx) -> None:
        taken.set()
        assert release.wait(WITHIN_S)

    store._writer.submit(wait)  # noqa: SLF001
    assert taken.wait(WITHIN_S)
    return release


def limit_pages(store: Store, pages: int) -> None:
    """A full disk, as SQLite sees it."""
    store.write(lambda tx: tx.rows(f"PRAGMA max_page_count = {pages}"))


# --- what is answered -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/health", "/health/live"])
def test_live__needs_no_store(ask: Ask, store: Store, target: str) -> None:
    store.close()
    reply = ask(target)
    assert reply.status == 200
    assert json.loads(reply.body)["status"] == "alive"
    assert reply.header("Content-Type") == "application/json"
    assert reply.header("Cache-Control") == "no-store"


def test_ready__of_a_fresh_store_is_healthy(ask: Ask) -> None:
    assert ready(ask) == (200, "healthy", [])
    found = share_of(ask)
    assert found["writer_alive"] is True
    assert (found["queue_depth"], found["queue_size"]) == (0, 1000)
    assert found["integrity_check"] is None
    assert found["replica"] is None


def test_metrics__in_both_formats(ask: Ask) -> None:
    plain = ask("/metrics")
    assert (plain.header("Content-Type") or "").startswith("text/plain; version=")
    names = {family.name for family in parse(plain.text)}
    assert {"davsql_writer_commands", "davsql_http_requests", "davsql_wal_bytes"} <= names
    reply = ask("/metrics", {"Accept": "application/openmetrics-text; version=1.0.0"})
    assert (reply.header("Content-Type") or "").startswith("application/openmetrics-text")
    families = parse_openmetrics(reply.text)  # type: ignore[no-untyped-call]
    assert "davsql_writer_commands" in {family.name for family in families}


def test_others__are_refused(store: Store, server: LiveServer) -> None:
    admin = AdminServer((LOOPBACK, 0), OneProcess(Watched({"/": store}), server.http))
    admin.start()
    try:
        assert http_client.request(admin.address, "GET", "/").status == 404
        assert http_client.request(admin.address, "GET", "/health/../../etc/passwd").status == 404
        for method in ("PUT", "POST", "DELETE", "PROPFIND"):
            refused = http_client.request(admin.address, method, "/metrics", b"")
            assert (refused.status, refused.header("Allow")) == (405, "GET, HEAD")
        head = http_client.request(admin.address, "HEAD", "/health/ready")
        assert (head.status, head.body) == (200, b"")
        assert int(head.header("Content-Length") or 0) > 100
    finally:
        admin.stop()


# --- health, one cause each -------------------------------------------------------------------------------------------


def test_ready__degraded_while_the_wal_is_large(ask: Ask, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "WAL_BYTES_DEGRADED", 2 * 1024 * 1024)
    put(store, "/a", os.urandom(3_000_000))
    code, status, complaints = ready(ask)
    assert (code, status) == (200, "degraded")
    assert complaints[0].startswith("the WAL has grown to ")
    store.checkpoint(truncate=True)
    assert ready(ask) == (200, "healthy", [])


def test_ready__lets_the_wal_of_a_replicated_store_be_larger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "WAL_BYTES_DEGRADED", 2 * 1024 * 1024)
    with Store.open(tmp_path / "r.db", StoreOptions(leaves_checkpoints=True), create=True) as replicated:
        put(replicated, "/a", os.urandom(3_000_000))
        assert look_at(replicated).complaints == ()
        monkeypatch.setattr(health, "LEFT_WAL_BYTES_DEGRADED", 2 * 1024 * 1024)
        assert look_at(replicated).status is Status.DEGRADED


def test_ready__degraded_while_commands_pile_up(tmp_path: Path, server: LiveServer) -> None:
    options = StoreOptions(queue_size=3)
    with (
        Store.open(tmp_path / "a.db", options, create=True) as store,
        admin_of(Watched({"/": store}), server.http) as ask,
    ):
        release = hold_writer(store)
        pending = [store._writer.submit(lambda tx: tx.now) for _ in range(3)]  # noqa: SLF001
        assert ready(ask) == (200, "degraded", ["3 commands wait for the writer"])
        release.set()
        for each in pending:
            each.wait()
        assert ready(ask) == (200, "healthy", [])


def test_ready__degraded_while_one_transaction_does_not_end(
    ask: Ask, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "WRITING_S_DEGRADED", 0.05)
    release = hold_writer(store)
    time.sleep(0.1)
    code, status, complaints = ready(ask)
    assert (code, status) == (200, "degraded")
    assert complaints[0].startswith("the writer has been at one transaction for ")
    release.set()
    soon(lambda: ready(ask)[1] == "healthy")


def test_ready__unhealthy_when_the_writer_is_dead(ask: Ask, store: Store) -> None:
    with pytest.raises(StoreUnavailable):
        store.write(lambda _tx: sys.exit())
    soon(lambda: ready(ask) == (503, "unhealthy", ["the writer has stopped; restart davsql"]))
    assert share_of(ask)["writer_alive"] is False
    assert ask("/health/live").status == 200


def test_ready__unhealthy_after_a_failed_write_until_one_succeeds(
    ask: Ask, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_pages(store, 1)
    with pytest.raises(StoreFull):
        put(store, "/a", bytes(200_000))
    code, status, complaints = ready(ask)
    assert (code, status) == (503, "unhealthy")
    assert complaints[0].startswith("the last write failed: no space is left")
    limit_pages(store, 1_000_000)
    put(store, "/a", bytes(200_000))
    code, status, complaints = ready(ask)
    assert (code, status) == (200, "degraded")
    assert complaints[0].startswith("a write failed ")
    monkeypatch.setattr(health, "FAILURE_KEPT_NS", 0)
    assert ready(ask) == (200, "healthy", [])


def test_ready__finds_out_by_itself_that_writing_works_again(
    ask: Ask, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "TRY_AGAIN_NS", 0)
    monkeypatch.setattr(health, "FAILURE_KEPT_NS", 0)
    limit_pages(store, 1)
    with pytest.raises(StoreFull):
        put(store, "/a", bytes(200_000))
    assert ready(ask)[0] == 503
    limit_pages(store, 1_000_000)
    soon(lambda: ready(ask) == (200, "healthy", []))  # nobody writes but the health check


def test_ready__degraded_while_another_process_holds_the_lock(tmp_path: Path, server: LiveServer) -> None:
    options = StoreOptions(busy_timeout_s=0)
    other = Store.open(tmp_path / "a.db", create=True)
    with other, Store.open(tmp_path / "a.db", options) as store, admin_of(Watched({"/": store}), server.http) as ask:
        release = hold_writer(other)
        with pytest.raises(StoreError):
            mkcol(store, "/c")
        code, status, complaints = ready(ask)
        assert (code, status) == (200, "degraded")
        assert complaints[0].startswith("the last write failed: another process holds the store's lock")
        release.set()


def test_ready__unhealthy_when_no_reader_comes_free(
    tmp_path: Path, server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "READER_WAIT_S", 0.05)
    options = StoreOptions(readers=1)
    with (
        Store.open(tmp_path / "a.db", options, create=True) as store,
        admin_of(Watched({"/": store}), server.http) as ask,
    ):
        with store.snapshot():
            code, status, complaints = ready(ask)
        assert (code, status) == (503, "unhealthy")
        assert "all 1 readers are in use" in complaints
        assert any(each.startswith("nothing can be read: ") for each in complaints)
        assert ready(ask) == (200, "healthy", [])


def test_ready__tells_of_the_disk(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "DISK_FREE_DEGRADED", 1 << 60)
    assert ready(ask)[:2] == (200, "degraded")
    monkeypatch.setattr(health, "DISK_FREE_UNHEALTHY", 1 << 60)
    code, status, complaints = ready(ask)
    assert (code, status) == (503, "unhealthy")
    assert complaints[0].endswith(" KiB are free on the disk of the store")


@pytest.mark.parametrize("check", ["integrity_check", "quick_check", "scrub"])
def test_ready__tells_the_last_check_and_its_age(ask: Ask, store: Store, check: str) -> None:
    assert share_of(ask)[check] is None
    store.write(lambda tx: start_task(tx, check))
    assert share_of(ask)[check]["outcome"] == "unfinished"
    store.write(lambda tx: finish_task(tx, check, "ok"))
    found = share_of(ask)[check]
    assert found["outcome"] == "ok"
    assert 0 <= found["age_s"] < 60
    assert ready(ask)[1] == "healthy"


@pytest.mark.parametrize(
    ("task", "code", "status"),
    [("integrity_check", 503, "unhealthy"), ("quick_check", 503, "unhealthy"), ("backup", 200, "degraded")],
)
def test_ready__a_failed_task_is_a_complaint(ask: Ask, store: Store, task: str, code: int, status: str) -> None:
    store.write(lambda tx: finish_task(tx, task, "failed", "row 7 is missing"))
    assert ready(ask) == (code, status, [f"{task} failed: row 7 is missing"])
    store.write(lambda tx: finish_task(tx, task, "ok"))
    assert ready(ask) == (200, "healthy", [])


def test_ready__unhealthy_once_the_store_is_closed(ask: Ask, store: Store) -> None:
    store.close()
    code, status, _ = ready(ask)
    assert (code, status) == (503, "unhealthy")


def test_ready__unhealthy_while_the_server_stops(ask: Ask, server: LiveServer) -> None:
    server.http.stop()
    found = json.loads(ask("/health/ready").body)
    assert (found["status"], found["is_serving"]) == ("unhealthy", False)
    assert ask("/health/ready").status == 503


def test_ready__is_as_bad_as_the_worst_share(store: Store, tmp_path: Path, server: LiveServer) -> None:
    with Store.open(tmp_path / "bad.db", create=True) as bad:
        bad.write(lambda tx: finish_task(tx, "integrity_check", "failed"))
        with admin_of(Watched({"/good": store, "/bad": bad}), server.http) as ask:
            found = json.loads(ask("/health/ready").body)
    assert found["status"] == "unhealthy"
    assert found["shares"]["/good"]["status"] == "healthy"
    assert found["shares"]["/bad"]["status"] == "unhealthy"


@pytest.mark.parametrize(
    ("state", "lag_s", "status"),
    [
        ("replicating", 1.0, Status.HEALTHY),
        ("replicating", 1000.0, Status.DEGRADED),
        ("elsewhere", None, Status.HEALTHY),
        ("failing", None, Status.DEGRADED),
    ],
)
def test_look_at__counts_the_replica_in(store: Store, state: Any, lag_s: float | None, status: Status) -> None:
    replica = ReplicaStatus("file:///r", state, lag_s, 0, 0, "no disk" if state == "failing" else "")
    found = look_at(store, replica)
    assert found.status is status
    assert found.as_json()["replica"]["state"] == state


def test_read_only_share__is_healthy(tmp_path: Path) -> None:
    Store.open(tmp_path / "a.db", create=True).close()
    with Store.open(tmp_path / "a.db", StoreOptions(read_only=True)) as store:
        assert look_at(store).complaints == ()


# --- where it listens -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])  # noqa: S104  # must be refused
def test_require_local__refuses_what_others_reach(host: str) -> None:
    with pytest.raises(ListenError, match="allow_remote"):
        require_local(AdminOptions(host=host))
    require_local(AdminOptions(host=host, allow_remote=True))
    require_local(AdminOptions(host=host, port=0))  # off: nothing listens


def test_require_local__refuses_what_is_no_address() -> None:
    with pytest.raises(ListenError, match="is no address"):
        require_local(AdminOptions(host="no such host"))


def test_start_admin__port_0_is_off(store: Store, server: LiveServer) -> None:
    assert start_admin(AdminOptions(port=0), OneProcess(Watched({"/": store}), server.http)) is None


def test_start_admin__a_port_that_is_taken_names_the_setting(store: Store, server: LiveServer) -> None:
    with pytest.raises(ListenError, match=r"Address already in use; stop the program .* or set \[admin\] port"):
        start_admin(AdminOptions(port=server.address[1]), OneProcess(Watched({"/": store}), server.http))


def test_start_admin__the_usual_port_is_not_worth_failing_for(
    store: Store, server: LiveServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("davsql.server.options.ADMIN_PORT", server.address[1])
    with caplog.at_level(logging.WARNING):
        assert start_admin(AdminOptions(), OneProcess(Watched({"/": store}), server.http)) is None
    assert "set [admin] port to another one, or to 0 for none" in caplog.text


def test_announcement__has_the_addresses(store: Store, server: LiveServer) -> None:
    with socket.create_server((LOOPBACK, 0)) as free:
        port = free.getsockname()[1]
    admin = start_admin(AdminOptions(port=port), OneProcess(Watched({"/": store}), server.http))
    assert admin is not None
    try:
        url = f"http://127.0.0.1:{port}/"
        assert announcement(admin) == f"health and metrics: {url}health/ready, {url}metrics"
    finally:
        admin.stop()


def test_admin__does_not_serve_files(ask: Ask, store: Store) -> None:
    put(store, "/health", b"a file")
    assert b"a file" not in ask("/health").body
    assert read(store, "/health") == b"a file"
