"""Rounds of random attacks, each of one kind, until they are enough; what fails is shrunk by hypothesis."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.hostile import ATTACKS
from tests.fuzz.target import Target, Vitals, attacked

EXAMPLES = 100  # of one kind, before the server is looked at and the next kind has its turn
WARM_ROUNDS = 2  # of each kind, before growth counts
GROWTH_MAX = Vitals(memory_mib=48, descriptors=24, threads=24)


class Outcome(NamedTuple):
    """What was done, and what the server was before and after."""

    sent: int
    before: Vitals
    after: Vitals


def attack(folder: Path, for_s: float, number: int) -> Outcome:
    """Attack a server for so long, at least once with every kind; the number gives the same attacks again.

    Raises:
        AssertionError: it answered 500, hung, leaked, logged a fault, or hurt its store.
    """
    with attacked(folder) as target:
        deadline = time.monotonic() + for_s
        before = target.vitals()
        for turn, kind in _turns(number):
            target.refresh()
            _round(target, kind, turn)
            if turn == number + WARM_ROUNDS * len(ATTACKS):
                before = target.vitals()
            if time.monotonic() > deadline and turn >= number + len(ATTACKS):
                break
        target.refresh()
        outcome = Outcome(target.sent, before, target.vitals())
    grown = [after - earlier for earlier, after in zip(outcome.before, outcome.after, strict=True)]
    assert all(by <= most for by, most in zip(grown, GROWTH_MAX, strict=True)), outcome
    return outcome


def _turns(number: int) -> Iterator[tuple[int, str]]:
    return zip(itertools.count(number), itertools.cycle(ATTACKS))  # both have no end


def _round(target: Target, kind: str, number: int) -> None:
    @seed(number)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(ATTACKS[kind])
    def survives(data: bytes) -> None:
        target.survives(data)

    survives()
