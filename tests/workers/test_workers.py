"""`davsql serve` with several processes: what dies, what goes on, what is told."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pytest

from davsql.store.check import check
from davsql.store.store import Store
from tests.http_client import Client, request
from tests.live_server import ServerProcesses, serving_processes
from tests.lost_data.site import BROKEN
from tests.store_steps import tree

WORKERS = 4
TIMEOUT_S = 20

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux spreads connections over processes")


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """Where the store is; when the test is over every invariant must hold."""
    file = tmp_path / "store.db"
    yield file
    with Store.open(file) as store:
        assert check(store, deep=True) == []


@pytest.fixture
def server(file: Path) -> Iterator[ServerProcesses]:
    with serving_processes(file, WORKERS) as served:
        yield served


def until(holds: Callable[[], bool], what: str = "it should have come to this") -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def metrics(server: ServerProcesses) -> dict[str, float]:
    lines = request(server.admin, "GET", "/metrics").text.splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def health(server: ServerProcesses) -> tuple[int, str, list[str]]:
    reply = request(server.admin, "GET", "/health/ready")
    found = json.loads(reply.body)
    return reply.status, found["status"], [each["message"] for each in found["shares"]["/"]["complaints"]]


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_workers__all_serve_one_port_and_one_store(server: ServerProcesses, file: Path) -> None:
    assert len(server.pids("worker")) == WORKERS
    for number in range(5 * WORKERS):  # each on a connection of its own
        assert server.request("PUT", f"/{number}", b"%d" % number).status == 201
        assert server.request("GET", f"/{number}").body == b"%d" % number
    counted = metrics(server)
    assert counted['davsql_http_requests_total{method="PUT",status="2xx"}'] == 5 * WORKERS
    assert counted['davsql_uploads_stored_total{share="/"}'] == 5 * WORKERS
    assert counted['davsql_writer_alive{share="/"}'] == 1
    assert health(server) == (200, "healthy", [])
    server.supervisor.terminate()
    assert server.supervisor.wait(TIMEOUT_S) == 0
    assert sorted(each.name for each in file.parent.iterdir()) == ["store.db", "store.log", "store.toml"]


def test_worker__killed_under_load_loses_nothing_and_is_replaced(server: ServerProcesses, file: Path) -> None:
    acknowledged: set[str] = set()
    cut: list[str] = []
    is_over = False

    def write(name: str) -> None:
        number = 0
        while not is_over:
            try:
                with Client(server.address) as client:
                    while not is_over:
                        number += 1
                        path = f"/{name}-{number}"
                        if client.request("PUT", path, path.encode() * 100).status == 201:
                            acknowledged.add(path)
            except BROKEN:
                cut.append(name)

    threads = [Thread(target=write, args=(f"client{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    victims = server.pids("worker")[:2]
    for victim in victims:
        before = len(acknowledged)
        until(lambda before=before: len(acknowledged) > before + 50)  # type: ignore[misc]
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(server.pids("worker")) == WORKERS)
    before = len(acknowledged)
    until(lambda: len(acknowledged) > before + 50)
    is_over = True
    for thread in threads:
        thread.join()
    assert not set(victims) & set(server.pids("worker"))
    assert len(cut) <= len(threads) * len(victims), "clients of workers that live were cut"
    with Store.open(file) as store:
        found = tree(store)
    assert {path: path.encode() * 100 for path in acknowledged}.items() <= found.items()
    assert re.search(
        rf"ERROR .*worker \d \(pid {victims[0]}\) was ended by SIGKILL; started again in ", server.log.read_text()
    )


def test_worker__killed_while_idle_drops_no_connection_that_comes_meanwhile(server: ServerProcesses) -> None:
    for victim in server.pids("worker"):
        os.kill(victim, signal.SIGKILL)
    for number in range(4 * WORKERS):  # the supervisor has the listening sockets: who comes now waits
        assert server.request("PUT", f"/{number}", b"x").status == 201


def test_metrics__never_go_backwards_when_a_worker_dies(server: ServerProcesses) -> None:
    for number in range(3 * WORKERS):
        server.request("PUT", f"/{number}", b"x")
    name = 'davsql_uploads_stored_total{share="/"}'
    assert metrics(server)[name] == 3 * WORKERS
    first, *_ = server.pids("worker")
    os.kill(first, signal.SIGKILL)
    until(lambda: not is_alive(first) and len(server.pids("worker")) == WORKERS)
    assert metrics(server)[name] == 3 * WORKERS
    server.request("PUT", "/more", b"x")
    assert metrics(server)[name] == 3 * WORKERS + 1


def test_health__tells_of_workers_that_do_not_answer(server: ServerProcesses) -> None:
    first, *_ = server.pids("worker")
    os.kill(first, signal.SIGSTOP)
    try:
        assert health(server) == (200, "degraded", ["1 of 4 workers do not answer"])
    finally:
        os.kill(first, signal.SIGCONT)
    until(lambda: health(server) == (200, "healthy", []))


def test_keeper__killed_is_replaced_and_looks_after_the_store_again(server: ServerProcesses, file: Path) -> None:
    (keeper,) = server.pids("keeper")
    lock = file.with_name("store.db-keeper")
    until(lock.exists)
    os.kill(keeper, signal.SIGKILL)
    assert server.request("PUT", "/a", b"x").status == 201
    until(lambda: server.pids("keeper") not in ([], [keeper]))
    until(lambda: _answers(server) and health(server) == (200, "healthy", []))
    assert metrics(server)['davsql_uploads_stored_total{share="/"}'] == 1


def _answers(server: ServerProcesses) -> bool:
    try:
        return request(server.admin, "GET", "/health/live").status == 200
    except BROKEN:
        return False


def test_supervisor__killed_takes_all_along_and_the_port_is_free(file: Path) -> None:
    with serving_processes(file, WORKERS) as server:
        pids = server.pids("worker") + server.pids("keeper")
        assert len(pids) == WORKERS + 1
        with socket.create_connection(server.address) as slow:
            slow.sendall(b"PUT /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
            time.sleep(0.2)  # until the request is being read
            server.supervisor.kill()
            until(lambda: not any(map(is_alive, pids)))
        with socket.create_server(server.address):
            pass
    with Store.open(file) as store:
        assert tree(store) == {}


def test_stop__second_signal_does_not_wait_for_a_slow_client(file: Path) -> None:
    with serving_processes(file, 2, "[maintenance]\n") as server, socket.create_connection(server.address) as slow:
        slow.sendall(b"PUT /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
        time.sleep(0.2)  # until the request is being read
        server.supervisor.terminate()
        time.sleep(0.2)
        server.supervisor.terminate()
        assert server.supervisor.wait(5) == 0


def test_hangup__new_workers_have_the_new_configuration(server: ServerProcesses, file: Path) -> None:
    old = server.pids("worker")
    config = file.with_suffix(".toml")
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("workers = 4", "workers = 3") + "read_only = true\n", encoding="utf-8")
    with server.client() as client:
        assert client.request("PUT", "/before", b"x").status == 201
        server.supervisor.send_signal(signal.SIGHUP)
        until(lambda: "3 workers use it" in server.log.read_text(encoding="utf-8"))
    new = server.pids("worker")
    assert (len(new), set(old) & set(new)) == (3, set())
    for _ in range(2 * WORKERS):
        assert server.request("GET", "/before").body == b"x"
        assert server.request("PUT", "/after", b"x").status == 403
    until(lambda: _answers(server) and health(server)[0] == 200)


def test_hangup__a_broken_configuration_keeps_the_old_one(server: ServerProcesses, file: Path) -> None:
    old = server.pids("worker")
    config = file.with_suffix(".toml")
    config.write_text("[sever]\n", encoding="utf-8")
    server.supervisor.send_signal(signal.SIGHUP)
    wanted = f"the configuration is not used, the old one stays: {config}: sever: unknown key; did you mean server?"
    until(lambda: wanted in server.log.read_text(encoding="utf-8"))
    assert server.pids("worker") == old
    assert server.request("PUT", "/a", b"x").status == 201


def test_serve__does_not_share_the_port_of_another_davsql(server: ServerProcesses, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "davsql",
        "serve",
        "--port",
        str(server.address[1]),
        "--db",
        str(tmp_path / "b.db"),
    ]
    done = subprocess.run([*command, "--workers", "2"], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 1
    assert "Address already in use" in done.stderr
    assert not (tmp_path / "b.db").exists()
