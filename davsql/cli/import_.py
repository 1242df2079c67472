"""`davsql import`: copy a folder of the disk into a store.

Files are copied by several threads, so that the store commits many at once; folders are made before what is in them
and get their times last. What has the size and the time of the store's file already is not read at all.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import click

from davsql.cli.local_files import StoreFiles
from davsql.cli.ls import members
from davsql.cli.target import Target, target_option
from davsql.cli.transfer import DEFAULT_JOBS, Advance, Transfer, is_fatal
from davsql.errors import AlreadyExists, DavsqlError, NotFound, SourceChanged, StoreError
from davsql.model import Node
from davsql.paths import DavPath, checked_name, lookup_key
from davsql.store.store import Store

READ_BYTES = 1024 * 1024
FOLDER_JOBS = 16  # folders made at one time, so that one commit holds several

# A file that became a named pipe since it was listed must not make us wait, nor a symbolic link lead us away.
_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class Entry(NamedTuple):
    """A file or a folder of the disk, and where it goes."""

    source: Path
    target: DavPath
    found: os.stat_result


class Listing(NamedTuple):
    """What one folder holds. Whoever takes a folder out of `folders` keeps the walk from entering it."""

    folder: Entry
    folders: list[Entry]
    files: list[Entry]
    left_out: list[tuple[Path, str]]
    errors: list[tuple[Path, Exception]]


@click.command("import", short_help="Copy a folder into the store.")
@click.argument("source", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--to", "to", default="/", metavar="/PATH", help="The collection that gets DIR's content.  [default: /]")
@click.option("--jobs", type=click.IntRange(1, 64), default=DEFAULT_JOBS, show_default=True, help="Files at a time.")
@target_option
@click.pass_context
def import_(context: click.Context, target: Target, source: Path, to: str, jobs: int) -> None:
    """Copy what is in the folder DIR into the store, with the times of files and folders.

    A file that the store has with the same size and time is not copied again, so an import that was stopped goes on
    where it was. Symbolic links and special files are reported and left out. Exit code 1 when a file could not be
    copied; the others are.

    \b
    Examples:
      davsql import ~/Documents --to /Documents
      davsql import --db /srv/photos.db /mnt/camera
    """
    top = Entry(source, DavPath.from_text(to), source.stat())
    with target.open() as store:
        _make_top(store, top.target)
        with Transfer("imported", jobs) as transfer:
            own_files = StoreFiles(store.file)
            transfer.expect(sum(each.found.st_size for listing in walk(top, own_files) for each in listing.files))
            _Import(store, transfer).run(walk(top, own_files))
        with suppress(StoreError):  # a server beside us, which would not notice for long, is in the middle of something
            store.checkpoint()
            store.checkpoint(truncate=True)
    if transfer.failures:
        context.exit(1)


def walk(top: Entry, own_files: StoreFiles) -> Iterator[Listing]:
    """`top` and all folders below it, each before those that it holds."""
    waiting = [top]
    while waiting:
        listing = _listing(waiting.pop(), own_files)
        yield listing
        waiting.extend(reversed(listing.folders))


def _listing(folder: Entry, own_files: StoreFiles) -> Listing:
    listing = Listing(folder, [], [], [], [])
    seen: set[str] = set()
    try:
        own_names = own_files.names_in(folder.source)
        with os.scandir(folder.source) as found:
            for entry in sorted(found, key=lambda each: each.name):
                try:
                    if entry.name in own_names:
                        listing.left_out.append((folder.source / entry.name, "belongs to the store itself"))
                    else:
                        _sort_in(listing, entry, own_files, seen)
                except (OSError, DavsqlError) as error:
                    listing.errors.append((folder.source / entry.name, error))
    except OSError as error:
        listing.errors.append((folder.source, error))
    return listing


def _sort_in(listing: Listing, entry: os.DirEntry[str], own_files: StoreFiles, seen: set[str]) -> None:
    found = entry.stat(follow_symlinks=False)
    path = listing.folder.source / entry.name
    if stat.S_ISLNK(found.st_mode):
        listing.left_out.append((path, "a symbolic link"))
    elif own_files.is_own(found):
        listing.left_out.append((path, "belongs to the store itself"))
    elif not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        listing.left_out.append((path, "a special file"))
    else:
        key = lookup_key(checked_name(entry.name))
        if key in seen:
            raise AlreadyExists("a store takes this name and another one of the folder for the same (Unicode NFC)")
        seen.add(key)
        there = Entry(path, listing.folder.target.child(entry.name), found)
        (listing.folders if stat.S_ISDIR(found.st_mode) else listing.files).append(there)


def _make_top(store: Store, target: DavPath) -> None:
    """Make the collection that gets the content, and those above it, where they are missing."""
    for depth in range(1, len(target.names) + 1):
        path = DavPath(target.names[:depth])
        try:
            if not store.node(path).is_collection:
                raise AlreadyExists(f"{path} is a file in the store; choose another path with --to")
        except NotFound:
            store.make_collection(path)


class _Import:
    def __init__(self, store: Store, transfer: Transfer) -> None:
        self._store = store
        self._transfer = transfer
        self._folders: list[Entry] = []  # that wait for their times

    def run(self, listings: Iterator[Listing]) -> None:
        """Copy it all."""
        with ThreadPoolExecutor(FOLDER_JOBS, thread_name_prefix="davsql-folders") as pool:
            for listing in listings:
                for path, reason in listing.left_out:
                    self._transfer.left_out(path, reason)
                for path, error in listing.errors:
                    self._transfer.failed(path, error)
                self._take(listing, pool)
            self._transfer.wait()
            # Members that came in changed the times of their folders. Setting one does not touch the folder above.
            list(pool.map(self._keep_time, self._folders))

    def _take(self, listing: Listing, pool: ThreadPoolExecutor) -> None:
        self._folders.append(listing.folder)
        inode = self._store.node(listing.folder.target).inode
        known = {lookup_key(node.name): node for node in members(self._store, inode)}
        ready = pool.map(lambda each: self._has_collection(each, known), listing.folders)
        listing.folders[:] = [each for each, is_ready in zip(listing.folders, ready, strict=True) if is_ready]
        for each in listing.files:
            node = known.get(each.target.keys[-1])
            if node is not None and not node.is_collection and _is_same(each.found, node):
                self._transfer.unchanged(each.found.st_size)
            else:
                self._submit(each)

    def _submit(self, entry: Entry) -> None:
        def job(advance: Advance) -> None:
            _copy_in(self._store, entry, advance)

        self._transfer.submit(entry.source, entry.found.st_size, job)

    def _has_collection(self, entry: Entry, known: dict[str, Node]) -> bool:
        node = known.get(entry.target.keys[-1])
        try:
            if node is None:
                self._store.make_collection(entry.target)
            elif not node.is_collection:
                raise AlreadyExists(f"{entry.target} is a file in the store")
        except DavsqlError as error:
            if is_fatal(error):
                raise
            self._transfer.failed(entry.source, error)
            return False
        return True

    def _keep_time(self, entry: Entry) -> None:
        try:
            if self._store.node(entry.target).modified_at != entry.found.st_mtime_ns:
                self._store.set_modified_at(entry.target, entry.found.st_mtime_ns)
        except NotFound as error:  # deleted by somebody else meanwhile
            self._transfer.failed(entry.source, error)


def _is_same(found: os.stat_result, node: Node) -> bool:
    return found.st_size == node.size and found.st_mtime_ns == node.modified_at


def _copy_in(store: Store, entry: Entry, advance: Advance) -> None:
    descriptor = os.open(entry.source, _OPEN_FLAGS)
    with os.fdopen(descriptor, "rb", buffering=0) as source, store.upload() as upload:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise SourceChanged("no longer a regular file")
        while block := source.read(READ_BYTES):
            upload.write(block)
            advance(len(block))
        after = os.fstat(descriptor)
        if (after.st_mtime_ns, after.st_size) != (before.st_mtime_ns, before.st_size) or upload.size != after.st_size:
            raise SourceChanged("it changed while it was read; import again")
        upload.commit(entry.target, modified_at=before.st_mtime_ns)
