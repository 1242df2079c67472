"""The socket of one connection, with its timeouts and the bytes that were read but not used yet.

On Linux the kernel keeps the timeouts (SO_RCVTIMEO, SO_SNDTIMEO): one system call an operation, where Python's own
timeouts need a poll before each. One thread at a time uses a wire; only `interrupt` may come from another.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from davsql.server.options import ServerOptions

RECEIVE_BYTES = 64 * 1024  # one read of heads and chunk lines
JOIN_LIMIT = 64 * 1024  # below this, copying parts together is cheaper than a scattered send
LINGER_DRAIN_BYTES = 64 * 1024 * 1024  # what a closing connection reads away at most so that no RST hides the answer

SEND_SLICE_S = 5.0  # between two looks at a client that takes its answer slowly

HAS_KERNEL_TIMEOUTS = sys.platform == "linux"
NO_WAIT = socket.MSG_DONTWAIT if HAS_KERNEL_TIMEOUTS else 0  # elsewhere the socket itself has the timeout


def _nothing() -> None:
    """What a wire does before it waits, where nobody says otherwise."""


class ClientGoneError(ConnectionError):
    """Nothing more can be sent: the client closed, takes nothing, or the server is stopping."""


class Wire:
    """Bytes in and out. `has_data`, `closed` and `close` are what cheroot expects of a connection's `rfile`."""

    def __init__(self, sock: socket.socket, options: ServerOptions) -> None:
        self._socket = sock
        self._options = options
        self._buffer = b""
        self._position = 0
        self._wait_s = -1.0
        self.received_bytes = 0
        self.sent_bytes = 0
        self.closed = False
        self.is_interrupted = False
        self.variables: dict[str, str] = {}  # what the connection adds to the environ of its requests
        self.is_answer_ended_by_close = False  # HTTP/1.0: a FIN would make a part of the answer look whole
        self.before_wait: Callable[[], object] = _nothing  # called before the thread may have to wait for the client
        if HAS_KERNEL_TIMEOUTS:
            sock.settimeout(None)
            self._set_kernel_timeout(socket.SO_SNDTIMEO, min(options.stall_timeout_s, SEND_SLICE_S))

    # --- in -------------------------------------------------------------------------------------------------------

    def has_data(self) -> bool:
        """Whether bytes are here that were read and not taken."""
        return self._position < len(self._buffer)

    def receive(self, limit: int, wait_s: float) -> bytes | None:
        """Up to `limit` bytes from the socket; b"" when the peer ended its side, None when nothing came in time."""
        if self.is_interrupted:
            return b""
        if wait_s:
            self.before_wait()
        if wait_s != self._wait_s and (wait_s or not NO_WAIT):
            self._set_wait(wait_s)
        try:
            data = self._socket.recv(limit, 0 if wait_s else NO_WAIT)
        except (BlockingIOError, TimeoutError):
            return None
        self.received_bytes += len(data)
        return data

    def receive_if_there(self) -> bytes | None:
        """Like `receive`, for threads that must not wait."""
        self._socket.settimeout(0)
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return None
        finally:
            self._restore_timeouts()
        self.received_bytes += len(data)
        return data

    def take_buffered(self, limit: int) -> bytes:
        """Up to `limit` of the bytes that are here."""
        start = self._position
        data = self._buffer[start : start + limit]
        self._position = start + len(data)
        return data

    def prepend(self, data: bytes) -> None:
        """Keep bytes before those that are here."""
        self._buffer, self._position = data + self._buffer[self._position :], 0

    def append(self, data: bytes) -> None:
        """Keep bytes behind those that are here."""
        self._buffer, self._position = self._buffer[self._position :] + data, 0

    def take_line(self, limit: int) -> bytes | None:
        """A line without its CRLF if a whole one is here; None otherwise.

        Raises:
            ValueError: there is no line end within `limit` bytes, or LF without CR.
        """
        start = self._position
        end = self._buffer.find(b"\n", start, start + limit)
        if end < 0:
            if len(self._buffer) - start >= limit:
                raise ValueError("line too long")
            return None
        line = self._buffer[start:end]
        if not line.endswith(b"\r"):
            raise ValueError("LF without CR")
        self._position = end + 1
        return line[:-1]

    # --- out ------------------------------------------------------------------------------------------------------

    def send(self, *parts: bytes) -> None:
        """Send everything, in one system call where the system takes it.

        Raises:
            ClientGoneError: the client closed, takes nothing for too long, or the server is stopping.
        """
        if self.is_interrupted:
            raise ClientGoneError("the server is stopping")
        try:
            if not HAS_KERNEL_TIMEOUTS:
                self._set_wait(self._options.stall_timeout_s)
            self._send_parts(parts)
        except OSError as error:
            raise ClientGoneError(f"cannot send: {error}") from error

    def _send_parts(self, parts: tuple[bytes, ...]) -> None:
        size = sum(map(len, parts))
        began = time.monotonic()
        try:
            if size <= JOIN_LIMIT or not hasattr(self._socket, "sendmsg"):
                sent = self._socket.send(parts[0] if len(parts) == 1 else b"".join(parts), NO_WAIT)
            else:
                sent = self._socket.sendmsg(parts, (), NO_WAIT)
        except BlockingIOError:
            sent = 0
        self.sent_bytes += sent
        if sent < size:
            self.before_wait()
            self._send_rest(memoryview(b"".join(parts))[sent:], began)

    def _send_rest(self, rest: memoryview, began: float) -> None:
        """A send that came back early: the client is slow, and takes its time in slices of the kernel's timeout.

        What the first send gave to the system's buffer does not count: the client may not have taken it.
        """
        moved, sent_total = began, 0
        while rest:
            try:
                sent = self._socket.send(rest)
            except BlockingIOError:
                sent = 0
            rest = rest[sent:]
            sent_total += sent
            self.sent_bytes += sent
            now = time.monotonic()
            moved = now if sent else moved
            waited_s = now - began
            is_slow = waited_s > self._options.rate_grace_s and sent_total < self._options.rate_min * waited_s
            if (rest and is_slow) or now - moved >= self._options.stall_timeout_s:
                raise TimeoutError("the client takes the answer too slowly")

    def try_send(self, data: bytes) -> None:
        """Send if that takes no waiting; for threads that must not wait."""
        with suppress(OSError):
            self._socket.settimeout(0)
            try:
                self.sent_bytes += self._socket.send(data)
            finally:
                self._restore_timeouts()

    # --- the end --------------------------------------------------------------------------------------------------

    def interrupt(self) -> None:
        """Make the thread that uses this wire see its end soon; any thread may call this."""
        self.is_interrupted = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD if self.is_answer_ended_by_close else socket.SHUT_RDWR)

    def reset(self) -> None:
        """Make the coming close an RST, so that the client cannot take what it has got for a whole answer."""
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def linger(self, timeout_s: float) -> None:
        """End our side and read away what still comes: closing with unread bytes would be an RST, which can take the
        answer away before the client has read it (RFC 9112 9.6).
        """
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            deadline, budget = time.monotonic() + timeout_s, LINGER_DRAIN_BYTES
            while budget > 0 and (left_s := deadline - time.monotonic()) > 0:
                data = Wire.receive(self, 4 * RECEIVE_BYTES, left_s)  # nobody looks at it, so it need not be decrypted
                if not data:
                    return
                budget -= len(data)

    def close(self) -> None:
        """Close the socket."""
        self.closed = True
        with suppress(OSError):
            self._socket.close()

    # --- timeouts -------------------------------------------------------------------------------------------------

    def _restore_timeouts(self) -> None:
        self._socket.settimeout(None)
        self._wait_s = -1.0

    def _set_wait(self, wait_s: float) -> None:
        self._wait_s = wait_s
        if HAS_KERNEL_TIMEOUTS:
            self._set_kernel_timeout(socket.SO_RCVTIMEO, wait_s)
        else:
            self._socket.settimeout(wait_s)

    def _set_kernel_timeout(self, option: int, seconds: float) -> None:
        whole = int(seconds)
        micros = max(1, int((seconds - whole) * 1_000_000)) if whole == 0 else int((seconds - whole) * 1_000_000)
        self._socket.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", whole, micros))  # 0, 0 means for ever
