from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from davsql.dav.dates import NS_PER_S, http_date, http_dates, iso_date, iso_dates, parse_http_date

RFC_EXAMPLE_S = 784111777  # RFC 9110 5.6.7


def test_http_date__is_imf_fixdate_and_cuts_fractions() -> None:
    assert http_date(RFC_EXAMPLE_S * NS_PER_S + 999_999_999) == "Sun, 06 Nov 1994 08:49:37 GMT"


def test_iso_date__is_rfc_3339_in_utc() -> None:
    assert iso_date(RFC_EXAMPLE_S * NS_PER_S) == "1994-11-06T08:49:37Z"


@given(st.lists(st.integers(-62135596800 * NS_PER_S, 253402300799 * NS_PER_S)))
def test_dates__are_those_of_the_calendar(times_ns: list[int]) -> None:
    dates = [datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=ns // NS_PER_S) for ns in times_ns]
    assert http_dates(times_ns) == [format_datetime(date, usegmt=True) for date in dates]
    assert iso_dates(times_ns) == [date.isoformat().replace("+00:00", "Z") for date in dates]


@pytest.mark.parametrize(
    "text", ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
)
def test_parse_http_date__takes_all_three_forms(text: str) -> None:
    assert parse_http_date(text) == RFC_EXAMPLE_S


def test_parse_http_date__reads_back_what_http_date_writes() -> None:
    for seconds in (0, -1, 951_782_400, 1_709_164_800, 4_102_444_799):
        assert parse_http_date(http_date(seconds * NS_PER_S)) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "1994-11-06T08:49:37Z",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 CET",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 31 Nov 1994 08:49:37 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 06 Foo 1994 08:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, ٠٦ Nov 1994 08:49:37 GMT",
    ],
)
def test_parse_http_date__is_none_for_anything_else(text: str) -> None:
    assert parse_http_date(text) is None


def test_parse_http_date__takes_a_leap_second() -> None:
    assert parse_http_date("Sat, 31 Dec 2016 23:59:60 GMT") == 1483228800


def test_parse_http_date__two_digit_years_are_at_most_50_years_ahead() -> None:
    year = time.gmtime()[0]
    near, far = year + 10, year + 60
    assert parse_http_date(f"Monday, 01-Jan-{near % 100:02d} 00:00:00 GMT") == parse_http_date(
        f"Mon, 01 Jan {near} 00:00:00 GMT"
    )
    assert parse_http_date(f"Monday, 01-Jan-{far % 100:02d} 00:00:00 GMT") == parse_http_date(
        f"Mon, 01 Jan {far - 100} 00:00:00 GMT"
    )
