"""A copy of a store under another key, row by row, which goes on where a run that was killed has stopped.

Rule 1: chunks come first, 16 MiB a transaction. All other rows are few bytes: in the last transaction they replace what
        is there, and the triggers are made.
Rule 2: of what an earlier run has left that is kept which the source still holds: chunks with the same id and digest.
        So it does not matter what was written to the source meanwhile.
Rule 3: whoever uses the copy verifies all of it; nothing here vouches for what was on the disk before.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import apsw
import apsw.ext

from davsql.errors import Cancelled, StoreDamaged, StoreError
from davsql.keys.envelope import DataKey
from davsql.store.backup import CACHE_MB, CopyOptions, Snapshot, require_space, snapshot_of
from davsql.store.cipher import first_bytes, header_of, unsaid, uri_of
from davsql.store.connection import create_rewritten, open_frozen, open_rewritten
from davsql.store.exclusion import leftovers
from davsql.store.options import StoreOptions
from davsql.store.rehash import TOTAL_BYTES, ascending
from davsql.store.transaction import ReadTx, Row, translated

STEP_BYTES = 16 * 1024 * 1024  # what a kill costs at most
STEP_CHUNKS = 4096
_FIRST = -(1 << 63)  # of the numbers that a row may have
_PROGRESS_STEPS = 100_000  # of SQLite's machine, between two looks at `is_cancelled`


class Rewritten(NamedTuple):
    """A copy that is complete, and not verified."""

    snapshot: Snapshot
    reused_bytes: int  # of content, which an earlier run had copied


ATTACH = "ATTACH ? AS source"
DETACH = "DETACH source"


def rewrite(source: Path, part: Path, options: StoreOptions, key: DataKey | None, how: CopyOptions) -> Rewritten:
    """Make `part` a copy of `source` with another key, or go on with what is there.

    Args:
        source: one file, without a WAL, that nobody else uses.
        options: with the key of the source.

    Raises:
        StoreFull: there is no room for the copy.
        StoreError: the source cannot be read, or the copy not be written. What was copied stays.
    """
    options = replace(options, cache_mb=CACHE_MB)
    connection = _open_part(source, part, options, replace(options, key=key))
    try:
        with translated():
            with unsaid(source):
                connection.execute(ATTACH, (f"{uri_of(source, options.key)}&mode=ro&immutable=1",))
            reused_bytes = _forget_others(connection)
            require_space(part.parent, connection, source.stat().st_size - part.stat().st_size, options)
            _copy(connection, reused_bytes, how)
            connection.execute(DETACH)
            return Rewritten(snapshot_of(connection), reused_bytes)
    finally:
        connection.close()


def _copy(connection: apsw.Connection, reused_bytes: int, how: CopyOptions) -> None:
    connection.set_progress_handler(how.is_cancelled, _PROGRESS_STEPS)  # so that Ctrl-C too is seen soon
    try:
        _copy_chunks(connection, reused_bytes, how)
        _complete(connection)
    except apsw.InterruptError:
        raise Cancelled("the copy was stopped before its end") from None
    connection.set_progress_handler(None)


def remove_part(part: Path) -> None:
    """Take away what there is of a copy."""
    for each in (part, *leftovers(part)):
        each.unlink(missing_ok=True)


DEFINITIONS = """
SELECT name, sql FROM sqlite_schema
WHERE sql IS NOT NULL AND type <> 'trigger' AND name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY rowid
"""


def _open_part(source: Path, part: Path, options: StoreOptions, of_part: StoreOptions) -> apsw.Connection:
    """The part of an earlier run where it can be used, or an empty one with the definitions of the source."""
    frozen = open_frozen(source, options)
    try:
        with translated():
            page_size, definitions = frozen.pragma("page_size"), ReadTx(frozen).rows(DEFINITIONS)
    finally:
        frozen.close()
    begun = _begun(part, of_part, page_size, definitions)
    if begun is not None:
        return begun
    remove_part(part)
    made = create_rewritten(part, of_part, page_size)
    try:
        with translated(), made:
            for _name, sql in definitions:
                _define(made, sql)
    except BaseException:
        made.close()
        raise
    return made


def _begun(part: Path, options: StoreOptions, page_size: int, definitions: list[Row]) -> apsw.Connection | None:
    try:
        found = part.lstat()
        # One name, and ours: somebody else's file, or a link to one, is not written to.
        is_ours = stat.S_ISREG(found.st_mode) and found.st_nlink == 1
        is_ours = is_ours and (os.name == "nt" or found.st_uid == os.geteuid())
        if not is_ours or first_bytes(part) != header_of(options.key):
            return None
        connection = open_rewritten(part, options)
    except (FileNotFoundError, StoreError):
        return None
    try:
        with translated():
            if (connection.pragma("page_size"), ReadTx(connection).rows(DEFINITIONS)) == (page_size, definitions):
                return connection
    except StoreError:
        pass
    connection.close()
    return None


def _define(connection: apsw.Connection, sql: str) -> None:
    """Run one CREATE of the source: a hostile store must not have others run (https://www.sqlite.org/security.html)."""
    is_one = sql.startswith("CREATE ") and apsw.ext.query_info(connection, sql).query_remaining is None
    if not is_one:
        raise StoreDamaged("the store's schema is not one of davsql; run `davsql check`")
    connection.execute(sql)


TRIGGERS = "SELECT name FROM sqlite_schema WHERE type = 'trigger'"
STALE_CHUNKS = """
SELECT c.chunk_id FROM main.chunks AS c LEFT JOIN source.chunks AS s ON s.chunk_id = c.chunk_id
WHERE c.chunk_id > :after AND s.digest IS NOT c.digest ORDER BY c.chunk_id LIMIT 10000
"""
DELETE_DATA = "DELETE FROM chunk_data WHERE chunk_id = ?"
DELETE_CHUNK = "DELETE FROM chunks WHERE chunk_id = ?"


def _forget_others(connection: apsw.Connection) -> int:
    """Delete the chunks that the source has no more, and return how many bytes of its content are there."""
    tx, last = ReadTx(connection), _FIRST
    with connection:
        for (name,) in tx.rows(TRIGGERS):
            connection.execute(f'DROP TRIGGER "{_plain(name)}"')
        while stale := tx.rows(STALE_CHUNKS, {"after": last}):
            connection.executemany(DELETE_DATA, stale)
            connection.executemany(DELETE_CHUNK, stale)
            last = ascending(last, stale[-1][0])
    return int(tx.value(TOTAL_BYTES))


SOURCE_BYTES = "SELECT coalesce(sum(size), 0) FROM source.chunks"
NEXT_CHUNKS = """
SELECT s.chunk_id, s.size FROM source.chunks AS s
WHERE s.chunk_id > :after AND NOT EXISTS (SELECT 1 FROM main.chunks AS c WHERE c.chunk_id = s.chunk_id)
ORDER BY s.chunk_id LIMIT :limit
"""
COPY_DATA = """
INSERT INTO main.chunk_data SELECT s.* FROM source.chunk_data AS s WHERE s.chunk_id BETWEEN :first AND :last
AND NOT EXISTS (SELECT 1 FROM main.chunks AS c WHERE c.chunk_id = s.chunk_id)
"""
COPY_CHUNKS = """
INSERT INTO main.chunks SELECT s.* FROM source.chunks AS s WHERE s.chunk_id BETWEEN :first AND :last
AND NOT EXISTS (SELECT 1 FROM main.chunks AS c WHERE c.chunk_id = s.chunk_id)
"""


def _copy_chunks(connection: apsw.Connection, done_bytes: int, how: CopyOptions) -> None:
    tx = ReadTx(connection)
    total_bytes, last = int(tx.value(SOURCE_BYTES)), _FIRST
    how.progress(done_bytes, total_bytes)
    while rows := tx.rows(NEXT_CHUNKS, {"after": last, "limit": STEP_CHUNKS}):
        if how.is_cancelled():
            raise Cancelled("the copy was stopped before its end")
        first, after, step_bytes = rows[0][0], last, 0
        for chunk_id, size in rows:
            last = ascending(last, chunk_id)
            step_bytes += size
            if step_bytes >= STEP_BYTES:
                break
        with connection:
            for sql in (COPY_DATA, COPY_CHUNKS):
                connection.execute(sql, {"first": ascending(after, first), "last": last})
        done_bytes += step_bytes
        how.progress(done_bytes, total_bytes)


TABLES = """
SELECT name FROM source.sqlite_schema
WHERE type = 'table' AND name <> 'chunk_data' AND name IN (SELECT name FROM main.sqlite_schema)
ORDER BY name GLOB 'sqlite_*'  -- last: SQLite writes to sqlite_sequence as the others are filled
"""
HAS_STATISTICS = "SELECT 1 FROM source.sqlite_schema WHERE name = 'sqlite_stat1'"
MAKE_STATISTICS = (
    "ANALYZE main.sqlite_schema"  # which makes the tables (https://www.sqlite.org/fileformat2.html#stat1tab)
)
SOURCE_TRIGGERS = "SELECT sql FROM source.sqlite_schema WHERE type = 'trigger' ORDER BY rowid"


def _complete(connection: apsw.Connection) -> None:
    """Exchange all rows but the bytes of chunks, and make the triggers."""
    with connection:
        if connection.execute(HAS_STATISTICS).fetchone() is not None:
            connection.execute(MAKE_STATISTICS)
        for (name,) in ReadTx(connection).rows(TABLES):
            # An empty table is filled without a look at its rows, indexes included (SQLite's transfer optimization).
            table = _plain(name)
            connection.execute(f'DELETE FROM main."{table}"')  # noqa: S608  # a plain name
            connection.execute(f'INSERT INTO main."{table}" SELECT * FROM source."{table}"')  # noqa: S608  # as above
        for (sql,) in ReadTx(connection).rows(SOURCE_TRIGGERS):
            _define(connection, sql)


def _plain(name: str) -> str:
    """A name that may stand in SQL, where it cannot be bound."""
    if re.fullmatch(r"\w+", name) is None:
        raise StoreDamaged("the store's schema is not one of davsql; run `davsql check`")
    return name
