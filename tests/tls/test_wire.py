"""The server over TLS: handshakes that are whole, wrong, slow or broken off; framing, lengths and ends as over TCP."""

from __future__ import annotations

import random
import socket
import ssl
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from davsql.certificates.authority import Authority
from davsql.server.options import ServerOptions
from davsql.server.tls import Tls, TlsFiles
from tests.server.raw import (
    QUICK,
    Recorder,
    Served,
    answer,
    eventually,
    read_to_end,
    read_until,
    request,
    served,
    status_of,
)
from tests.tls.tls_steps import connect, exchange, plain_connection, tls_of, trusting

CONTENT = random.Random(7).randbytes(5_000_000)  # noqa: S311  # content, no secret
HELLO_BEGUN = bytes.fromhex("1603010200010001fc0303") + b"r" * 32
SILENT_CLIENTS = 150
CLOSE = "Connection: close"


def test_handshake__leads_to_https(authority: Authority) -> None:
    recorder = Recorder()
    with served(recorder, tls=tls_of(authority)) as server, connect(server, trusting(authority)) as client:
        client.sendall(request("GET /", CLOSE))
        assert status_of(read_to_end(client)) == 200
        assert client.version() == "TLSv1.3"
        assert recorder.environ["wsgi.url_scheme"] == "https"


def test_handshake__tls_1_2_is_taken_with_ciphers_that_are_sound(authority: Authority) -> None:
    context = trusting(authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with served(Recorder(), tls=tls_of(authority)) as server, connect(server, context) as client:
        cipher = client.cipher()
        assert cipher is not None
        assert cipher[0].startswith("ECDHE-")
        client.sendall(request("GET /", CLOSE))
        assert status_of(read_to_end(client)) == 200


@pytest.mark.parametrize("setting", ["TLS 1.1", "AES128-SHA", "ECDHE-ECDSA-AES128-SHA"])
def test_handshake__what_is_outdated_is_refused(authority: Authority, setting: str) -> None:
    context = trusting(authority)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that it is outdated is what this is about
        if setting == "TLS 1.1":
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
            context.set_ciphers("ALL:@SECLEVEL=0")
        else:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers(f"{setting}:@SECLEVEL=0")
    with served(Recorder(), tls=tls_of(authority)) as server, pytest.raises(ssl.SSLError, match="alert"):
        connect(server, context)


def test_plain_http__is_told_to_speak_https(authority: Authority) -> None:
    recorder = Recorder()
    with served(recorder, tls=tls_of(authority)) as server:
        reply = server.exchange(request("GET /"))
    assert status_of(reply) == 400
    assert b"use https://" in reply
    assert b"Location" not in reply
    assert recorder.requests == []


def test_nonsense__ends_the_connection_and_no_other(authority: Authority) -> None:
    with served(Recorder(), tls=tls_of(authority)) as server:
        server.exchange(b"\x16\x03\x01\x00\x05hello" + b"\0" * 100)
        server.exchange(b"\x00" * 3000)
        assert status_of(exchange(server, trusting(authority), request("GET /", CLOSE))) == 200


def test_silent_clients__delay_nobody_occupy_no_thread_and_end(authority: Authority) -> None:
    options = replace(QUICK, threads=2, threads_max=2, header_timeout_s=2.0, keep_alive_connections=10)
    with served(Recorder(), options, tls_of(authority)) as server:
        silent = [plain_connection(server.http.bind_addr[:2]) for _ in range(SILENT_CLIENTS)]
        for number, client in enumerate(silent):
            client.sendall((b"", b"\x16", HELLO_BEGUN)[number % 3])
        for _ in range(3):
            assert status_of(exchange(server, trusting(authority), request("GET /", CLOSE))) == 200
        # all of them were open while others were served
        assert len(server.http.connections_open) >= SILENT_CLIENTS
        for client in silent:
            with client:
                assert read_to_end(client) == b""
        eventually(lambda: not server.http.connections_open)


def test_handshake__that_drips_ends_at_the_deadline_of_a_head(authority: Authority) -> None:
    with served(Recorder(), tls=tls_of(authority)) as server, server.connect() as client:
        client.settimeout(0.001)
        ended = b"?"
        for byte in HELLO_BEGUN + b"s" * 100_000:
            try:
                client.sendall(bytes([byte]))
                ended = client.recv(1)
                break
            except TimeoutError:
                continue
            except ConnectionError:
                ended = b""
                break
        assert ended == b""


def test_requests__follow_each_other_on_one_connection(authority: Authority) -> None:
    recorder = Recorder()
    with served(recorder, tls=tls_of(authority)) as server, connect(server, trusting(authority)) as client:
        for _ in range(20):
            client.sendall(request("GET /"))
            assert status_of(read_until(client, b"hello")) == 200
        assert len(server.http.connections_open) == 1


def test_requests__in_one_record_are_all_answered(authority: Authority) -> None:
    """More than are served in a row: the selector must not wait for bytes that were decrypted already."""
    recorder = Recorder()
    many = request("GET /") * 100 + request("GET /last", CLOSE)
    with served(recorder, replace(QUICK, threads=1, threads_max=1), tls_of(authority)) as server:
        context = trusting(authority)
        busy = [connect(server, context) for _ in range(3)]
        for client in busy:
            client.sendall(many)
        for client in busy:
            with client:
                assert read_to_end(client).count(b"200 OK") == 101
    assert recorder.requests.count("GET /last") == 3


def test_wire__tells_of_bytes_that_the_selector_cannot_see(authority: Authority) -> None:
    tls = tls_of(authority)
    near, far = socket.socketpair()
    wire = tls.wire(far, QUICK)
    with near, ThreadPoolExecutor(1) as other:
        shaking = other.submit(trusting(authority).wrap_socket, near, server_hostname="localhost")
        assert wire.receive(10, 1.0) is None or wire.has_data()
        with shaking.result(timeout=10) as client:
            client.sendall(b"a" * 40_000)
            assert wire.receive(10, 5.0) == b"a" * 10
            assert wire.has_data()
            left = 40_000 - 10
            while left:
                data = wire.take_buffered(left) if wire.has_data() else wire.receive(left, 5.0)
                assert data
                left -= len(data)
            assert not wire.has_data()
        wire.close()


@pytest.mark.parametrize("is_chunked", [False, True], ids=["Content-Length", "chunked"])
def test_large_bodies__arrive_and_return_equal(authority: Authority, *, is_chunked: bool) -> None:
    recorder = Recorder()
    if is_chunked:
        body = b"%x\r\n" % len(CONTENT) + CONTENT + b"\r\n0\r\n\r\n"
        upload = request("PUT /big", "Transfer-Encoding: chunked", CLOSE, body=body)
    else:
        upload = request("PUT /big", f"Content-Length: {len(CONTENT)}", CLOSE, body=CONTENT)
    with served(recorder, tls=tls_of(authority)) as server:
        assert status_of(exchange(server, trusting(authority), upload)) == 201
        assert recorder.bodies == [CONTENT]
        reply = exchange_of(authority, lambda _environ, start: answer(start, "200 OK", CONTENT))
    assert reply.partition(b"\r\n\r\n")[2] == CONTENT


def exchange_of(authority: Authority, application: object) -> bytes:
    with served(application, tls=tls_of(authority)) as server:  # type: ignore[arg-type]  # a lambda
        return exchange(server, trusting(authority), request("GET /", CLOSE))


@pytest.mark.parametrize("is_reset", [False, True], ids=["FIN", "RST"])
def test_upload__that_is_broken_off_is_incomplete(authority: Authority, *, is_reset: bool) -> None:
    recorder = Recorder()
    with served(recorder, tls=tls_of(authority)) as server:
        client = connect(server, trusting(authority))
        client.sendall(request("PUT /a", "Content-Length: 100000", body=b"x" * 50_000))
        assert recorder.reading.acquire(timeout=10)
        if is_reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()  # no close_notify
        eventually(lambda: recorder.errors)
    assert recorder.bodies == []


@pytest.mark.parametrize(
    "head",
    [
        request("PUT /a", "Content-Length: 5", "Content-Length: 6", body=b"hello!"),
        request("PUT /a", "Content-Length: 5", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        request("PUT /a", "Transfer-Encoding: chunked", body=b"5\nhello\r\n0\r\n\r\n"),
    ],
    ids=["two lengths", "length and chunked", "LF in a chunk line"],
)
def test_framing__is_refused_as_over_tcp(authority: Authority, head: bytes) -> None:
    recorder = Recorder()
    with served(recorder, tls=tls_of(authority)) as server:
        assert status_of(exchange(server, trusting(authority), head)) == 400
    assert recorder.bodies == []


def test_head__that_does_not_come_in_time_is_408(authority: Authority) -> None:
    with served(Recorder(), tls=tls_of(authority)) as server:
        assert status_of(exchange(server, trusting(authority), b"GET / HT")) == 408


def test_answer__that_is_cut_does_not_look_whole(authority: Authority) -> None:
    """Ended by close (HTTP/1.0), only close_notify says that it is whole."""

    def breaking(_environ: object, start_response: object) -> object:
        start_response("200 OK", [])  # type: ignore[operator]
        yield b"a part"
        raise OSError("the disk is gone")

    with served(breaking, tls=tls_of(authority)) as server, pytest.raises((ssl.SSLEOFError, ConnectionResetError)):
        read_strictly(server, authority, b"GET / HTTP/1.0\r\nHost: test\r\n\r\n")


def test_answer__that_is_whole_ends_with_close_notify(authority: Authority) -> None:
    with served(Recorder(), tls=tls_of(authority)) as server:
        assert read_strictly(server, authority, request("GET /", CLOSE)).endswith(b"hello")


def read_strictly(server: Served, authority: Authority, head: bytes) -> bytes:
    """The answer up to close_notify; Python's sockets take any end for that unless they are told not to."""
    with trusting(authority).wrap_socket(
        server.connect(), server_hostname="localhost", suppress_ragged_eofs=False
    ) as client:
        client.sendall(head)
        return read_to_end(client)


def test_stop__lets_a_running_upload_end(authority: Authority) -> None:
    recorder = Recorder()
    options = replace(QUICK, shutdown_timeout_s=10.0, stall_timeout_s=10.0)
    with served(recorder, options, tls_of(authority)) as server, connect(server, trusting(authority)) as client:
        client.sendall(request("PUT /a", "Content-Length: 10", body=b"12345"))
        assert recorder.reading.acquire(timeout=10)
        stopping = stop_in_thread(server)
        eventually(lambda: not server.http.ready)
        client.sendall(b"67890")
        assert status_of(read_to_end(client)) == 201
        stopping.join()
    assert recorder.bodies == [b"1234567890"]


def stop_in_thread(server: Served) -> threading.Thread:
    thread = threading.Thread(target=server.http.stop)
    thread.start()
    return thread


def test_too_many_connections__are_closed_before_the_handshake(authority: Authority) -> None:
    with served(Recorder(), ServerOptions(connections_max=1), tls_of(authority)) as server:
        context = trusting(authority)
        with connect(server, context) as first:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                connect(server, context)
            first.sendall(request("GET /", CLOSE))
            assert status_of(read_to_end(first)) == 200


@pytest.mark.parametrize(
    ("host", "is_told"),
    [
        ("drive.example.org", True),
        ("nas:8443", True),
        ("localhost:8443", False),
        ("[::1]:443", False),
        ("10.0.0.1", False),
    ],
)
def test_hsts__is_for_names_that_others_use(authority: Authority, host: str, *, is_told: bool) -> None:
    tls = Tls(TlsFiles(authority.certificate), hsts_s=86400)
    head = f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    with served(Recorder(), tls=tls) as server:
        reply = exchange(server, trusting(authority), head)
    assert (b"Strict-Transport-Security: max-age=86400\r\n" in reply) == is_told
