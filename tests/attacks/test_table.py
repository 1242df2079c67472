"""Every hostile request gets one of the answers it may get, soon, and leaves everything as it was."""

from __future__ import annotations

import pytest

from tests.attacks.conftest import Victim
from tests.attacks.table import CASES, LONGEST_ANSWER, Case
from tests.http_client import exchange


def test_table__is_large() -> None:
    assert len(CASES) >= 200
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_attack__is_answered_as_it_may_be_and_changes_nothing(case: Case, victim: Victim) -> None:
    reply = exchange(victim.server.address, case.data, half_close=True, timeout_s=10)
    assert reply.startswith(b"HTTP/1.1 "), reply[:200]
    assert int(reply[9:12]) in case.statuses, reply[:1000]
    assert reply.count(b"HTTP/1.1 4") + reply.count(b"HTTP/1.1 2") + reply.count(b"HTTP/1.1 5") <= 2
    assert len(reply) < LONGEST_ANSWER
    victim.is_unharmed()
