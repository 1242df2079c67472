"""Every SQL constant of the engine, and whether SQLite answers it by an index.

`davsql doctor` asks this of a store, a test of a fresh schema: a query that reads a whole table where an index is meant
is found before the table is large.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import NamedTuple

import apsw
import apsw.ext

import davsql.store
from davsql.store.transaction import translated

# What may read whole tables: modules whose business that is, and queries of tables that are always small.
READING_ALL = (
    "check.",
    "stats.",
    "backup.COUNT_ROWS",
    "records.ALL_TASKS",
    "locks.DROP_LOCKS_OF_TREE",
    "locks.HAS_LOCKS",
)

_STATEMENT = re.compile(r"\s*(?:SELECT|INSERT|UPDATE|DELETE|WITH)\s")
_SOURCE = re.compile(r"\b(?:FROM|JOIN|INTO|UPDATE)\s+(\w+)(?:\s+AS\s+(\w+))?")
_SCAN = re.compile(r"SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?$")

SCHEMA_OF = "SELECT name, sql FROM sqlite_schema WHERE type = ? AND sql IS NOT NULL"


class Query(NamedTuple):
    """One statement, under each module.CONSTANT that it has (modules import from one another)."""

    names: tuple[str, ...]
    sql: str

    @property
    def may_read_all(self) -> bool:
        return all(name.startswith(READING_ALL) for name in self.names)


def all_queries() -> list[Query]:
    """Every constant of the engine's modules that is a statement."""
    found: dict[str, list[str]] = {}
    for info in iter_modules(davsql.store.__path__):
        for name, value in vars(import_module(f"davsql.store.{info.name}")).items():
            if name.isupper() and isinstance(value, str) and _STATEMENT.match(value):
                found.setdefault(value, []).append(f"{info.name}.{name}")
    return [Query(tuple(names), sql) for sql, names in found.items()]


def tables_read_whole(connection: apsw.Connection, query: Query) -> list[str]:
    """The tables of which the plan of `query` reads every row; through a partial index it reads the few that matter.

    Raises:
        StoreError: it cannot be prepared: the schema lacks something.
    """
    with translated():
        tables, indexes, views = (dict(connection.execute(SCHEMA_OF, (kind,))) for kind in ("table", "index", "view"))
        plan = apsw.ext.query_info(connection, query.sql, explain_query_plan=True).query_plan
    assert plan is not None
    sources = [source for sql in (*views.values(), query.sql) for source in _SOURCE.findall(sql)]
    table_of = {
        alias or table: table for table, alias in sources if table in tables and not table.startswith("sqlite_")
    }
    scans = [scan for detail in _details(plan) if (scan := _SCAN.match(detail))]
    return [table_of[scan[1]] for scan in scans if scan[1] in table_of and " WHERE " not in indexes.get(scan[2], "")]


def _details(plan: apsw.ext.QueryPlan) -> Iterator[str]:
    yield plan.detail
    for part in plan.sub or ():
        yield from _details(part)
