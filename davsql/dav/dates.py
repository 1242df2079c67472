"""Dates as HTTP and WebDAV write them. Nodes keep nanoseconds; both formats have whole seconds."""

from __future__ import annotations

import re
import time
from calendar import timegm
from collections.abc import Iterable
from functools import lru_cache

NS_PER_S = 1_000_000_000
_DAY_S = 24 * 60 * 60

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MINUTES_OF_DAY = tuple(f"{minute // 60:02d}:{minute % 60:02d}" for minute in range(24 * 60))
_MONTH_NUMBERS = {name: number for number, name in enumerate(_MONTHS, start=1)}

_UNIX_TIME = re.compile(r"(?P<seconds>-?[0-9]{1,12})(\.[0-9]*)?")  # fractions are sent by a few and kept by nobody
_NS_MAX = 9_000_000_000 * NS_PER_S  # fits into the 64 bits of a column

_TIME = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
# RFC 9110 5.6.7: IMF-fixdate and the two obsolete forms that a recipient must accept.
_FORMS = (
    re.compile(rf"[A-Z][a-z]{{2}}, (?P<day>[0-9]{{2}}) (?P<month>[A-Z][a-z]{{2}}) (?P<year>[0-9]{{4}}) {_TIME} GMT"),
    re.compile(rf"[A-Z][a-z]{{5,8}}, (?P<day>[0-9]{{2}})-(?P<month>[A-Z][a-z]{{2}})-(?P<year>[0-9]{{2}}) {_TIME} GMT"),
    re.compile(rf"[A-Z][a-z]{{2}} (?P<month>[A-Z][a-z]{{2}}) (?P<day>[ 0-9][0-9]) {_TIME} (?P<year>[0-9]{{4}})"),
)


def http_date(ns: int) -> str:
    """A time as IMF-fixdate, `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 5.6.7); fractions are cut off."""
    return _http_date(ns // NS_PER_S)


def iso_date(ns: int) -> str:
    """A time as RFC 3339 in UTC, `1994-11-06T08:49:37Z`: the form of DAV:creationdate (RFC 4918 15.1)."""
    return _iso_date(ns // NS_PER_S)


def http_dates(times_ns: Iterable[int]) -> list[str]:
    """Many times, each as of `http_date`."""
    return [_http_date(ns // NS_PER_S) for ns in times_ns]


def iso_dates(times_ns: Iterable[int]) -> list[str]:
    """Many times, each as of `iso_date`."""
    return [_iso_date(ns // NS_PER_S) for ns in times_ns]


def parse_http_date(text: str) -> int | None:
    """Seconds since the epoch of a date in one of the three forms of RFC 9110 5.6.7; None for anything else."""
    for form in _FORMS:
        if (match := form.fullmatch(text)) is not None:
            return _seconds(match)
    return None


def parse_unix_time(text: str) -> int | None:
    """Nanoseconds of a time in seconds since the epoch, as clients write those of files; None for anything else."""
    match = _UNIX_TIME.fullmatch(text.strip())
    if match is None:
        return None
    ns = int(match["seconds"]) * NS_PER_S
    return ns if abs(ns) <= _NS_MAX else None


# Members of a collection were often written within few seconds of each other, and a file is asked for again.
@lru_cache(maxsize=4096)
def _http_date(seconds: int) -> str:
    day, second = divmod(seconds, _DAY_S)
    return f"{_http_day(day)}{_MINUTES_OF_DAY[second // 60]}:{second % 60:02d} GMT"


@lru_cache(maxsize=4096)
def _iso_date(seconds: int) -> str:
    day, second = divmod(seconds, _DAY_S)
    return f"{_iso_day(day)}{_MINUTES_OF_DAY[second // 60]}:{second % 60:02d}Z"


# Of members that were written over years, many still share a day.
@lru_cache(maxsize=4096)
def _http_day(day: int) -> str:
    year, month, day_of_month, _, _, _, weekday = time.gmtime(day * _DAY_S)[:7]
    return f"{_DAYS[weekday]}, {day_of_month:02d} {_MONTHS[month - 1]} {year:04d} "


@lru_cache(maxsize=4096)
def _iso_day(day: int) -> str:
    year, month, day_of_month = time.gmtime(day * _DAY_S)[:3]
    return f"{year:04d}-{month:02d}-{day_of_month:02d}T"


def _seconds(match: re.Match[str]) -> int | None:
    month = _MONTH_NUMBERS.get(match["month"])
    year, day = int(match["year"]), int(match["day"])
    hour, minute, second = int(match["hour"]), int(match["minute"]), int(match["second"])
    if month is None or not (1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60):
        return None
    if len(match["year"]) == 2:
        year = _full_year(year)
    if year < 1:
        return None
    seconds = timegm((year, month, day, hour, minute, second))
    # timegm takes the 31st of a short month for a day of the next one.
    return seconds if time.gmtime(seconds - second)[2] == day else None


def _full_year(two_digits: int) -> int:
    """RFC 9110 5.6.7: what seems more than 50 years ahead is the most recent past year with these digits."""
    now = time.gmtime()[0]
    year = now - now % 100 + two_digits
    return year - 100 if year > now + 50 else year
