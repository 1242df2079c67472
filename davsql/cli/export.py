"""`davsql export`: copy a collection of a store to a folder of the disk.

A file is written under another name and renamed when it is complete, so a name that is there has the whole content.
Nothing is ever written through a symbolic link that is found below the folder.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import click

from davsql.cli.local_files import StoreFiles, is_case_insensitive, is_same_time, part_path, require_local_name
from davsql.cli.ls import members
from davsql.cli.target import Target, target_option
from davsql.cli.transfer import DEFAULT_JOBS, Advance, Transfer, is_fatal
from davsql.cli.unlocking import warn
from davsql.errors import AlreadyExists, DavsqlError
from davsql.model import Inode, Node
from davsql.paths import DavPath
from davsql.store.store import Store

_OPEN_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)


@click.command(short_help="Copy a collection of the store to a folder.")
@click.argument("path", metavar="/PATH")
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--jobs", type=click.IntRange(1, 64), default=DEFAULT_JOBS, show_default=True, help="Files at a time.")
@target_option
@click.pass_context
def export(context: click.Context, target: Target, path: str, folder: Path, jobs: int) -> None:
    """Copy what is in the collection /PATH of the store into the folder DIR, with the times of files and folders.

    DIR is made if it is missing. /PATH may also be a file. A file that DIR has with the same size and time is not
    copied again, so an export that was stopped goes on where it was. Other files of the same names are replaced.
    Exit code 1 when a file could not be copied; the others are.

    \b
    Examples:
      davsql export / ~/backup
      davsql export /Photos/2026 /mnt/stick --db /srv/photos.db
    """
    source = DavPath.from_text(path)
    if target.options.key is not None:
        warn("what is exported is not encrypted: whoever can read it there can read everything")
    with target.open(read_only=True) as store:
        top = store.node(source)
        folder.mkdir(parents=True, exist_ok=True)
        with Transfer("exported", jobs) as transfer:
            work = _Export(store, transfer, folder)
            if top.is_collection:
                transfer.expect(_size_bytes(store, top.inode))
                work.export_tree(source, top)
            else:
                transfer.expect(top.size)
                work.export_file(source, top)
    if transfer.failures:
        context.exit(1)


def _size_bytes(store: Store, top: Inode) -> int:
    size_bytes = 0
    waiting, seen = [top], {top}
    while waiting:
        for node in members(store, waiting.pop()):
            size_bytes += node.size
            if node.is_collection and node.inode not in seen:
                seen.add(node.inode)
                waiting.append(node.inode)
    return size_bytes


class _Export:
    def __init__(self, store: Store, transfer: Transfer, folder: Path) -> None:
        self._store = store
        self._transfer = transfer
        self._top = folder
        self._own_files = StoreFiles(store.file)
        self._is_case_insensitive = is_case_insensitive(folder)

    def export_file(self, path: DavPath, node: Node) -> None:
        """Copy one file into the folder."""
        self._take(path, node, self._top, self._own_files.names_in(self._top))
        self._transfer.wait()

    def export_tree(self, path: DavPath, top: Node) -> None:
        """Copy everything below a collection into the folder."""
        folders: list[tuple[Path, int]] = []  # that wait for their times
        waiting, seen = [(path, top, self._top)], {top.inode}
        while waiting:
            source, collection, folder = waiting.pop()
            folders.append((folder, collection.modified_at))
            own_names = self._own_files.names_in(folder)
            for node in self._distinct(source, collection):
                there = source.child(node.name)
                if node.is_collection and node.inode in seen:
                    self._transfer.failed(there, "it was met before: moved meanwhile, or run `davsql check`")
                elif self._take(there, node, folder, own_names):
                    seen.add(node.inode)
                    waiting.append((there, node, folder / node.name))
        self._transfer.wait()
        for folder, modified_at in reversed(folders):  # what a folder holds changes its time, so it comes after
            try:
                os.utime(folder, ns=(modified_at, modified_at))
            except (OSError, OverflowError) as error:
                self._transfer.failed(folder, error)

    def _distinct(self, source: DavPath, collection: Node) -> Iterator[Node]:
        """The members of a collection whose names this file system tells apart."""
        seen: set[str] = set()
        for node in members(self._store, collection.inode):
            if self._is_case_insensitive:
                folded = source.child(node.name).keys[-1].casefold()
                if folded in seen:
                    self._transfer.failed(source.child(node.name), "this disk does not tell it from another name")
                    continue
                seen.add(folded)
            yield node

    def _take(self, path: DavPath, node: Node, folder: Path, own_names: frozenset[str]) -> bool:
        """Copy a file, or make the folder for a collection; True when the collection's members can follow."""
        try:
            target = folder / require_local_name(node.name)
            found = _found(target)
            if node.name in own_names or (found is not None and self._own_files.is_own(found)):
                raise AlreadyExists("the store's own file is there")
            if node.is_collection:
                _make_folder(target, found)
                return True
            if _is_same(node, target, found):
                self._transfer.unchanged(node.size)
            else:
                self._submit(path, node, target)
        except (OSError, DavsqlError) as error:
            if is_fatal(error):
                raise
            self._transfer.failed(path, error)
        return False

    def _submit(self, path: DavPath, node: Node, target: Path) -> None:
        def job(advance: Advance) -> None:
            _copy_out(self._store, path, target, advance)

        self._transfer.submit(path, node.size, job)


def _found(target: Path) -> os.stat_result | None:
    try:
        return target.lstat()
    except FileNotFoundError:
        return None


def _make_folder(target: Path, found: os.stat_result | None) -> None:
    if found is None:
        target.mkdir()
    elif not stat.S_ISDIR(found.st_mode):
        raise AlreadyExists(f"{target} is there and no folder")


def _is_same(node: Node, target: Path, found: os.stat_result | None) -> bool:
    """True when the file is there already; AlreadyExists when something is there that must not be replaced."""
    if found is None:
        return False
    if not stat.S_ISREG(found.st_mode):
        raise AlreadyExists(f"{target} is there and no regular file")
    return found.st_size == node.size and is_same_time(found.st_mtime_ns, node.modified_at)


def _copy_out(store: Store, path: DavPath, target: Path, advance: Advance) -> None:
    part = part_path(target.parent)
    with store.open_download(path) as download:
        try:
            with os.fdopen(os.open(part, _OPEN_FLAGS, 0o666), "wb") as out:
                for chunk in download.chunks():
                    out.write(chunk)
                    advance(len(chunk))
            os.utime(part, ns=(download.node.modified_at, download.node.modified_at))
            part.replace(target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
