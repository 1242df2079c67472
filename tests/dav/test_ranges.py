from __future__ import annotations

import time

import pytest

from davsql.dav.ranges import Multipart, Span, parse_ranges

SIZE = 100
LIMIT = 4


@pytest.mark.parametrize(
    ("header", "spans"),
    [
        ("bytes=0-0", [(0, 1)]),
        ("bytes=0-99", [(0, 100)]),
        ("bytes=10-", [(10, 100)]),
        ("bytes=-10", [(90, 100)]),
        ("bytes=-1000", [(0, 100)]),
        ("bytes=90-1000", [(90, 100)]),
        ("BYTES=1-2", [(1, 3)]),
        ("bytes= 1-2 ,, 5-6 ", [(1, 3), (5, 7)]),
        ("bytes=50-59,10-19", [(50, 60), (10, 20)]),
        ("bytes=0-9,200-300", [(0, 10)]),
        ("bytes=0-99999999999999999999", [(0, 100)]),
    ],
)
def test_parse_ranges__gives_what_was_asked_for_in_order(header: str, spans: list[tuple[int, int]]) -> None:
    assert parse_ranges(header, SIZE, LIMIT) == spans


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=-0,500-"])
def test_parse_ranges__unsatisfiable_only_is_an_empty_list(header: str) -> None:
    assert parse_ranges(header, SIZE, LIMIT) == []


@pytest.mark.parametrize(
    "header",
    [
        "bytes=5-1",
        "bytes=0-1,5-1",
        "bytes=-",
        "bytes=",
        "bytes=,",
        "bytes=a-b",
        "bytes=1",
        "bytes=--1",
        "bytes=+1-2",
        "bytes=1-2-3",
        "bytes=1 - 2",
        "bytes=٣-٤",
        "bytes 0-1",
        "lines=0-1",
        "0-1",
        "",
        "bytes=" + "9" * 5000 + "-",
    ],
)
def test_parse_ranges__malformed_is_ignored(header: str) -> None:
    assert parse_ranges(header, SIZE, LIMIT) is None


def test_parse_ranges__overlapping_and_touching_ranges_are_put_together() -> None:
    assert parse_ranges("bytes=20-29,0-9,5-14,15-16", SIZE, LIMIT) == [(0, 17), (20, 30)]


def test_parse_ranges__more_than_the_limit_is_ignored() -> None:
    spread = ",".join(f"{start}-{start}" for start in range(0, 20, 2))
    assert parse_ranges("bytes=" + spread, SIZE, LIMIT) is None


def test_parse_ranges__a_flood_of_overlaps_costs_little_and_sends_nothing_twice() -> None:
    begun = time.process_time()
    assert parse_ranges("bytes=" + ",".join(["0-"] * 900), SIZE, LIMIT) == [(0, 100)]
    assert parse_ranges("bytes=" + ",".join(["0-"] * 50_000), SIZE, LIMIT) is None
    assert time.process_time() - begun < 0.5


def test_parse_ranges__an_empty_file_has_none() -> None:
    assert parse_ranges("bytes=0-", 0, LIMIT) is None


def test_multipart__length_counts_every_byte() -> None:
    content = bytes(range(100))
    framing = Multipart([Span(0, 3), Span(50, 60)], SIZE, "text/plain", "edge")
    body = framing.heads[0] + content[0:3] + framing.heads[1] + content[50:60] + framing.end
    assert len(body) == framing.length
    assert body.startswith(
        b"\r\n--edge\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-2/100\r\n\r\n\x00\x01\x02"
    )
    assert body.endswith(b"\r\n--edge--\r\n")
