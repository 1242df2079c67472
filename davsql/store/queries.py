"""Every SQL constant of the engine, and whether SQLite answers it by an index.

`davsql doctor` asks this of a store, the tests of a fresh schema: a query that reads a whole table where an index is
meant is found before the table is large.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.resources import files
from pkgutil import iter_modules
from types import ModuleType
from typing import NamedTuple

import apsw

import davsql.store

# Tables that grow with what users store; the others hold a few rows.
LARGE_TABLES = frozenset(
    ("nodes", "blobs", "chunks", "chunk_data", "blob_chunks", "properties", "locks", "uploads", "pins", "changes")
)

# These indexes hold only what waits for GC.
PARTIAL_INDEXES = frozenset(("nodes_detached", "blobs_orphaned", "chunks_orphaned"))

# Constants that read a large table from its beginning, and why they may.
SCANS: Mapping[str, str] = {
    "davsql.store.stats.COUNT_NODES": "a count is a count",
    "davsql.store.stats.COUNT_BLOBS": "a count is a count",
    "davsql.store.stats.COUNT_CHUNKS": "a count is a count",
    "davsql.store.stats.COUNT_PROPERTIES": "a count is a count",
    "davsql.store.stats.COUNT_UPLOADS": "a count is a count",
    "davsql.store.locks.HAS_LOCKS": "ends at the first row",
    "davsql.store.properties.HAS_PROPERTIES": "ends at the first row",
    "davsql.store.locks.DROP_LOCKS_OF_TREE": "as many rows as there are locks: bounded per user",
    "davsql.store.rehash.TOTAL_BYTES": "check reads everything",
    "davsql.store.backup.COUNT_ROWS": "a count is a count",
    "davsql.store.rewrite.SOURCE_BYTES": "a copy is of everything",
}

_BEGINS = re.compile(r"\s*(?:SELECT|INSERT|UPDATE|DELETE|WITH|CREATE|REPLACE)\b", re.IGNORECASE)
_SCHEMAS = re.compile(r"\b(?:main|source)\.")  # of two stores, one attached to the other: the same tables in both
_PLACEHOLDERS = re.compile(r":(\w+)|\?(\d*)")
_SOURCES = re.compile(r"\b(?:FROM|JOIN|UPDATE|INTO)\s+(\w+)(?:\s+AS\s+(\w+))?")

VIEWS = "SELECT name, sql FROM sqlite_schema WHERE type = 'view'"


class Constant(NamedTuple):
    """A module-level string that is SQL."""

    name: str  # davsql.store.MODULE.CONSTANT
    sql: str


def modules() -> Iterator[ModuleType]:
    """The engine's."""
    for found in iter_modules(davsql.store.__path__, "davsql.store."):
        yield import_module(found.name)


def source_of(module: ModuleType) -> str:
    """The text of one of them."""
    return files("davsql.store").joinpath(f"{module.__name__.rpartition('.')[2]}.py").read_text(encoding="utf-8")


def constants() -> Iterator[Constant]:
    """Where each constant is defined, not where it is imported too."""
    for module in modules():
        source = source_of(module)
        for name, value in vars(module).items():
            is_sql = name.isupper() and isinstance(value, str) and _BEGINS.match(value)
            if is_sql and re.search(rf"^{name}\b.*?=", source, re.MULTILINE) is not None:
                yield Constant(f"{module.__name__}.{name}", _SCHEMAS.sub("", value))


def plan(connection: apsw.Connection, sql: str) -> list[str]:
    """What EXPLAIN QUERY PLAN says; values do not matter to it."""
    names = [match.group(1) for match in _PLACEHOLDERS.finditer(sql) if match.group(1)]
    numbers = [match.group(2) for match in _PLACEHOLDERS.finditer(sql) if match.group(1) is None]
    bindings = dict.fromkeys(names) if names else (None,) * (len(set(numbers)) if all(numbers) else len(numbers))
    return [str(row[3]) for row in connection.execute("EXPLAIN QUERY PLAN " + sql, bindings).fetchall()]


def aliases(connection: apsw.Connection, sql: str) -> dict[str, str]:
    """What the names in a plan stand for: tables under their aliases, those inside views too."""
    found: dict[str, str] = {}
    views = connection.execute(VIEWS).fetchall()
    for text in (sql, *(str(text) for name, text in views if re.search(rf"\b{name}\b", sql))):
        for table, alias in _SOURCES.findall(text):
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
