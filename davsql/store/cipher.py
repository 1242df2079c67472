"""Encrypted databases: SQLCipher 4's format, made by SQLite3 Multiple Ciphers.

Rule 1: a connection gets its cipher, then its key, before anything is read; what makes the connection proves the key by
        reading the first page (https://utelle.github.io/SQLite3MultipleCiphers/docs/configuration/config_sql_pragmas/).
Rule 2: no key, no encryption: SQLite would make a plain file without a word. So a key is always of full length here,
        and whoever has made a file looks at its first bytes.
Rule 3: no message has a key in it. SQLite's own have, where it cannot open a file that is named with one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import apsw

from davsql.errors import NotAStore, StoreUnavailable
from davsql.keys.envelope import SALT_BYTES, DataKey
from davsql.keys.file import keys_file
from davsql.store.transaction import translated

PLAIN_HEADER = b"SQLite format 3\0"
SQLCIPHER_VERSION = 4
_RAW_LENGTH = len("x''") + 2 * (32 + SALT_BYTES)


def apply_key(connection: apsw.Connection, key: DataKey | None) -> None:
    """Have the pages of a new connection's database encrypted and decrypted; without a key they are plain.

    Raises:
        StoreUnavailable: this library cannot encrypt, or did not take the key.
    """
    if key is None:
        return
    raw = key.raw
    settings = {"legacy": SQLCIPHER_VERSION, "legacy_page_size": key.envelope.page_size}
    is_taken = connection.pragma("cipher", key.envelope.cipher) == key.envelope.cipher
    is_taken = is_taken and all(str(connection.pragma(name, value)) == str(value) for name, value in settings.items())
    if not is_taken or len(raw) != _RAW_LENGTH or connection.pragma("key", raw) != "ok":
        raise StoreUnavailable("this SQLite cannot encrypt: pip uninstall apsw; pip install apsw-sqlite3mc")


def uri_of(file: Path, key: DataKey | None) -> str:
    """The name of a file for VACUUM INTO and ATTACH, with its key; only inside `unsaid`."""
    uri = file.absolute().as_uri()
    if key is None:
        return f"{uri}?key="  # else it would have the key of its source
    settings = f"cipher={key.envelope.cipher}&legacy={SQLCIPHER_VERSION}&legacy_page_size={key.envelope.page_size}"
    return f"{uri}?{settings}&key={quote(key.raw)}"


@contextmanager
def unsaid(file: Path) -> Iterator[None]:
    """For a statement that names `file` as `uri_of` does (rule 3).

    Raises:
        StoreUnavailable: it cannot be opened, in words without its key.
    """
    try:
        yield
    except apsw.Error as error:
        if "key=" not in str(error):
            raise
        raise StoreUnavailable(f"{file} cannot be opened; look at its permissions and folder") from None


def first_bytes(file: Path) -> bytes:
    """The first 16 bytes of a database: SQLite's own, or the salt of an encrypted one; none in a shorter file.

    They are read through SQLite's VFS: a descriptor of our own would drop SQLite's locks when it is closed.
    """
    flags = [apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READONLY, 0]
    with translated():
        opened = apsw.VFSFile("", str(file), flags)
        try:
            return bytes(opened.xRead(SALT_BYTES, 0)) if opened.xFileSize() >= SALT_BYTES else b""
        finally:
            opened.xClose()


def is_plain_file(file: Path) -> bool:
    """Whether a file begins as a database that everybody can read."""
    return first_bytes(file) == PLAIN_HEADER


def header_of(key: DataKey | None) -> bytes:
    """The first 16 bytes of a database with this key."""
    return PLAIN_HEADER if key is None else bytes.fromhex(key.envelope.store)


def unreadable(file: Path, key: DataKey | None) -> NotAStore:
    """Why a file is no database for whoever has this key."""
    if key is None and keys_file(file).exists():
        return NotAStore(f"{file} is encrypted: say where its key is, with --key-file FILE or --key-command CMD")
    if key is None:
        return NotAStore(
            f"{file} is not an SQLite database, or it is encrypted and {keys_file(file).name}, which holds its key, is "
            "not beside it"
        )
    found = first_bytes(file)
    if found == PLAIN_HEADER:
        return NotAStore(f"{file} is not encrypted, and a key was given: leave it out, or run `davsql encrypt`")
    if found != header_of(key):
        return NotAStore(f"{file} is not the file that {keys_file(file)} belongs to; put the right one beside it")
    return NotAStore(f"{file} is damaged in its first page: its key is right and does not open it; restore a backup")
