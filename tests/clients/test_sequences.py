"""Clients that cannot run here, replayed: see tests/clients/replay.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from davsql.store.store import Store
from tests.clients.replay import SEQUENCES, Step, named_in, read_sequence, replay

DOCS = Path(__file__).parents[2] / "docs" / "clients.md"


@pytest.mark.parametrize("file", SEQUENCES, ids=lambda file: file.stem)
def test_sequence__is_answered_as_the_client_needs_it(file: Path, store: Store) -> None:
    replay(read_sequence(file), store)


@pytest.mark.parametrize("file", SEQUENCES, ids=lambda file: file.stem)
def test_sequence__says_where_it_is_known_from(file: Path) -> None:
    sequence = read_sequence(file)
    assert named_in(sequence) == list(sequence.sources) != []
    assert f"{sequence.client} |" in DOCS.read_text(encoding="utf-8")


def test_replay__notices_a_wrong_answer(store: Store) -> None:
    right = read_sequence(next(file for file in SEQUENCES if file.stem == "zotero"))
    wrong = Step(request="GET /nothing", status=200)
    with pytest.raises(AssertionError) as caught:
        replay(type(right)("x", "x", (), (wrong,), {}), store)
    assert "step 1: GET /nothing" in caught.value.__notes__[0]
