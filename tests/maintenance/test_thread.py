"""The maintenance thread: does its work by itself, survives errors, stops when told."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import pytest

from davsql.errors import StoreBusy, StoreFull
from davsql.maintenance import thread as thread_module
from davsql.maintenance.thread import Maintenance, MaintenanceOptions
from davsql.store.options import StoreOptions
from davsql.store.store import Store
from tests.store_steps import at, put

EAGER = MaintenanceOptions(gc_interval_s=0.01, gc_grace_s=0, upload_expiry_s=0)
TIMEOUT_S = 10


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread_module, "POLL_S", 0.005)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_maintenance__removes_what_is_deleted(store: Store) -> None:
    maintenance = Maintenance(store, EAGER)
    maintenance.start()
    put(store, "/f", b"x")
    store.delete(at("/f"))
    until(lambda: store.stats().chunks == 0)
    maintenance.stop()


def test_maintenance__empties_the_wal_when_nobody_writes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread_module, "QUIET_S", 0.02)
    maintenance = Maintenance(store, MaintenanceOptions())
    put(store, "/f", b"x" * 200_000)
    wal = store.file.with_name(store.file.name + "-wal")
    assert wal.stat().st_size > 200_000
    maintenance.start()
    until(lambda: wal.stat().st_size == 0)
    maintenance.stop()


def test_maintenance__logs_what_a_task_did(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(thread_module, "TASKS_POLL_S", 0.01)
    maintenance = Maintenance(store, MaintenanceOptions())
    with caplog.at_level(logging.INFO):
        maintenance.start()
        until(lambda: f"scrub of {store.file} is done: " in caplog.text)
        maintenance.stop()
    assert f"integrity_check of {store.file} is done" in caplog.text


@pytest.mark.parametrize("error", [StoreBusy("busy"), StoreFull("full"), TypeError("a bug")])
def test_maintenance__survives_errors(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    calls = 0

    def fail(*_: object, **__: object) -> int:
        nonlocal calls
        calls += 1
        raise error

    monkeypatch.setattr(thread_module, "collect_garbage", fail)
    with caplog.at_level(logging.INFO):
        maintenance = Maintenance(store, EAGER)
        maintenance.start()
        until(lambda: calls >= 3)
        maintenance.stop()
    assert str(error) in caplog.text


def test_maintenance__of_a_read_only_store_collects_nothing(store: Store) -> None:
    put(store, "/f", b"x")
    store.delete(at("/f"))
    with Store.open(store.file, StoreOptions(read_only=True)) as read_only:
        maintenance = Maintenance(read_only, EAGER)
        maintenance.start()
        time.sleep(0.05)
        maintenance.stop()
        assert read_only.stats().detached_nodes == 1


def test_stop__without_start_is_harmless(store: Store) -> None:
    Maintenance(store).stop()


def test_stop__ends_soon(store: Store) -> None:
    maintenance = Maintenance(store)
    maintenance.start()
    begun = time.monotonic()
    maintenance.stop()
    maintenance.stop()
    assert time.monotonic() - begun < 1
