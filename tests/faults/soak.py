"""A server under mixed load for a long time, with all maintenance at work: what it takes must not grow.

Samples memory, threads, descriptors, the WAL and the file. The last quarter must not lie above the second one by more
than a bound, and no request be answered wrongly.
"""

from __future__ import annotations

import http.client
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import click

from davsql.store.check import check
from davsql.store.records import task_records
from davsql.store.store import Store
from tests.http_client import Client

ROOT = Path(__file__).parents[2]
MIB = 1024 * 1024
TASKS = {"integrity_check", "scrub", "incremental_vacuum", "backup"}
DB, BACKUPS = "soak.db", "backups"
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 60
CLIENTS = 6
NAMES = 40  # files of each client
SAMPLES = 40
LARGE_BYTES = 3 * MIB
SLOW_BYTES = 64 * 1024  # of a slow download in each tenth of a second

GRACE_S, GRACE_OF_SEVERAL_S = 3.0, 120.0  # the second is the least that several workers may have

# Everything that happens once a day or a week in real life happens all the time.
CONFIGURATION = """\
[server]
port = {port}
workers = {workers}
[admin]
port = 0
[maintenance]
gc_interval_s = 1.0
gc_grace_s = {grace_s}
upload_expiry_s = 10.0
keep_free_mb = 8
integrity_interval_days = 0.0002
scrub_interval_days = 0.0002
scrub_mb_per_s = 200.0
[backup]
folder = "{backups}"
schedule = "* * * * *"
[log]
level = "error"
file = "{log}"
[[share]]
name = "/"
db = "{db}"
"""

WELL = {
    "PUT": {201, 204},
    "GET": {200, 404},
    "PROPFIND": {207},
    "DELETE": {204, 404},
    "COPY": {201, 204, 404},
    "MOVE": {201, 204, 404},
    "PROPPATCH": {207, 404},
    "LOCK": {200, 201},
    "UNLOCK": {204},
    "MKCOL": {201},
}
MARK = b'<D:propertyupdate xmlns:D="DAV:"><D:set><D:prop><m xmlns="urn:soak">x</m></D:prop></D:set></D:propertyupdate>'
LOCK = (
    b'<D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope>'
    b"<D:locktype><D:write/></D:locktype></D:lockinfo>"
)


class Sample(NamedTuple):
    """What the processes of the server take together at one moment."""

    at_s: float
    memory_mb: float
    threads: float
    descriptors: float
    wal_mb: float
    store_mb: float


# By how much the mean of the last quarter may lie above that of the second: a factor, and so much more.
BOUNDS = {
    "memory_mb": (1.1, 8.0),
    "threads": (1.0, 4.0),
    "descriptors": (1.0, 8.0),
    "wal_mb": (1.2, 16.0),
    "store_mb": (1.2, 32.0),
}


class Report(NamedTuple):
    samples: list[Sample]
    requests: Counter[str]
    failures: list[str]
    exit_code: int
    tasks: dict[str, str]  # of maintenance: how the last run ended
    backups: int

    def growth(self) -> list[str]:
        """What grew beyond its bound."""
        quarter = len(self.samples) // 4
        second, last = self.samples[quarter : 2 * quarter], self.samples[-quarter:]
        grown = []
        for name, (factor, more) in BOUNDS.items():
            before, after = (mean(getattr(each, name) for each in part) for part in (second, last))
            if after > before * factor + more:
                grown.append(f"{name} grew from {before:.1f} to {after:.1f}")
        return grown


# --- the load -------------------------------------------------------------------------------------------------------


class Load:
    """One client: random requests within a collection of its own, until told to stop."""

    def __init__(self, address: tuple[str, int], number: int, seed: int, is_stopping: Callable[[], bool]) -> None:
        self._home = f"/client{number}"
        self._address = address
        self._rng = random.Random(seed)  # noqa: S311
        self._is_stopping = is_stopping
        self._content = self._rng.randbytes(2 * LARGE_BYTES)
        self.requests: Counter[str] = Counter()
        self.failures: list[str] = []

    def run(self) -> None:
        """Whatever goes wrong is in `failures` afterwards."""
        try:
            with Client(self._address) as client:
                self._ask(client, "MKCOL", self._home)
                while not self._is_stopping():
                    self._step(client)
        except Exception as error:  # noqa: BLE001
            self.failures.append(repr(error))

    def _step(self, client: Client) -> None:
        path, other = self._path(), self._path()
        destination = {"Destination": f"http://{self._address[0]}:{self._address[1]}{other}"}
        match self._rng.randrange(20):
            case 0:
                self._ask(client, "PUT", path, self._bytes(LARGE_BYTES))
            case 1 | 2 | 3 | 4 | 5 | 6:
                self._ask(client, "PUT", path, self._bytes(20_000))
            case 7:
                self._ask(client, "DELETE", path)
            case 8 if path != other:
                self._ask(client, "COPY", path, headers=destination)
            case 9 if path != other:
                self._ask(client, "MOVE", path, headers=destination)
            case 10:
                self._ask(client, "PROPPATCH", path, MARK)
            case 11:
                token = self._ask(client, "LOCK", path, LOCK)
                self._ask(client, "UNLOCK", path, headers={"Lock-Token": token or ""})
            case 12 | 13:
                self._ask(client, "PROPFIND", self._home, headers={"Depth": "1"})
            case _:
                self._ask(client, "GET", path)

    def _ask(
        self, client: Client, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> str | None:
        reply = client.request(method, path, body, headers or {})
        self.requests[method] += 1
        if reply.status not in WELL[method]:
            self.failures.append(f"{method} {path}: {reply.status} {reply.body[:200]!r}")
        return reply.header("Lock-Token")

    def _path(self) -> str:
        return f"{self._home}/{self._rng.randrange(NAMES)}"

    def _bytes(self, most: int) -> bytes:
        start, size = self._rng.randrange(LARGE_BYTES), self._rng.randint(most // 2, most)
        return self._content[start : start + size]


def download_slowly(address: tuple[str, int], is_stopping: Callable[[], bool]) -> None:
    """A client on a thin line reads a large file again and again."""
    while not is_stopping():
        connection = http.client.HTTPConnection(*address, timeout=30)
        connection.request("GET", "/slow")
        answer = connection.getresponse()
        while answer.read(SLOW_BYTES) and not is_stopping():
            time.sleep(0.1)
        connection.close()


# --- the server -------------------------------------------------------------------------------------------------------


@contextmanager
def served(folder: Path, workers: int) -> Iterator[tuple[subprocess.Popen[bytes], tuple[str, int]]]:
    """`davsql serve` as a process of its own, over a new store in `folder`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = ("127.0.0.1", int(free.getsockname()[1]))
    configuration = folder / "soak.toml"
    (folder / BACKUPS).mkdir()
    grace_s = GRACE_S if workers == 1 else GRACE_OF_SEVERAL_S
    text = CONFIGURATION.format(
        port=address[1], workers=workers, grace_s=grace_s, log="soak.log", db=DB, backups=BACKUPS
    )
    configuration.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "davsql", "serve", "--config", str(configuration)]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(address):
            assert process.poll() is None, f"the server ended with {process.returncode}"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.05)
        yield process, address
    finally:
        process.terminate()
        process.wait(STOP_TIMEOUT_S)


def _answers(address: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(address, 1):
            return True
    except OSError:
        return False


def family(process: int) -> Iterator[Path]:
    """A process and all that it has started, as folders of /proc."""
    proc = Path(f"/proc/{process}")
    yield proc
    for children in proc.glob("task/*/children"):
        for child in children.read_text().split():
            yield from family(int(child))


def sample(process: int, store: Path, at_s: float) -> Sample:
    processes = list(family(process))
    status = [dict(line.split(":", 1) for line in (each / "status").read_text().splitlines()) for each in processes]
    wal = store.with_name(store.name + "-wal")
    return Sample(
        at_s,
        sum(int(each["VmRSS"].split()[0]) for each in status) / 1024,
        sum(int(each["Threads"]) for each in status),
        sum(len(list((each / "fd").iterdir())) for each in processes),
        (wal.stat().st_size if wal.exists() else 0) / MIB,
        store.stat().st_size / MIB,
    )


def soak(folder: Path, seconds: float, seed: int, workers: int) -> Report:
    """Serve a new store in `folder` under load."""
    stopping = threading.Event()
    with served(folder, workers) as (process, address):
        with Client(address) as client:
            client.request("PUT", "/slow", random.Random(seed).randbytes(4 * LARGE_BYTES))  # noqa: S311
        loads = [Load(address, number, seed + number, stopping.is_set) for number in range(CLIENTS)]
        threads = [threading.Thread(target=load.run) for load in loads]
        threads += [threading.Thread(target=download_slowly, args=(address, stopping.is_set)) for _ in range(2)]
        for thread in threads:
            thread.start()
        began = time.monotonic()
        samples, backups = list[Sample](), set[Path]()
        while (at_s := time.monotonic() - began) < seconds and process.poll() is None:
            samples.append(sample(process.pid, folder / DB, at_s))
            backups.update((folder / BACKUPS).glob("*.davsql"))
            time.sleep(seconds / SAMPLES)
        stopping.set()
        for thread in threads:
            thread.join()
    requests = sum((load.requests for load in loads), Counter[str]())
    failures = [failure for load in loads for failure in load.failures]
    log = folder / "soak.log"
    failures += log.read_text(encoding="utf-8").splitlines()[:20] if log.exists() else []
    with Store.open(folder / DB) as store, store.read() as tx:
        tasks = {name: str(record.outcome or "interrupted") for name, record in task_records(tx).items()}
    for file in (folder / DB, *(folder / BACKUPS).iterdir()):
        with Store.open(file) as store:
            failures += [f"{file.name}: {violation.message}" for violation in check(store, deep=True)]
    return Report(samples, requests, failures, process.returncode, tasks, len(backups))


def show(samples: Sequence[Sample]) -> None:
    """A table."""
    click.echo("".join(f"{name:>13}" for name in Sample._fields))
    for each in samples:
        click.echo("".join(f"{value:13.1f}" for value in each))


@click.command("soak")
@click.option("--seconds", default=600.0, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--workers", default=1, show_default=True, help="Processes that serve.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to put the store.  [default: a temporary one]")
def command(seconds: float, seed: int, workers: int, folder: Path | None) -> bool:
    """Load a server with all maintenance and backups at work: it must not take more and more, or answer wrongly."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        report = soak(Path(name), seconds, seed, workers)
    show(report.samples)
    click.echo(
        f"{report.requests.total()} requests: " + ", ".join(f"{m} {n}" for m, n in report.requests.most_common())
    )
    click.echo(f"{report.backups} backups; last runs: " + ", ".join(f"{n} {how}" for n, how in report.tasks.items()))
    troubles = report.growth() + report.failures
    troubles += [f"{task} never ran" for task in sorted(TASKS - report.tasks.keys())]
    if report.exit_code:
        troubles.append(f"the server ended with exit code {report.exit_code}")
    for trouble in troubles[:40]:
        click.echo(trouble)
    return not troubles
