"""Whether a store has the schema that it should have."""

from __future__ import annotations

import pytest

from davsql.store import schema
from davsql.store.check import check
from davsql.store.store import Store
from tests.store.engine_steps import raw


def test_form_of__passes_over_layout_and_the_order_of_columns() -> None:
    one = 'CREATE TABLE "t" (\n  a INTEGER, -- a comment, with a comma\n  b TEXT CHECK (b IN (1, 2))\n) STRICT'
    other = "CREATE TABLE t (b TEXT CHECK (b IN (1,2)),a INTEGER) STRICT"
    assert schema.form_of(one) == schema.form_of(other)


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE t (a INTEGER, b TEXT CHECK (b IN (1, 3))) STRICT",
        "CREATE TABLE t (a INTEGER, b TEXT CHECK (b IN (1, 2)))",
        "CREATE TABLE t (a INTEGER) STRICT",
        "CREATE INDEX t ON u (a)",
    ],
)
def test_form_of__tells_what_matters(sql: str) -> None:
    assert schema.form_of(sql) != schema.form_of("CREATE TABLE t (a INTEGER, b TEXT CHECK (b IN (1, 2))) STRICT")


def test_check__finds_a_changed_definition(unchecked_store: Store) -> None:
    assert check(unchecked_store) == []
    with raw(unchecked_store) as connection:
        connection.execute("DROP TRIGGER nodes_delete; DROP VIEW entries; CREATE VIEW entries AS SELECT 1 AS inode")
    assert sorted(each.message.split()[0] for each in check(unchecked_store) if each.rule == 16) == [
        "entries",
        "nodes_delete",
    ]
