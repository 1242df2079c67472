"""The drill, short: `scripts/replica-drill` runs more and longer cycles."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.replica.drill import MODES, SLACK_S, Drill


@pytest.mark.parametrize("mode", MODES)
def test_drill__what_was_acknowledged_comes_back(tmp_path: Path, mode: str) -> None:
    drill = Drill(tmp_path, clients=2, seconds=2.5, seed=1)
    try:
        outcome = drill.cycle(mode)
    finally:
        drill.close()
    assert outcome.loss.acknowledged > 20
    if mode == "all":
        assert outcome.loss.window_s < SLACK_S
    else:
        assert outcome.loss.lost == 0
