"""Many connections that do nothing, or next to nothing, leave the server to those who work."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.attacks.conftest import Started, started
from tests.http_client import request

pytestmark = pytest.mark.skipif(os.name == "nt", reason="ulimit")

SOON_S = 3.0  # 1 s on a machine that is not busy
CONFIGURATION = """
[server]
port = 0
workers = 1
[admin]
port = 0
[[share]]
name = "/"
db = "store.db"
"""
STALLED = b"PUT /s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\nabc"
SLOW_READER = b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def crowd() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def join(crowd: ExitStack, server: Started, count: int, data: bytes = b"") -> list[socket.socket]:
    """So many more connections, which send this and nothing more."""
    clients = []
    for _ in range(count):
        client = crowd.enter_context(socket.socket())
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(10)
        client.connect(server.address)
        client.sendall(data)
        clients.append(client)
    return clients


def answers_soon(server: Started) -> int:
    """The status of a new request."""
    began = time.monotonic()
    status = request(server.address, "GET", "/large", headers={"Range": "bytes=0-9"}).status
    assert time.monotonic() - began < SOON_S
    return status


def test_crowd__of_idle_and_stalled_connections_delays_nobody(tmp_path: Path, crowd: ExitStack) -> None:
    (tmp_path / "c.toml").write_text(CONFIGURATION)
    with started(tmp_path, "--config", "c.toml") as server:
        request(server.address, "PUT", "/large", bytes(8_000_000))
        join(crowd, server, 500)
        assert answers_soon(server) == 206
        join(crowd, server, 100, STALLED)
        join(crowd, server, 50, SLOW_READER)
        for _ in range(3):
            assert answers_soon(server) == 206
        crowd.close()


def test_crowd__that_takes_all_descriptors_gets_503_and_the_store_works_on(tmp_path: Path, crowd: ExitStack) -> None:
    (tmp_path / "c.toml").write_text(CONFIGURATION)
    with started(tmp_path, "--config", "c.toml", first="ulimit -n 64") as server:
        request(server.address, "PUT", "/large", bytes(8_000_000))
        clients = join(crowd, server, 30, b"GET / HT")
        for client in clients[:8]:
            client.sendall(b"TP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 200"
        join(crowd, server, 10, b"GET / HT")
        assert answers_soon(server) == 503
        crowd.close()
        deadline = time.monotonic() + 10
        while answers_soon(server) != 206:
            assert time.monotonic() < deadline, "it did not recover"
        assert request(server.address, "PUT", "/new", b"x").status == 201
    assert "ERROR" not in server.output.read_text(encoding="utf-8")
