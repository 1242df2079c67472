"""Measure davsql beside other WebDAV servers on this machine."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from tests.benchmark import machine
from tests.benchmark.campaign import Campaign, Scale, read_results
from tests.benchmark.chart import make_chart
from tests.benchmark.figures import Figures
from tests.benchmark.load import PROGRAMS
from tests.benchmark.report import insert_report, make_report
from tests.benchmark.runs import Workload
from tests.benchmark.seed import Size
from tests.benchmark.servers import PEERS, Peer
from tests.benchmark.workloads import WORKLOADS

FULL = Scale()
MEDIUM = Scale(Size(big_bytes=512 << 20, part_bytes=128 << 20, sync_files=1000), reps=2)
QUICK = Scale(Size(members=(100, 1000, 2000), big_bytes=256 << 20, part_bytes=32 << 20, sync_files=100), reps=1)
QUICK_WORKLOADS = ("get_8", "put_8", "list1_all", "mixed", "get_big", "put_big", "tree", "sync_cpu")
FREE_BYTES = 40 << 30
DEFAULT_FOLDER = Path("/var/tmp/davsql-bench")  # noqa: S108 - on a disk, where /tmp may be memory; made for us alone

EPILOG = f"""\
All servers get the same data and run side by side; the workloads are measured on one after the other, in turns. wrk,
ab and curl make the load. What is not installed is left out and named; --install gets all of it (Debian, apt-get).
As root, peers run as they are meant to; otherwise as you.

workloads: {" ".join(workload.rows[0].key for workload in WORKLOADS)}
servers: {" ".join(peer.key for peer in PEERS)}

examples:
  scripts/bench --install
  scripts/bench --quick
  scripts/bench --output results.json --chart docs/performance.svg --page docs/performance.md
  scripts/bench --only get_8 put_8 --servers apache davsql
  scripts/bench --report results.json later.json

exit codes: 0 measured, 1 nothing could be measured, 2 wrong usage
"""


def main() -> int:
    """The command."""
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.report:
        _show(Figures([read_results(path) for path in arguments.report]), arguments)
        return 0
    lacking = [package for program, package in PROGRAMS.items() if machine.find_program(program) is None]
    if lacking:
        parser.error(f"the load cannot be made without {', '.join(lacking)}: scripts/bench --install gets them")
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=_folder(arguments.folder, parser)))
    folder.chmod(0o755)  # servers that give up root must find their way
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the servers are ended as well
    try:
        campaign = Campaign(folder, _scale(arguments), _say)
        results = campaign.run(_peers(arguments.servers), _workloads(arguments), arguments.output)
        if results.runs:
            _show(Figures([results]), arguments)
            _say(f"all runs are in {arguments.output}")
        return 0 if results.runs else 1
    finally:
        if not arguments.keep:
            _say("removing the servers' data")
            shutil.rmtree(folder, ignore_errors=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    scale = parser.add_mutually_exclusive_group()
    scale.add_argument("--quick", action="store_true", help="the main workloads once, with less data: two minutes")
    scale.add_argument("--medium", action="store_true", help="half of the data, two repetitions: about twelve minutes")
    keys = [workload.rows[0].key for workload in WORKLOADS]
    parser.add_argument("--only", nargs="+", choices=keys, metavar="WORKLOAD", help="these workloads")
    servers = [peer.key for peer in PEERS]
    parser.add_argument("--servers", nargs="+", choices=servers, metavar="SERVER", help="these servers")
    parser.add_argument("--reps", type=int, metavar="N", help="repetitions")
    parser.add_argument("--seconds", type=int, metavar="N", help="that each rate is measured")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("bench.json"),
        metavar="FILE",
        help="all runs, also of a campaign that is cut",
    )
    parser.add_argument("--report", nargs="+", type=Path, metavar="FILE", help="measure nothing, show such files again")
    parser.add_argument("--page", type=Path, metavar="FILE", help="replace the tables on this page")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw a chart (SVG)")
    parser.add_argument(
        "--folder", type=Path, default=DEFAULT_FOLDER, metavar="DIR", help="where servers keep their data [%(default)s]"
    )
    parser.add_argument("--keep", action="store_true", help="keep the servers' data and logs")
    parser.add_argument("--install", action="store_true", help="install what is missing, and measure nothing")
    return parser


def _scale(arguments: argparse.Namespace) -> Scale:
    scale = QUICK if arguments.quick else MEDIUM if arguments.medium else FULL
    changes = {name: value for name in ("reps", "seconds") if (value := getattr(arguments, name)) is not None}
    return replace(scale, **changes)


def _workloads(arguments: argparse.Namespace) -> list[Workload]:
    chosen = arguments.only or (QUICK_WORKLOADS if arguments.quick else None)
    return [workload for workload in WORKLOADS if chosen is None or workload.rows[0].key in chosen]


def _peers(chosen: list[str] | None) -> list[Peer]:
    return [peer for peer in PEERS if chosen is None or peer.key in chosen]


def _folder(folder: Path, parser: argparse.ArgumentParser) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if folder.stat().st_uid != os.geteuid():
        parser.error(f"{folder} belongs to somebody else; choose another with --folder")
    folder.chmod(0o755)
    free = shutil.disk_usage(folder).free
    if free < FREE_BYTES:
        _say(f"only {free >> 30} GiB are free in {folder}; a whole campaign wants {FREE_BYTES >> 30}")
    return folder


def _show(figures: Figures, arguments: argparse.Namespace) -> None:
    report = make_report(figures)
    sys.stdout.write(report)
    if arguments.page:
        insert_report(arguments.page, report)
    if arguments.chart:
        arguments.chart.write_text(make_chart(figures), encoding="utf-8")


def _say(line: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")


if __name__ == "__main__":
    sys.exit(main())
