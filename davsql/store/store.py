"""The public face of the engine: one open store."""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import apsw

from davsql.access import FULL_ACCESS, Access
from davsql.counters import PerThread, UploadTally
from davsql.errors import QuotaExceeded, StoreError
from davsql.model import (
    NO_GUARD,
    Checksums,
    Guard,
    Inode,
    LockRequest,
    LockResult,
    Node,
    PropertyUpdate,
)
from davsql.paths import DavPath
from davsql.store import (
    access as rights,
)
from davsql.store import (
    assembly,
    commands,
    gc,
    lookup,
    nodes,
    pins,
    presence,
    quota,
    readers,
    replication,
    trees,
    writer,
)
from davsql.store.assembly import Assembly
from davsql.store.caches import limit_caches
from davsql.store.checkpointer import Checkpointer
from davsql.store.checksums import keep_checksums
from davsql.store.connection import Role, is_plain, open_connection, open_copy, require_file
from davsql.store.creation import make_store
from davsql.store.download import Download, Means, Pins
from davsql.store.migrate import require_present_version
from davsql.store.options import StoreOptions
from davsql.store.quota import Space
from davsql.store.records import finish_task
from davsql.store.room import MIB
from davsql.store.snapshot import Snapshot
from davsql.store.stats import Stats, collect
from davsql.store.transaction import ReadTx, WriteTx, translated
from davsql.store.upgrade import upgrade
from davsql.store.upload import Beginnings, Upload
from davsql.store.vitals import Vitals, vitals_of

Result = TypeVar("Result")

GC_STEP_ROWS = 500  # as GC itself does, so that other writers go on
ROOM_STEPS = 1000  # then whoever wants room at once gets QuotaExceeded after all


class Store:
    """A tree of collections and files in one SQLite file. Threads: any."""

    def __init__(
        self, file: Path, options: StoreOptions, connection: apsw.Connection, unclosed: tuple[str, ...] = ()
    ) -> None:
        """Use `Store.open`."""
        self.file = file
        self.migration_backup: Path | None = None  # the file as it was before it was migrated, when it was just now
        self.unclosed = unclosed  # marks (presence.py) of those who wrote to it last and did not close it
        self.options = options
        self.upload_tallies = PerThread(UploadTally)
        limit_caches(options.cache_mb)
        self._readers = readers.Readers(file, options)
        self._checkpointer = Checkpointer(file, options)
        self._writer = writer.Writer(connection, options, self._checkpointer)
        self.pins = Pins(self._writer)
        self._helpers = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="davsql-reading-ahead")
        self._beginnings = Beginnings()
        self._means = Means(self._readers, self.pins, self._helpers)

    @classmethod
    def open(cls, file: Path, options: StoreOptions | None = None, *, create: bool = False) -> Store:
        """Open a store, migrate it if it is older than this davsql, and start its writer.

        With `options.read_only` the file is read as it is: it is neither migrated nor turned to WAL.

        Args:
            create: make a new store when there is no file.

        Raises:
            NotFound: there is no file and `create` is False.
            NotAStore, StoreVersionError, StoreError: the file cannot be used; it is unchanged.
        """
        options = options or StoreOptions()
        file = file.absolute()
        if create and not file.exists():
            make_store(file, options)
        require_file(file)
        if options.read_only:
            return cls._open_as_it_is(file, options)
        is_in_use = presence.is_in_use(file)
        connection = open_connection(file, Role.WRITER, options)
        try:
            migration_backup = upgrade(connection, file, options)
            options = replication.obeying_mark(connection, options)
            with translated():
                unclosed = presence.left_marks(ReadTx(connection), is_in_use=is_in_use)
            store = cls(file, options, connection, unclosed)
            store.migration_backup = migration_backup
            return store
        except BaseException:
            connection.close()
            raise

    @classmethod
    def _open_as_it_is(cls, file: Path, options: StoreOptions) -> Store:
        connection = open_copy(file, options)  # stays open: the last one to close takes WAL and SHM away
        try:
            require_present_version(connection, file)
            return cls(file, replication.obeying_mark(connection, options), connection)
        except BaseException:
            connection.close()
            raise

    @property
    def was_clean(self) -> bool:
        """Whether everybody who wrote to it before it was opened closed it, or has it open still."""
        return not self.unclosed

    def close(self) -> None:
        """Finish the queued writes and close; closing twice is harmless."""
        self._readers.close()
        self._helpers.shutdown()
        self._checkpointer.close()
        self.pins.close()
        self._writer.close()  # last: the last connection to close, if it may write, leaves no WAL behind

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- reading -------------------------------------------------------------------------------------------------

    def read(self, timeout_s: float | None = None) -> AbstractContextManager[ReadTx]:
        """Borrow a reader for one consistent view in terms of SQL; for the engine's own parts."""
        return self._readers.snapshot(timeout_s)

    @contextmanager
    def snapshot(self, access: Access = FULL_ACCESS) -> Iterator[Snapshot]:
        """Borrow a reader for one consistent view; give it back within milliseconds.

        Raises:
            StoreBusy: all readers are busy.
        """
        with self._readers.snapshot() as tx:
            yield Snapshot(tx, access)

    def node(self, path: DavPath, access: Access = FULL_ACCESS) -> Node:
        """The node at `path`.

        Raises:
            NotFound.
        """
        return lookup.require_node(self._readers, path, access)

    def open_download(self, path: DavPath, access: Access = FULL_ACCESS) -> Download:
        """Open the content of a file; close it, or use it in a `with` block.

        Raises:
            NotFound, IsCollection.
        """
        # Not pinned yet when it is found: GC in between sees a blob that was in use a moment ago and keeps it.
        return Download(*lookup.file_at(self._readers, path, access), self._means)

    def check_put(self, target: DavPath, guard: Guard, size: int = 0) -> int | None:
        """Raise now what `Upload.commit` would raise, so that a body is not sent in vain.

        Args:
            size: bytes that the file will have at least.

        Returns:
            How many bytes it may have at most; None: any number.

        Raises:
            As `commands.require_put`; QuotaExceeded.
        """

        def check() -> int | None:
            with self._readers.snapshot() as tx:
                chain = commands.require_put(tx, target, guard, self.options)
                return quota.require_room(tx, guard, chain.target, size)

        return self._with_room(check)

    def check_part(self, upload: Assembly, name: str, guard: Guard, size: int) -> int | None:
        """Raise now what `Upload.commit_part` would raise; as `check_put`, for a part."""

        def check() -> int | None:
            with self._readers.snapshot() as tx:
                return assembly.require_part(tx, upload, name, size, guard).room

        return self._with_room(check)

    def parts(self, upload: Assembly) -> tuple[Inode, list[Node]]:
        """See assembly.parts."""
        with self._readers.snapshot() as tx:
            return assembly.parts(tx, upload)

    def open_part(self, part: Node) -> Download:
        """Open a part that `parts` found; the download fails if it has gone since."""
        return Download(part, [], self._means)

    def keep_checksums(self, file: Node, found: Checksums) -> None:
        """Keep checksums of the content that `file` has, or had."""
        assert file.blob_id is not None
        assert file.digest is not None
        self.write(partial(keep_checksums, blob_id=file.blob_id, digest=file.digest, checksums=found))

    def begin_assembly(self, upload: Assembly, guard: Guard) -> None:
        """See assembly.begin."""
        self.write(partial(assembly.begin, assembly=upload, guard=guard))

    def drop_assembly(self, upload: Assembly, guard: Guard) -> None:
        """See assembly.drop."""
        self.write(partial(assembly.drop, assembly=upload, guard=guard))

    def _with_room(self, attempt: Callable[[], Result]) -> Result:
        """What `attempt` returns; where a quota is in its way, once more when what is deleted already is taken apart.

        The members of a deleted tree count until GC comes to them; nobody is to wait for that who needs the room now.
        """
        try:
            return attempt()
        except QuotaExceeded:
            with self._readers.snapshot() as tx:
                is_hopeless = not gc.has_detached(tx)
            if is_hopeless:
                raise
        steps = 0
        while steps < ROOM_STEPS and self.write(lambda tx: gc.remove_detached(tx, GC_STEP_ROWS)):
            steps += 1
        return attempt()

    def space(self, guard: Guard = NO_GUARD) -> Space:
        """What is used and what may still come.

        By the guard's quotas: of its user, else of the share. Without any: bytes in use in the file, free pages and the
        file system's free space; these bound what may come in all cases.
        """
        with self._readers.snapshot() as tx:
            held = quota.holdings(tx, guard)
            page_size, pages, free_pages = (
                tx.value("PRAGMA page_size"),
                tx.value("PRAGMA page_count"),
                tx.value("PRAGMA freelist_count"),
            )
        available = max(0, shutil.disk_usage(self.file.parent).free - self.options.reserve_mb * MIB)
        return quota.within(guard, held, Space((pages - free_pages) * page_size, available + free_pages * page_size))

    def stats(self) -> Stats:
        """Sizes and counts; reads much of the indexes."""
        with self._readers.snapshot() as tx:
            return collect(tx, self.file, self.vitals)

    def vitals(self) -> Vitals:
        """How the store is doing; waits for nothing."""
        return vitals_of(self, self._writer, self._readers)

    # --- writing -------------------------------------------------------------------------------------------------

    def write(self, command: Callable[[WriteTx], Result]) -> Result:
        """Run one command as one transaction; for the engine's own parts and maintenance."""
        return self._writer.run(command)

    def write_alone(self, statement: Callable[[apsw.Connection], Result]) -> Result:
        """Run what cannot be part of a transaction (VACUUM), between two commits; for maintenance."""
        return self._writer.run_alone(statement)

    def try_writing(self) -> None:
        """Have the writer write one row, without waiting for it: where it failed and nobody writes any more, the next
        look at `vitals` tells whether it can again.

        Raises:
            StoreError: it takes no commands.
        """
        self._writer.submit(lambda tx: finish_task(tx, "write_probe", "ok"))

    @property
    def wal_bytes(self) -> int:
        """Size of what the WAL holds, whichever process wrote it."""
        return self._checkpointer.wal_bytes

    def checkpoint(self, *, truncate: bool = False) -> tuple[int, int]:
        """Copy the WAL into the database as far as no reader needs it, beside the writer (PASSIVE).

        Args:
            truncate: when everything can be copied at once, also empty the WAL (TRUNCATE); nobody is made to wait.

        Returns:
            Pages in the WAL, and how many of them are in the database now.

        Raises:
            StoreBusy: `truncate`, and somebody reads or writes.
        Source: https://www.sqlite.org/c3ref/wal_checkpoint_v2.html
        """
        result = self._checkpointer.run(truncate=truncate)
        if truncate and not self.options.leaves_checkpoints:
            self._writer.wal.bytes = 0
        return result

    def is_plain(self) -> bool:
        """Whether programs that have no key can read the file."""
        return is_plain(self.file, self.options)

    def empty_wal(self) -> None:
        """Copy the whole WAL into the database and empty it, also where checkpoints are left to Litestream.

        Raises:
            StoreBusy: somebody reads or writes; always while Litestream runs.
        """
        self._writer.wal.empty()

    def upload(self) -> Upload:
        """Begin to receive content; use it in a `with` block and end with `Upload.commit`."""
        return Upload(self._writer, self.options, self.upload_tallies, self._with_room, self._beginnings)

    def make_collection(self, target: DavPath, guard: Guard = NO_GUARD, *, modified_at: int | None = None) -> Node:
        """See commands.make_collection."""

        def command(tx: WriteTx) -> Node:
            return commands.make_collection(tx, target, guard, self.options, modified_at=modified_at)

        return self._with_room(lambda: self.write(command))

    def delete(self, target: DavPath, guard: Guard = NO_GUARD) -> None:
        """See commands.delete."""
        self.write(lambda tx: commands.delete(tx, target, guard))

    def copy(
        self,
        source: DavPath,
        destination: DavPath,
        *,
        depth_infinity: bool = True,
        overwrite: bool = True,
        guard: Guard = NO_GUARD,
    ) -> bool:
        """See commands.copy; True when the destination is new. Large trees are copied in steps, see trees.py."""
        transfer = commands.Transfer(source, destination, overwrite)
        with self._readers.snapshot() as tx:
            node = nodes.resolve(tx, source).target
            is_large = depth_infinity and node is not None and trees.is_large(tx, node)
        if is_large:
            return self._with_room(lambda: self._copy_in_steps(transfer, guard))

        def command(tx: WriteTx) -> bool:
            return commands.copy(tx, transfer, guard, self.options, depth_infinity=depth_infinity)

        return self._with_room(lambda: self.write(command))

    def _copy_in_steps(self, transfer: commands.Transfer, guard: Guard) -> bool:
        options = self.options
        inode, top, pin_id = self.write(lambda tx: commands.begin_copy(tx, transfer, guard, options))
        try:
            todo = deque([trees.Pending(inode, top, "", len(transfer.destination.names))])
            while todo:
                front = list(islice(todo, trees.STEP_NODES))

                def step(tx: WriteTx, front: list[trees.Pending] = front) -> tuple[int, list[trees.Pending]]:
                    pins.touch_pin(tx, pin_id)
                    rights.require_still_readable(tx, (each.source for each in front), guard.access)
                    held = quota.holdings(tx, guard)
                    copied = trees.copy_members(tx, front, trees.STEP_NODES, options.max_depth)
                    quota.require(tx, guard, held)
                    return copied

                trees.advance(todo, *self.write(step))
            return self.write(lambda tx: commands.finish_copy(tx, transfer, guard, options, (inode, top, pin_id)))
        except BaseException:
            with suppress(StoreError):  # GC finds what is left of the copy
                self.write(lambda tx: pins.unpin(tx, pin_id))
            raise

    def move(self, source: DavPath, destination: DavPath, *, overwrite: bool = True, guard: Guard = NO_GUARD) -> bool:
        """See commands.move; True when the destination is new."""
        transfer = commands.Transfer(source, destination, overwrite)
        return self.write(lambda tx: commands.move(tx, transfer, guard, self.options))

    def set_properties(
        self,
        target: DavPath,
        updates: Sequence[PropertyUpdate],
        guard: Guard = NO_GUARD,
        *,
        modified_at: int | None = None,
    ) -> None:
        """See commands.set_properties."""
        options = self.options
        self.write(lambda tx: commands.set_properties(tx, target, updates, guard, options, modified_at=modified_at))

    def set_modified_at(self, target: DavPath, modified_at: int) -> None:
        """See commands.set_modified_at."""
        self.write(lambda tx: commands.set_modified_at(tx, target, modified_at))

    def lock(self, target: DavPath, request: LockRequest, guard: Guard = NO_GUARD) -> LockResult:
        """See commands.lock."""
        return self._with_room(lambda: self.write(lambda tx: commands.lock(tx, target, request, guard, self.options)))

    def refresh_lock(self, target: DavPath, timeout_s: int, guard: Guard) -> LockResult:
        """See commands.refresh_lock."""
        return self.write(lambda tx: commands.refresh_lock(tx, target, timeout_s, guard))

    def unlock(self, target: DavPath, token: str, guard: Guard = NO_GUARD) -> None:
        """See commands.unlock."""
        self.write(lambda tx: commands.unlock(tx, target, token, guard))

    def make_home(self, home: DavPath, owner: str) -> None:
        """See access.make_home; writes only what is missing."""
        with self._readers.snapshot() as tx:
            has_home = rights.has_home(tx, home)
        if not has_home:
            self.write(lambda tx: rights.make_home(tx, home, owner))
