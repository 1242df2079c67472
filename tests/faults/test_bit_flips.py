"""Bits that rot in a store's file, and WALs that were torn; `scripts/faults` does many more."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests.faults.bit_flips import flip_many
from tests.faults.torn_wals import tear_many

FLIPS = 40
TORN_WALS = 60


@pytest.mark.parametrize("only_describing", [False, True], ids=["anywhere", "in full pages of tables and indexes"])
def test_bit_flip__is_found_or_changes_nothing(*, only_describing: bool) -> None:
    seed = random.randrange(2**32)  # noqa: S311
    looks = flip_many(FLIPS, seed, 2, only_describing=only_describing)
    print(f"seed {seed}: {Counter(look.outcome for look in looks)}")  # noqa: T201
    assert len(looks) == FLIPS
    assert [look for look in looks if look.trouble] == []
    assert any("found" in look.outcome for look in looks)


def test_torn_wal__leaves_a_prefix_of_the_commits() -> None:
    seed = random.randrange(2**32)  # noqa: S311
    found, troubles = tear_many(TORN_WALS, seed)
    print(f"seed {seed}: {found}")  # noqa: T201
    assert troubles == []
    assert found.total() == TORN_WALS
