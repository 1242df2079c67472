"""The key of the chain, and beside it the head: how far the log had come when it was last on the disk.

Both are to be kept where whoever can change the log cannot: the head is what tells that its end was cut off.
"""

from __future__ import annotations

import hmac
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple

from davsql.audit.chain import NO_MAC
from davsql.errors import AlreadyExists, NotFound, StoreDamaged, StoreUnavailable
from davsql.store.backup import place
from davsql.store.sidefile import require_private, require_private_folder

KEY_BYTES = 32


class Head(NamedTuple):
    """The end of the log, and its beginning: older rows were removed by a rotation."""

    seq: int = 0
    mac: bytes = NO_MAC
    first: int = 1


class KeyFile:
    """The key, and where its head is."""

    def __init__(self, file: Path) -> None:
        """Read a key.

        Raises:
            NotFound: there is none.
            InsecureFile: others can read or exchange it.
            StoreDamaged: it is something else.
            StoreUnavailable: it cannot be read.
        """
        if not os.path.lexists(file):
            raise NotFound(f"{file}, the key of the audit log, does not exist")
        require_private(file)
        try:
            text = file.read_bytes().strip()
        except OSError as error:
            raise StoreUnavailable(f"{file} cannot be read: {error.strerror}") from error
        if not re.fullmatch(rb"[0-9a-f]{64}", text):
            raise StoreDamaged(f"{file} is no key of an audit log")
        self.file = file
        self.head_file = file.with_name(file.name + ".head")
        self.key = bytes.fromhex(text.decode("ascii"))

    @classmethod
    def create(cls, file: Path) -> None:
        """Make a key (mode 0600), unless another process does so at the same time.

        Raises:
            InsecureFile: others can write to its folder.
            StoreUnavailable: it cannot be written.
        """
        require_private_folder(file)
        part = file.with_name(f".{file.name}.{token_hex(8)}.davsql-part")
        try:
            _write(part, token_hex(KEY_BYTES) + "\n")
            with suppress(AlreadyExists):
                place(part, file, may_replace=False)
        except OSError as error:
            raise StoreUnavailable(f"{file} cannot be made: {error.strerror}") from error
        finally:
            part.unlink(missing_ok=True)

    def head(self) -> Head | None:
        """The head; None when there is none yet.

        Raises:
            StoreDamaged: it was not written with this key.
            StoreUnavailable: it cannot be read.
        """
        try:
            found = json.loads(self.head_file.read_bytes())
            head = Head(int(found["seq"]), bytes.fromhex(found["mac"]), int(found["first"]))
            is_ours = hmac.compare_digest(self._proof(head), str(found["proof"]))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreUnavailable(f"{self.head_file} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise StoreDamaged(f"{self.head_file} is damaged") from error
        if not is_ours:
            raise StoreDamaged(f"{self.head_file} was not written by davsql, or with another key")
        return head

    def write_head(self, head: Head) -> None:
        """Put another head in the place of the present one; OSError when that cannot be done."""
        with self.prepared(head) as part:
            part.replace(self.head_file)

    @contextmanager
    def prepared(self, head: Head) -> Iterator[Path]:
        """A head on the disk that only has to be renamed; if it is not it goes away."""
        part = self.head_file.with_name(f".{self.head_file.name}.{token_hex(8)}.davsql-part")
        try:
            fields = {"seq": head.seq, "mac": head.mac.hex(), "first": head.first, "proof": self._proof(head)}
            _write(part, json.dumps(fields) + "\n")
            yield part
        finally:
            part.unlink(missing_ok=True)

    def _proof(self, head: Head) -> str:
        return hmac.digest(self.key, f"head {head.seq} {head.mac.hex()} {head.first}".encode(), "sha256").hex()


def _write(file: Path, text: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
