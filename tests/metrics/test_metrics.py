"""/metrics: the names that are promised, and numbers that move with what happens."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from davsql.errors import NotFound, StoreBusy, StoreFull
from davsql.maintenance.health import Watched
from davsql.metrics import make_registry
from davsql.store.options import StoreOptions
from davsql.store.records import finish_task, start_task
from davsql.store.store import Store
from davsql.store.transaction import WriteTx
from tests.live_server import LiveServer
from tests.store_steps import at, mkcol, put, read

COUNT_WITHIN_S = 10

PROMISED = {
    "davsql_info",
    "davsql_writer_commands_total",
    "davsql_writer_failed_total",
    "davsql_writer_refused_total",
    "davsql_writer_errors_total",
    "davsql_writer_alive",
    "davsql_writer_failing",
    "davsql_writer_busy_seconds",
    "davsql_writer_hold_seconds_max",
    "davsql_writer_queue_depth",
    "davsql_writer_queue_size",
    "davsql_writer_batch_commands_bucket",
    "davsql_writer_wait_seconds_bucket",
    "davsql_writer_hold_seconds_bucket",
    "davsql_readers_size",
    "davsql_readers_in_use",
    "davsql_readers_taken_total",
    "davsql_readers_waits_total",
    "davsql_readers_wait_seconds_total",
    "davsql_readers_exhausted_total",
    "davsql_cache_hits_total",
    "davsql_cache_misses_total",
    "davsql_wal_bytes",
    "davsql_wal_file_bytes",
    "davsql_db_file_bytes",
    "davsql_db_free_bytes",
    "davsql_disk_free_bytes",
    "davsql_uploads_begun_total",
    "davsql_uploads_stored_total",
    "davsql_uploads_stored_bytes_total",
    "davsql_uploads_active",
    "davsql_downloads_begun_total",
    "davsql_downloads_active",
    "davsql_pinned_blobs",
    "davsql_task_last_start_timestamp_seconds",
    "davsql_task_last_duration_seconds",
    "davsql_task_last_success",
    "davsql_http_requests_total",
    "davsql_http_received_bytes_total",
    "davsql_http_sent_bytes_total",
    "davsql_http_answers_cut_total",
    "davsql_http_requests_in_flight",
    "davsql_http_connections_open",
    "davsql_http_request_seconds_bucket",
    "process_resident_memory_bytes",
    "process_open_fds",
}


@dataclass
class Scrape:
    """The numbers at one moment."""

    registry: CollectorRegistry

    def __call__(self, name: str, **labels: str) -> float:
        """One number; 0 when there is no such sample."""
        return self.registry.get_sample_value(name, labels) or 0.0

    def share(self, name: str, **labels: str) -> float:
        return self(name, share="/", **labels)

    def names(self) -> set[str]:
        text = generate_latest(self.registry).decode()
        return {sample.name for family in parse(text) for sample in family.samples}


@pytest.fixture
def scrape(store: Store, server: LiveServer) -> Scrape:
    return Scrape(make_registry(Watched({"/": store}), server.http))


def soon(condition: Callable[[], bool]) -> None:
    """A request is counted after its answer was sent: wait for it."""
    deadline = time.monotonic() + COUNT_WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_names__are_all_there(store: Store, server: LiveServer, scrape: Scrape) -> None:
    store.write(lambda tx: finish_task(tx, "integrity_check", "ok"))
    store.write(lambda tx: tx.rows("PRAGMA max_page_count = 1"))
    with pytest.raises(StoreFull):
        put(store, "/too-big", bytes(200_000))
    assert server.request("GET", "/").status == 200
    soon(lambda: "davsql_http_requests_total" in scrape.names())
    assert PROMISED - scrape.names() == set()


def test_text__is_what_parsers_accept(store: Store, scrape: Scrape) -> None:
    put(store, "/a", b"x")
    for name in scrape.names():
        assert name.startswith(("davsql_", "process_", "python_"))
    text = generate_openmetrics(scrape.registry).decode()  # type: ignore[no-untyped-call]
    families = list(parse_openmetrics(text))  # type: ignore[no-untyped-call]
    assert all(family.documentation.endswith((".", "n")) for family in families)


def test_requests__are_counted_by_method_and_class_of_status(server: LiveServer, scrape: Scrape) -> None:
    assert server.request("PUT", "/a", b"x" * 1000).status == 201
    assert server.request("GET", "/a").status == 200
    assert server.request("GET", "/a").status == 200
    assert server.request("GET", "/none").status == 404
    server.exchange(b"NO-METHOD / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    soon(lambda: scrape("davsql_http_requests_total", method="none", status="5xx") == 1)
    assert scrape("davsql_http_requests_total", method="PUT", status="2xx") == 1
    assert scrape("davsql_http_requests_total", method="GET", status="2xx") == 2
    assert scrape("davsql_http_requests_total", method="GET", status="4xx") == 1
    assert scrape("davsql_http_request_seconds_count") == 4
    assert scrape("davsql_http_received_bytes_total") > 1000
    assert scrape("davsql_http_sent_bytes_total") > 2000
    assert scrape("davsql_http_requests_in_flight") == 0


def test_requests__in_flight_while_a_body_comes(server: LiveServer, store: Store, scrape: Scrape) -> None:
    def body() -> Iterator[bytes]:
        yield b"first"
        soon(lambda: scrape("davsql_http_requests_in_flight") == 1)
        soon(lambda: scrape.share("davsql_uploads_active") == 1)
        yield b"second"

    assert server.request("PUT", "/a", body()).status == 201
    soon(lambda: scrape("davsql_http_requests_in_flight") == 0)
    assert scrape.share("davsql_uploads_active") == 0
    assert read(store, "/a") == b"firstsecond"


def test_requests__the_bytes_of_large_answers_are_counted(server: LiveServer, store: Store, scrape: Scrape) -> None:
    put(store, "/a", bytes(3_000_000))
    assert len(server.request("GET", "/a").body) == 3_000_000
    soon(lambda: 3_000_000 < scrape("davsql_http_sent_bytes_total") < 3_010_000)


def test_transfers__are_counted_and_what_is_open_is_pinned(store: Store, scrape: Scrape) -> None:
    put(store, "/a", b"x" * 500)
    with store.upload() as upload:
        upload.write(b"never stored")
        assert scrape.share("davsql_uploads_active") == 1
    assert scrape.share("davsql_uploads_active") == 0
    assert scrape.share("davsql_uploads_begun_total") == 2
    assert scrape.share("davsql_uploads_stored_total") == 1
    assert scrape.share("davsql_uploads_stored_bytes_total") == 500
    with store.open_download(at("/a")), store.open_download(at("/a")):
        assert scrape.share("davsql_downloads_active") == 2
        assert scrape.share("davsql_pinned_blobs") == 1
    assert scrape.share("davsql_downloads_active") == 0
    assert scrape.share("davsql_pinned_blobs") == 0
    assert scrape.share("davsql_downloads_begun_total") == 2


def test_writer__counts_commands_failures_and_times(store: Store, scrape: Scrape) -> None:
    before = scrape.share("davsql_writer_commands_total")
    mkcol(store, "/c")
    with suppress(NotFound):
        store.delete(at("/none"))
    assert scrape.share("davsql_writer_commands_total") == before + 2
    assert scrape.share("davsql_writer_failed_total") == 1
    assert scrape.share("davsql_writer_errors_total", kind="StoreError") == 0
    assert scrape.share("davsql_writer_wait_seconds_count") == before + 2
    assert scrape.share("davsql_writer_hold_seconds_count") == before + 2
    assert 0 < scrape.share("davsql_writer_hold_seconds_max") < 10
    assert scrape.share("davsql_writer_failing") == 0
    assert scrape.share("davsql_wal_bytes") > 0
    assert scrape.share("davsql_wal_file_bytes") > 0


def test_writer__tells_how_many_commands_share_a_commit(store: Store, scrape: Scrape) -> None:
    release = hold(store)
    pending = [store._writer.submit(lambda tx: tx.value("SELECT 1")) for _ in range(5)]  # noqa: SLF001
    assert scrape.share("davsql_writer_queue_depth") == 5
    assert scrape.share("davsql_writer_busy_seconds") > 0
    release()
    assert [each.wait() for each in pending] == [1] * 5
    fours = scrape.share("davsql_writer_batch_commands_bucket", le="4.0")
    eights = scrape.share("davsql_writer_batch_commands_bucket", le="8.0")
    assert eights - fours == 1
    assert scrape.share("davsql_writer_queue_depth") == 0


def test_writer__an_error_of_sqlite_is_counted_until_something_is_written(store: Store, scrape: Scrape) -> None:
    store.write(lambda tx: tx.rows("PRAGMA max_page_count = 1"))  # a full disk, as SQLite sees it
    with pytest.raises(StoreFull):
        put(store, "/a", bytes(200_000))
    assert scrape.share("davsql_writer_errors_total", kind="StoreFull") == 1
    assert scrape.share("davsql_writer_failing") == 1
    store.write(lambda tx: tx.rows("PRAGMA max_page_count = 1000000"))
    assert scrape.share("davsql_writer_failing") == 1, "nothing was written yet"
    put(store, "/a", bytes(200_000))
    assert scrape.share("davsql_writer_failing") == 0


def test_writer__counts_whom_the_queue_refused(tmp_path: Path, server: LiveServer) -> None:
    options = StoreOptions(queue_size=1, queue_timeout_s=0.05)
    with Store.open(tmp_path / "small.db", options, create=True) as store:
        scrape = Scrape(make_registry(Watched({"/": store}), server.http))
        release = hold(store)
        store._writer.submit(lambda tx: tx.now)  # noqa: SLF001
        with pytest.raises(StoreBusy):
            mkcol(store, "/c")
        assert scrape.share("davsql_writer_refused_total") == 1
        release()


def test_readers__count_loans_waits_and_refusals(tmp_path: Path, server: LiveServer) -> None:
    options = StoreOptions(readers=1, queue_timeout_s=0.05)
    with Store.open(tmp_path / "small.db", options, create=True) as store:
        scrape = Scrape(make_registry(Watched({"/": store}), server.http))
        put(store, "/a", b"x")
        with store.snapshot():
            with pytest.raises(StoreBusy):
                store.node(at("/a"))
            assert scrape.share("davsql_readers_in_use") == 1
        assert scrape.share("davsql_readers_in_use") == 0
        assert scrape.share("davsql_readers_size") == 1
        assert scrape.share("davsql_readers_exhausted_total") == 1
        assert scrape.share("davsql_readers_waits_total") == 1
        assert scrape.share("davsql_readers_wait_seconds_total") >= 0.05


def test_cache__reads_move_hits_and_misses(store: Store, scrape: Scrape) -> None:
    put(store, "/a", b"x" * 5000)
    for _ in range(10):
        read(store, "/a")
    hits, misses = scrape.share("davsql_cache_hits_total"), scrape.share("davsql_cache_misses_total")
    assert misses > 0
    for _ in range(10):
        read(store, "/a")
    assert scrape.share("davsql_cache_hits_total") > hits
    assert scrape.share("davsql_cache_misses_total") >= misses


def test_scrape__while_a_reader_is_at_work_takes_nothing_from_it(store: Store, scrape: Scrape) -> None:
    counted: list[int] = []

    def count() -> None:
        with store.read() as tx:
            counted.append(
                tx.value("WITH n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3000000) SELECT count(*) FROM n")
            )

    thread = threading.Thread(target=count)
    thread.start()
    soon(lambda: scrape.share("davsql_readers_in_use") == 1)
    for _ in range(20):
        assert len(generate_latest(scrape.registry)) > 1000
    thread.join()
    assert counted == [3_000_000]


def test_tasks__last_run_of_each(store: Store, scrape: Scrape) -> None:
    store.write(lambda tx: start_task(tx, "scrub"))
    assert scrape.share("davsql_task_last_start_timestamp_seconds", task="scrub") == pytest.approx(time.time(), abs=60)
    assert scrape.registry.get_sample_value("davsql_task_last_success", {"share": "/", "task": "scrub"}) is None
    store.write(lambda tx: finish_task(tx, "scrub", "ok"))
    store.write(lambda tx: finish_task(tx, "backup", "failed", "no disk"))
    assert scrape.share("davsql_task_last_success", task="scrub") == 1
    assert scrape.registry.get_sample_value("davsql_task_last_success", {"share": "/", "task": "backup"}) == 0
    assert 0 <= scrape.share("davsql_task_last_duration_seconds", task="scrub") < 60


def test_scrape__of_a_closed_store_still_tells_the_rest(store: Store, scrape: Scrape) -> None:
    store.close()
    assert scrape.share("davsql_writer_alive") == 0
    assert scrape.share("davsql_db_file_bytes") > 0
    assert scrape.share("davsql_disk_free_bytes") > 0


def test_shares__have_labels_of_their_own(store: Store, tmp_path: Path, server: LiveServer) -> None:
    one, two = store, Store.open(tmp_path / "two.db", create=True)
    scrape = Scrape(make_registry(Watched({"/one": one, "/two": two}), server.http))
    put(one, "/a", b"x")
    assert scrape("davsql_uploads_stored_total", share="/one") == 1
    assert scrape("davsql_uploads_stored_total", share="/two") == 0
    assert 'share="/two"' in generate_latest(scrape.registry).decode()
    two.close()


def hold(store: Store) -> Callable[[], None]:
    """Keep the writer busy until what is returned is called."""
    taken, release = threading.Event(), threading.Event()

    def wait(_tx: WriteTx) -> None:
        taken.set()
        assert release.wait(COUNT_WITHIN_S)

    store._writer.submit(wait)  # noqa: SLF001
    assert taken.wait(COUNT_WITHIN_S)
    return release.set


def test_documentation__knows_no_other_names(scrape: Scrape) -> None:
    """What docs/monitoring.md tells people to watch is there."""
    text = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in text.partition("## Numbers to watch")[2].splitlines() if line[:3] == "| `"]
    told = {name for row in rows for name in re.findall(r"`(\w+)[^`]*`", row)}
    families = {family.name for family in parse(generate_latest(scrape.registry).decode())}
    known = {name.removeprefix("davsql_") for name in families}
    assert len(told) > 20
    assert {name.removesuffix("_total") for name in told} <= known
