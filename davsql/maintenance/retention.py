"""Which of many backups are worth their space."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Retention:
    """How many hours, days, weeks and months to keep a backup of: the last ones of each that have any."""

    hourly: int = 24
    daily: int = 7
    weekly: int = 5
    monthly: int = 12


def superseded(times: Iterable[datetime], keep: Retention) -> set[datetime]:
    """The backups that may go.

    Of each hour (day, week, month) the last backup stands for it, and of the hours that have one the last
    `keep.hourly` are kept. Hours without a backup do not count, so a pause makes nothing go; nor does the present
    time. The newest backup always stays.

    Args:
        times: of all backups, in UTC.
    """
    newest_first = sorted(set(times), reverse=True)
    kept = set(newest_first[:1])
    for period, count in (
        (_hour, keep.hourly),
        (_day, keep.daily),
        (_week, keep.weekly),
        (_month, keep.monthly),
    ):
        kept |= _last_of_each(newest_first, period, count)
    return set(newest_first) - kept


def _last_of_each(newest_first: list[datetime], period: Callable[[datetime], object], count: int) -> set[datetime]:
    last_of: dict[object, datetime] = {}
    for time in newest_first:
        last_of.setdefault(period(time), time)
    return set(list(last_of.values())[:count])


def _hour(time: datetime) -> object:
    return time.date(), time.hour


def _day(time: datetime) -> object:
    return time.date()


def _week(time: datetime) -> object:
    return time.isocalendar()[:2]


def _month(time: datetime) -> object:
    return time.year, time.month
