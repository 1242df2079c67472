"""What a client gets is the whole answer, or visibly not an answer."""

from __future__ import annotations

import http.client
import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.server.raw import Recorder, eventually, read_to_end, request, served, status_of

CLOSE = "Connection: close"


class Script:
    """An application that a test writes: status, headers and body chunks, among which an exception may be."""

    def __init__(self, status: str, headers: list[tuple[str, str]], *chunks: bytes | Exception) -> None:
        self.status, self.headers, self.chunks = status, headers, chunks
        self.closed = 0

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Script:
        del environ
        start_response(self.status, self.headers)
        return self

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self.chunks:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk

    def close(self) -> None:
        self.closed += 1


def run(script: Any, data: bytes | None = None) -> bytes:
    with served(script) as live:
        return live.exchange(data or request("GET /", CLOSE))


def parts(reply: bytes) -> tuple[bytes, bytes]:
    head, _, body = reply.partition(b"\r\n\r\n")
    return head + b"\r\n", body


def test_response__has_date_and_server() -> None:
    head, body = parts(run(Script("200 OK", [("Content-Length", "3")], b"a", b"bc")))
    assert b"\r\nServer: davsql\r\n" in head
    assert head.count(b"\r\nDate: ") == 1
    assert body == b"abc"


def test_response__without_length_is_chunked() -> None:
    head, body = parts(run(Script("200 OK", [], b"a", b"", b"bc" * 50_000)))
    assert b"\r\nTransfer-Encoding: chunked\r\n" in head
    assert body == b"1\r\na\r\n186a0\r\n" + b"bc" * 50_000 + b"\r\n0\r\n\r\n"


def test_response__without_length_to_http_1_0_ends_with_the_connection() -> None:
    head, body = parts(run(Script("200 OK", [], b"a", b"bc"), b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"))
    assert b"Transfer-Encoding" not in head
    assert b"\r\nConnection: close\r\n" in head
    assert body == b"abc"


def test_response__of_one_part_gets_its_length() -> None:
    def application(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"abc"]

    head, body = parts(run(application))
    assert b"\r\nContent-Length: 3\r\n" in head
    assert body == b"abc"


def test_response__large_parts_arrive_whole() -> None:
    chunks = [bytes([number]) * 3_000_000 for number in range(4)]
    script = Script("200 OK", [("Content-Length", "12000000")], *chunks)
    assert parts(run(script))[1] == b"".join(chunks)
    assert script.closed == 1


def test_response__early_end_is_visible(caplog: pytest.LogCaptureFixture) -> None:
    script = Script("200 OK", [("Content-Length", "10")], b"abcde")
    with served(script) as live:
        connection = http.client.HTTPConnection("127.0.0.1", live.http.bind_addr[1], timeout=10)
        connection.request("GET", "/")
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            connection.getresponse().read()
        connection.close()
    assert script.closed == 1
    assert "shorter than its Content-Length" in caplog.text


@pytest.mark.parametrize("headers", [[], [("Content-Length", "10")]])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_response__error_within_the_body_ends_in_rst(headers: list[tuple[str, str]], version: str) -> None:
    script = Script("200 OK", headers, b"abcde", OSError("disk"))
    with served(script) as live, pytest.raises(ConnectionResetError):
        live.exchange(f"GET / HTTP/{version}\r\nHost: t\r\n\r\n".encode())
    assert script.closed == 1


def test_response__error_before_the_body_is_500(caplog: pytest.LogCaptureFixture) -> None:
    script = Script("200 OK", [("X-Secret", "1")], RuntimeError("secret"))
    reply = run(script)
    assert status_of(reply) == 500
    assert b"ecret" not in reply
    assert "secret" in caplog.text
    assert script.closed == 1


@pytest.mark.parametrize("kind", [RuntimeError, OSError, SystemExit])
def test_response__error_in_the_application_is_500(kind: type[BaseException]) -> None:
    def application(environ: Any, start_response: Any) -> list[bytes]:
        raise kind("secret")

    with served(application) as live:
        for _ in range(2):
            assert status_of(reply := live.exchange(request("GET /"))) == 500
            assert b"secret" not in reply


def test_response__longer_than_its_length_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    script = Script("200 OK", [("Content-Length", "3")], b"ab", b"cdef", b"gh")
    assert parts(run(script, request("GET /")))[1] == b"abc"
    assert "longer than its Content-Length" in caplog.text


def test_response__head_keeps_the_length_and_has_no_body() -> None:
    script = Script("200 OK", [("Content-Length", "3")], b"abc")
    with served(script) as live:
        reply = live.exchange(request("HEAD /") + request("HEAD /", CLOSE))
    assert reply.count(b"\r\nContent-Length: 3\r\n") == 2
    assert reply.endswith(b"\r\n\r\n")
    assert b"abc" not in reply
    assert script.closed == 2


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_response__bodiless_status_has_no_body(status: str) -> None:
    script = Script(status, [("Content-Length", "3")], b"abc")
    with served(script) as live:
        reply = live.exchange(request("GET /") + request("GET /", CLOSE))
    assert reply.count(b"HTTP/1.1 ") == 2
    assert b"abc" not in reply
    assert (b"Content-Length" in reply) == (status[:3] == "304")
    assert b"Transfer-Encoding" not in reply


@pytest.mark.parametrize(
    ("status", "header"),
    [
        ("200 OK", ("X", "a\r\nY: b")),
        ("200 OK", ("X", "a\nb")),
        ("200 OK", ("X\r\nY", "b")),
        ("200 OK", ("X", "€")),
        ("200 OK\r\nX: y", ("X", "y")),
        ("200 OK", ("Transfer-Encoding", "chunked")),
        ("200 OK", ("Content-Length", "-1")),
        ("100 Continue", ("X", "y")),
    ],
)
def test_response__what_would_break_its_head_is_500(status: str, header: tuple[str, str]) -> None:
    reply = run(Script(status, [header], b"abc"))
    assert status_of(reply) == 500
    assert b"\r\nY" not in reply


def test_response__close_from_the_application_is_honoured() -> None:
    reply = run(Script("200 OK", [("Connection", "Close"), ("Content-Length", "0")]), request("GET /") * 2)
    assert reply.count(b"HTTP/1.1 ") == 1
    assert reply.count(b"Connection: close") == 1


def test_response__write_callable_works() -> None:
    def application(environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [("Content-Length", "4")])
        write(b"ab")
        return [b"cd"]

    assert parts(run(application))[1] == b"abcd"


def test_response__slow_reader_is_given_up() -> None:
    script = Script("200 OK", [], *([b"a" * 1_000_000] * 100))
    with served(script) as live, live.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(request("GET /"))
        assert client.recv(1) == b"H"
        eventually(lambda: not live.http.connections_open)
        with pytest.raises(ConnectionResetError):
            read_to_end(client)


def test_keep_alive__pipelined_requests_are_answered_in_order() -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode()]

    with served(application) as live:
        reply = live.exchange(b"".join(request(f"GET /{n}") for n in range(200)) + request("GET /last", CLOSE))
    bodies = [part.partition(b"\r\n\r\n")[2] for part in reply.split(b"HTTP/1.1 200 OK")[1:]]
    assert bodies == [b"/%d" % n for n in range(200)] + [b"/last"]


def test_keep_alive__http_1_0_only_when_asked() -> None:
    app = Recorder()
    with served(app) as live:
        assert live.exchange(b"GET / HTTP/1.0\r\n\r\n" * 2).count(b"HTTP/1.1 ") == 1
        asked = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
        reply = live.exchange(asked + b"GET / HTTP/1.0\r\n\r\n")
    assert reply.count(b"HTTP/1.1 ") == 2
    assert reply.count(b"Connection: keep-alive") == 1


def test_log__refusals_do_not_name_headers(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with served(Recorder()) as live:
        live.exchange(request("GET /", "Authorization: Basic c2VjcmV0", "Authorization: Basic c2VjcmV0"))
    assert "Authorization is there twice" in caplog.text
    assert "c2VjcmV0" not in caplog.text
