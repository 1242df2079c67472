"""Chunked bodies are read by code of this package; llhttp must agree with what it takes."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

import httptools
import pytest

from davsql.errors import IncompleteBody, MalformedBody
from davsql.server.body import BodySource, ChunkedBody
from davsql.server.options import ServerOptions
from davsql.server.wire import Wire

HEAD = b"PUT / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
PIECES = [
    b"0",
    b"1",
    b"2",
    b"a",
    b"\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b";",
    b"=",
    b'"',
    b" ",
    b"x",
    b"X: y",
    b"\0",
    b"0\r\n\r\n",
]
OPTIONS = ServerOptions(stall_timeout_s=0.5)


class Observer:
    """What llhttp makes of a body."""

    def __init__(self) -> None:
        self.body = b""
        self.is_complete = False

    def on_body(self, data: bytes) -> None:
        if not self.is_complete:
            self.body += data

    def on_message_complete(self) -> None:
        self.is_complete = True


def read_ours(data: bytes) -> bytes | None:
    """The body, None if it is not taken."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.close()
        body = ChunkedBody(BodySource(Wire(ours, OPTIONS), OPTIONS, awaits_continue=False))
        try:
            return body.read()
        except (IncompleteBody, MalformedBody):
            return None


def read_theirs(data: bytes) -> bytes | None:
    observer = Observer()
    with suppress(httptools.HttpParserError):  # it may be about what follows the body
        httptools.HttpRequestParser(observer).feed_data(HEAD + data)
    return observer.body if observer.is_complete else None


def random_body(source: random.Random) -> bytes:
    if source.random() < 0.5:  # sound, then one fault
        parts = [source.randbytes(source.randrange(1, 20)) for _ in range(source.randrange(4))]
        good = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        at = source.randrange(len(good))
        return good[:at] + source.choice(PIECES) + good[at + source.randrange(2) :]
    return b"".join(source.choice(PIECES) for _ in range(source.randrange(1, 14)))


@pytest.mark.parametrize("seed", range(4))
def test_chunked_body__takes_only_what_llhttp_takes(seed: int) -> None:
    source = random.Random(seed)  # noqa: S311
    taken = 0
    for _ in range(1500):
        data = random_body(source)
        ours = read_ours(data)
        if ours is not None:
            taken += 1
            assert read_theirs(data) == ours, data
    assert taken > 20
