"""What is not one clear request is refused with 400 (or its own status), never handled, and the connection ends."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest

from davsql.server.errors import RequestError
from davsql.server.head import Fields, HeadReader, RequestHead
from davsql.server.options import ServerOptions
from tests.server.raw import Recorder, Served, read_until, request, served, status_of

GET = b"GET / HTTP/1.1\r\nHost: test\r\n"
PUT = b"PUT /file HTTP/1.1\r\nHost: test\r\n"
NEXT = b"GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n"


MALFORMED = {
    "two Content-Length": PUT + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    "one Content-Length twice": PUT + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde",
    "list of Content-Length": PUT + b"Content-Length: 5, 5\r\n\r\nabcde",
    "Content-Length then chunked": PUT + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked then Content-Length": PUT + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "length +5": PUT + b"Content-Length: +5\r\n\r\nabcde",
    "length 0_5": PUT + b"Content-Length: 0_5\r\n\r\nabcde",
    "length -1": PUT + b"Content-Length: -1\r\n\r\nabcde",
    "length 0x5": PUT + b"Content-Length: 0x5\r\n\r\nabcde",
    "length 5 5": PUT + b"Content-Length: 5 5\r\n\r\nabcde",
    "length empty": PUT + b"Content-Length:\r\n\r\n",
    "length superscript": PUT + b"Content-Length: \xb2\r\n\r\nab",
    "length overflow": PUT + b"Content-Length: 18446744073709551621\r\n\r\nabcde",
    "length of 19 digits": PUT + b"Content-Length: 1000000000000000000\r\n\r\nabcde",
    "coding gzip": PUT + b"Transfer-Encoding: gzip\r\n\r\n",
    "coding gzip, chunked": PUT + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "coding chunked, gzip": PUT + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "coding chunked twice": PUT + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding xchunked": PUT + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "coding identity": PUT + b"Transfer-Encoding: identity\r\n\r\n",
    "coding vertical tab": PUT + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "coding in HTTP/1.0": b"PUT / HTTP/1.0\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "space before colon": GET + b"X : y\r\n\r\n",
    "space before the length's colon": PUT + b"Content-Length : 5\r\n\r\nabcde",
    "NUL in value": GET + b"X: a\0b\r\n\r\n",
    "NUL in name": GET + b"X\0: a\r\n\r\n",
    "control character": GET + b"X: a\x01b\r\n\r\n",
    "bare CR": GET + b"X: a\rY: b\r\n\r\n",
    "bare LF": GET + b"X: a\nY: b\r\n\r\n",
    "bare LF all over": b"GET / HTTP/1.1\nHost: test\n\n",
    "bare LF at the end": GET + b"\n",
    "obs-fold": GET + b"X: a\r\n b\r\n\r\n",
    "obs-fold first": b"GET / HTTP/1.1\r\n Host: test\r\n\r\n",
    "no colon": GET + b"X\r\n\r\n",
    "empty name": GET + b": x\r\n\r\n",
    "bad name": GET + b"X(: x\r\n\r\n",
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": GET + b"Host: test\r\n\r\n",
    "two Hosts in HTTP/1.0": b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    "Host with a path": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "Host with a user": b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
    "two Destinations": b"MOVE /a HTTP/1.1\r\nHost: t\r\nDestination: /b\r\nDestination: /c\r\n\r\n",
    "two Authorizations": GET + b"Authorization: Basic YTph\r\nAuthorization: Basic Yjpi\r\n\r\n",
    "fragment": b"GET /a#b HTTP/1.1\r\nHost: test\r\n\r\n",
    "space in target": b"GET /a b HTTP/1.1\r\nHost: test\r\n\r\n",
    "raw byte in target": b"GET /\xff HTTP/1.1\r\nHost: test\r\n\r\n",
    "NUL in target": b"GET /\0 HTTP/1.1\r\nHost: test\r\n\r\n",
    "relative target": b"GET a HTTP/1.1\r\nHost: test\r\n\r\n",
    "asterisk for GET": b"GET * HTTP/1.1\r\nHost: test\r\n\r\n",
    "other scheme": b"GET ftp://test/ HTTP/1.1\r\nHost: test\r\n\r\n",
    "user in target": b"GET http://u@test/ HTTP/1.1\r\nHost: test\r\n\r\n",
    "no authority": b"GET http:///a HTTP/1.1\r\nHost: test\r\n\r\n",
    "version 1.2": b"GET / HTTP/1.2\r\nHost: test\r\n\r\n",
    "TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "empty lines": b"\r\n" * 20,
}


@pytest.mark.parametrize("name", MALFORMED)
def test_framing__malformed_head_is_refused_and_nothing_after_it_is_read(
    name: str, live: Served, app: Recorder
) -> None:
    status = status_of(reply := live.exchange(MALFORMED[name] + NEXT))
    assert status == (501 if name == "TLS hello" else 400)
    assert reply.count(b"HTTP/1.1 ") == 1
    assert b"Connection: close" in reply
    assert app.requests == []


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (405, b"CONNECT test:80 HTTP/1.1\r\nHost: test\r\n\r\n"),
        (414, b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: test\r\n\r\n"),
        (414, b"GET /" + b"a" * 17_000 + b" HTTP/1.1\r\nHost: test\r\n\r\n"),
        (417, GET + b"Expect: 200-ok\r\n\r\n"),
        (431, GET + b"X: " + b"a" * 70_000 + b"\r\n\r\n"),
        (431, GET + b"X: " + b"a" * 9_000_000 + b"\r\n\r\n"),
        (431, GET + b"X: y\r\n" * 1_000 + b"\r\n"),
        (501, b"FOO / HTTP/1.1\r\nHost: test\r\n\r\n"),
        (501, b"get / HTTP/1.1\r\nHost: test\r\n\r\n"),
        (505, b"GET / HTTP/2.0\r\nHost: test\r\n\r\n"),
        (505, b"GET /\r\nHost: test\r\n\r\n"),
    ],
)
def test_framing__each_limit_has_its_status(status: int, data: bytes, live: Served, app: Recorder) -> None:
    assert status_of(live.exchange(data)) == status
    assert app.requests == []


@pytest.mark.parametrize(
    "body",
    [
        b"0x5\r\nabcde\r\n0\r\n\r\n",
        b"+5\r\nabcde\r\n0\r\n\r\n",
        b"-5\r\nabcde\r\n0\r\n\r\n",
        b"0_5\r\nabcde\r\n0\r\n\r\n",
        b" 5\r\nabcde\r\n0\r\n\r\n",
        b"5 \r\nabcde\r\n0\r\n\r\n",
        b"\r\nabcde\r\n0\r\n\r\n",
        b"5\nabcde\r\n0\r\n\r\n",
        b"5\rabcde\r\n0\r\n\r\n",
        b"5;a\nabcde\r\n0\r\n\r\n",
        b"5;a=\x01\r\nabcde\r\n0\r\n\r\n",
        b"5;\r\nabcde\r\n0\r\n\r\n",
        b"5;a\rb\r\nabcde\r\n0\r\n\r\n",
        b"5\r\nabcdef\r\n0\r\n\r\n",
        b"5\r\nabcd\r\n0\r\n\r\n",
        b"5\r\nabcde\n0\r\n\r\n",
        b"fffffffffffffffff\r\nabcde\r\n0\r\n\r\n",
        b"5;" + b"a" * 2000 + b"\r\nabcde\r\n0\r\n\r\n",
        b"1;a=" + b"b" * 900 + b"\r\na\r\n" + (b"1;a=" + b"b" * 900 + b"\r\na\r\n") * 30 + b"0\r\n\r\n",
        b"5\r\nabcde\r\n0\r\nX y\r\n\r\n",
        b"5\r\nabcde\r\n0\r\nX: a\0\r\n\r\n",
        b"5\r\nabcde\r\n0\r\n" + b"X: y\r\n" * 3000 + b"\r\n",
        b"5\r\nabcde\r\n0\r\n\n",
    ],
)
def test_framing__bad_chunk_is_400_and_no_body(body: bytes, live: Served, app: Recorder) -> None:
    reply = live.exchange(PUT + b"Transfer-Encoding: chunked\r\n\r\n" + body + NEXT)
    assert status_of(reply) == 400
    assert reply.count(b"HTTP/1.1 ") == 1
    assert app.requests == ["PUT /file"]
    assert (app.bodies, [type(error).__name__ for error in app.errors]) == ([], ["MalformedBody"])


@pytest.mark.parametrize(
    "body",
    [
        b"5\r\nabcde\r\n0\r\n\r\n",
        b'5;a;b=c;d="e;\\"f"\r\nabcde\r\n0\r\n\r\n',
        b"005\r\nabcde\r\n000\r\nX: y\r\nZ:\r\n\r\n",
        b"1\r\na\r\n1\r\nb\r\n3\r\ncde\r\n0\r\n\r\n",
    ],
)
@pytest.mark.parametrize("step", [1, 3, 1000])
def test_framing__good_chunks_are_read_and_the_next_request_served(
    body: bytes, step: int, live: Served, app: Recorder
) -> None:
    data = PUT + b"Transfer-Encoding: chunked\r\n\r\n" + body + request("GET /next", "Connection: close")
    reply = live.exchange(*(data[start : start + step] for start in range(0, len(data), step)))
    assert status_of(reply) == 201
    assert app.bodies == [b"abcde"]
    assert app.requests == ["PUT /file", "GET /next"]


def test_framing__target_and_names_reach_the_application(live: Served, app: Recorder) -> None:
    live.exchange(request("GET /a%20b%C3%A4%zz%2F?q=%20", "X-Y: 1", "X-Y: 2", "X_Z: 3", "Connection: close"))
    environ = app.environ
    assert environ["REQUEST_URI"] == "/a%20b%C3%A4%zz%2F?q=%20"
    assert environ["PATH_INFO"] == b"/a b\xc3\xa4%zz/".decode("latin-1")
    assert environ["QUERY_STRING"] == "q=%20"
    assert environ["HTTP_X_Y"] == "1, 2"
    assert "HTTP_X_Z" not in environ  # it could pass for X-Z
    assert environ["SERVER_PORT"] == str(live.http.bind_addr[1])


def test_framing__invalid_utf8_reaches_the_application(live: Served, app: Recorder) -> None:
    assert status_of(live.exchange(request("GET /%ff%00", "Connection: close"))) == 200
    assert app.environ["PATH_INFO"] == "/\xff\0"


def test_framing__absolute_target_gives_path_and_host(live: Served, app: Recorder) -> None:
    assert status_of(live.exchange(request("GET http://other:81/a?b", "Connection: close"))) == 200
    assert (app.environ["PATH_INFO"], app.environ["HTTP_HOST"]) == ("/a", "other:81")
    assert app.environ["REQUEST_URI"] == "http://other:81/a?b"


def test_framing__asterisk_for_options(live: Served, app: Recorder) -> None:
    assert status_of(live.exchange(request("OPTIONS *", "Connection: close"))) == 200
    assert app.requests == ["OPTIONS *"]


def test_framing__upgrade_is_ignored(live: Served, app: Recorder) -> None:
    upgrade = request("PUT /a", "Connection: Upgrade", "Upgrade: h2c", "Content-Length: 5", body=b"abcde")
    reply = live.exchange(upgrade + request("GET /b", "Connection: close"))
    assert app.bodies == [b"abcde"]
    assert app.requests == ["PUT /a", "GET /b"]
    assert reply.count(b"HTTP/1.1 ") == 2


def test_framing__head_may_come_byte_by_byte(live: Served, app: Recorder) -> None:
    with live.connect() as client:
        for byte in b"\r\n" + request("PUT /file", "Content-Length: 3", body=b"abc"):
            client.sendall(bytes([byte]))
        assert status_of(read_until(client, b"\r\n\r\n3")) == 201
    assert app.bodies == [b"abc"]


def test_framing__options_change_the_limits() -> None:
    with served(Recorder(), ServerOptions(threads=1, header_lines_limit=2, target_limit=10)) as live:
        assert status_of(live.exchange(request("GET /", "A: b", "C: d"))) == 431
        assert status_of(live.exchange(request("GET /1234567890"))) == 414


# --- a header that is that of the request before ------------------------------------------------------------------

LINES = [
    b"GET / HTTP/1.1",
    b"PUT /a?b=c HTTP/1.1",
    b"GET / HTTP/1.0",
    b"OPTIONS * HTTP/1.1",
    b"GET http://other:81/a HTTP/1.1",
    b"GET http://u@x/ HTTP/1.1",
    b"GET * HTTP/1.1",
    b"GET a HTTP/1.1",
    b"GET /a#b HTTP/1.1",
    b"CONNECT test:80 HTTP/1.1",
    b"PRI * HTTP/2.0",
    b"NONE / HTTP/1.1",
    b"GET / HTTP/1.2",
    b"get / HTTP/1.1",
    b"GET /" + b"x" * 17_000 + b" HTTP/1.1",
    b"GET  /a b HTTP/1.1 ",
    b" GET / HTTP/1.1",
    b"GET /",
    b"",
    b"GET / HTTP/1.1\nX: y",
    b"GET / HTTP/1.1\rX: y",
    b"GET /\xff\0 HTTP/1.1",
]
BLOCKS = {
    "nothing": b"",
    "Host": b"Host: test\r\n",
    "close": b"Host: test\r\nConnection: close\r\n",
    "keep-alive": b"Host: test\r\nConnection: keep-alive, x\r\n",
    "length": b"Host: a:1\r\nContent-Length: 5\r\n",
    "chunked": b"Host: a\r\nTransfer-Encoding: chunked\r\n",
    "cookies": b"Host:\r\nCookie: a\r\nCookie: b\r\n",
    "continue": b"Host: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n",
    "expect": b"Host: a\r\nExpect: x\r\n",
    "upgrade": b"Host: a\r\nUpgrade: h2c\r\nConnection: upgrade\r\n",
    "underscore": b"Host: a\r\nX_Y: 1\r\nX-Y: 2\r\n",
}
DEFAULTS = ServerOptions()
BREAKS = (b"", b"\r", b"\n", b"\r\n", b" ", b":", b"\0", b"\t")


def outcome(data: bytes, known: Fields | None, options: ServerOptions = DEFAULTS) -> object:
    """All that comes of a head: its attributes and what follows it, or its refusal."""
    try:
        head, rest = HeadReader(options, known).feed(data)
    except RequestError as refusal:
        return refusal.status
    return head and [getattr(head, name) for name in RequestHead.__slots__ if name != "fields"], rest


def fields_of(block: bytes) -> Fields | None:
    """What is known after a request with this header."""
    for version in (b"1.1", b"1.0"):
        with suppress(RequestError):
            head, _ = HeadReader(ServerOptions()).feed(b"GET / HTTP/" + version + b"\r\n" + block + b"\r\n")
            return None if head is None else head.fields
    return None


@pytest.mark.parametrize("name", BLOCKS)
def test_head__means_the_same_after_one_with_the_same_header(name: str) -> None:
    block = BLOCKS[name]
    known = fields_of(block)
    assert known is not None
    dice = random.Random(name)  # noqa: S311
    for line in LINES:
        data = line + b"\r\n" + block + b"\r\n" + NEXT
        assert outcome(data, known) == outcome(data, None), data
        for _ in range(20):  # and where the line, or its end, is broken
            place = dice.randrange(len(line) + 4)
            broken = data[:place] + dice.choice(BREAKS) + data[place + 1 :]
            assert outcome(broken, known) == outcome(broken, None), broken


def test_head__of_many_bytes_is_not_remembered() -> None:
    known = fields_of(b"Host: a\r\nX: " + b"x" * 5000 + b"\r\n")
    assert known is not None
    assert known.block is None


def test_head__of_a_known_header_counts_whole() -> None:
    known = fields_of(BLOCKS["Host"])
    options = ServerOptions(header_limit=60)
    for length in range(1, 60):
        data = b"\r\nGET /" + b"x" * length + b" HTTP/1.1\r\n" + BLOCKS["Host"] + b"\r\n"
        assert outcome(data, known, options) == outcome(data, None, options)


def test_head__of_another_header_is_read_anew() -> None:
    known = fields_of(b"Host: test\r\n")
    for block in (b"Host: tesT\r\n", b"Host: test\r\nX: y\r\n", b"Host: test\r\nHost: test\r\n", b"host: test\r\n"):
        data = b"GET / HTTP/1.1\r\n" + block + b"\r\n"
        assert outcome(data, known) == outcome(data, None)


def test_head__repeats_on_a_connection(live: Served, app: Recorder) -> None:
    same = b" HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\n"
    reply = live.exchange(
        b"".join(line + same + b"abc" for line in (b"PUT /1", b"PUT /2", b"PUT /3")) + b"CONNECT x" + same
    )
    assert (app.requests, app.bodies) == (["PUT /1", "PUT /2", "PUT /3"], [b"abc"] * 3)
    assert reply.count(b"HTTP/1.1 201") == 3
    assert reply.count(b"HTTP/1.1 405") == 1
