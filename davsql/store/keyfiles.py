"""The file of wrapped keys that goes with each encrypted database (keys/file.py), as stores come and go beside it.

Rule 1: whatever has the name of a store at any moment, its envelope lies beside it: a new one is added before the file
        is exchanged, and the old one taken away after.
Errors of keys become StoreErrors here: nothing above a store's operations expects others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from davsql.errors import KeyFailed, StoreUnavailable
from davsql.keys.envelope import DataKey
from davsql.keys.file import adopt, keys_file, own_as, read_envelopes, settle, write_envelopes, write_private


@contextmanager
def keys_beside(file: Path, key: DataKey | None) -> Iterator[None]:
    """For the block that puts a database with this key at `file`.

    Raises:
        StoreUnavailable: the wrapped key cannot be written; the block has not begun.
    """
    beside = keys_file(file)
    is_there = beside.exists()
    if key is not None:
        with _as_store_error():
            adopt(beside, key.envelope)
            if file.exists():
                own_as(beside, file)
    yield
    if is_there:
        with _as_store_error():
            settle(beside, None if key is None else key.envelope)


def first_keys(file: Path, key: DataKey | None) -> None:
    """Write what belongs beside a new database; of two that make it at one time the first one wins.

    Raises:
        StoreUnavailable: there is something already, also for a plain one; or it cannot be written.
    """
    if key is not None:
        with _as_store_error():
            write_envelopes(keys_file(file), [key.envelope], may_replace=False)
    elif keys_file(file).exists():
        raise StoreUnavailable(
            f"{keys_file(file)} is there, so {file} was an encrypted store: is its disk mounted? Restore a backup, or "
            "move the file of keys away"
        )


def only_keys(file: Path, key: DataKey | None) -> None:
    """Have the envelope of this key beside a database that is being made, or nothing.

    Raises:
        StoreUnavailable: it cannot be written.
    """
    with _as_store_error():
        if key is None:
            settle(keys_file(file), None)
        else:
            write_envelopes(keys_file(file), [key.envelope])


def present_key(store: Path, key: DataKey | None) -> DataKey | None:
    """The key with its envelope as it is beside the store now: people may have been added, or shut out."""
    if key is not None:
        with suppress(KeyFailed):  # a backup with the envelope of yesterday is better than none
            for envelope in read_envelopes(keys_file(store)):
                if envelope.store == key.envelope.store:
                    return replace(key, envelope=envelope)
    return key


def keep_keys(file: Path, kept: Path) -> None:
    """Copy what lies beside `file`, if anything does, for the same file under the name `kept`.

    Raises:
        StoreUnavailable: it cannot be read or written.
    """
    with _as_store_error(), suppress(FileNotFoundError):  # as it is: it may be damaged, and the reason for a restore
        write_private(keys_file(kept), keys_file(file).read_bytes(), may_replace=False)


def forget_keys(file: Path) -> None:
    """Take away what lies beside a database that is gone.

    Raises:
        StoreUnavailable: it cannot be removed.
    """
    with _as_store_error():
        settle(keys_file(file), None)


@contextmanager
def _as_store_error() -> Iterator[None]:
    try:
        yield
    except KeyFailed as error:
        raise StoreUnavailable(str(error)) from error
    except OSError as error:
        raise StoreUnavailable(f"{error.filename}: {error.strerror}") from error
