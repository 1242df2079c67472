"""The soak runs and nothing fails; whether something grows, only hours of `scripts/faults soak` can tell."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.soak import SAMPLES, Report, Sample, soak

SECONDS = 8


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_soak__for_some_seconds_fails_nothing(folder: Path) -> None:
    report = soak(folder, SECONDS, seed=1, workers=2)
    assert report.failures == []
    assert report.exit_code == 0
    assert len(report.samples) > SAMPLES // 2
    assert min(report.requests.values()) > 0
    assert report.tasks["integrity_check"] == "ok"  # the first of them, after 5 s


def test_growth__tells_what_grows() -> None:
    flat = [Sample(at, 100, 20, 30, 10, 50) for at in range(40)]
    assert Report(flat, Counter(), [], 0, {}, 0).growth() == []
    leaking = [each._replace(descriptors=30 + each.at_s) for each in flat]
    assert Report(leaking, Counter(), [], 0, {}, 0).growth() == ["descriptors grew from 44.5 to 64.5"]
