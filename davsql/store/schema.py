"""The schema that a store should have, and whether it has it: nothing else vouches for that text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

import apsw

from davsql.store.migrate import create_schema
from davsql.store.transaction import ReadTx

OBJECTS = "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite!_%' ESCAPE '!'"


def deviations(tx: ReadTx) -> Iterator[str]:
    """The names of what is missing or not as in a new store."""
    found = {str(name): str(sql) for name, sql in tx.rows(OBJECTS)}
    for name, form in _expected().items():
        if name not in found or form_of(found[name]) != form:
            yield name


def form_of(sql: str) -> tuple[str, ...]:
    """A definition without layout, comments and quotes; parts of a table in any order, as ALTER TABLE leaves them."""
    text = re.sub(r"\s+", " ", re.sub(r"--[^\n]*", "", sql).replace('"', ""))
    text = re.sub(r" ?([(),;]) ?", r"\1", text).strip()
    if not text.startswith("CREATE TABLE"):
        return (text,)
    head, _, rest = text.partition("(")
    body, _, tail = rest.rpartition(")")
    return (head.strip(), tail.strip(), *sorted(_parts(body)))


def _parts(body: str) -> Iterator[str]:
    """Split at the commas that stand in no parentheses."""
    depth, start = 0, 0
    for position, character in enumerate(body):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            yield body[start:position]
            start = position + 1
    yield body[start:]


@cache
def _expected() -> dict[str, tuple[str, ...]]:
    fresh = apsw.Connection(":memory:")
    try:
        create_schema(fresh)
        return {str(name): form_of(str(sql)) for name, sql in fresh.execute(OBJECTS)}
    finally:
        fresh.close()
