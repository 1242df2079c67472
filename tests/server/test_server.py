"""Time and crowds: deadlines, slow and idle clients, full queues, the end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from davsql.server.http import HttpServer
from davsql.server.options import ServerOptions
from davsql.server.run import run
from tests.server.raw import QUICK, Recorder, answer, eventually, read_to_end, read_until, request, served, status_of


class Blocker:
    """GET /block waits until released; anything else is answered at once."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.release = threading.Event()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/block":
            self.entered.release()
            self.release.wait(20)
        return answer(start_response, "200 OK", b"done")


def test_timeout__slow_head_is_408() -> None:
    with served(Recorder()) as live, live.connect() as client:
        started = time.monotonic()
        for byte in b"GET / HT":
            client.sendall(bytes([byte]))
            time.sleep(0.01)
        assert status_of(read_to_end(client)) == 408
        assert 0.4 < time.monotonic() - started < 2


def test_timeout__dripping_head_is_408() -> None:
    with served(Recorder()) as live, live.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nX: ")
        reply = b""
        client.settimeout(0.05)
        for _ in range(100):
            try:
                client.sendall(b"a")
                reply = client.recv(1000)
            except TimeoutError:
                continue
            break
        assert status_of(reply) == 408


def test_timeout__silent_client_is_closed() -> None:
    with served(Recorder()) as live, live.connect() as client:
        assert client.recv(100) == b""


def test_timeout__idle_keep_alive_is_closed() -> None:
    with served(Recorder(), replace(QUICK, timeout_s=0.2)) as live, live.connect() as client:
        client.sendall(request("GET /"))
        read_until(client, b"hello")
        started = time.monotonic()
        assert client.recv(100) == b""
        assert 0.1 < time.monotonic() - started < 2


def test_timeout__request_after_a_pause_is_served() -> None:
    with served(Recorder()) as live, live.connect() as client:
        for _ in range(3):
            client.sendall(request("GET /"))
            read_until(client, b"hello")
            time.sleep(0.03)


def test_crowd__idle_and_dripping_clients_hold_no_thread() -> None:
    with served(Recorder(), replace(QUICK, threads=2, threads_max=2, header_timeout_s=5)) as live:
        crowd = [live.connect() for _ in range(60)]
        for client in crowd[::2]:
            client.sendall(b"GET / HT")
        started = time.monotonic()
        assert status_of(live.exchange(request("GET /", "Connection: close"))) == 200
        assert time.monotonic() - started < 0.5
        for client in crowd:
            client.close()


def test_crowd__slow_uploads_make_the_pool_grow() -> None:
    with served(Recorder(), replace(QUICK, threads=2, threads_max=20, stall_timeout_s=5)) as live:
        crowd = [live.connect() for _ in range(10)]
        for client in crowd:
            client.sendall(request("PUT /file", "Content-Length: 10"))
        started = time.monotonic()
        assert status_of(live.exchange(request("GET /", "Connection: close"))) == 200
        assert time.monotonic() - started < 2
        for client in crowd:
            client.close()


def test_crowd__full_queue_is_503_and_recovers() -> None:
    app = Blocker()
    with served(app, replace(QUICK, threads=1, threads_max=1, queue_size=1)) as live:
        blocked, queued = live.connect(), live.connect()
        blocked.sendall(request("GET /block"))
        assert app.entered.acquire(timeout=5)
        queued.sendall(request("GET /", "Connection: close"))
        eventually(lambda: live.http.requests.qsize)
        reply = live.exchange(request("GET /"))
        assert status_of(reply) == 503
        assert b"\r\nRetry-After: " in reply
        app.release.set()
        assert status_of(read_to_end(queued)) == 200
        assert status_of(live.exchange(request("GET /", "Connection: close"))) == 200
        blocked.close()
        queued.close()


def test_crowd__too_many_connections_are_503() -> None:
    with served(Recorder(), replace(QUICK, connections_max=2, header_timeout_s=5)) as live:
        first, second = live.connect(), live.connect()
        assert status_of(live.exchange(request("GET /"))) == 503
        first.close()
        eventually(lambda: len(live.http.connections_open) < 2)
        assert status_of(live.exchange(request("GET /", "Connection: close"))) == 200
        second.close()


def test_crowd__idle_keep_alive_connections_are_bounded() -> None:
    with served(Recorder(), replace(QUICK, keep_alive_connections=2)) as live:
        clients = [live.connect() for _ in range(4)]
        for client in clients:
            client.sendall(request("GET /"))
            read_until(client, b"hello")
            time.sleep(0.05)
        eventually(lambda: len(live.http.connections_open) == 2)
        for client in clients:
            client.close()


def test_stop__is_bounded_when_requests_hang() -> None:
    app = Blocker()
    with served(app) as live, live.connect() as client, live.connect() as idle:
        client.sendall(request("GET /block"))
        assert app.entered.acquire(timeout=5)
        idle.sendall(request("GET /"))
        read_until(idle, b"done")
        threading.Timer(1.0, app.release.set).start()
        started = time.monotonic()
        live.http.stop()
        assert time.monotonic() - started < 3
        assert idle.recv(10) == b""
        with pytest.raises(ConnectionRefusedError):
            live.connect()


def test_stop__leaves_a_hanging_application_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("davsql.server.pool.INTERRUPTED_TIMEOUT_S", 0.2)
    app = Blocker()
    with served(app) as live, live.connect() as client:
        client.sendall(request("GET /block"))
        assert app.entered.acquire(timeout=5)
        started = time.monotonic()
        live.http.stop()
        assert time.monotonic() - started < 2
        assert "did not end" in caplog.text
        app.release.set()


def test_stop__twice_before_serve_and_without_prepare_is_harmless() -> None:
    unprepared = HttpServer(("127.0.0.1", 0), Recorder(), QUICK)
    unprepared.stop()
    prepared = HttpServer(("127.0.0.1", 0), Recorder(), QUICK)
    prepared.prepare()
    assert prepared.bind_addr[1] > 0
    prepared.stop()
    prepared.stop()
    prepared.serve()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("http ")]


def test_stop__cuts_an_answer_without_length_visibly() -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        while True:
            yield b"a" * 1000
            time.sleep(0.01)

    with served(application) as live, live.connect() as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        client.recv(10)
        live.http.stop()
        with pytest.raises(ConnectionResetError):
            read_to_end(client)


PROGRAM = """
import time
from davsql.server.http import HttpServer
from davsql.server.options import ServerOptions
from davsql.server.run import run

def application(environ, start_response):
    try:
        environ["wsgi.input"].read()
    except Exception as error:
        print(type(error).__name__, flush=True)
        raise
    start_response("200 OK", [])
    return [b"ok"]

server = HttpServer(("127.0.0.1", 0), application, ServerOptions(threads=2, shutdown_timeout_s=60))
server.prepare()
print(server.bind_addr[1], flush=True)
run(server, lambda: print("stopped", flush=True))
print("done", flush=True)
"""


def test_run__first_signal_waits_second_cuts() -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(request("PUT /", "Content-Length: 10", body=b"abc"))
            time.sleep(0.2)
            os.kill(process.pid, signal.SIGTERM)
            time.sleep(0.8)
            assert process.poll() is None  # the upload has its time
            os.kill(process.pid, signal.SIGINT)
            assert process.stdout.read() == "IncompleteBody\nstopped\ndone\n"
            assert process.wait(10) == 0


def test_run__returns_when_stopped_and_calls_on_stop() -> None:
    server = HttpServer(("127.0.0.1", 0), Recorder(), ServerOptions(threads=1))
    stopped: list[str] = []
    thread = threading.Thread(target=run, args=(server, lambda: stopped.append("store")))
    thread.start()
    eventually(lambda: server.ready)
    server.stop()
    thread.join(10)
    assert stopped == ["store"]


@pytest.mark.parametrize("pause_s", [30.0, 0.05])
def test_timeout__a_client_that_takes_nothing_or_next_to_nothing_is_cut(pause_s: float) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", "100000000")])
        return iter([b"a" * 1_000_000] * 100)

    with (
        served(application, replace(QUICK, rate_grace_s=0.4, rate_min=2_000_000_000)) as live,
        live.connect() as client,
    ):
        client.sendall(request("GET /"))
        eventually(lambda: live.http.connections_open)
        deadline = time.monotonic() + 10
        while live.http.connections_open and time.monotonic() < deadline:
            if pause_s < 1:
                client.recv(1000)
            time.sleep(min(pause_s, 0.1))
        assert not live.http.connections_open


def test_crowd__refusals_keep_nobody_waiting() -> None:
    with served(Recorder(), replace(QUICK, connections_max=2, header_timeout_s=30)) as live:
        crowd = [live.connect() for _ in range(60)]
        for client in crowd:
            client.sendall(b"GET / HT")
        started = time.monotonic()
        assert status_of(live.exchange(request("GET /"))) == 503
        assert time.monotonic() - started < 2, "60 times a tenth of a second"
        for client in crowd:
            client.close()
