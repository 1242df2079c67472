"""Request bodies: `wsgi.input`, which never ends early in silence.

Rule: read() returns b"" after the declared end only. A client that closes, resets or stalls, and a server that stops,
give IncompleteBody; broken chunking gives MalformedBody. After an error every further read gives it again.
llhttp cannot be stopped at the end of a body, behind which a pipelined request may lie; so chunked bodies are
read here, by lines, as strictly as llhttp reads them (a test compares the two).
"""

from __future__ import annotations

import re
import time

from davsql.errors import DavsqlError, IncompleteBody, MalformedBody
from davsql.server.head import RequestHead
from davsql.server.options import ServerOptions
from davsql.server.wire import RECEIVE_BYTES, Wire

BLOCK_BYTES = 256 * 1024  # one receive for a caller that wants everything
BLOCK_BYTES_MAX = 1024 * 1024  # one receive: the memory is taken before it is known how much there is
CHUNK_LINE_LIMIT = 1024  # size and extensions of one chunk
EXTENSIONS_LIMIT = 16 * 1024  # bytes of all chunk extensions of one body
TRAILER_LIMIT = 8 * 1024  # bytes of all trailer lines

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
CHUNK_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,15})((?:;" + TOKEN + rb"(?:=(?:" + TOKEN + rb"|" + QUOTED + rb"))?)*)"
)  # RFC 9112 7.1.1
TRAILER_LINE = re.compile(TOKEN + rb":[\t \x21-\x7e\x80-\xff]*")

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class BodySource:
    """The bytes of one body as they come from the wire: sends 100 Continue, watches the clock."""

    def __init__(self, wire: Wire, options: ServerOptions, *, awaits_continue: bool) -> None:
        self.wire = wire
        self.awaits_continue = awaits_continue
        self.error: DavsqlError | None = None
        self._options = options
        self._deadline: float | None = None
        self._waited_s = 0.0
        self._received = 0

    def take(self, limit: int) -> bytes:
        """1 to `limit` bytes.

        Raises:
            IncompleteBody: there will be no more.
        """
        if self.wire.has_data():
            return self.wire.take_buffered(limit)
        return self._receive(limit)

    def take_line(self, limit: int) -> bytes:
        """One line without its CRLF.

        Raises:
            IncompleteBody, MalformedBody.
        """
        while True:
            try:
                line = self.wire.take_line(limit)
            except ValueError as error:
                raise self.fail(MalformedBody(str(error))) from error
            if line is not None:
                return line
            self.wire.append(self._receive(RECEIVE_BYTES))

    def hurry(self, timeout_s: float) -> None:
        """From now on wait no longer than this in all, and ask for nothing."""
        self._deadline = time.monotonic() + timeout_s

    def fail(self, error: DavsqlError) -> DavsqlError:
        """Remember why there is no more to read."""
        if self.error is None:
            self.error = error
        return self.error

    def _receive(self, limit: int) -> bytes:
        if self.error is not None:
            raise self.error
        started = time.monotonic()
        try:
            if self.awaits_continue:
                self.awaits_continue = False
                self.wire.send(CONTINUE)
            data = self.wire.receive(min(limit, BLOCK_BYTES_MAX), self._wait_s(started))
        except OSError as error:
            raise self.fail(IncompleteBody(f"the connection broke within the body: {error}")) from error
        if data is None:
            raise self.fail(IncompleteBody("the client sent nothing of the body for too long"))
        if not data:
            raise self.fail(IncompleteBody("the connection ended within the body"))
        self._waited_s += time.monotonic() - started
        self._received += len(data)
        if self._waited_s > self._options.rate_grace_s and self._received < self._options.rate_min * self._waited_s:
            raise self.fail(IncompleteBody("the client sends the body too slowly"))
        return data

    def _wait_s(self, now: float) -> float:
        if self._deadline is None:
            return self._options.stall_timeout_s
        return max(0.001, min(self._options.stall_timeout_s, self._deadline - now))


class Body:
    """A body of zero bytes, and the base of the others."""

    def __init__(self, source: BodySource) -> None:
        self.source = source

    @property
    def is_complete(self) -> bool:
        """Whether nothing of the body is left on the wire."""
        return True

    @property
    def left_at_least(self) -> int:
        """Bytes that are known to be still unread."""
        return 0

    def read(self, size: int | None = -1) -> bytes:
        """1 to `size` bytes; all the rest without a size; b"" only when the whole body was read.

        Raises:
            IncompleteBody: the client did not send what it had declared.
            MalformedBody: the chunked coding is broken.
        """
        if size is None or size < 0:
            return b"".join(iter(lambda: self._read(BLOCK_BYTES), b""))
        return self._read(size) if size else b""

    def _read(self, size: int) -> bytes:
        del size
        return b""

    def drain(self, limit: int, timeout_s: float) -> bool:
        """Read away what is left if that is little; False: the connection cannot carry another request."""
        if self.is_complete:
            return True
        if self.source.awaits_continue or self.source.error is not None or self.left_at_least > limit:
            return False
        self.source.hurry(timeout_s)
        try:
            while limit > 0:
                data = self._read(RECEIVE_BYTES)
                if not data:
                    return True
                limit -= len(data)
        except DavsqlError:
            pass
        return self.is_complete


class LengthBody(Body):
    """A body with Content-Length."""

    def __init__(self, source: BodySource, length: int) -> None:
        super().__init__(source)
        self._left = length

    @property
    def is_complete(self) -> bool:
        return self._left == 0

    @property
    def left_at_least(self) -> int:
        return self._left

    def _read(self, size: int) -> bytes:
        if self._left == 0:
            return b""
        data = self.source.take(min(size, self._left))
        self._left -= len(data)
        return data


class ChunkedBody(Body):
    """A body in chunks (RFC 9112 7.1)."""

    def __init__(self, source: BodySource) -> None:
        super().__init__(source)
        self._left = 0  # of the chunk being read
        self._is_first = True
        self._is_complete = False
        self._extension_bytes = 0

    @property
    def is_complete(self) -> bool:
        return self._is_complete

    def _read(self, size: int) -> bytes:
        if self.source.error is not None:
            raise self.source.error
        parts: list[bytes] = []
        while size > 0 and not self._is_complete:
            if self._left == 0:
                self._start_chunk()
                continue
            data = self.source.take(min(size, self._left))
            self._left -= len(data)
            size -= len(data)
            parts.append(data)
            if not self.source.wire.has_data():
                break  # rather a small answer now than a wait for more
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _start_chunk(self) -> None:
        if not self._is_first and self.source.take_line(2):
            raise self._malformed("chunk data longer than its size")
        self._is_first = False
        match = CHUNK_LINE.fullmatch(self.source.take_line(CHUNK_LINE_LIMIT))
        if match is None:
            raise self._malformed("bad chunk size")
        self._extension_bytes += len(match[2])
        if self._extension_bytes > EXTENSIONS_LIMIT:
            raise self._malformed("too many chunk extensions")
        self._left = int(match[1], 16)
        if self._left == 0:
            self._skip_trailer()
            self._is_complete = True

    def _skip_trailer(self) -> None:
        budget = TRAILER_LIMIT
        while line := self.source.take_line(budget):
            budget -= len(line) + 2
            if budget <= 0 or TRAILER_LINE.fullmatch(line) is None:
                raise self._malformed("bad trailer")

    def _malformed(self, reason: str) -> DavsqlError:
        return self.source.fail(MalformedBody(reason))


def open_body(head: RequestHead, wire: Wire, options: ServerOptions) -> Body:
    """The body that `head` announces."""
    source = BodySource(wire, options, awaits_continue=head.expects_continue)
    if head.is_chunked:
        return ChunkedBody(source)
    if head.content_length:
        return LengthBody(source, head.content_length)
    return Body(source)
