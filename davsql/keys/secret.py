"""Key material that no log and no message shows, and the one form in which people hand it over: a line of text.

A line that begins with `DAVSQL-KEY-` is a key: 256 random bits with a check sum, as `davsql key new` makes them.
Anything else is a passphrase.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
import unicodedata
from typing import Literal

from davsql.errors import BadKey

KEY_BYTES = 32
MAX_TEXT_BYTES = 4096

_PREFIX = "DAVSQL-KEY-"
_CHECK_BYTES = 3  # 35 bytes are 56 characters of base 32, without padding
_GROUP = 8

Kind = Literal["key", "passphrase"]


class Secret:
    """Bytes that are not shown, and can be wiped. Copies that Python or a library makes cannot."""

    __slots__ = ("_content",)

    def __init__(self, content: bytes | bytearray) -> None:
        self._content = bytearray(content)

    def reveal(self) -> bytearray:
        """The bytes themselves; whoever asks keeps no copy."""
        return self._content

    def wipe(self) -> None:
        """Overwrite them; the secret is of no use afterwards."""
        self._content[:] = bytes(len(self._content))

    def __repr__(self) -> str:
        return "Secret(...)"


class GivenKey:
    """What somebody handed over: a key or a passphrase."""

    def __init__(self, text: str) -> None:
        """Args: text: one line; blanks around it do not count.

        Raises:
            BadKey: it is empty, or a key that was cut or mistyped.
        """
        text = text.strip()
        if not text:
            raise BadKey("the key is empty")
        self.kind: Kind = "key" if text.upper().startswith(_PREFIX) else "passphrase"
        self.secret = Secret(_key_bytes(text) if self.kind == "key" else unicodedata.normalize("NFC", text).encode())

    @property
    def fingerprint(self) -> str | None:
        """Tells a key from others, and nothing else about it; None for a passphrase, which it would help to guess."""
        if self.kind == "passphrase":
            return None
        return hashlib.sha256(b"davsql key fingerprint\0" + self.secret.reveal()).hexdigest()[:16]


def new_key_text() -> str:
    """A new random key, as text."""
    content = secrets.token_bytes(KEY_BYTES)
    encoded = base64.b32encode(content + _check_sum(content)).decode("ascii")
    return _PREFIX + "-".join(encoded[start : start + _GROUP] for start in range(0, len(encoded), _GROUP))


def _key_bytes(text: str) -> bytes:
    encoded = text.upper().removeprefix(_PREFIX).replace("-", "").replace(" ", "")
    try:
        content = base64.b32decode(encoded)
    except (binascii.Error, ValueError):
        content = b""
    key, check_sum = content[:KEY_BYTES], content[KEY_BYTES:]
    if len(key) != KEY_BYTES or check_sum != _check_sum(key):
        raise BadKey("the key is damaged: it was cut or mistyped; take another copy of it")
    return key


def _check_sum(content: bytes) -> bytes:
    return hashlib.sha256(b"davsql key check\0" + content).digest()[:_CHECK_BYTES]
