"""Every SQL constant of the engine: it fits the schema, and reads no more of a table than it must."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from importlib.resources import files
from types import ModuleType
from typing import NamedTuple

import apsw
import pytest

import davsql.store
from davsql.store import check

SQL_BEGINS = re.compile(r"\s*(?:SELECT|INSERT|UPDATE|DELETE|WITH|CREATE|REPLACE)\b", re.IGNORECASE)
PLACEHOLDERS = re.compile(r":(\w+)|\?(\d*)")

# Tables that grow with what users store; the others hold a few rows.
LARGE_TABLES = {"nodes", "blobs", "chunks", "chunk_data", "blob_chunks", "properties", "locks", "uploads", "pins"}

# These indexes hold only what waits for GC.
PARTIAL_INDEXES = {"nodes_detached", "blobs_orphaned", "chunks_orphaned"}

# Constants that read a large table from its beginning, and why they may.
SCANS = {
    "davsql.store.stats.COUNT_NODES": "a count is a count",
    "davsql.store.stats.COUNT_BLOBS": "a count is a count",
    "davsql.store.stats.COUNT_CHUNKS": "a count is a count",
    "davsql.store.stats.COUNT_PROPERTIES": "a count is a count",
    "davsql.store.stats.COUNT_UPLOADS": "a count is a count",
    "davsql.store.locks.HAS_LOCKS": "ends at the first row",
    "davsql.store.locks.DROP_LOCKS_OF_TREE": "as many rows as there are locks: bounded per user",
    "davsql.store.check.TOTAL_BYTES": "check reads everything",
    "davsql.store.backup.COUNT_ROWS": "a count is a count",
}


class Constant(NamedTuple):
    """A module-level string that is SQL."""

    name: str
    sql: str


def modules() -> Iterator[ModuleType]:
    for found in pkgutil.iter_modules(davsql.store.__path__, "davsql.store."):
        yield importlib.import_module(found.name)


def constants() -> Iterator[Constant]:
    """Where each constant is defined, not where it is imported too."""
    for module in modules():
        source = files("davsql.store").joinpath(f"{module.__name__.rpartition('.')[2]}.py").read_text(encoding="utf-8")
        for name, value in vars(module).items():
            is_defined_here = re.search(rf"^{name}\b.*?=", source, re.MULTILINE) is not None
            if name.isupper() and isinstance(value, str) and SQL_BEGINS.match(value) and is_defined_here:
                yield Constant(f"{module.__name__}.{name}", value)


CONSTANTS = sorted(constants())


@pytest.fixture(scope="module")
def connection() -> Iterator[apsw.Connection]:
    """A fresh schema."""
    connection = apsw.Connection("")
    connection.execute(files("davsql.store").joinpath("schema.sql").read_text(encoding="utf-8")).fetchall()
    yield connection
    connection.close()


def plan(connection: apsw.Connection, sql: str) -> list[str]:
    """What EXPLAIN QUERY PLAN says; values do not matter to it."""
    names = [match.group(1) for match in PLACEHOLDERS.finditer(sql) if match.group(1)]
    numbers = [match.group(2) for match in PLACEHOLDERS.finditer(sql) if match.group(1) is None]
    bindings = dict.fromkeys(names) if names else (None,) * (len(set(numbers)) if all(numbers) else len(numbers))
    return [str(row[3]) for row in connection.execute("EXPLAIN QUERY PLAN " + sql, bindings).fetchall()]


def aliases(connection: apsw.Connection, sql: str) -> dict[str, str]:
    """What the names in a plan stand for: tables under their aliases, those inside views too."""
    found: dict[str, str] = {}
    views = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'view'").fetchall()
    texts = [sql, *(str(text) for name, text in views if re.search(rf"\b{name}\b", sql))]
    for text in texts:
        for table, alias in re.findall(r"\b(?:FROM|JOIN|UPDATE|INTO)\s+(\w+)(?:\s+AS\s+(\w+))?", text):
            found[alias or table] = table
    return found


def full_scans(connection: apsw.Connection, sql: str) -> list[str]:
    """Steps of the plan that read a large table from its beginning, or build an index of it on the way."""
    known = aliases(connection, sql)
    found = []
    for step in plan(connection, sql):
        words = step.split()
        index = re.search(r"INDEX (\w+)", step)
        is_partial = index is not None and index.group(1) in PARTIAL_INDEXES
        is_large = len(words) > 1 and known.get(words[1], words[1]) in LARGE_TABLES
        if ("AUTOMATIC" in step) or (words[0] == "SCAN" and is_large and not is_partial):
            found.append(step)
    return found


def test_constants__are_found() -> None:
    names = {constant.name for constant in CONSTANTS}
    assert len(names) > 60
    assert {"davsql.store.nodes.RESOLVE", "davsql.store.gc.DELETE_LEAVES", "davsql.store.migrate.SET_META"} <= names


@pytest.mark.parametrize("constant", CONSTANTS, ids=lambda constant: constant.name)
def test_constant__fits_the_schema_and_reads_no_whole_table(connection: apsw.Connection, constant: Constant) -> None:
    found = full_scans(connection, constant.sql)
    if constant.name in SCANS:
        assert found, "it reads no whole table any more: take it off the list"
    else:
        assert found == []


@pytest.mark.parametrize("rule", check.RULES, ids=lambda rule: str(rule.number))
def test_rule_of_check__fits_the_schema(connection: apsw.Connection, rule: check.Rule) -> None:
    """They may read everything, but a join with a table must go by an index: check of a large store is to end."""
    known = aliases(connection, rule.sql)
    built = [step.split()[1] for step in plan(connection, rule.sql) if "AUTOMATIC" in step]
    assert not [alias for alias in built if known.get(alias, alias) in LARGE_TABLES]


def test_full_scans__sees_them(connection: apsw.Connection) -> None:
    assert full_scans(connection, "SELECT * FROM nodes WHERE modified_at = ?")
    assert full_scans(connection, "SELECT 1 FROM nodes AS n WHERE n.sent_name = :x")
    assert full_scans(connection, "SELECT 1 FROM entries WHERE size = 5")
    assert full_scans(connection, "SELECT count(*) FROM chunk_data")
    assert full_scans(connection, "DELETE FROM locks WHERE owner_xml = ?1")
    assert full_scans(connection, "SELECT inode FROM properties AS p WHERE p.xml = ''")
    assert not full_scans(connection, "SELECT 1 FROM nodes WHERE inode = ? AND name = ?")
    assert not full_scans(connection, "SELECT 1 FROM entries AS e WHERE e.inode = 5")
    assert not full_scans(connection, "SELECT chunk_id FROM chunks WHERE refcount = 0")


def test_sql__is_never_formatted_with_values() -> None:
    """Bindings only: no f-string and no % makes SQL, but for the limits and lists that are ours."""
    allowed = {"check.py"}
    for module in modules():
        name = module.__name__.rpartition(".")[2] + ".py"
        source = files("davsql.store").joinpath(name).read_text(encoding="utf-8")
        found = re.findall(r"f\"(?:SELECT|INSERT|UPDATE|DELETE|WITH)\b[^\"]*", source)
        assert not found or name in allowed, (name, found)
