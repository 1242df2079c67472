"""Every SQL constant fits the schema; what an append asks goes by an index."""

from __future__ import annotations

import re

import apsw
import pytest

from davsql.audit import file
from davsql.store.queries import plan

CONSTANTS = {
    name: value
    for name, value in vars(file).items()
    if name.isupper() and isinstance(value, str) and re.match(r"\s*(SELECT|INSERT|UPDATE)\b", value)
}
SCANS = {"SELECT_LAST", "SELECT_BYTES"}  # ends after one row of the primary key; one row each


@pytest.mark.parametrize("name", CONSTANTS)
def test_constant__fits_the_schema_and_goes_by_an_index(name: str) -> None:
    connection = apsw.Connection(":memory:")
    connection.execute(file._kind().schema).fetchall()  # noqa: SLF001  # the schema has no other name
    scans = [step for step in plan(connection, CONSTANTS[name]) if re.match(r"SCAN (?!CONSTANT)", step)]
    connection.close()
    assert bool(scans) is (name in SCANS), scans
