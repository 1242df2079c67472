"""Making a new store: complete, and only then under its name.

A process that is killed in between, or a disk that fails, leaves nothing that the next attempt would stumble over.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from davsql.errors import AlreadyExists, StoreUnavailable
from davsql.store.backup import place
from davsql.store.cipher import first_bytes, header_of
from davsql.store.connection import create_file
from davsql.store.exclusion import leftovers
from davsql.store.keyfiles import first_keys
from davsql.store.migrate import create_schema
from davsql.store.options import StoreOptions
from davsql.store.transaction import translated


def make_store(file: Path, options: StoreOptions) -> None:
    """Make an empty store at `file`, unless another process does so at the same time.

    Raises:
        StoreUnavailable: the name is taken by something else, or the folder is missing or cannot be written.
        StoreError: the disk fails; nothing is left behind.
    """
    with making(file) as part:
        connection = create_file(part, options)
        try:
            create_schema(connection)
        finally:
            with translated():
                connection.close()
        if first_bytes(part) != header_of(options.key):
            raise StoreUnavailable(f"{file} was not made: it would not be encrypted as it should")
        first_keys(file, options.key)


@contextmanager
def making(file: Path) -> Iterator[Path]:
    """A path to make a database at; when the block has ended well the database is at `file`.

    If another process was faster theirs is as good, and ours is dropped. Raises as `make_store` does.
    """
    if os.path.lexists(file):
        raise StoreUnavailable(f"{file} exists already; choose another path or delete it")
    if not file.parent.is_dir():
        raise StoreUnavailable(f"{file} cannot be created: its folder does not exist")
    # Named so that the next backup takes away what a kill has left.
    part = file.with_name(f".{file.name[:200]}.{token_hex(8)}.davsql-part")
    try:
        yield part
        with suppress(AlreadyExists):
            place(part, file, may_replace=False)
    except OSError as error:
        raise StoreUnavailable(f"{file} cannot be created: {error.strerror}") from error
    finally:
        with suppress(OSError):
            for each in (part, *leftovers(part)):
                each.unlink(missing_ok=True)
