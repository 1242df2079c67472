"""Numbers for Prometheus: read from plain counters when somebody asks, so that counting costs the requests nothing.

Every name that is promised stands in a table here; docs/monitoring.md says which ones to watch.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from davsql import __version__
from davsql.counters import Histogram, HttpTally, PerThread
from davsql.errors import StoreError
from davsql.store.facts import library
from davsql.store.records import TaskRecord, task_records

if TYPE_CHECKING:
    from davsql.maintenance.health import Watched
    from davsql.maintenance.replica_progress import ReplicaStatus
    from davsql.store.store import Store
    from davsql.store.vitals import Vitals

READER_WAIT_S = 0.5  # a scrape must not hang where the readers are all in use
NS = 1e-9

# Gauges of which several processes have each the whole, so that they are not added up.
HIGHEST = frozenset(
    {
        "davsql_writer_failing",
        "davsql_writer_hold_seconds_max",
        "davsql_writer_busy_seconds",
        "davsql_wal_bytes",
        "davsql_db_file_bytes",
        "davsql_db_free_bytes",
        "davsql_wal_file_bytes",
        "davsql_disk_free_bytes",
        "davsql_task_last_start_timestamp_seconds",
        "davsql_task_last_duration_seconds",
        "davsql_task_last_success",
        "python_info",
    }
)
LOWEST = frozenset({"davsql_writer_alive", "process_start_time_seconds", "process_max_fds"})

Number = Callable[["Vitals"], float]
Table = tuple[tuple[str, str, Number], ...]

STORE_COUNTERS: Table = (
    ("davsql_writer_commands", "Commands that the writer took.", lambda v: v.writer.commands),
    ("davsql_writer_failed", "Commands answered with an error, also one the client caused.", lambda v: v.writer.failed),
    ("davsql_writer_refused", "Commands that found no place in the queue (503).", lambda v: v.writer.refused),
    ("davsql_readers_taken", "Snapshots that were read.", lambda v: v.reader.taken),
    ("davsql_readers_waits", "Snapshots that waited for a reader.", lambda v: v.reader.waits),
    ("davsql_readers_wait_seconds", "Time spent waiting for a reader.", lambda v: v.reader.wait_ns * NS),
    ("davsql_readers_exhausted", "Snapshots that got no reader in time (503).", lambda v: v.reader.exhausted),
    ("davsql_cache_hits", "Pages that readers found in their caches.", lambda v: v.cache_hits),
    ("davsql_cache_misses", "Pages that readers fetched.", lambda v: v.cache_misses),
    ("davsql_uploads_begun", "Uploads that began.", lambda v: v.upload.begun),
    ("davsql_uploads_stored", "Uploads that became a file.", lambda v: v.upload.stored),
    ("davsql_uploads_stored_bytes", "Size of the files that were stored.", lambda v: v.upload.stored_bytes),
    ("davsql_downloads_begun", "Files that were opened to be read.", lambda v: v.downloads_begun),
)
STORE_GAUGES: Table = (
    ("davsql_writer_alive", "1 while the writer takes commands.", lambda v: v.is_writer_alive),
    (
        "davsql_writer_failing",
        "1 while the last transaction failed and none was written since.",
        lambda v: v.is_failing,
    ),
    ("davsql_writer_hold_seconds_max", "The longest transaction since the start.", lambda v: v.writer.hold_ns_max * NS),
    ("davsql_writer_busy_seconds", "Since the batch at work began; 0 when idle.", lambda v: v.writing_s),
    ("davsql_writer_queue_depth", "Commands that wait for the writer.", lambda v: v.queue_depth),
    ("davsql_writer_queue_size", "Commands that may wait for the writer.", lambda v: v.queue_size),
    ("davsql_readers_size", "Connections that may read at one time.", lambda v: v.readers),
    ("davsql_readers_in_use", "Connections that read now.", lambda v: v.readers_in_use),
    ("davsql_wal_bytes", "In the WAL.", lambda v: v.wal_bytes),
    ("davsql_uploads_active", "Uploads under way.", lambda v: max(0, v.upload.begun - v.upload.ended)),
    ("davsql_downloads_active", "Downloads under way.", lambda v: v.downloads_active),
    ("davsql_pinned_blobs", "Contents that downloads keep from garbage collection.", lambda v: v.pinned_blobs),
)
STORE_HISTOGRAMS: tuple[tuple[str, str, Callable[[Vitals], Histogram], float], ...] = (
    ("davsql_writer_batch_commands", "Commands in each commit.", lambda v: v.writer.batches, 1),
    ("davsql_writer_wait_seconds", "From a command's coming to its transaction.", lambda v: v.writer.wait_ns, NS),
    ("davsql_writer_hold_seconds", "From BEGIN to the end of COMMIT.", lambda v: v.writer.hold_ns, NS),
)
FILE_GAUGES = (
    ("davsql_db_file_bytes", "Size of the database's file."),
    ("davsql_db_free_bytes", "Free pages in the database's file."),
    ("davsql_wal_file_bytes", "Size of the WAL's file."),
    ("davsql_disk_free_bytes", "Free space of the file system that holds the store."),
)
TASK_GAUGES: tuple[tuple[str, str, Callable[[TaskRecord], float | None]], ...] = (
    ("davsql_task_last_start_timestamp_seconds", "When a task last began.", lambda t: t.started_at * NS),
    (
        "davsql_task_last_duration_seconds",
        "How long its last run took; absent while it runs.",
        lambda t: None if t.finished_at is None else (t.finished_at - t.started_at) * NS,
    ),
    (
        "davsql_task_last_success",
        "1 if its last run ended well, 0 if it failed; absent while it runs, or when it was interrupted.",
        lambda t: None if t.outcome is None else t.outcome == "ok",
    ),
)

REPLICA_GAUGES: tuple[tuple[str, str, Callable[[ReplicaStatus], float | None]], ...] = (
    ("davsql_replica_up", "1 while the replica is kept up.", lambda r: r.state in ("replicating", "elsewhere")),
    ("davsql_replica_lag_seconds", "What was committed so long ago is in the replica.", lambda r: r.lag_s),
    ("davsql_replica_behind_bytes", "Written to the WAL and not yet in the replica, about.", lambda r: r.bytes_behind),
    ("davsql_replica_restarts", "Of Litestream, after it ended unasked.", lambda r: r.restarts),
)


class Server(Protocol):
    """What metrics want of the HTTP server."""

    tallies: PerThread[HttpTally]

    @property
    def connections_open(self) -> Collection[object]:
        """The connections of clients."""


def make_registry(watched: Watched, server: Server | None) -> CollectorRegistry:
    """All metrics of this process: its stores by mount path, its HTTP server if it has one, the process itself."""
    registry = CollectorRegistry()
    registry.register(_Stores(watched))
    if server is not None:
        registry.register(_Http(server))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry


class _Stores(Collector):
    """Everything about stores, labelled by share."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._shares = watched.shares

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily(
            "davsql", "What is running.", value={"version": __version__, "sqlite": library().sqlite_version}
        )
        vitals = {share: store.vitals() for share, store in self._shares.items()}
        yield from _by_share(CounterMetricFamily, STORE_COUNTERS, vitals)
        yield from _by_share(GaugeMetricFamily, STORE_GAUGES, vitals)
        for name, text, histogram_of, unit in STORE_HISTOGRAMS:
            family = HistogramMetricFamily(name, text, labels=["share"])
            for share, each in vitals.items():
                _add_histogram(family, [share], histogram_of(each), unit)
            yield family
        errors = CounterMetricFamily("davsql_writer_errors", "Errors of SQLite or the disk.", labels=["share", "kind"])
        for share, each in vitals.items():
            for kind, count in list(each.writer.errors.items()):
                errors.add_metric([share, kind], count)
        yield errors
        yield from self._files()
        yield from self._replicas()

    def _replicas(self) -> Iterator[Metric]:
        for name, text, value_of in REPLICA_GAUGES:
            family = GaugeMetricFamily(name, text, labels=["share"])
            for share in self._watched.replicas:
                status = self._watched.replica_status(share)
                if status is not None and (value := value_of(status)) is not None:
                    family.add_metric([share], value)
            yield family

    def _files(self) -> Iterator[Metric]:
        looks = {share: _look_at_file(store) for share, store in self._shares.items()}
        for number, (name, text) in enumerate(FILE_GAUGES):
            family = GaugeMetricFamily(name, text, labels=["share"])
            for share, look in looks.items():
                if (size := look.sizes[number]) is not None:
                    family.add_metric([share], size)
            yield family
        for name, text, value_of in TASK_GAUGES:
            family = GaugeMetricFamily(name, text, labels=["share", "task"])
            for share, look in looks.items():
                for record in look.tasks:
                    if (value := value_of(record)) is not None:
                        family.add_metric([share, record.name], value)
            yield family


class _Http(Collector):
    """Everything about requests."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def collect(self) -> Iterator[Metric]:
        total = self._server.tallies.total()
        requests = CounterMetricFamily(
            "davsql_http_requests",
            'Requests by method and class of status ("none": no answer could be sent); refused heads have no method.',
            labels=["method", "status"],
        )
        counts: dict[tuple[str, str], int] = {}
        for (method, code), count in total.requests.items():
            key = method or "none", f"{code[0]}xx" if code else "none"
            counts[key] = counts.get(key, 0) + count
        for (method, status), count in sorted(counts.items()):
            requests.add_metric([method, status], count)
        yield requests
        yield CounterMetricFamily(
            "davsql_http_received_bytes", "Bytes from clients, of requests that ended.", total.received_bytes
        )
        yield CounterMetricFamily(
            "davsql_http_sent_bytes", "Bytes to clients, of requests that ended.", total.sent_bytes
        )
        yield CounterMetricFamily("davsql_http_answers_cut", "Answers that were broken off.", total.cut)
        in_flight = max(0, total.begun - total.ended)
        yield GaugeMetricFamily("davsql_http_requests_in_flight", "Requests that are being answered.", in_flight)
        open_now = len(self._server.connections_open)
        yield GaugeMetricFamily("davsql_http_connections_open", "Connections of clients.", open_now)
        family = HistogramMetricFamily(
            "davsql_http_request_seconds", "From the end of a head to the end of the answer."
        )
        _add_histogram(family, [], total.request_ns, NS)
        yield family


class _Look(NamedTuple):
    """What has to be asked of the file: sizes in the order of FILE_GAUGES, the last run of each task."""

    sizes: tuple[int | None, int | None, int | None, int | None]
    tasks: Iterable[TaskRecord]


def _look_at_file(store: Store) -> _Look:
    file = store.file
    free_pages: int | None = None
    tasks: Iterable[TaskRecord] = ()
    with suppress(StoreError), store.read(READER_WAIT_S) as tx:  # no reader: /health says so
        free_pages = tx.value("PRAGMA freelist_count") * tx.value("PRAGMA page_size")
        tasks = task_records(tx).values()
    disk_free: int | None = None
    with suppress(OSError):
        disk_free = shutil.disk_usage(file.parent).free
    return _Look((size_of(file), free_pages, size_of(file.with_name(file.name + "-wal")) or 0, disk_free), tasks)


def size_of(file: Path) -> int | None:
    """The size of a file without opening it; None when there is none."""
    try:
        return file.stat().st_size
    except OSError:
        return None


def _by_share(
    family_class: type[CounterMetricFamily | GaugeMetricFamily], table: Table, vitals: Mapping[str, Vitals]
) -> Iterator[Metric]:
    for name, text, number_of in table:
        family = family_class(name, text, labels=["share"])
        for share, each in vitals.items():
            family.add_metric([share], number_of(each))
        yield family


def _add_histogram(family: HistogramMetricFamily, labels: list[str], histogram: Histogram, unit: float) -> None:
    counts, total = list(histogram.counts), 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip((*(each * unit for each in histogram.bounds), inf), counts, strict=True):
        total += count
        buckets.append(("+Inf" if bound == inf else repr(float(round(bound, 9))), total))
    family.add_metric(labels, buckets, histogram.total * unit)
