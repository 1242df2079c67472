"""check: every numbered invariant of schema.sql is found when it is broken, and named so that somebody can act."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.resources import files

import apsw
import pytest

from davsql.errors import StoreError
from davsql.store.blobs import CHUNK_BYTES
from davsql.store.check import RULES, Violation, check
from davsql.store.store import Store
from tests.store.engine_steps import Clock, lock, raw
from tests.store_steps import at, mkcol, put

DEEP_RULE = 15
SCHEMA_RULE = 16
Break = str | Callable[[apsw.Connection], object]


@pytest.fixture
def filled(unchecked_store: Store) -> Store:
    """Inodes: 2 /c, 3 /c/d, 4 /c/d/f, 5 /g, 6 /large. Blobs and chunks: 1 of f, 2 of g, then large with 3, 4, 5."""
    store = unchecked_store
    mkcol(store, "/c")
    mkcol(store, "/c/d")
    put(store, "/c/d/f", b"content of f")
    put(store, "/g", b"content of g")
    put(store, "/large", b"1" * CHUNK_BYTES + b"2" * CHUNK_BYTES + b"3")
    lock(store, "/c/d", infinity=True)
    assert check(store, deep=True) == []
    return store


def without_unique_names(connection: apsw.Connection) -> None:
    """Two members of one name: only possible where the table has lost its UNIQUE."""
    connection.pragma("writable_schema", 1)
    connection.execute(
        "UPDATE sqlite_schema SET sql = replace(sql, 'UNIQUE (parent_inode, name),', '') WHERE name = 'nodes'"
    )
    connection.execute("DELETE FROM sqlite_schema WHERE name = 'sqlite_autoindex_nodes_1'")
    connection.pragma("schema_version", int(connection.pragma("schema_version")) + 1)


def duplicate_name(connection: apsw.Connection) -> None:
    without_unique_names(connection)
    again = apsw.Connection(connection.filename)
    again.execute("INSERT INTO nodes (parent_inode, name, node_type, created_at, modified_at) VALUES (1, 'c', 1, 0, 0)")
    again.close()


def lose_index(connection: apsw.Connection) -> None:
    """The rows of an index are all there and nobody knows of them."""
    connection.pragma("writable_schema", 1)
    connection.execute("DELETE FROM sqlite_schema WHERE name = 'nodes_blob'")
    connection.pragma("schema_version", int(connection.pragma("schema_version")) + 1)


NODE = "INSERT INTO nodes (parent_inode, name, node_type, created_at, modified_at, blob_id) VALUES "
LOCK = (
    "INSERT INTO locks (token, inode, scope, is_depth_infinity, principal, timeout_s, created_at, expires_at) "
    "VALUES ('t', {}, 'shared', 0, '', 1, 0, 0)"
)

BROKEN: list[tuple[int, str, Break]] = [
    (16, "trigger gone", "DROP TRIGGER nodes_delete"),
    (1, "root renamed", "UPDATE nodes SET name = 'root' WHERE inode = 1"),
    (1, "root a file", "UPDATE nodes SET node_type = 2 WHERE inode = 1"),
    (1, "root in itself", "UPDATE nodes SET parent_inode = 1 WHERE inode = 1"),
    (1, "root gone", "DELETE FROM nodes WHERE inode = 1"),
    (2, "parent gone", "UPDATE nodes SET parent_inode = 999 WHERE inode = 4"),
    (2, "parent a file", "UPDATE nodes SET parent_inode = 5 WHERE inode = 4"),
    (2, "parent of a deleted tree gone", NODE + "(998, 'x', 1, 0, 0, NULL)"),
    (3, "two collections in each other", "UPDATE nodes SET parent_inode = 3 WHERE inode = 2"),
    (3, "collection in itself", "UPDATE nodes SET parent_inode = 3 WHERE inode = 3"),
    (4, "two of one name", duplicate_name),
    (4, "form as sent kept in vain", "UPDATE nodes SET sent_name = name WHERE inode = 2"),
    (4, "name not in lookup form", "UPDATE nodes SET name = 'cafe' || char(769) WHERE inode = 2"),
    (4, "form as sent of another name", "UPDATE nodes SET sent_name = 'other' WHERE inode = 2"),
    (5, "collection with content", "UPDATE nodes SET blob_id = 1 WHERE inode = 2"),
    (5, "neither a file nor a collection", "UPDATE nodes SET node_type = 7, blob_id = NULL WHERE inode = 4"),
    (5, "file without content", "UPDATE nodes SET blob_id = NULL WHERE inode = 5"),
    (5, "file with content that is gone", "UPDATE nodes SET blob_id = 999 WHERE inode = 5"),
    (5, "file with unsealed content", "UPDATE blobs SET digest = NULL WHERE blob_id = 1"),
    (6, "blob counts too many", "UPDATE blobs SET refcount = refcount + 1 WHERE blob_id = 1"),
    (6, "blob counts too few", "UPDATE blobs SET refcount = 0, orphaned_at = 1 WHERE blob_id = 1"),
    (6, "orphan counts one", "INSERT INTO blobs (digest, size, refcount) VALUES (zeroblob(32), 0, 1)"),
    (7, "orphan without a time", "UPDATE blobs SET refcount = 0 WHERE blob_id = 1"),
    (7, "time without an orphan", "UPDATE blobs SET orphaned_at = 1 WHERE blob_id = 1"),
    (8, "chunk counts too many", "UPDATE chunks SET refcount = refcount + 1 WHERE chunk_id = 1"),
    (8, "chunk counts too few", "UPDATE chunks SET refcount = 0 WHERE chunk_id = 3"),
    (9, "hole", "DELETE FROM blob_chunks WHERE blob_id = 3 AND chunk_id = 4"),
    (9, "end gone", "DELETE FROM blob_chunks WHERE blob_id = 3 AND chunk_id = 5"),
    (9, "beginning gone", "DELETE FROM blob_chunks WHERE blob_id = 3 AND start = 0"),
    (9, "overlap", "UPDATE blob_chunks SET start = start - 1 WHERE chunk_id = 4"),
    (9, "gap", "UPDATE blob_chunks SET start = start + 1 WHERE chunk_id = 5"),
    (9, "does not begin at 0", "UPDATE blob_chunks SET start = 1 WHERE blob_id = 1"),
    (9, "blob with another size", "UPDATE blobs SET size = size - 1 WHERE blob_id = 3"),
    (9, "another chunk", "UPDATE blob_chunks SET chunk_id = 5 WHERE chunk_id = 4"),
    (9, "another chunk's digest", "UPDATE blob_chunks SET digest_start = zeroblob(8) WHERE chunk_id = 4"),
    (9, "empty blob with a size", "INSERT INTO blobs (digest, size, orphaned_at) VALUES (zeroblob(32), 5, 1)"),
    (10, "bytes gone", "DELETE FROM chunk_data WHERE chunk_id = 4"),
    (10, "fewer bytes", "UPDATE chunk_data SET data = substr(data, 2) WHERE chunk_id = 4"),
    (14, "bytes of no chunk", "INSERT INTO chunk_data (chunk_id, data) VALUES (999, x'00')"),
    (11, "unsealed without an upload", "UPDATE blobs SET digest = NULL WHERE blob_id = 1"),
    (12, "lock on a deleted node", "UPDATE nodes SET parent_inode = NULL WHERE inode = 2"),
    (12, "lock on nothing", LOCK.format(999)),
    (12, "property of nothing", "INSERT INTO properties (inode, namespace, name, xml) VALUES (999, '', 'p', '')"),
    (13, "sequence too low", "UPDATE sqlite_sequence SET seq = 2 WHERE name = 'nodes'"),
    (13, "sequence gone", "DELETE FROM sqlite_sequence WHERE name = 'nodes'"),
    (14, "foreign key", "INSERT INTO properties (inode, namespace, name, xml) VALUES (999, '', 'p', '')"),
    (14, "pages of nobody", lose_index),
    (17, "usage of nobody", "INSERT INTO usage (owner, nodes, bytes) VALUES ('eve', 1, 1)"),
    (17, "usage gone", "DELETE FROM usage"),
    (17, "too few bytes", "UPDATE usage SET bytes = bytes - 1"),
    (17, "too many nodes", "UPDATE usage SET nodes = nodes + 1"),
    (17, "another's node", "DROP TRIGGER usage_update; UPDATE nodes SET owner = 'eve' WHERE inode = 2"),
    (18, "no journal", "DELETE FROM changes"),
    (18, "an entry gone", "DELETE FROM changes WHERE change_id = 3"),
    (18, "a change of nothing", "UPDATE changes SET inode = 999 WHERE change_id = 3"),
]


def break_and_check(store: Store, broken: Break, *, deep: bool = False) -> list[Violation]:
    with raw(store) as connection:
        if isinstance(broken, str):
            connection.execute("DROP TRIGGER IF EXISTS blob_chunks_delete")
            connection.execute(broken)
        else:
            broken(connection)
    store.close()
    with Store.open(store.file) as again:
        return check(again, deep=deep)


@pytest.mark.parametrize(
    ("rule", "broken"),
    [(rule, broken) for rule, _, broken in BROKEN],
    ids=[f"{rule}: {what}" for rule, what, _ in BROKEN],
)
def test_check__finds_a_broken_rule(filled: Store, rule: int, broken: Break) -> None:
    found = break_and_check(filled, broken)
    assert rule in {violation.rule for violation in found}, found
    for violation in found:
        assert not re.search(r"[{}]", violation.message)


def test_check__has_a_rule_and_a_test_for_every_invariant() -> None:
    schema = files("davsql.store").joinpath("schema.sql").read_text(encoding="utf-8")
    numbers = [int(number) for number in re.findall(r"^--\s+(\d+)  ", schema, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert {rule.number for rule in RULES} | {DEEP_RULE, SCHEMA_RULE} == set(numbers)
    assert {rule for rule, _, _ in BROKEN} | {DEEP_RULE} == set(numbers)


def test_check__lists_no_more_than_its_limit_for_a_rule(unchecked_store: Store) -> None:
    with raw(unchecked_store) as connection:
        connection.execute(
            """
            WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 400)
            INSERT INTO nodes (parent_inode, name, node_type, created_at, modified_at) SELECT 999, i, 1, 0, 0 FROM n
            """
        )
    found = check(unchecked_store)
    assert 100 <= sum(1 for violation in found if violation.rule == 2) <= 200


def test_check__is_content_with_work_in_progress(store: Store, clock: Clock) -> None:
    """Staged uploads, detached trees, orphans and expired locks are no violations."""
    mkcol(store, "/c")
    put(store, "/c/f", b"x")
    lock(store, "/c/f", timeout_s=1)
    clock.advance(2)
    store.delete(at("/c"))
    put(store, "/g", b"y")
    put(store, "/g", b"z")
    upload = store.upload()
    upload.write(bytes(9 * 1024 * 1024))
    assert check(store, deep=True) == []
    upload.abort()
    assert check(store, deep=True) == []


# --- deep -------------------------------------------------------------------------------------------------------------


def flip(number: int) -> Break:
    def broken(connection: apsw.Connection) -> None:
        ((data,),) = connection.execute("SELECT data FROM chunk_data WHERE chunk_id = ?", (number,)).fetchall()
        assert isinstance(data, bytes)
        flipped = bytes([data[0] ^ 1]) + data[1:]
        connection.execute("UPDATE chunk_data SET data = ? WHERE chunk_id = ?", (flipped, number))

    return broken


@pytest.mark.parametrize(("chunk_id", "path"), [(1, "/c/d/f"), (2, "/g"), (3, "/large"), (5, "/large")])
def test_check_deep__finds_a_flipped_bit_and_names_the_path(filled: Store, chunk_id: int, path: str) -> None:
    found = break_and_check(filled, flip(chunk_id), deep=True)
    assert {violation.rule for violation in found} == {DEEP_RULE}
    assert any(path in violation.message for violation in found)


def test_check_deep__names_every_path_that_shares_a_damaged_chunk(filled: Store) -> None:
    filled.copy(at("/large"), at("/c/copy"))
    put(filled, "/gone", b"1" * CHUNK_BYTES)
    filled.delete(at("/gone"))
    found = break_and_check(filled, flip(3), deep=True)
    text = " ".join(violation.message for violation in found)
    for path in ("/large", "/c/copy", "(deleted)"):
        assert path in text


def test_check_deep__lists_no_more_than_its_limit(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("davsql.store.check.DEEP_LIMIT", 2)
    found = break_and_check(filled, "UPDATE chunk_data SET data = zeroblob(length(data))", deep=True)
    messages = [violation.message for violation in found if violation.rule == DEEP_RULE]
    assert len(messages) == 3
    assert "more than these 2" in messages[-1]


def test_check__without_deep_does_not_rehash(filled: Store) -> None:
    assert break_and_check(filled, flip(1)) == []


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE blobs SET digest = zeroblob(32) WHERE blob_id = 3",
        "UPDATE blobs SET digest = zeroblob(32) WHERE blob_id = 1",
        "INSERT INTO blobs (digest, size, orphaned_at) VALUES (zeroblob(32), 0, 1)",  # an empty one
    ],
)
def test_check_deep__finds_a_blob_that_is_not_its_content(filled: Store, sql: str) -> None:
    with raw_file(filled) as connection:
        connection.execute(sql)
    with Store.open(filled.file) as store:
        assert {violation.rule for violation in check(store)} <= {SCHEMA_RULE}  # triggers were taken away
        assert DEEP_RULE in {violation.rule for violation in check(store, deep=True)}


def raw_file(store: Store) -> apsw.Connection:
    return apsw.Connection(str(store.file))


def test_check_deep__tells_how_far_it_is(filled: Store) -> None:
    seen: list[tuple[int, int]] = []
    assert check(filled, deep=True, progress=lambda done, total: seen.append((done, total))) == []
    total = 2 * CHUNK_BYTES + 1 + 2 * len(b"content of f")
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_check_deep__of_missing_bytes_does_not_stop(filled: Store) -> None:
    found = break_and_check(filled, "DELETE FROM chunk_data WHERE chunk_id = 4", deep=True)
    assert {10, DEEP_RULE} <= {violation.rule for violation in found}


def test_check__of_a_damaged_file_is_a_list_or_an_error_of_ours(filled: Store) -> None:
    """Pages overwritten one after the other: whatever happens, no exception of apsw or of ours comes out."""
    filled.close()
    whole = filled.file.read_bytes()
    page = filled.options.page_size
    for number in range(1, min(len(whole) // page, 40)):
        damaged = bytearray(whole)
        damaged[number * page : (number + 1) * page] = b"\xa5" * page
        filled.file.write_bytes(damaged)
        try:
            with Store.open(filled.file) as store:
                assert check(store, deep=True) != [], number
        except StoreError:
            pass
