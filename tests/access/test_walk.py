"""Users with random rules never see or change what a plain model forbids, whatever they send."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from davsql.store.check import check
from davsql.store.options import StoreOptions
from davsql.store.store import Store
from tests.access.walk import Walk

SEEDS = range(40)
STEPS = 120


def test_random_requests__show_and_change_only_what_the_rules_allow(tmp_path: Path) -> None:
    statuses = Counter[tuple[str, int]]()
    for seed in SEEDS:
        with Store.open(tmp_path / f"{seed}.db", StoreOptions(durability="normal"), create=True) as store:
            walk = Walk(store, seed)
            try:
                walk.run(STEPS)
            except AssertionError as error:
                raise AssertionError(f"seed {seed}, rules {walk.model.rules}: {error}") from error
            assert check(store) == []
        statuses += walk.statuses
    for method in ("get", "propfind", "put", "mkcol", "delete", "copy", "move", "proppatch", "lock"):
        of_method = [status for (name, status), count in statuses.items() if name == method for _ in range(count)]
        assert len([status for status in of_method if status < 300]) > 20, statuses
        assert len([status for status in of_method if status in (403, 404)]) > 20, statuses
