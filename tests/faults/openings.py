"""A disk that fails while a store is made, opened after a crash, or closed."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple

import apsw

from davsql.errors import StoreError
from davsql.store.check import check
from davsql.store.options import StoreOptions
from davsql.store.store import Store
from tests.faults.disk import Disk, Operation, injected
from tests.store_steps import put, tree

STORE = "store.db"
FILES = {"/a": b"a" * 100_000, "/b": b"b"}
_vfs_numbers = count()


class OpeningResult(NamedTuple):
    is_hit: bool
    errors: Counter[str]
    troubles: tuple[str, ...]


class Opening(NamedTuple):
    """Which error one operation meets, between opening and having closed."""

    name: str
    result: int  # of SQLite
    error: type[apsw.Error]
    is_creation: bool  # else there is a store with a WAL that nobody closed

    def run(self, folder: Path, number: int) -> OpeningResult:
        """Open and close with the `number`th operation failing, then again without a fault."""
        file, errors, troubles, seen = folder / STORE, Counter[str](), list[str](), count(1)
        is_hit = False

        def maybe_fail(operation: Operation) -> None:
            nonlocal is_hit
            if next(seen) == number:
                is_hit = True
                raise injected(self.error, self.result, operation)

        if not self.is_creation:
            _leave_with_wal(file)
        disk = Disk(f"openings-{os.getpid()}-{next(_vfs_numbers)}", number)
        disk.before = maybe_fail
        try:
            store = Store.open(file, StoreOptions(vfs=disk.vfs_name, readers=1), create=self.is_creation)
        except StoreError as error:
            errors[type(error).__name__] += 1
        else:
            if not self.is_creation and tree(store) != FILES:
                troubles.append("the tree is not what it was")
            with suppress(apsw.Error):  # SQLite keeps what fails in a close to itself, APSW tells of its own errors
                store.close()
        finally:
            disk.unregister()
        with Store.open(file, StoreOptions(readers=1), create=self.is_creation) as store:
            if self.is_creation:
                for path, data in FILES.items():
                    put(store, path, data)
            if tree(store) != FILES:
                troubles.append("once repaired: the tree is not what it was")
            troubles.extend(violation.message for violation in check(store, deep=True))
        return OpeningResult(is_hit, errors, tuple(troubles))


def _leave_with_wal(file: Path) -> None:
    """Make a store and leave it as a killed process would."""
    original = file.with_name("original.db")
    with Store.open(original, StoreOptions(readers=1), create=True) as store:
        for path, data in FILES.items():
            put(store, path, data)
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{original}{suffix}", f"{file}{suffix}")


OPENINGS = tuple(
    Opening(f"{'making' if is_creation else 'opening'} a store: {name}", result, error, is_creation)
    for is_creation in (True, False)
    for name, result, error in (
        ("EIO", apsw.SQLITE_IOERR, apsw.IOError),
        ("ENOSPC", apsw.SQLITE_FULL, apsw.FullError),
    )
)
