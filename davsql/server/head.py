"""Request line and header: read by llhttp, then checked for what decides where a request ends.

llhttp refuses, in its strict mode (checked by tests, since everything else rests on it): bare CR or LF, NUL and other
control characters, obs-fold, space before the colon, bad field names, Content-Length that is repeated, signed or beside
Transfer-Encoding. It is given the head only, never a byte of the body, so it cannot take a body for a request.
"""

from __future__ import annotations

import re
from functools import lru_cache

import httptools

from davsql.server.errors import RequestError, bad_request
from davsql.server.options import ServerOptions

HEAD_END = b"\r\n\r\n"
BLANK_LIMIT = 16  # bytes of empty lines before a request line (RFC 9112 2.2)
LENGTH_DIGITS_MAX = 18

# Fields that make no sense twice; joined with a comma they would mean something else (RFC 9110 5.3).
SINGLE_FIELDS = """
    Authorization Content-Length Content-Type Depth Destination Expect From Host If If-Modified-Since If-Range
    If-Unmodified-Since Lock-Token Max-Forwards Origin Overwrite Range Referer Transfer-Encoding User-Agent
"""

HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+;=-]*)(?::[0-9]*)?")
ABSOLUTE_TARGET = re.compile(r"https?://([^/?#]+)(/[^?#]*)?(?:\?([^#]*))?", re.IGNORECASE)


class RequestHead:
    """One parsed head. llhttp calls the `on_` methods; `check` fills the rest or refuses."""

    __slots__ = (
        "content_length",
        "expects_continue",
        "fields",
        "is_chunked",
        "is_complete",
        "keeps_alive",
        "method",
        "path",
        "query",
        "raw_target",
        "target",
        "variables",
        "version",
    )

    def __init__(self) -> None:
        self.raw_target = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.is_complete = False
        self.method = ""
        self.target = ""
        self.path = ""  # still percent-encoded
        self.query = ""
        self.version = ""
        self.variables: dict[str, str] = {}  # the fields under their WSGI names
        self.content_length: int | None = None
        self.is_chunked = False
        self.keeps_alive = False
        self.expects_continue = False

    def on_url(self, url: bytes) -> None:
        self.raw_target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))

    def on_headers_complete(self) -> None:
        self.is_complete = True

    def on_body(self, data: bytes) -> None:
        raise bad_request(f"{len(data)} bytes of body in the head")  # never: only the head is fed

    def check(self) -> None:
        """Derive everything else from what llhttp reported.

        Raises:
            RequestError: the request must not be handled.
        """
        if self.version not in ("1.1", "1.0"):
            raise RequestError("505 HTTP Version Not Supported", "HTTP/1.1 or HTTP/1.0, please")
        if self.method == "CONNECT":
            raise RequestError("405 Method Not Allowed", "this is no proxy")
        self._collect_variables()
        self._check_target()
        self._check_framing()
        self._check_connection()

    def _collect_variables(self) -> None:
        variables = self.variables
        for name, raw_value in self.fields:
            key = variable_name(name)
            if key is None:
                continue
            value = raw_value.decode("latin-1").strip(" \t")
            if key in variables:
                if key in SINGLE_VARIABLES:
                    raise bad_request(f"{name.decode('latin-1')} is there twice")
                value = f"{variables[key]}{'; ' if key == 'HTTP_COOKIE' else ', '}{value}"
            variables[key] = value

    def _check_target(self) -> None:
        host = self.variables.get("HTTP_HOST")
        if host is None and self.version == "1.1":
            raise bad_request("Host is missing")
        if host and HOST.fullmatch(host) is None:
            raise bad_request("Host is malformed")
        self.target = target = self.raw_target.decode("latin-1")
        if "#" in target:
            raise bad_request("a request target has no fragment")
        if target.startswith("/"):
            self.path, _, self.query = target.partition("?")
        elif target == "*" and self.method == "OPTIONS":
            self.path = target
        else:
            self._take_absolute_target(target)

    def _take_absolute_target(self, target: str) -> None:
        match = ABSOLUTE_TARGET.fullmatch(target)
        if match is None or HOST.fullmatch(match[1]) is None:
            raise bad_request("the request target is malformed")
        self.path, self.query = match[2] or "/", match[3] or ""
        self.variables["HTTP_HOST"] = match[1]  # RFC 9112 3.2.2: it replaces Host

    def _check_framing(self) -> None:
        coding = self.variables.get("HTTP_TRANSFER_ENCODING")
        length = self.variables.get("CONTENT_LENGTH")
        if coding is not None:
            # RFC 9112 6.1: not in HTTP/1.0, not beside Content-Length; and chunked is the only coding known here
            if length is not None or self.version != "1.1" or coding.lower() != "chunked":
                raise bad_request("this Transfer-Encoding is not acceptable")
            self.is_chunked = True
        if length is not None:
            if not (length.isascii() and length.isdigit() and len(length) <= LENGTH_DIGITS_MAX):
                raise bad_request("Content-Length is malformed")
            self.content_length = int(length)

    def _check_connection(self) -> None:
        options = self.variables.get("HTTP_CONNECTION")
        tokens = () if options is None else [token.strip().lower() for token in options.split(",")]
        self.keeps_alive = "close" not in tokens and (self.version == "1.1" or "keep-alive" in tokens)
        expectation = self.variables.get("HTTP_EXPECT")
        if expectation is not None and self.version == "1.1":
            if expectation.lower() != "100-continue":
                raise RequestError("417 Expectation Failed", "only 100-continue can be expected")
            self.expects_continue = self.is_chunked or bool(self.content_length)


class HeadReader:
    """Takes bytes as they come until one head is complete."""

    __slots__ = ("_head", "_options", "_parser", "_tail", "size")

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._head = RequestHead()
        self._parser = httptools.HttpRequestParser(self._head)
        self._tail = b""
        self.size = 0

    def feed(self, data: bytes) -> tuple[RequestHead | None, bytes]:
        """The checked head and what follows it; (None, b"") when more is needed.

        Raises:
            RequestError: it is no request that may be handled.
        """
        if not self._tail:
            stripped = data.lstrip(b"\r\n")
            self.size += len(data) - len(stripped)
            data = stripped
            if self.size > BLANK_LIMIT:
                raise bad_request("empty lines instead of a request")
            if not data:
                return None, b""
        probe = self._tail + data
        found = probe.find(HEAD_END)
        if found < 0:
            self._parse(data)
            self._tail = probe[-3:]
            return None, b""
        end = found + len(HEAD_END) - len(self._tail)
        self._parse(data[:end])
        head = self._head
        if not head.is_complete:
            raise bad_request("the header does not end where it should")
        head.method = self._parser.get_method().decode("latin-1")
        head.version = self._parser.get_http_version()
        head.check()
        return head, data[end:]

    def _parse(self, data: bytes) -> None:
        self.size += len(data)
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
        if len(self._head.raw_target) > self._options.target_limit:
            raise RequestError("414 URI Too Long", f"at most {self._options.target_limit} bytes")
        too_many = len(self._head.fields) > self._options.header_lines_limit
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
