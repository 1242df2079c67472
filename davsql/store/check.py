"""Every invariant of schema.sql, looked at.

Each rule is a query that lists what breaks it, under the invariant's number. They run in one snapshot, beside
readers and the writer. The deep check rehashes every chunk and every blob.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from davsql.errors import StoreDamaged
from davsql.paths import lookup_key
from davsql.store import schema
from davsql.store.records import INTEGRITY_CHECK, QUICK_CHECK, SCRUB
from davsql.store.rehash import ascending, rehash
from davsql.store.store import Store
from davsql.store.transaction import ReadTx, translated

LIMIT = 100  # violations listed per rule
DEEP_LIMIT = 10_000  # of rule 15, which names files


class Violation(NamedTuple):
    """One invariant that does not hold."""

    rule: int  # its number in schema.sql
    message: str


class Rule(NamedTuple):
    number: int
    message: str  # a format string for the columns of a row
    sql: str


RULES = (
    Rule(
        1,
        "the root (inode 1) is missing or is not a nameless collection without parent",
        """
        SELECT 1 WHERE NOT EXISTS (
          SELECT 1 FROM nodes WHERE inode = 1 AND parent_inode IS NULL AND name = '' AND node_type = 1
        )
        """,
    ),
    Rule(
        2,
        "node {0} lies in node {1}, which is missing or is not a collection",
        """
        SELECT n.inode, n.parent_inode
        FROM nodes AS n LEFT JOIN nodes AS p ON p.inode = n.parent_inode
        WHERE n.parent_inode IS NOT NULL AND p.node_type IS NOT 1
        """,
    ),
    Rule(
        3,
        "node {0} is reached from neither the root nor a detached node: it is its own ancestor",
        """
        WITH RECURSIVE reached (inode) AS (
          SELECT inode FROM nodes WHERE parent_inode IS NULL
          UNION  -- not ALL: a circle would have no end
          SELECT n.inode FROM reached AS r JOIN nodes AS n ON n.parent_inode = r.inode
        )
        SELECT inode FROM nodes WHERE inode NOT IN (SELECT inode FROM reached)
        """,
    ),
    Rule(
        4,
        "the collection {0} has {1} members named {2!r}",
        """
        SELECT parent_inode, count(*), name FROM nodes WHERE parent_inode IS NOT NULL
        GROUP BY parent_inode, name HAVING count(*) > 1
        """,
    ),
    Rule(
        5,
        "node {0} (type {1}) refers to blob {2}, which is wrong for its type, missing or not sealed",
        """
        SELECT n.inode, n.node_type, n.blob_id
        FROM nodes AS n LEFT JOIN blobs AS b ON b.blob_id = n.blob_id
        WHERE (n.node_type = 2 AND b.digest IS NULL) OR (n.node_type <> 2 AND n.blob_id IS NOT NULL)
          OR n.node_type NOT IN (1, 2)
        """,
    ),
    Rule(
        6,
        "blob {0} has refcount {1} and {2} references",
        """
        WITH refs (blob_id, n) AS (
          SELECT blob_id, count(*) FROM (
            SELECT blob_id FROM nodes WHERE blob_id IS NOT NULL
            UNION ALL SELECT blob_id FROM uploads
            UNION ALL SELECT blob_id FROM pins WHERE blob_id IS NOT NULL
          ) GROUP BY blob_id
        )
        SELECT b.blob_id, b.refcount, coalesce(r.n, 0)
        FROM blobs AS b LEFT JOIN refs AS r ON r.blob_id = b.blob_id WHERE b.refcount <> coalesce(r.n, 0)
        """,
    ),
    Rule(
        7,
        "blob {0} has refcount {1} and orphaned_at {2}",
        "SELECT blob_id, refcount, orphaned_at FROM blobs WHERE (orphaned_at IS NOT NULL) <> (refcount = 0)",
    ),
    Rule(
        8,
        "chunk {0} has refcount {1} and {2} references",
        """
        WITH refs (chunk_id, n) AS (SELECT chunk_id, count(*) FROM blob_chunks GROUP BY chunk_id)
        SELECT c.chunk_id, c.refcount, coalesce(r.n, 0)
        FROM chunks AS c LEFT JOIN refs AS r ON r.chunk_id = c.chunk_id WHERE c.refcount <> coalesce(r.n, 0)
        """,
    ),
    Rule(
        9,
        "blob {0}: the chunk at {1} does not begin where the one before it ends",
        """
        SELECT blob_id, start FROM (
          SELECT b.blob_id, b.start,
            coalesce(sum(c.size) OVER (
              PARTITION BY b.blob_id ORDER BY b.start ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ), 0) AS expected
          FROM blob_chunks AS b LEFT JOIN chunks AS c ON c.chunk_id = b.chunk_id
        ) WHERE start <> expected
        """,
    ),
    Rule(
        9,
        "blob {0} has size {1}, its chunks have {2} bytes",
        """
        WITH sums (blob_id, n) AS (
          SELECT b.blob_id, sum(c.size) FROM blob_chunks AS b LEFT JOIN chunks AS c ON c.chunk_id = b.chunk_id
          GROUP BY b.blob_id
        )
        SELECT b.blob_id, b.size, coalesce(s.n, 0)
        FROM blobs AS b LEFT JOIN sums AS s ON s.blob_id = b.blob_id
        WHERE b.digest IS NOT NULL AND b.size <> coalesce(s.n, 0)
        """,
    ),
    Rule(
        9,
        "blob {0}: the place at {1} refers to chunk {2}, which is not the one that was put there",
        """
        SELECT b.blob_id, b.start, b.chunk_id
        FROM blob_chunks AS b LEFT JOIN chunks AS c ON c.chunk_id = b.chunk_id
        WHERE substr(c.digest, 1, 8) IS NOT b.digest_start
        """,
    ),
    Rule(
        10,
        "chunk {0} should have {1} bytes and has {2}",
        """
        SELECT c.chunk_id, c.size, length(d.data)
        FROM chunks AS c LEFT JOIN chunk_data AS d ON d.chunk_id = c.chunk_id WHERE length(d.data) IS NOT c.size
        """,
    ),
    Rule(
        11,
        "blob {0} is neither sealed nor part of an upload nor an orphan",
        """
        SELECT blob_id FROM blobs
        WHERE digest IS NULL AND refcount > 0 AND blob_id NOT IN (SELECT blob_id FROM uploads)
        """,
    ),
    Rule(
        12,
        "the lock {0} is on node {1}, which is not in the tree",
        """
        WITH RECURSIVE up (token, start, inode) AS (
          SELECT token, inode, inode FROM locks
          UNION
          SELECT u.token, u.start, n.parent_inode FROM up AS u JOIN nodes AS n ON n.inode = u.inode
        )
        SELECT token, inode FROM locks WHERE token NOT IN (SELECT token FROM up WHERE inode = 1)
        """,
    ),
    Rule(
        12,
        "a dead property belongs to node {0}, which is missing",
        "SELECT inode FROM properties WHERE inode NOT IN (SELECT inode FROM nodes)",
    ),
    Rule(
        13,
        "inode {0} is above the sequence: it could be used again",
        """
        SELECT max(inode) FROM nodes
        HAVING max(inode) > coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'nodes'), 0)
        """,
    ),
    Rule(
        17,
        "usage of {0!r} is {1} nodes and {2} bytes, and should be {3} and {4}",
        """
        WITH counted (owner, nodes, bytes) AS (
          SELECT n.owner, count(*), coalesce(sum(b.size), 0)
          FROM nodes AS n LEFT JOIN blobs AS b ON b.blob_id = n.blob_id
          WHERE n.parent_inode IS NOT NULL GROUP BY n.owner
        )
        SELECT o.owner, coalesce(u.nodes, 0), coalesce(u.bytes, 0), coalesce(c.nodes, 0), coalesce(c.bytes, 0)
        FROM (SELECT owner FROM usage UNION SELECT owner FROM counted) AS o
        LEFT JOIN usage AS u ON u.owner = o.owner LEFT JOIN counted AS c ON c.owner = o.owner
        WHERE coalesce(u.nodes, 0) <> coalesce(c.nodes, 0) OR coalesce(u.bytes, 0) <> coalesce(c.bytes, 0)
        """,
    ),
    Rule(
        18,
        "the journal of changes is empty",
        "SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM changes)",
    ),
    Rule(
        18,
        "the journal of changes lacks {0} entries of those from {1} to {2}",
        """
        SELECT max(change_id) - min(change_id) + 1 - count(*), min(change_id), max(change_id) FROM changes
        HAVING max(change_id) - min(change_id) + 1 <> count(*)
        """,
    ),
    Rule(
        18,
        "change {0} is of node {1}, which there never was",
        """
        SELECT change_id, inode FROM changes
        WHERE inode NOT BETWEEN 1 AND coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'nodes'), 0)
        """,
    ),
    Rule(14, "foreign key: {0} row {1} refers to nothing in {2}", "SELECT * FROM pragma_foreign_key_check"),
)


def covered(*, is_deep: bool) -> tuple[str, ...]:
    """The tasks of maintenance that look at nothing that a check does not."""
    return (QUICK_CHECK, INTEGRITY_CHECK, SCRUB) if is_deep else (QUICK_CHECK, INTEGRITY_CHECK)


def check(store: Store, *, deep: bool = False, progress: Callable[[int, int], None] | None = None) -> list[Violation]:
    """List what is broken; an empty list is the good answer.

    Args:
        deep: rehash every chunk and every blob.
        progress: is called with the bytes rehashed and the bytes to rehash.

    Raises:
        StoreError: the file cannot be read at all.
    """
    found: list[Violation] = []
    with store.read() as tx:
        try:
            with translated():
                for violation in _violations(tx, progress or (lambda _done, _total: None), deep=deep):
                    found.append(violation)  # noqa: PERF402  # what was found before an error counts
        except (StoreDamaged, TypeError, ValueError, AttributeError, LookupError) as error:  # what no sound row holds
            found.append(Violation(14, f"the rest cannot be read: {error}"))
    return found


def _violations(tx: ReadTx, progress: Callable[[int, int], None], *, deep: bool) -> Iterator[Violation]:
    yield from _sqlite(tx)
    for rule in RULES:
        rows = tx.rows(f"SELECT * FROM ({rule.sql}) LIMIT {LIMIT}")  # noqa: S608  # RULES are ours
        yield from (Violation(rule.number, rule.message.format(*row)) for row in rows)
    yield from _names(tx)
    yield from (Violation(16, f"{name} is not defined as in a new store") for name in schema.deviations(tx))
    if deep:
        for number, message in enumerate(rehash(tx, progress)):
            if number == DEEP_LIMIT:
                yield Violation(15, f"there is more than these {DEEP_LIMIT}; the rest was not looked at")
                return
            yield Violation(15, message)


def _sqlite(tx: ReadTx) -> Iterator[Violation]:
    for (message,) in tx.rows(f"PRAGMA integrity_check({LIMIT})"):
        if message != "ok":
            yield Violation(14, f"SQLite: {message}")


# Names of ASCII characters alone are their own lookup form.
NEXT_NAMES = """
SELECT inode, name, sent_name FROM nodes
WHERE inode > ? AND (sent_name IS NOT NULL OR name GLOB '*[^ -~]*') ORDER BY inode LIMIT 1000
"""


def _names(tx: ReadTx) -> Iterator[Violation]:
    """The part of invariant 4 that SQL cannot see."""
    last, found = 0, 0
    while found < LIMIT and (rows := tx.rows(NEXT_NAMES, (last,))):
        for inode, name, sent_name in rows:
            last = ascending(last, inode)
            if not isinstance(name, str) or not isinstance(sent_name, str | None):
                found += 1
                yield Violation(4, f"node {last}: its name is no text")
            elif lookup_key(name) != name:
                found += 1
                yield Violation(4, f"node {last}: its name is not in lookup form")
            elif sent_name == name or (sent_name is not None and lookup_key(sent_name) != name):
                found += 1
                yield Violation(4, f"node {last}: the form of its name as sent is no other form of it")
