"""Checks of the configuration: what a store will be opened with."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from davsql.doctor.finding import Finding, human_bytes, passed, warned
from davsql.server.options import AdminOptions, ServerOptions
from davsql.store.options import StoreOptions

BUSY_TIMEOUT_S = 30  # below, the lock of a backup or of another process reaches users as an error
QUEUE_SIZE_MAX = 10_000  # beyond, a client has gone long before its turn comes
DESCRIPTORS_MIN = 512


def check_settings(store: StoreOptions, server: ServerOptions, admin: AdminOptions) -> Iterator[Finding]:
    """All of them."""
    yield _busy_timeout(store)
    yield _writer_queue(store)
    yield _readers(store)
    yield _cache(store)
    yield _mmap(store)
    yield _durability(store)
    yield _monitoring(admin)
    yield _descriptors(server)


def _busy_timeout(store: StoreOptions) -> Finding:
    found = f"{store.busy_timeout_s} s"
    if store.busy_timeout_s >= BUSY_TIMEOUT_S:
        return passed("busy timeout", found)
    return warned(
        "busy timeout", f"{found}: another process's lock soon becomes an error", "set store.busy_timeout_s to 30"
    )


def _writer_queue(store: StoreOptions) -> Finding:
    found = f"one writer, up to {store.queue_size:,} commands wait for it"
    if store.queue_size <= QUEUE_SIZE_MAX:
        return passed("single writer", found)
    return warned("single writer", f"{found}: clients give up before their turn", "set store.queue_size to 1000")


def _readers(store: StoreOptions) -> Finding:
    cores = os.cpu_count() or 1
    found = f"{store.readers} readers, {cores} processors"
    if cores <= store.readers <= max(16 * cores, 64):
        return passed("reader pool", found)
    return warned("reader pool", found, f"set store.readers to {2 * cores}, twice the number of processors")


def _cache(store: StoreOptions) -> Finding:
    wanted = store.cache_mb * 1_000_000
    memory = memory_bytes()
    found = f"up to {human_bytes(wanted)} of page cache in each process"
    if memory is None:
        return passed("memory", found)
    found += f", {human_bytes(memory)} of memory"
    if wanted <= memory / 2:
        return passed("memory", found)
    return warned("memory", found, "set store.cache_mb lower")


def _mmap(store: StoreOptions) -> Finding:
    if not store.mmap_mb:
        return passed("mmap", "off")
    found = f"{store.mmap_mb} MB: an I/O error, or a file cut short, would kill the process"
    return warned("mmap", found, "set store.mmap_mb to 0, unless a measurement shows a gain that is worth it")


def _durability(store: StoreOptions) -> Finding:
    if store.durability == "full":
        return passed("durability", "full: what was confirmed survives a power cut")
    return warned("durability", "normal: a power cut may take the last writes", 'set store.durability to "full"')


def _monitoring(admin: AdminOptions) -> Finding:
    if admin.is_on:
        return passed("monitoring", f"/health and /metrics on {admin.host}:{admin.wanted_port} while davsql serves")
    return warned("monitoring", "off: nobody sees the queue and the WAL grow", "set admin.port")


def _descriptors(server: ServerOptions) -> Finding:
    if sys.platform == "win32":
        return passed("open files", "not limited here")
    import resource  # noqa: PLC0415  # not on Windows

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return passed("open files", "no limit")
    found = f"limit of {limit:,}, up to {server.connections_max:,} connections wanted"
    if limit >= min(DESCRIPTORS_MIN, server.connections_max):
        return passed("open files", found)
    return warned("open files", f"{found}: connections beyond get 503", "ulimit -n 4096; LimitNOFILE= in systemd")


def memory_bytes() -> int | None:
    """Of the machine; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
