"""A body that did not come whole never looks whole to the application."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace

import pytest

from tests.server.raw import (
    QUICK,
    Recorder,
    Served,
    eventually,
    read_to_end,
    read_until,
    request,
    reset,
    served,
    status_of,
)

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
HALF_BODIES = {
    "length": request("PUT /file", "Content-Length: 10", body=b"abcde"),
    "length, nothing sent": request("PUT /file", "Content-Length: 10"),
    "length, large": request("PUT /file", "Content-Length: 1000000", body=b"a" * 999_999),
    "in a chunk": request("PUT /file", "Transfer-Encoding: chunked", body=b"a\r\nabcde"),
    "between chunks": request("PUT /file", "Transfer-Encoding: chunked", body=b"5\r\nabcde\r\n"),
    "in a chunk size": request("PUT /file", "Transfer-Encoding: chunked", body=b"5\r\nabcde\r\n0"),
    "no last chunk's end": request("PUT /file", "Transfer-Encoding: chunked", body=b"5\r\nabcde\r\n0\r\n"),
    "in the trailer": request("PUT /file", "Transfer-Encoding: chunked", body=b"5\r\nabcde\r\n0\r\nX: y\r\n"),
}


def only_incomplete(app: Recorder) -> bool:
    """Whether exactly one body was cut and none seen as complete."""
    return app.bodies == [] and [type(error).__name__ for error in app.errors] == ["IncompleteBody"]


@pytest.mark.parametrize("name", HALF_BODIES)
def test_body__fin_before_its_end_is_incomplete(name: str, live: Served, app: Recorder) -> None:
    assert status_of(live.exchange(HALF_BODIES[name], half_close=True)) == 400
    assert only_incomplete(app)


@pytest.mark.parametrize("name", HALF_BODIES)
def test_body__rst_before_its_end_is_incomplete(name: str, live: Served, app: Recorder) -> None:
    client = live.connect()
    client.sendall(HALF_BODIES[name])
    assert app.reading.acquire(timeout=5)
    reset(client)
    eventually(lambda: app.errors)
    assert only_incomplete(app)


@pytest.mark.parametrize("name", HALF_BODIES)
def test_body__stall_before_its_end_is_incomplete(name: str, live: Served, app: Recorder) -> None:
    assert status_of(live.exchange(HALF_BODIES[name])) == 400
    assert only_incomplete(app)


@pytest.mark.parametrize("name", ["length", "between chunks", "no last chunk's end"])
def test_body__stop_before_its_end_is_incomplete(name: str) -> None:
    app = Recorder()
    with served(app, replace(QUICK, stall_timeout_s=30)) as live, live.connect() as client:
        client.sendall(HALF_BODIES[name])
        assert app.reading.acquire(timeout=5)
        live.http.stop()
        assert only_incomplete(app)


def test_body__too_slow_is_incomplete() -> None:
    app = Recorder()
    with served(app, replace(QUICK, rate_grace_s=0.2)) as live, live.connect() as client:
        client.sendall(request("PUT /file", "Content-Length: 1000"))
        eventually(lambda: app.errors or client.send(b"a") == 0 or threading.Event().wait(0.05))
    assert only_incomplete(app)


def test_body__stop_cuts_eight_uploads_and_none_is_complete() -> None:
    app = Recorder()
    clients: list[socket.socket] = []
    with served(app, replace(QUICK, threads=8, stall_timeout_s=30)) as live:
        for number in range(8):
            client = live.connect()
            clients.append(client)
            if number % 2:
                client.sendall(request("PUT /file", "Content-Length: 100", body=b"a" * 99))
            else:
                client.sendall(request("PUT /file", "Transfer-Encoding: chunked", body=b"5\r\nabcde\r\n"))
        for _ in clients:
            assert app.reading.acquire(timeout=5)
        live.http.stop()
    assert app.bodies == []
    assert len(app.errors) == 8
    for client in clients:
        with client:
            assert client.recv(100) == b""


def test_body__stop_lets_an_upload_end_within_its_time() -> None:
    app = Recorder()
    with served(app, replace(QUICK, shutdown_timeout_s=10)) as live, live.connect() as client:
        client.sendall(request("PUT /file", "Content-Length: 10", body=b"abcde"))
        assert app.reading.acquire(timeout=5)
        stopping = threading.Thread(target=live.http.stop)
        stopping.start()
        eventually(lambda: not live.http.ready)
        client.sendall(b"fghij")
        reply = read_to_end(client)
        stopping.join(5)
    assert status_of(reply) == 201
    assert app.bodies == [b"abcdefghij"]


def test_body__read_of_any_size_gives_all_bytes_once() -> None:
    sizes = [1, 7, 0, 100_000, -1, None, 5]
    seen: list[bytes] = []

    def application(environ: dict[str, object], start_response: object) -> list[bytes]:
        body = environ["wsgi.input"]
        parts = [body.read(size) for size in sizes]  # type: ignore[attr-defined]
        assert (parts[2], parts[5], parts[6]) == (b"", b"", b"")
        seen.append(b"".join(parts))
        start_response("204 No Content", [])  # type: ignore[operator]
        return []

    data = bytes(range(256)) * 2000
    chunked = b"".join(b"%x\r\n%b\r\n" % (n, data[:n]) for n in (1, 5, 70_000, 300_000)) + b"0\r\n\r\n"
    with served(application) as live:
        live.exchange(
            request("PUT /a", f"Content-Length: {len(data)}", body=data),
            request("PUT /b", "Transfer-Encoding: chunked", "Connection: close", body=chunked),
        )
    assert seen == [data, b"".join(data[:n] for n in (1, 5, 70_000, 300_000))]


def test_continue__is_sent_at_the_first_read(live: Served, app: Recorder) -> None:
    with live.connect() as client:
        client.sendall(request("PUT /file", "Content-Length: 5", "Expect: 100-continue"))
        assert read_until(client, b"\r\n\r\n") == CONTINUE
        client.sendall(b"abcde" + request("GET /", "Connection: close"))
        reply = read_to_end(client)
    assert status_of(reply) == 201
    assert reply.count(b"HTTP/1.1 ") == 2
    assert app.bodies == [b"abcde"]


@pytest.mark.parametrize("framing", ["Content-Length: 5", "Transfer-Encoding: chunked"])
def test_continue__is_not_sent_when_the_body_is_not_read(framing: str, live: Served, app: Recorder) -> None:
    reply = live.exchange(request("PUT /unread", framing, "Expect: 100-continue"))
    assert status_of(reply) == 401
    assert b"Connection: close" in reply
    assert app.requests == ["PUT /unread"]


def test_continue__is_not_sent_for_no_body_nor_to_http_1_0(live: Served, app: Recorder) -> None:
    empty = request("PUT /a", "Content-Length: 0", "Expect: 100-continue", "Connection: close")
    assert status_of(live.exchange(empty)) == 201
    old = b"PUT /b HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab"
    assert status_of(live.exchange(old)) == 201
    assert app.bodies == [b"", b"ab"]


def test_unread_body__small_one_is_read_away(live: Served, app: Recorder) -> None:
    hidden = request("GET /smuggled")
    first = request("PUT /unread", f"Content-Length: {len(hidden)}", body=hidden)
    reply = live.exchange(first + request("GET /", "Connection: close"))
    assert reply.count(b"HTTP/1.1 ") == 2
    assert app.requests == ["PUT /unread", "GET /"]


def test_unread_body__small_chunked_one_is_read_away(live: Served, app: Recorder) -> None:
    hidden = request("GET /smuggled")
    first = request("PUT /unread", "Transfer-Encoding: chunked", body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(hidden), hidden))
    reply = live.exchange(first + request("GET /", "Connection: close"))
    assert reply.count(b"HTTP/1.1 ") == 2
    assert app.requests == ["PUT /unread", "GET /"]


@pytest.mark.parametrize("framing", ["Content-Length: 5000000", "Transfer-Encoding: chunked"])
def test_unread_body__large_one_ends_the_connection_after_the_answer(framing: str, live: Served, app: Recorder) -> None:
    hidden = request("GET /smuggled") * 100_000
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(hidden), hidden)
    body = hidden if framing.startswith("Content") else chunks
    with live.connect() as client:
        client.sendall(request("PUT /unread", framing))
        client.sendall(body)  # a client that does not read before it has sent all
        reply = read_to_end(client)
    assert status_of(reply) == 401
    assert reply.endswith(b"who are you?")
    assert app.requests == ["PUT /unread"]


def test_unread_body__broken_chunks_end_the_connection(live: Served, app: Recorder) -> None:
    reply = live.exchange(
        request("PUT /unread", "Transfer-Encoding: chunked", body=b"zz\r\n\r\n" + request("GET /smuggled"))
    )
    assert status_of(reply) == 401
    assert app.requests == ["PUT /unread"]
