"""Which backups go: never the newest, never more than the rule says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from davsql.maintenance.retention import Retention, superseded

START = datetime(2024, 1, 1, tzinfo=UTC)
times = st.sets(st.integers(0, 3 * 366 * 24 * 60).map(lambda minutes: START + timedelta(minutes=minutes)), max_size=60)
counts = st.integers(0, 6)
retentions = st.builds(Retention, counts, counts, counts, counts)


def kept(found: set[datetime], keep: Retention) -> set[datetime]:
    return found - superseded(found, keep)


@given(times, retentions)
def test_superseded__keeps_the_newest_whatever_the_rule(found: set[datetime], keep: Retention) -> None:
    if found:
        assert max(found) in kept(found, keep)
    assert superseded(found, keep) <= found


@given(times, retentions)
def test_superseded__keeps_no_more_than_the_rule_says(found: set[datetime], keep: Retention) -> None:
    assert len(kept(found, keep)) <= max(1, keep.hourly + keep.daily + keep.weekly + keep.monthly)


@given(times, retentions)
def test_superseded__is_settled_after_one_time(found: set[datetime], keep: Retention) -> None:
    left = kept(found, keep)
    assert superseded(left, keep) == set()


@given(times, retentions)
def test_superseded__of_each_period_keeps_the_last_one(found: set[datetime], keep: Retention) -> None:
    left = kept(found, keep)
    days = sorted({time.date() for time in found}, reverse=True)[: keep.daily]
    months = sorted({(time.year, time.month) for time in found}, reverse=True)[: keep.monthly]
    assert all(max(time for time in found if time.date() == day) in left for day in days)
    assert all(max(time for time in found if (time.year, time.month) == month) in left for month in months)


@given(times, retentions, counts)
def test_superseded__with_a_more_generous_rule_keeps_no_less(found: set[datetime], keep: Retention, more: int) -> None:
    generous = Retention(keep.hourly + more, keep.daily + more, keep.weekly + more, keep.monthly + more)
    assert kept(found, keep) <= kept(found, generous)


def test_superseded__after_two_years_of_hourly_backups() -> None:
    keep = Retention()
    left: set[datetime] = set()
    for hour in range(2 * 365 * 24):
        left.add(START + timedelta(hours=hour, minutes=5))
        left = kept(left, keep)
    ages = sorted(max(left) - time for time in left)
    assert ages[:24] == [timedelta(hours=hour) for hour in range(24)]
    assert len(left) == 24 + 6 + 4 + 11 - 1  # one weekly is the last of a month, too
    assert timedelta(days=330) < ages[-1] < timedelta(days=366)


def test_superseded__does_not_let_old_ones_go_because_time_passes() -> None:
    daily = {START + timedelta(days=day) for day in range(3)}
    assert superseded(daily, Retention(hourly=0, daily=7, weekly=0, monthly=0)) == set()
