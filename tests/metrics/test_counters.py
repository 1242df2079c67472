"""Plain counters: nothing is lost between threads, and sums are right."""

from __future__ import annotations

import threading
from collections import Counter

from davsql.counters import BATCH_BOUNDS, TIME_BOUNDS_NS, Histogram, HttpTally, PerThread, UploadTally, WriterCounters
from davsql.errors import StoreFull

THREADS = 8
ROUNDS = 20_000


def test_histogram__a_value_falls_below_its_bound() -> None:
    histogram = Histogram((1, 2, 4))
    for value in (0, 1, 2, 3, 4, 5, 100):
        histogram.add(value)
    assert histogram.counts == [2, 1, 2, 2]
    assert histogram.total == 115


def test_histogram__merge_adds() -> None:
    left, right = Histogram((1, 2)), Histogram((1, 2))
    left.add(1)
    right.add(1)
    right.add(9)
    left.merge(right)
    assert (left.counts, left.total) == ([2, 0, 1], 11)
    assert right.counts == [1, 0, 1]


def test_bounds__rise() -> None:
    for bounds in (TIME_BOUNDS_NS, BATCH_BOUNDS):
        assert list(bounds) == sorted(set(bounds))


def test_per_thread__loses_nothing_between_threads() -> None:
    tallies = PerThread(UploadTally)

    def count() -> None:
        for _ in range(ROUNDS):
            tallies.mine().begun += 1

    threads = [threading.Thread(target=count) for _ in range(THREADS)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert tallies.total().begun == THREADS * ROUNDS


def test_per_thread__threads_that_end_make_place_for_others() -> None:
    tallies = PerThread(UploadTally)

    def count() -> None:
        tallies.mine().begun += 1

    for _ in range(200):
        thread = threading.Thread(target=count)
        thread.start()
        thread.join()
    assert tallies.total().begun == 200
    assert len(tallies.all()) < 100


def test_per_thread__total_merges_every_kind_of_counter() -> None:
    tallies = PerThread(HttpTally)

    def count() -> None:
        tally = tallies.mine()
        tally.begun += 1
        tally.requests["GET", "200"] += 2
        tally.request_ns.add(500_000)

    here = threading.Barrier(2)

    def count_beside() -> None:
        count()
        here.wait(10)  # alive at the same time as the other: a tally of its own

    beside = threading.Thread(target=count_beside)
    beside.start()
    count()
    here.wait(10)
    beside.join()
    total = tallies.total()
    assert total.begun == 2
    assert total.requests == Counter({("GET", "200"): 4})
    assert (sum(total.request_ns.counts), total.request_ns.total) == (2, 1_000_000)
    assert len(tallies.all()) == 2
    assert all(each.begun == 1 for each in tallies.all()), "total() changed what it read"


def test_writer_counters__remember_the_last_failure() -> None:
    counters = WriterCounters()
    counters.fail(StoreFull("no space"))
    counters.fail(StoreFull("no space at all"))
    assert counters.errors == {"StoreFull": 2}
    assert counters.failure is not None
    assert counters.failure[:2] == ("StoreFull", "no space at all")
