"""Request line and header: read by llhttp, then checked for what decides where a request ends.

llhttp refuses, in its strict mode (checked by tests, since everything else rests on it): bare CR or LF, NUL and other
control characters, obs-fold, space before the colon, bad field names, Content-Length that is repeated, signed or beside
Transfer-Encoding. It is given the head only, never a byte of the body, so it cannot take a body for a request.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import httptools

from davsql.server.errors import RequestError, bad_request
from davsql.server.options import ServerOptions

LINE_END = b"\r\n"
HEAD_END = b"\r\n\r\n"
REMEMBERED_BYTES = 4096  # of the header of one connection
BLANK_LIMIT = 16  # bytes of empty lines before a request line (RFC 9112 2.2)
LENGTH_DIGITS_MAX = 18

# Fields that make no sense twice; joined with a comma they would mean something else (RFC 9110 5.3).
SINGLE_FIELDS = """
    Authorization Content-Length Content-Type Depth Destination Expect From Host If If-Modified-Since If-Range
    If-Unmodified-Since Lock-Token Max-Forwards Origin Overwrite Range Referer Transfer-Encoding User-Agent
"""

HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+;=-]*)(?::[0-9]*)?")
ABSOLUTE_TARGET = re.compile(r"https?://([^/?#]+)(/[^?#]*)?(?:\?([^#]*))?", re.IGNORECASE)


class Fields:
    """A header, checked as far as that needs no request line. Requests with the same bytes share one; immutable."""

    __slots__ = ("block", "connection", "content_length", "expectation", "host", "is_chunked", "variables")

    def __init__(self, raw: Sequence[tuple[bytes, bytes]], block: bytes | None) -> None:
        """Args: raw: from llhttp; block: what it read them from, where others are to be compared with it.

        Raises:
            RequestError: the request must not be handled.
        """
        self.block = block
        self.variables = variables = _variables(raw)  # under their WSGI names
        self.host = host = variables.get("HTTP_HOST")
        if host and HOST.fullmatch(host) is None:
            raise bad_request("Host is malformed")
        self.is_chunked = False
        self.content_length: int | None = None
        self._take_framing(variables.get("HTTP_TRANSFER_ENCODING"), variables.get("CONTENT_LENGTH"))
        options = variables.get("HTTP_CONNECTION")
        self.connection = () if options is None else tuple(token.strip().lower() for token in options.split(","))
        self.expectation = variables.get("HTTP_EXPECT")

    def _take_framing(self, coding: str | None, length: str | None) -> None:
        if coding is not None:
            # RFC 9112 6.1: not beside Content-Length; and chunked is the only coding known here
            if length is not None or coding.lower() != "chunked":
                raise bad_request("this Transfer-Encoding is not acceptable")
            self.is_chunked = True
        if length is not None:
            if not (length.isascii() and length.isdigit() and len(length) <= LENGTH_DIGITS_MAX):
                raise bad_request("Content-Length is malformed")
            self.content_length = int(length)


def _variables(raw: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    variables: dict[str, str] = {}
    for name, raw_value in raw:
        key = variable_name(name)
        if key is None:
            continue
        value = raw_value.decode("latin-1").strip(" \t")
        if key in variables:
            if key in SINGLE_VARIABLES:
                raise bad_request(f"{name.decode('latin-1')} is there twice")
            value = f"{variables[key]}{'; ' if key == 'HTTP_COOKIE' else ', '}{value}"
        variables[key] = value
    return variables


class RequestHead:
    """One parsed head: a request line and its fields. Everything is checked."""

    __slots__ = (
        "content_length",
        "expects_continue",
        "fields",
        "is_chunked",
        "keeps_alive",
        "method",
        "path",
        "query",
        "target",
        "variables",
        "version",
    )

    def __init__(self, method: str, target: str, version: str, fields: Fields) -> None:
        """Raises:
        RequestError: the request must not be handled.
        """
        self.method = method
        self.target = target
        self.version = version
        self.fields = fields
        self.variables = fields.variables
        self.content_length = fields.content_length
        self.is_chunked = fields.is_chunked
        is_1_1 = version == "1.1"
        if fields.host is None and is_1_1:
            raise bad_request("Host is missing")
        if fields.is_chunked and not is_1_1:  # RFC 9112 6.1
            raise bad_request("this Transfer-Encoding is not acceptable")
        self._take_target(target)
        self.keeps_alive = "close" not in fields.connection and (is_1_1 or "keep-alive" in fields.connection)
        self.expects_continue = False
        if fields.expectation is not None and is_1_1:
            if fields.expectation.lower() != "100-continue":
                raise RequestError("417 Expectation Failed", "only 100-continue can be expected")
            self.expects_continue = self.is_chunked or bool(self.content_length)

    def _take_target(self, target: str) -> None:
        """Path, still percent-encoded, and query."""
        if "#" in target:
            raise bad_request("a request target has no fragment")
        if target.startswith("/"):
            self.path, _, self.query = target.partition("?")
            return
        if target == "*" and self.method == "OPTIONS":
            self.path, self.query = target, ""
            return
        match = ABSOLUTE_TARGET.fullmatch(target)
        if match is None or HOST.fullmatch(match[1]) is None:
            raise bad_request("the request target is malformed")
        self.path, self.query = match[2] or "/", match[3] or ""
        self.variables = self.variables | {"HTTP_HOST": match[1]}  # RFC 9112 3.2.2: it replaces Host


class _Raw:
    """What llhttp reports of one head, by calling the methods."""

    __slots__ = ("fields", "is_complete", "target")

    def __init__(self) -> None:
        self.target = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.is_complete = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))

    def on_headers_complete(self) -> None:
        self.is_complete = True

    def on_body(self, data: bytes) -> None:
        raise bad_request(f"{len(data)} bytes of body in the head")  # never: only the head is fed


class HeadReader:
    """Takes bytes as they come until one head is complete.

    A client sends the same header with request after request: where its bytes are those of the last one on the
    connection, what came of them is taken again, and llhttp reads the request line only.
    """

    __slots__ = ("_known", "_options", "_parser", "_raw", "_tail", "size")

    def __init__(self, options: ServerOptions, known: Fields | None = None) -> None:
        """Args: known: of the last head on the connection."""
        self._options = options
        self._known = known
        self._raw = _Raw()
        self._parser = httptools.HttpRequestParser(self._raw)
        self._tail = b""
        self.size = 0

    def feed(self, data: bytes) -> tuple[RequestHead | None, bytes]:
        """The checked head and what follows it; (None, b"") when more is needed.

        Raises:
            RequestError: it is no request that may be handled.
        """
        if self._tail:
            return self._go_on(data)
        stripped = data.lstrip(b"\r\n")
        self.size += len(data) - len(stripped)
        if self.size > BLANK_LIMIT:
            raise bad_request("empty lines instead of a request")
        if not stripped:
            return None, b""
        line_end = stripped.find(LINE_END)
        known = self._known
        if known is not None and known.block is not None and stripped.startswith(known.block, line_end):
            end = line_end + len(known.block)
            self._parse(stripped[:line_end] + HEAD_END, end)
            return self._head(known), stripped[end:]
        found = stripped.find(HEAD_END)
        if found < 0:
            return self._go_on(stripped)
        end = found + len(HEAD_END)
        self._parse(stripped[:end], end)
        block = stripped[line_end:end] if end - line_end <= REMEMBERED_BYTES else None
        return self._head(None, block), stripped[end:]

    def _go_on(self, data: bytes) -> tuple[RequestHead | None, bytes]:
        """A head that does not come in one piece."""
        probe = self._tail + data
        found = probe.find(HEAD_END)
        if found < 0:
            self._parse(data, len(data))
            self._tail = probe[-3:]
            return None, b""
        end = found + len(HEAD_END) - len(self._tail)
        self._parse(data[:end], end)
        return self._head(None), data[end:]

    def _head(self, known: Fields | None, block: bytes | None = None) -> RequestHead:
        if not self._raw.is_complete:
            raise bad_request("the header does not end where it should")
        method = self._parser.get_method().decode("latin-1")
        version = self._parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise RequestError("505 HTTP Version Not Supported", "HTTP/1.1 or HTTP/1.0, please")
        if method == "CONNECT":
            raise RequestError("405 Method Not Allowed", "this is no proxy")
        if known is not None and self._raw.fields:  # never: llhttp ends a line of HTTP/1.1 with CRLF only
            raise bad_request("the request line does not end where it should")
        fields = known or Fields(self._raw.fields, block)
        return RequestHead(method, self._raw.target.decode("latin-1"), version, fields)

    def _parse(self, data: bytes, size: int) -> None:
        """Let llhttp read `data`, which stands for `size` bytes of the head."""
        self.size += size
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # CONNECT or an Upgrade that is ignored; llhttp stops after the head, which is all it is given
        except httptools.HttpParserInvalidMethodError as error:
            self._check_limits()
            raise RequestError("501 Not Implemented", f"unknown method: {error}") from error
        except httptools.HttpParserError as error:
            self._check_limits()
            raise bad_request(str(error)) from error
        self._check_limits()

    def _check_limits(self) -> None:
        if len(self._raw.target) > self._options.target_limit:
            raise RequestError("414 URI Too Long", f"at most {self._options.target_limit} bytes")
        too_many = len(self._raw.fields) > self._options.header_lines_limit
        if self.size > self._options.header_limit or too_many:
            raise RequestError("431 Request Header Fields Too Large", f"at most {self._options.header_limit} bytes")


@lru_cache(maxsize=1024)
def variable_name(field: bytes) -> str | None:
    """The WSGI name of a field; None for names with an underscore, which would pass for the one with a hyphen."""
    name = field.decode("latin-1").upper()
    if "_" in name:
        return None
    name = name.replace("-", "_")
    return name if name in ("CONTENT_LENGTH", "CONTENT_TYPE") else "HTTP_" + name


SINGLE_VARIABLES = frozenset(variable_name(field.encode()) for field in SINGLE_FIELDS.split())
