"""A consistent copy of a store that is in use: one file, verified, and under its name only when it is complete.

Rule 1: the source's connection holds one read transaction from before the first page until after the last one. So the
        copy is one snapshot, never starts anew, and stops nobody from writing; the WAL cannot start over meanwhile.
Rule 2: a copy is written under a name of its own (`.NAME.HEX.davsql-part`), synced and verified before it gets its
        name. Whoever finds the name has a whole backup.
Rule 3: a copy is one file. It is not in WAL mode, and nothing that could be taken for its WAL lies beside it.
Rule 4: nothing is ever written in place over what is there.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple

import apsw

from davsql.errors import AlreadyExists, Cancelled, NotFound, StoreDamaged, StoreFull, StoreUnavailable
from davsql.keys.envelope import DataKey
from davsql.store.cipher import header_of, unsaid, uri_of
from davsql.store.connection import (
    Role,
    create_copy,
    create_exclusively,
    open_connection,
    open_copy,
    require_file,
    set_pragma,
    sync_folder,
)
from davsql.store.exclusion import leftovers, require_unused
from davsql.store.keyfiles import keys_beside, present_key
from davsql.store.migrate import known_version
from davsql.store.options import StoreOptions
from davsql.store.rehash import rehash
from davsql.store.replication import obeying_mark
from davsql.store.transaction import ReadTx, translated

STEP_BYTES = 1024 * 1024  # between two looks at `is_cancelled`, and two syncs: a few ms
CACHE_MB = 4  # of the two connections of a copy; pages are read and written once
GENTLE_REST = 1.0  # while others use the store: the p99 of small writes rises by less than half
MAX_REST_S = 1.0
STALE_PART_S = 24 * 3600  # a part that nobody wrote to for so long belongs to a process that was killed

_PART = re.compile(r"\..+\.[0-9a-f]{16}\.davsql-part(-wal|-shm|-journal|\.keys)?")
_REWRITE_STEPS = 2000  # a few ms, between two looks while everything is written anew
_PROGRESS_STEPS = 100_000  # of SQLite's machine, between two looks at `is_cancelled` while a copy is verified


class Rekey(NamedTuple):
    """What a copy is encrypted with, where that is not what its source is."""

    key: DataKey | None  # None: it is plain


@dataclass(frozen=True, slots=True)
class CopyOptions:
    """How a copy is made."""

    is_verified: bool = True  # quick_check, and the counts of the snapshot, in the copy
    is_deep: bool = False  # also every byte, when it is verified
    may_replace: bool = False  # a file that has the name already
    rekey: Rekey | None = None  # None: the copy has the key of its source
    rest: float = (
        0.0  # after each step, as a multiple of the time it took: leaves the disk to others, lengthens the WAL
    )
    progress: Callable[[int, int], None] = lambda _done_bytes, _total_bytes: None
    is_cancelled: Callable[[], bool] = lambda: False

    @property
    def verified(self) -> str:
        """How the copy is verified, in words."""
        if not self.is_verified:
            return "not verified"
        return "every byte verified" if self.is_deep else "verified"


class Snapshot(NamedTuple):
    """What the source held at the moment of the copy."""

    schema_version: int
    page_size: int
    pages: int
    nodes: int
    blobs: int
    chunks: int

    @property
    def size_bytes(self) -> int:
        return self.page_size * self.pages


class Backup(NamedTuple):
    """A copy that is complete."""

    file: Path
    snapshot: Snapshot
    duration_s: float


OpenSource = Callable[[], apsw.Connection]


def back_up(store: Path, destination: Path, options: StoreOptions, how: CopyOptions | None = None) -> Backup:
    """Copy the store at `store`, which may be in use by this and other processes, to the file `destination`.

    Raises:
        AlreadyExists: `destination` is there, or something that would be taken for its WAL.
        Cancelled: `how.is_cancelled` said so.
        StoreFull: the file system of `destination` has no room for it.
        StoreError: it cannot be read or written, or the copy is not good; in any case nothing is left behind.
    """
    how = how or CopyOptions()
    destination = real_path(destination)
    _require_free_name(store, destination, how)
    with part_copy(live_source(store, options), destination, options, how) as copy:
        key = present_key(store, options.key) if how.rekey is None else how.rekey.key
        with keys_beside(destination, key):
            place(copy.file, destination, may_replace=how.may_replace)
    return copy._replace(file=destination)


def live_source(store: Path, options: StoreOptions) -> OpenSource:
    """Opens a store that may be in use, of this schema version or an older one."""

    def open_source() -> apsw.Connection:
        require_file(store)
        # Not a reader: the last one to close a store leaves no WAL behind only if it may write.
        connection = open_connection(store, Role.WRITER, replace(options, cache_mb=CACHE_MB, read_only=True))
        obeying_mark(connection, options)  # closing must not checkpoint what Litestream has not seen
        return connection

    return open_source


@contextmanager
def part_copy(open_source: OpenSource, destination: Path, options: StoreOptions, how: CopyOptions) -> Iterator[Backup]:
    """A synced, and if wanted verified, copy beside `destination`; it is taken away at the end of the block.

    Raises:
        As `back_up`.
    """
    started = time.monotonic()
    _remove_stale_parts(destination.parent)
    part = destination.with_name(f".{destination.name[:200]}.{token_hex(8)}.davsql-part")
    try:
        with _about(destination):
            snapshot = _copy(open_source, part, options, how)
            sync_file(part)
        of_copy = options if how.rekey is None else replace(options, key=how.rekey.key)
        if how.is_verified:
            verify_copy(part, snapshot, of_copy, how)
        require_header(part, snapshot.size_bytes, of_copy.key)
        yield Backup(part, snapshot, time.monotonic() - started)
    finally:
        for each in (part, *leftovers(part)):
            with suppress(OSError):  # it must not hide what went wrong before
                each.unlink(missing_ok=True)


def place(part: Path, destination: Path, *, may_replace: bool) -> None:
    """Give a complete file its name; afterwards the name is safe against a power cut.

    Raises:
        AlreadyExists: somebody else took the name meanwhile.
    """
    if may_replace:
        part.replace(destination)
    else:
        try:
            destination.hardlink_to(part)  # unlike a rename, this never replaces anything
            part.unlink()
        except FileExistsError:
            raise AlreadyExists(f"{destination} exists already") from None
        except OSError:  # a file system without hard links
            part.rename(destination)
    sync_folder(destination.parent)


def stamp(time_s: float) -> str:
    """A moment as names of files have it, in UTC to the second."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(time_s))


def unused_name(file: Path, addition: str) -> Path:
    """`FILE.ADDITION-STAMP`, or with a number after it when that is taken."""
    first = file.with_name(f"{file.name}.{addition}-{stamp(time.time())}")
    names = itertools.chain([first], (first.with_name(f"{first.name}-{number}") for number in itertools.count(2)))
    return next(name for name in names if not os.path.lexists(name))


def real_path(file: Path) -> Path:
    """`file` with the symbolic links of its folders resolved, so that SQLite may be told to follow none.

    Raises:
        NotFound: the folder is missing.
    """
    folder = Path(os.path.realpath(file.parent))
    if not folder.is_dir():
        raise NotFound(f"the folder {folder} does not exist; make it first")
    return folder / file.name


def sync_file(file: Path) -> None:
    """fsync a file that nobody has open."""
    descriptor = os.open(file, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _require_free_name(store: Path, destination: Path, how: CopyOptions) -> None:
    own = {each.absolute() for base in (store, real_path(store)) for each in (base, *leftovers(base, existing=False))}
    if destination in own or (destination.exists() and destination.samefile(store)):
        raise AlreadyExists(f"{destination} belongs to the store itself; choose another place for its backup")
    if os.path.lexists(destination):
        if not how.may_replace:
            raise AlreadyExists(f"{destination} exists already; choose another name, or replace it with --force")
        if not destination.is_file():
            raise AlreadyExists(f"{destination} is no regular file; choose another name")
        if not destination.is_symlink():  # a link is replaced, and what it leads to stays
            require_unused(destination)
    for each in leftovers(destination):
        raise AlreadyExists(f"{each} lies where it would be taken for a part of the backup; move it away")


def _remove_stale_parts(folder: Path) -> None:
    """Take away what killed processes left there."""
    with suppress(OSError):
        for each in folder.iterdir():
            if _PART.fullmatch(each.name) and each.lstat().st_mtime < time.time() - STALE_PART_S:
                each.unlink()


def _copy(open_source: OpenSource, part: Path, options: StoreOptions, how: CopyOptions) -> Snapshot:
    source = open_source()
    try:
        with translated():
            if how.rekey is not None:
                return _rewrite(source, part, replace(options, key=how.rekey.key), how)
            source.execute("BEGIN")
            snapshot = snapshot_of(source)
            require_space(part.parent, source, snapshot.size_bytes, options)
            target = create_copy(part, replace(options, cache_mb=CACHE_MB))
            try:
                _copy_pages(source, target, part, snapshot, how)
                set_pragma(target, "journal_mode", "delete")  # the pages say WAL, as the source is
            finally:
                target.close()
    finally:
        source.close()
    return snapshot


def _rewrite(source: apsw.Connection, part: Path, options: StoreOptions, how: CopyOptions) -> Snapshot:
    """A copy under another key, or none: pages of encrypted files have less room, so everything is written anew."""
    size_bytes = source.pragma("page_size") * source.pragma("page_count")
    require_space(part.parent, source, size_bytes, options)
    create_exclusively(part)

    def look() -> bool:
        how.progress(min(part.stat().st_size, size_bytes), size_bytes)
        return how.is_cancelled()

    source.pragma("query_only", 0)  # which would keep it from writing to the copy too
    source.set_progress_handler(look, _REWRITE_STEPS)
    try:
        with unsaid(part):
            source.execute(REWRITE, (uri_of(part, options.key),))
        if how.is_cancelled():
            raise Cancelled("the copy was stopped before its end")
    except apsw.InterruptError:
        raise Cancelled("the copy was stopped before its end") from None
    finally:
        source.set_progress_handler(None)
    copy = open_copy(part, replace(options, cache_mb=CACHE_MB))
    try:
        return snapshot_of(copy)
    finally:
        copy.close()


def _copy_pages(
    source: apsw.Connection, target: apsw.Connection, part: Path, snapshot: Snapshot, how: CopyOptions
) -> None:
    step_pages = max(1, STEP_BYTES // snapshot.page_size)
    remaining = snapshot.pages + 1
    last = time.monotonic()
    with _synced_now_and_then(part) as sync, target.backup("main", source, "main") as backup:
        while not backup.done:
            if how.is_cancelled():
                raise Cancelled("the copy was stopped before its end")
            backup.step(step_pages)
            if backup.remaining >= remaining:
                raise StoreUnavailable("the copy started anew: somebody broke its snapshot")  # against rule 1
            remaining = backup.remaining
            sync()
            how.progress((snapshot.pages - remaining) * snapshot.page_size, snapshot.size_bytes)
            time.sleep(min(MAX_REST_S, (time.monotonic() - last) * how.rest))
            last = time.monotonic()


@contextmanager
def _synced_now_and_then(part: Path) -> Iterator[Callable[[], None]]:
    """Something to call after each step, so that the disk gets what was written since.

    One fsync of the whole file would stall the commits of everybody on this file system: by 120 ms for 300 MB
    where steps of some MiB cost them 10 to 25 ms.
    """
    descriptor = os.open(part, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    try:
        yield partial(getattr(os, "fdatasync", os.fsync), descriptor)
    finally:
        os.close(descriptor)


REWRITE = "VACUUM INTO ?"
COUNT_ROWS = "SELECT (SELECT count(*) FROM nodes), (SELECT count(*) FROM blobs), (SELECT count(*) FROM chunks)"


def snapshot_of(connection: apsw.Connection) -> Snapshot:
    """What the connection's transaction sees."""
    version = known_version(connection)
    nodes, blobs, chunks = ReadTx(connection).rows(COUNT_ROWS)[0]
    return Snapshot(version, connection.pragma("page_size"), connection.pragma("page_count"), nodes, blobs, chunks)


def require_space(folder: Path, source: apsw.Connection, size_bytes: int, options: StoreOptions) -> None:
    """Raise StoreFull when the copy would not fit, or would take the room that its source keeps for deletions."""
    free_bytes = shutil.disk_usage(folder).free
    if folder.stat().st_dev == Path(source.filename).stat().st_dev:
        size_bytes += options.reserve_mb * 1024 * 1024
    if free_bytes < size_bytes:
        raise StoreFull(
            f"{folder} has {free_bytes:,} bytes free, {size_bytes:,} are needed; free some, or choose another folder"
        )


def verify_copy(part: Path, expected: Snapshot, options: StoreOptions, how: CopyOptions) -> None:
    """Raise StoreDamaged unless the copy is sound and holds what the source held."""
    connection = open_copy(part, replace(options, cache_mb=CACHE_MB))
    try:
        with translated():
            connection.set_progress_handler(how.is_cancelled, _PROGRESS_STEPS)
            try:
                problems = [message for (message,) in connection.execute("PRAGMA quick_check(1)") if message != "ok"]
            except apsw.InterruptError:
                raise Cancelled("the copy was stopped while it was verified") from None
            connection.set_progress_handler(None)
            if how.is_deep and not problems:
                problems = _rehash(connection, how)
            found = snapshot_of(connection)
            journal_mode = connection.pragma("journal_mode")
    finally:
        connection.close()
    if problems:
        raise StoreDamaged(f"the copy is damaged and was taken away again: {problems[0]}; run `davsql check --deep`")
    if (found, journal_mode) != (expected, "delete"):
        raise StoreDamaged(f"the copy is not the store and was taken away again: {found} is not {expected}")


def _rehash(connection: apsw.Connection, how: CopyOptions) -> list[str]:
    def progress(done_bytes: int, total_bytes: int) -> None:
        if how.is_cancelled():
            raise Cancelled("the copy was stopped while it was verified")
        how.progress(done_bytes, total_bytes)

    return list(rehash(ReadTx(connection), progress))


def require_header(file: Path, size_bytes: int, key: DataKey | None) -> None:
    """Raise StoreDamaged unless `file`, which nobody has open, begins as a database with this key and has its size."""
    with file.open("rb") as opened:
        header = opened.read(len(header_of(key)))
    if header != header_of(key) or file.stat().st_size != size_bytes:
        raise StoreDamaged(f"the copy {file} has the wrong header or size; look at its disk")


@contextmanager
def _about(destination: Path) -> Iterator[None]:
    """Say of errors which file they are about: the store is only read, so a full disk is that of the copy."""
    try:
        yield
    except StoreFull as error:
        raise StoreFull(f"no room for {destination}: {error}") from error
    except OSError as error:
        raise StoreUnavailable(f"{destination} cannot be written: {error.strerror}") from error
