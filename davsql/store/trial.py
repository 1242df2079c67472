"""What becomes of a copy of a store when this davsql opens it: migrated, opened, every invariant looked at."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

from davsql.errors import StoreUnavailable
from davsql.store import migrate
from davsql.store.backup import CopyOptions
from davsql.store.check import Violation, check, covered
from davsql.store.connection import Role, open_connection
from davsql.store.exclusion import leftovers
from davsql.store.options import StoreOptions
from davsql.store.presence import DELETE_MARKS
from davsql.store.records import end_failures
from davsql.store.replication import DELETE_META, KEY
from davsql.store.store import Store
from davsql.store.transaction import translated


class Trial(NamedTuple):
    """How it went."""

    found_version: int
    migration_s: float
    violations: list[Violation]


def try_out(copy: Path, options: StoreOptions, how: CopyOptions | None = None) -> Trial:
    """Turn a copy that nobody else uses into a store of the present schema version, and check it.

    With `how.is_deep` every byte is rehashed. Damage that was found in the source and is not in the copy is forgotten.
    The store's checkpoints are its own again: a copy is not what Litestream has replicated so far.

    Raises:
        StoreError: it cannot be opened, or migrated.
    """
    started = time.monotonic()
    connection = open_connection(copy, Role.WRITER, options)
    try:
        found = migrate.migrate(connection)
        with translated():
            connection.execute(DELETE_META, (KEY,))
            connection.execute(DELETE_MARKS)  # of those who had the source open
    finally:
        connection.close()
    migration_s = time.monotonic() - started
    how = how or CopyOptions()
    with Store.open(copy, options) as store:
        violations = check(store, deep=how.is_deep, progress=how.progress)
        if not violations:
            store.write(lambda tx: end_failures(tx, covered(is_deep=how.is_deep), "the restored copy was checked"))
    if leftovers(copy):
        raise StoreUnavailable(f"the copy {copy} was not closed cleanly; somebody else has it open")
    return Trial(found, migration_s, violations)
