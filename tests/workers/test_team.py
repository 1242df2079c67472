"""What several processes say together: sums, the worst, and nobody's silence for long."""

from __future__ import annotations

from collections.abc import Iterable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from threading import Thread

import pytest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from davsql.maintenance.health import ServerHealth, Watched
from davsql.server import team as team_module
from davsql.server.admin import OneProcess
from davsql.server.team import Team
from davsql.store.store import Store


def families(count: int) -> list[Metric]:
    requests = CounterMetricFamily("requests", "Requests.", labels=["method"])
    requests.add_metric([f"M{count}"], count)
    requests.add_metric(["GET"], count)
    histogram = HistogramMetricFamily("seconds", "Time.")
    histogram.add_metric([], [("1.0", count), ("+Inf", 2 * count)], 10 * count)
    return [
        requests,
        histogram,
        GaugeMetricFamily("open", "Connections.", count),
        GaugeMetricFamily("davsql_wal_bytes", "WAL.", count),
        GaugeMetricFamily("davsql_writer_alive", "Writer.", count > 1),
    ]


class Nothing(OneProcess):
    """A keeper that counts nothing."""

    def __init__(self) -> None:
        super().__init__(Watched({}), None)

    def collect(self) -> Iterable[Metric]:
        return []


def worker(team: Team, pid: int, *answers: object) -> Connection:
    """One that gives these answers, whatever it is asked, and then says nothing more."""
    asking, answering = Pipe()
    team.meet(pid, asking)

    def run() -> None:
        for answer in answers:
            answering.recv()
            answering.send(answer)

    Thread(target=run, daemon=True).start()
    return answering


def values(team: Team) -> dict[str, float]:
    return {
        sample.name + "".join(sample.labels.values()): sample.value
        for family in team.collect()
        for sample in family.samples
    }


def test_collect__adds_up_what_can_be_added() -> None:
    team = Team(Nothing(), 2)
    worker(team, 1, families(1))
    worker(team, 2, families(2))
    assert values(team) == {
        "requests_totalM1": 1,
        "requests_totalM2": 2,
        "requests_totalGET": 3,
        "seconds_bucket1.0": 3,
        "seconds_bucket+Inf": 6,
        "seconds_count": 6,
        "seconds_sum": 30,
        "open": 3,
        "davsql_wal_bytes": 2,
        "davsql_writer_alive": 0,
    }


def test_collect__keeps_what_those_counted_that_are_gone() -> None:
    team = Team(Nothing(), 2)
    first = worker(team, 1, families(5))
    worker(team, 2, families(1), families(2), families(3))
    assert values(team)["requests_totalGET"] == 6
    first.close()
    for expected in (7, 8):
        seen = values(team)
        assert (seen["requests_totalGET"], seen["requests_totalM5"], seen["seconds_sum"]) == (
            expected,
            5,
            10 * expected,
        )
        assert seen["open"] == expected - 5, "who is gone has nothing open"


def test_ask__late_answers_are_not_taken_for_those_to_the_next_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(team_module, "ANSWER_TIMEOUT_S", 0.05)
    team = Team(Nothing(), 1)
    asking, answering = Pipe()
    team.meet(1, asking)
    assert values(team) == {}  # it is late
    assert values(team) == {}  # and not asked again meanwhile
    assert answering.recv() == "metrics"
    assert not answering.poll()
    answering.send(families(1))
    Thread(target=lambda: answering.send([answering.recv(), families(2)][1]), daemon=True).start()
    monkeypatch.setattr(team_module, "ANSWER_TIMEOUT_S", 10)
    assert values(team)["requests_totalGET"] == 2


def test_health__is_the_worst_of_all_and_tells_who_is_missing(store: Store) -> None:
    keeper = OneProcess(Watched({"/": store}), None)
    team = Team(keeper, 2)
    assert str(team.health().status) == "unhealthy"  # nobody serves
    look = keeper.health().shares["/"]
    worker(team, 1, ServerHealth(is_serving=True, shares={"/": look}))
    found = team.health()
    assert [each.message for each in found.shares["/"].complaints] == ["1 of 2 workers do not answer"]
    assert str(found.status) == "degraded"
    dead = look._replace(vitals=look.vitals._replace(is_writer_alive=False))
    worker(team, 1, ServerHealth(is_serving=True, shares={"/": look}))
    worker(team, 2, ServerHealth(is_serving=True, shares={"/": dead}))
    found = team.health()
    assert found.shares["/"].complaints == ()
    assert not found.shares["/"].vitals.is_writer_alive
    assert found.shares["/"].vitals.readers == 3 * look.vitals.readers
