"""When a backup is due: by words and by cron, over nights when clocks change, after clocks that were wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from davsql.maintenance.schedule import Schedule

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture(autouse=True)
def local_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def at(text: str, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold)


@pytest.mark.parametrize(
    ("schedule", "last", "not_yet", "due"),
    [
        ("hourly", "2026-11-23T09:00:07", "2026-11-23T09:59:59", "2026-11-23T10:00:00"),
        ("Daily ", "2026-11-23T00:00:03", "2026-11-23T23:59:59", "2026-11-24T00:00:00"),
        ("weekly", "2026-11-22T00:00:03", "2026-11-28T23:59:59", "2026-11-29T00:00:00"),
        ("30 3 * * 1-5", "2026-11-20T03:30:01", "2026-11-23T03:29:59", "2026-11-23T03:30:00"),
        ("*/15 * * * *", "2026-11-23T09:16:00", "2026-11-23T09:29:59", "2026-11-23T09:30:00"),
    ],
)
def test_is_due__when_a_moment_has_come_since_the_last_time(schedule: str, last: str, not_yet: str, due: str) -> None:
    assert not Schedule(schedule).is_due(at(not_yet), at(last))
    assert Schedule(schedule).is_due(at(due), at(last))
    assert Schedule(schedule).is_due(at(due) + timedelta(days=40), at(last)), "once for all that were missed"


def test_is_due__the_first_time_at_once() -> None:
    assert Schedule("weekly").is_due(at("2026-11-23T09:00:00"), None)


def test_is_due__in_the_night_of_spring_comes_after_the_missing_hour() -> None:
    schedule, last = Schedule("30 2 * * *"), at("2026-03-28T02:30:05")
    assert not schedule.is_due(at("2026-03-29T01:59:59"), last)
    assert schedule.is_due(at("2026-03-29T03:00:00"), last)


def test_is_due__in_the_night_of_autumn_comes_once() -> None:
    schedule, last = Schedule("30 2 * * *"), at("2026-10-25T02:30:05")
    for text in ("2026-10-25T02:59:59", "2026-10-25T02:30:00", "2026-10-25T02:59:59"):
        assert not schedule.is_due(at(text, fold=1), last)
    assert schedule.is_due(at("2026-10-26T02:30:00"), last)


def test_is_due__after_a_clock_that_was_ahead() -> None:
    schedule, now = Schedule("weekly"), at("2026-11-23T09:00:00")
    assert schedule.is_due(now, now + timedelta(days=10))
    assert not schedule.is_due(now, now + timedelta(seconds=20))


@pytest.mark.parametrize(
    "text", ["", "often", "* * * *", "* * * * * *", "60 * * * *", "0 0 30 2 *", "@daily", "0 0 * * mon-xyz"]
)
def test_schedule__refuses_what_it_does_not_understand(text: str) -> None:
    with pytest.raises(ValueError, match=r"hourly|never happens"):
        Schedule(text)


@given(st.text(max_size=20))
def test_schedule__never_fails_in_another_way(text: str) -> None:
    with suppress(ValueError):
        Schedule(text).is_due(at("2026-11-23T09:00:00"), at("2026-11-22T09:00:00"))
