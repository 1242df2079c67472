"""Every SQL constant fits the schema; what a login asks goes by an index."""

from __future__ import annotations

import re
from importlib.resources import files

import apsw
import pytest

from davsql.accounts import attempts, logins, tokens, users
from davsql.store.queries import plan

CONSTANTS = {
    f"{module.__name__}.{name}": value
    for module in (attempts, logins, tokens, users)
    for name, value in vars(module).items()
    if name.isupper() and isinstance(value, str) and " " in value
}
SCANS = {
    "davsql.accounts.users.SELECT_USERS",  # lists all
    "davsql.accounts.tokens.LIST_TOKENS",  # lists all
    "davsql.accounts.attempts.FORGET_OLDEST",  # ends after so many rows of an index
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_constant__fits_the_schema_and_goes_by_an_index(name: str) -> None:
    connection = apsw.Connection(":memory:")
    connection.execute(files("davsql.accounts").joinpath("schema.sql").read_text(encoding="utf-8")).fetchall()
    scans = [step for step in plan(connection, CONSTANTS[name]) if re.match(r"SCAN (?!CONSTANT)", step)]
    connection.close()
    assert bool(scans) is (name in SCANS), scans
