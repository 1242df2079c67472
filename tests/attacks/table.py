"""Hostile requests, raw, and the statuses that may answer them. None of them may change anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tests.attacks.conftest import CONTENT
from tests.server.test_framing import MALFORMED

CLOSE = "Connection: close"
BAD_PATHS = {
    "dots": ("/..", 400),
    "dots within": ("/c/../f", 400),
    "encoded dots": ("/%2e%2e/f", 400),
    "half encoded dots": ("/.%2E/f", 400),
    "one dot": ("/./f", 400),
    "encoded slash": ("/c%2Fh", 400),
    "dots and encoded slash": ("/..%2f..%2fetc%2fpasswd", 400),
    "NUL": ("/f%00", 400),
    "NUL before an ending": ("/f%00.txt", 400),
    "CR": ("/f%0D", 400),
    "LF": ("/f%0A", 400),
    "DEL": ("/f%7F", 400),
    "C1 control": ("/f%C2%85", 400),
    "invalid UTF-8": ("/%FF", 400),
    "overlong UTF-8": ("/%C0%AE%C0%AE/", 400),
    "overlong slash": ("/%C0%AFf", 400),
    "surrogate": ("/%ED%A0%80", 400),
    "no escape": ("/%zz", 400),
    "half an escape": ("/f%", 400),
    "a name of 300 bytes": ("/" + "n" * 300, 403),
    "a path of 5,000 bytes": ("/" + "n/" * 2500, 414),
    "a path too deep": ("/" + "n/" * 200 + "n", 403),
}
ODD_PATHS = {  # names like others
    "twice encoded dots": "/%252e%252e",
    "backslashes": "/..%5c..%5cf",
    "drive letter": "/C:%5cf",
}
CHUNKS = {
    "0x5": b"0x5\r\nabcde\r\n0\r\n\r\n",
    "+5": b"+5\r\nabcde\r\n0\r\n\r\n",
    "-5": b"-5\r\nabcde\r\n0\r\n\r\n",
    "0_5": b"0_5\r\nabcde\r\n0\r\n\r\n",
    "blank before": b" 5\r\nabcde\r\n0\r\n\r\n",
    "empty": b"\r\nabcde\r\n0\r\n\r\n",
    "bare LF": b"5\nabcde\r\n0\r\n\r\n",
    "bare LF in an extension": b"5;a\nabcde\r\n0\r\n\r\n",
    "control in an extension": b"5;a=\x01\r\nabcde\r\n0\r\n\r\n",
    "data too long": b"5\r\nabcdef\r\n0\r\n\r\n",
    "data too short": b"5\r\nabcd\r\n0\r\n\r\n",
    "oversize": b"fffffffffffffffff\r\nabcde\r\n0\r\n\r\n",
    "long line": b"5;" + b"a" * 2000 + b"\r\nabcde\r\n0\r\n\r\n",
    "bad trailer": b"5\r\nabcde\r\n0\r\nX y\r\n\r\n",
    "trailer without end": b"5\r\nabcde\r\n0\r\n" + b"X: y\r\n" * 3000 + b"\r\n",
    "no last chunk": b"5\r\nabcde\r\n",
    "no end of the last chunk": b"5\r\nabcde\r\n0\r\n",
}
CONDITIONS = [
    "x", "()", "(", ")", "(<urn:x>", "<urn:x>)", "(urn:x)", "([e)", '(["e)', "(Not)", "(Not Not <urn:x>)", "<urn:x>",
    "(<urn:x>) x", "(<urn:x>) <", "(<>)", '([W/])', "(" * 1000, "(<urn:x>)" * 101, "(" + "<urn:x>" * 1001 + ")",
    "<http://127.0.0.1/f> ()", "</f?q> (<urn:x>)", "</../f> (<urn:x>)", "<::::> (<urn:x>)",
]  # fmt: skip
ENTITIES = {
    "billion laughs": '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><a>&b;</a>',
    "external entity": '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
    "external DTD": '<!DOCTYPE a SYSTEM "http://127.0.0.1:1/x.dtd"><a/>',
    "parameter entity": '<!DOCTYPE a [<!ENTITY % x SYSTEM "file:///etc/passwd">%x;]><a/>',
    "after a comment": "<!-- <a> --><?x <a> ?><!DOCTYPE a><a/>",
}
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"]
PROP = '<D:propfind xmlns:D="DAV:"><D:prop>{}</D:prop></D:propfind>'
BIG = {
    "nesting of 65": (PROP.format("<a>" * 63 + "</a>" * 63), 400),
    "nesting of 1,000": (PROP.format("<a>" * 1000 + "</a>" * 1000), 400),
    "nesting of 100,000": (PROP.format("<a>" * 100_000 + "</a>" * 100_000), 400),
    "257 properties": (PROP.format("".join(f"<p{n}/>" for n in range(257))), 400),
    "50,000 properties": (PROP.format("".join(f"<p{n}/>" for n in range(50_000))), 400),
    "100,000 attributes": (PROP.format("<a " + "".join(f'a{n}="" ' for n in range(100_000)) + "/>"), 400),
    "20,000 attributes": (PROP.format("<a " + "".join(f'a{n}="" ' for n in range(20_000)) + "/>"), 400),
    "2,000 namespaces": (PROP.format("<a " + "".join(f'xmlns:n{n}="u{n}" ' for n in range(2000)) + "/>"), 400),
    "a name of 500,000": (PROP.format("<" + "a" * 500_000 + "/>"), 400),
    "1 MiB and a byte": (PROP.format("").ljust(2**20 + 1), 413),
    "20 MB": (PROP.format("<a/>" * 5_000_000), 413),
    "not well-formed": (PROP.format("<a></b>"), 400),
    "unknown entity": (PROP.format("&x;"), 400),
    "NUL reference": (PROP.format("&#0;"), 400),
    "unbound prefix": (PROP.format("<q:a/>"), 400),
    "unknown encoding": ('<?xml version="1.0" encoding="x-evil"?>' + PROP.format(""), 400),
    "UTF-7": ('<?xml version="1.0" encoding="utf-7"?>' + PROP.format(""), 400),
}


class Case(NamedTuple):
    """What is sent, and what may come back."""

    name: str
    data: bytes
    statuses: tuple[int, ...]


def request(line: str, *fields: str, body: bytes = b"") -> bytes:
    """A request that is right but for what is in the arguments."""
    lines = (f"{line} HTTP/1.1", "Host: 127.0.0.1", *fields, CLOSE, "")
    return "".join(f"{each}\r\n" for each in lines).encode("latin-1") + body


def sized(line: str, body: bytes, *fields: str) -> bytes:
    """With a body of a declared length."""
    return request(line, *fields, f"Content-Length: {len(body)}", body=body)


def chunked(line: str, body: bytes, *fields: str) -> bytes:
    """With a body in one chunk."""
    return request(line, *fields, "Transfer-Encoding: chunked", body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))


def framing() -> Iterator[Case]:
    """Requests whose end could be read in two ways, and heads without bounds."""
    for name, data in MALFORMED.items():
        yield Case(name, data, (501,) if name == "TLS hello" else (400,))
    for name, body in CHUNKS.items():
        for method, target in (("PUT", "/new"), ("PUT", "/f"), ("PROPFIND", "/f")):
            yield Case(f"chunk {name}, {method} {target}", request(f"{method} {target}", *_CHUNKED, body=body), (400,))
    yield Case("a target of 200 KB", request("GET /" + "a" * 200_000), (414,))
    yield Case("a header of 9 MB", request("GET /", "X: " + "a" * 9_000_000), (431,))
    yield Case("a header of 100,000 lines", request("GET /", *("X: y",) * 100_000), (431,))
    yield Case("a trailer with a request", sized("PUT /c", b"GET /f HTTP/1.1\r\n\r\n"), (405,))
    for method in ("POST", "TRACE"):
        yield Case(method, sized(f"{method} /f", b"x"), (405,))
    yield Case("REPORT", sized("REPORT /f", b"x"), (400,))
    yield Case("PATCH", sized("PATCH /f", b"x"), (415,))
    patch = (
        "PATCH /f",
        "Content-Type: application/x-sabredav-partialupdate",
        "X-Update-Range: bytes=" + "9" * 18 + "-",
    )
    yield Case("PATCH far away", request(*patch, "Content-Length: 1", body=b"x"), (416,))
    yield Case("CONNECT", request("CONNECT 127.0.0.1:80"), (405,))


def paths() -> Iterator[Case]:
    """Paths that lead out, or to what cannot be; they are resolved once, for the target and for Destination."""
    for name, (path, status) in BAD_PATHS.items():
        for method in ("GET", "PUT", "DELETE", "MKCOL", "PROPFIND"):
            allowed = (status, 404) if method not in ("PUT", "MKCOL") else (status, 409)
            yield Case(f"{method}, {name}", sized(f"{method} {path}", b""), allowed)
        for method in ("COPY", "MOVE"):
            yield Case(f"{method} to {name}", request(f"{method} /f", f"Destination: {path}"), (status, 409))
    for name, path in ODD_PATHS.items():
        yield Case(f"GET, {name}", request(f"GET {path}"), (404,))
    for name, url, status in (
        ("another host", "http://other.example/f", 502),
        ("another scheme", "ftp://127.0.0.1/f", 502),
        ("a network path", "//other.example/f", 502),
        ("no URL", "::::", 400),
        ("no path", "f", 400),
        ("a query", "/f?x", 400),
        ("a fragment", "/x#f", 400),
        ("a user", "http://127.0.0.1@other.example/f", 502),
        ("nothing", "", 400),
        ("the root", "/", 403),
        ("itself", "/f", 403),
    ):
        for method in ("COPY", "MOVE"):
            yield Case(f"{method} to {name}", request(f"{method} /f", f"Destination: {url}"), (status,))
    yield Case("MOVE of a tree into itself", request("MOVE /c", "Destination: /c/d"), (403,))
    yield Case("MOVE of a member onto its tree", request("MOVE /c/h", "Destination: /c"), (403,))


def xml() -> Iterator[Case]:
    """Bodies that grow, reach out, or cost more than they are worth."""
    for method in ("PROPFIND", "PROPPATCH", "LOCK"):
        for name, text in ENTITIES.items():
            for encoding in ENCODINGS:
                yield Case(f"{method}, {name}, {encoding}", sized(f"{method} /f", text.encode(encoding)), (400,))
    for name, (text, status) in BIG.items():
        yield Case(name, sized("PROPFIND /f", text.encode()), (status,))
        yield Case(f"{name}, chunked", chunked("PROPFIND /f", text.encode()), (status,))
        yield Case(f"{name}, PROPPATCH", sized("PROPPATCH /f", text.encode()), (status,))
    for depth in ("5", "-1", "1,noroot", "infinite", ""):
        yield Case(f"Depth {depth!r}", request("PROPFIND /", f"Depth: {depth}"), (400,))
    value = "x" * 70_000
    update = '<D:propertyupdate xmlns:D="DAV:"><D:set><D:prop>{}</D:prop></D:set></D:propertyupdate>'
    yield Case("a property of 70,000", sized("PROPPATCH /f", update.format(f"<p>{value}</p>").encode()), (207,))
    many = "".join(f"<p{n}>v</p{n}>" for n in range(300))
    yield Case("300 properties", sized("PROPPATCH /f", update.format(many).encode()), (400,))
    lock = "<D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype>"
    owner = f'<D:lockinfo xmlns:D="DAV:">{lock}<D:owner>{value}</D:owner></D:lockinfo>'
    yield Case("an owner of 70,000", sized("LOCK /f", owner.encode()), (413,))


def conditions() -> Iterator[Case]:
    """Conditions that cannot be understood must not count as true."""
    for text in CONDITIONS:
        for method in ("PUT", "DELETE"):
            data = sized(f"{method} /f", b"new" if method == "PUT" else b"", f"If: {text}")
            yield Case(f"{method}, If: {text[:20]}", data, (400, 412, 431))
    for text in ('W/"e"', '"e"', '"a,b", W/"c"', ", ".join(['"e"'] * 200), "e", '"'):
        yield Case(f"If-Match: {text[:20]}", sized("PUT /f", b"new", f"If-Match: {text}"), (400, 412))
    for name, field in (
        ("foreign Origin", "Origin: https://evil.example"),
        ("null Origin", "Origin: null"),
        ("own host, other port", "Origin: http://127.0.0.1:1"),
        ("cross-site", "Sec-Fetch-Site: cross-site"),
        ("same-site", "Sec-Fetch-Site: same-site"),
    ):
        for method in ("PUT", "DELETE", "MKCOL", "PROPPATCH", "LOCK", "COPY", "MOVE", "POST"):
            yield Case(f"{method}, {name}", sized(f"{method} /f", b"", field, "Destination: /x"), (403,))
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "evil.example:8080", "xlocalhost"):
        yield Case(f"rebound DNS, {host}", request("GET /f").replace(b"127.0.0.1", host.encode()), (421,))


def ranges() -> Iterator[Case]:
    """Never more than the file, never a number below zero."""
    huge = "9" * 40
    for text in (
        "bytes=" + ",".join(f"0-{n}" for n in range(5000)),
        "bytes=" + ",".join(f"{n}-{n}" for n in range(0, 4000, 2)),
        "bytes=5-1", "bytes=-0", f"bytes=0-{huge}", f"bytes={huge}-", f"bytes=-{huge}", "bytes=-", "bytes=--1",
        "bytes=0x1-2", "bytes=1_0-2", "bytes=", "bytes", "lines=0-1", "bytes=0-0,-1,", "bytes=4095-,4096-",
        "bytes=+1-2", "bytes=4096-",
    ):  # fmt: skip
        yield Case(f"Range: {text[:30]}", request("GET /f", f"Range: {text}"), (200, 206, 416))


_CHUNKED = ("Transfer-Encoding: chunked", CLOSE)
CASES = [*framing(), *paths(), *xml(), *conditions(), *ranges()]
LONGEST_ANSWER = 3 * len(CONTENT)
