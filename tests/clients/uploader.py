"""An uploader as a process of its own, that goes on where an earlier one was killed: run with python -m."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from urllib.parse import unquote

from tests.dav.answers import DAV, propfind_body, responses
from tests.http_client import Client, Reply

BLOCK_BYTES = 64 * 1024
KINDS = ("patch", "content-range", "nextcloud-1", "nextcloud-2")
FILE = "/big.bin"
_UPLOAD, _DESTINATION = "/remote.php/dav/uploads/me/one", "/remote.php/dav/files/me" + FILE
_PATCH_TYPE = "application/x-sabredav-partialupdate"


def content(start: int, end: int) -> Iterator[bytes]:
    """Bytes of a file in which nothing repeats; `start` and `end` are multiples of BLOCK_BYTES."""
    for number in range(start // BLOCK_BYTES, end // BLOCK_BYTES):
        yield hashlib.shake_128(str(number).encode()).digest(BLOCK_BYTES)


class Uploader:
    """One upload of a file.

    Args:
        stop_at: where to stand still in the middle of a piece, having said so on standard output; 0: nowhere.
    """

    def __init__(self, client: Client, kind: str, size: int, piece: int, stop_at: int = 0) -> None:
        self._client, self._kind, self._size, self._piece, self._stop_at = client, kind, size, piece, stop_at

    def run(self) -> None:
        """Send what is missing."""
        start = self._begin()
        sys.stdout.write(f"from {start}\n")
        sys.stdout.flush()
        while start < self._size:
            end = min(start + self._piece, self._size)
            self._send(start, end)
            start = end
        self._finish()

    def _request(
        self, method: str, target: str, body: Iterator[bytes] | bytes | None, *headers: tuple[str, str]
    ) -> Reply:
        return self._client.request(method, target, body, headers)

    def _begin(self) -> int:
        """How much is there."""
        if not self._is_in_parts:
            reply = self._request("HEAD", FILE, None)
            return 0 if reply.status == 404 else int(reply.header("Content-Length") or "")
        made = self._request("MKCOL", _UPLOAD, None, ("Destination", _DESTINATION))
        assert made.status in (201, 405), made
        listed = responses(self._request("PROPFIND", _UPLOAD, propfind_body("getcontentlength"), ("Depth", "1")))
        parts = {href: found for href, found in listed.items() if not href.endswith("/")}
        sizes = {
            unquote(href.rpartition("/")[2]): found[200][f"{DAV}getcontentlength"].text for href, found in parts.items()
        }
        start = 0
        while sizes.get(self._part(start)) == str(min(self._piece, self._size - start)):
            start += self._piece
        return start

    @property
    def _is_in_parts(self) -> bool:
        return self._kind.startswith("nextcloud")

    def _part(self, start: int) -> str:
        last = min(start + self._piece, self._size) - 1
        return f"{start:015}-{last:015}" if self._kind == "nextcloud-1" else str(start // self._piece + 1)

    def _send(self, start: int, end: int) -> None:
        body, length = self._body(start, end), ("Content-Length", str(end - start))
        if self._kind == "nextcloud-1":
            reply = self._request("PUT", f"{_UPLOAD}/{self._part(start)}", body, length)
        elif self._kind == "nextcloud-2":
            more = ("Destination", _DESTINATION), ("OC-Total-Length", str(self._size))
            reply = self._request("PUT", f"{_UPLOAD}/{self._part(start)}", body, length, *more)
        elif self._kind == "content-range":
            span = ("Content-Range", f"bytes {start}-{end - 1}/{self._size}")
            reply = self._request("PUT", FILE, body, length, span)
        elif start == 0:
            reply = self._request("PUT", FILE, body, length)
        else:
            how = ("Content-Type", _PATCH_TYPE), ("X-Update-Range", f"bytes={start}-{end - 1}")
            reply = self._request("PATCH", FILE, body, length, *how)
        assert reply.status in (201, 204), reply

    def _body(self, start: int, end: int) -> Iterator[bytes]:
        for place, block in zip(range(start, end, BLOCK_BYTES), content(start, end), strict=True):
            if self._stop_at and place >= self._stop_at:
                sys.stdout.write(f"stopped at {place}\n")
                sys.stdout.flush()
                sys.stdin.read()
            yield block

    def _finish(self) -> None:
        if self._is_in_parts:
            more = ("Destination", _DESTINATION), ("OC-Total-Length", str(self._size))
            reply = self._request("MOVE", f"{_UPLOAD}/.file", None, *more)
            assert reply.status == 201, reply
        sys.stdout.write("done\n")
        sys.stdout.flush()


if __name__ == "__main__":
    port, size, piece, stop_at = map(int, sys.argv[2:])
    with Client(("127.0.0.1", port), timeout_s=120) as client:
        Uploader(client, sys.argv[1], size, piece, stop_at).run()
