"""Every SQL constant of the engine: it fits the schema, and reads no more of a table than it must."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files

import apsw
import pytest

from davsql.store import check
from davsql.store.queries import LARGE_TABLES, SCANS, Constant, aliases, constants, full_scans, modules, plan, source_of

CONSTANTS = sorted(constants())


@pytest.fixture(scope="module")
def connection() -> Iterator[apsw.Connection]:
    """A fresh schema."""
    connection = apsw.Connection("")
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)  # as every connection of a store
    connection.execute(files("davsql.store").joinpath("schema.sql").read_text(encoding="utf-8")).fetchall()
    yield connection
    connection.close()


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
    """Bindings only: no f-string and no % makes SQL, but for limits, lists and names of tables."""
    allowed = {"check.py", "rewrite.py"}
    for module in modules():
        name = module.__name__.rpartition(".")[2] + ".py"
        found = re.findall(r"f\"(?:SELECT|INSERT|UPDATE|DELETE|WITH)\b[^\"]*", source_of(module))
        assert not found or name in allowed, (name, found)
