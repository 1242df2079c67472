"""The benchmark measures, and what was answered wrongly does not count. No figure is compared with another."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.benchmark import load
from tests.benchmark.campaign import Campaign, Results, Run, Scale, read_results
from tests.benchmark.chart import make_chart
from tests.benchmark.figures import Figures
from tests.benchmark.load import PROGRAMS, Step, Wrong
from tests.benchmark.machine import find_program
from tests.benchmark.report import BEGIN, END, insert_report, make_report
from tests.benchmark.seed import Size, big_blocks
from tests.benchmark.servers import PEERS
from tests.benchmark.targets import judge
from tests.benchmark.workloads import ROWS, WORKLOADS
from tests.clients.programs import cannot_run

SIZE = Size(
    members=(3, 5, 7),
    deep=(2, 3),
    tree=(2, 3, 1024),
    big_bytes=1 << 20,
    part_bytes=1 << 18,
    small_files=10,
    sync_files=0,
)
MEASURED = ("get_8", "head_8", "mixed", "list1_few", "deep", "get_big", "put_parts", "tree", "copy_big")
RIGHT = bytes(4096)
STEP = Step("GET", "/x", 200, length=len(RIGHT))
RUN = Run(
    server="davsql",
    workload="get_8",
    rep=1,
    values={"get_8": 100.0},
    requests=100,
    void=None,
    wall_s=1.0,
    cpu_s=0.5,
    others_cpu_s=0.0,
    grown_bytes=0,
    peak_bytes=1,
)
RESULTS = Results({"processors": "4 x any"}, {}, {}, "2026-01-01", asdict(Scale()))


@pytest.fixture
def programs() -> None:
    for program, package in PROGRAMS.items():
        if find_program(program) is None:
            cannot_run(f"{program} is missing: apt-get install {package}")


class QuietServer(ThreadingHTTPServer):
    """Says nothing when wrk leaves in the middle of a request, as it does at the end."""

    def handle_error(self, *_: object) -> None:
        return


@contextmanager
def answering(*, right: int, status: int, body: bytes) -> Iterator[str]:
    """A server whose first answers are right, and then have another status and body."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # header and body in one packet, or each answer waits for an acknowledgement
        answered = 0

        def do_GET(self) -> None:
            Handler.answered += 1
            code, content = (200, RIGHT) if Handler.answered <= right else (status, body)
            self.send_response(code)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002, ARG002 - as inherited
            return

    with QuietServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.usefixtures("programs")
def test_campaign__measures_davsql_and_reports_it(tmp_path: Path) -> None:
    said: list[str] = []
    campaign = Campaign(tmp_path, Scale(SIZE, seconds=1, reps=1), said.append)
    peers = [peer for peer in PEERS if peer.key == "davsql"]
    output = tmp_path / "results.json"
    results = campaign.run(peers, [each for each in WORKLOADS if each.rows[0].key in MEASURED], output)
    figures = Figures([read_results(output)])
    assert figures.last.runs == results.runs
    assert {run.void for run in results.runs} == {None}, said
    for row in figures.rows:
        value = figures.value(row.key, "davsql")
        assert value is not None
        assert value > 0
    assert {row.key for row in figures.rows} >= set(MEASURED)
    assert results.idle["davsql"].total > 0
    assert all(run.cpu_s > 0 and run.peak_bytes > 0 for run in results.runs if run.requests > 100)
    assert "| PROPFIND 1, 5 members, 4 properties | ms |" in make_report(figures)


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize(("status", "body"), [(200, b"short"), (503, RIGHT)])
def test_run_wrk__wrong_answers_among_right_ones_void_the_rate(status: int, body: bytes, tmp_path: Path) -> None:
    with answering(right=20, status=status, body=body) as url, pytest.raises(Wrong):
        load.run_wrk(url, [STEP], 2, 1, tmp_path)


@pytest.mark.usefixtures("programs")
def test_run_wrk__right_answers_count(tmp_path: Path) -> None:
    with answering(right=1_000_000, status=503, body=b"") as url:
        assert load.run_wrk(url, [STEP], 2, 1, tmp_path).requests > 0


def test_figures__one_void_run_voids_the_figure() -> None:
    void = replace(RUN, rep=2, values={}, void="status 500")
    figures = Figures([replace(RESULTS, runs=[RUN, void])])
    assert figures.value("get_8", "davsql") is None
    assert figures.voids() == [("get_8", "davsql", "status 500")]
    assert "status 500" in make_report(figures)


def test_figures__runs_beside_other_load_are_left_out_or_marked() -> None:
    noisy = replace(RUN, rep=2, values={"get_8": 1.0}, others_cpu_s=2.0)
    assert Figures([replace(RESULTS, runs=[RUN, noisy])]).value("get_8", "davsql") == 100
    marked = Figures([replace(RESULTS, runs=[noisy])]).of("get_8", "davsql")
    assert marked is not None
    assert marked.noisy


def test_figures__a_later_campaign_replaces_what_it_measured_again() -> None:
    other = replace(RUN, server="apache")
    later = replace(RESULTS, runs=[replace(RUN, values={"get_8": 7.0})])
    figures = Figures([replace(RESULTS, runs=[RUN, other]), later])
    assert figures.value("get_8", "davsql") == 7
    assert figures.value("get_8", "apache") == 100


def test_chart__is_xml_that_names_what_was_compared() -> None:
    figures = Figures([replace(RESULTS, runs=[RUN, replace(RUN, server="apache", values={"get_8": 300.0})])])
    texts = [each.text for each in ET.fromstring(make_chart(figures)).iter()]  # noqa: S314 - our own
    assert "GET 4 KiB, 8 connections" in texts
    assert "Apache mod_dav: 3 times as fast as davsql" in texts


def test_targets__are_judged_by_the_best_of_the_peers() -> None:
    runs = [
        RUN,
        replace(RUN, server="rclone", values={"get_8": 40.0}),
        replace(RUN, server="sabre", values={"get_8": 80.0}),
    ]
    verdicts = {each.wanted: each for each in judge(Figures([replace(RESULTS, runs=runs)]))}
    assert verdicts["1.5 x sabre/dav"].seen == "1.25 x"
    assert not verdicts["1.5 x sabre/dav"].reached


def test_report__replaces_what_stands_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    insert_report(page, "new")
    assert page.read_text(encoding="utf-8") == f"before\n{BEGIN}\n\nnew\n{END}\nafter\n"


def test_workloads__rows_have_names_of_their_own() -> None:
    rows = [row for workload in WORKLOADS for row in workload.rows]
    assert len({row.key for row in rows}) == len({row.title for row in rows}) == len(rows) == len(ROWS)


def test_big_blocks__never_repeat() -> None:
    blocks = b"".join(big_blocks(1, 1 << 20))
    pieces = [blocks[start : start + 16] for start in range(0, len(blocks), 16)]
    assert len(blocks) == 1 << 20
    assert len(set(pieces)) == len(pieces)
    assert b"".join(big_blocks(2, 1 << 20)) != blocks
