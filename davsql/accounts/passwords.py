"""Passwords as Argon2id hashes (RFC 9106), a few at a time.

One hash takes a good part of a second of a processor and 64 MiB: that is what makes guessing dear, and what makes a
flood of logins dangerous. So few are computed at one time, few wait for it, and the others are sent away.
"""

from __future__ import annotations

import secrets
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from davsql.accounts.names import name_key
from davsql.accounts.tokens import TOKEN_PREFIX
from davsql.errors import AccountError, LoginBusy

MIN_CHARACTERS = 8
MAX_BYTES = 1024
AT_ONCE = 2  # hashes that are computed at one time, in each process
WAITING = 8  # logins that may wait for one, of known and of new addresses each; each holds a thread of the server
WAIT_TIMEOUT_S = 5.0


class Passwords:
    """Makes and verifies hashes. Threads: any."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        """Args: hasher: with the cost of new hashes; None: what argon2-cffi recommends, which grows over the years."""
        self._hasher = hasher or PasswordHasher()
        self._running = threading.Semaphore(AT_ONCE)
        # A flood from elsewhere must not keep out whoever was here before: they have places of their own.
        self._places = {is_known: threading.Semaphore(AT_ONCE + WAITING) for is_known in (True, False)}
        # What the password of an unknown name is compared with: it costs the same, so nobody learns which names exist.
        self._nobodys_hash = self._hasher.hash(secrets.token_hex())

    def hash(self, password: str) -> str:
        """A new hash in PHC string format. Inside a `turn`."""
        return hash_password(password, self._hasher)

    def verify(self, password_hash: str | None, password: str) -> bool:
        """Whether it is the password; None is the hash of an unknown account, which has none. Inside a `turn`."""
        try:
            self._hasher.verify(password_hash or self._nobodys_hash, normalised(password)[: MAX_BYTES + 1])
        except (VerificationError, InvalidHashError):
            return False
        return password_hash is not None

    def is_outdated(self, password_hash: str) -> bool:
        """Whether a new hash of the same password would be costlier to guess."""
        return self._hasher.check_needs_rehash(password_hash)

    @contextmanager
    def turn(self, *, is_known: bool = False) -> Iterator[None]:
        """Wait for a place among the few that may hash.

        Args:
            is_known: the account was used from this address before.

        Raises:
            LoginBusy: too many others wait, or it takes too long.
        """
        places = self._places[is_known]
        if not places.acquire(blocking=False):
            raise LoginBusy("too many logins at one time")
        try:
            if not self._running.acquire(timeout=WAIT_TIMEOUT_S):
                raise LoginBusy("too many logins at one time")
            try:
                yield
            finally:
                self._running.release()
        finally:
            places.release()


def hash_password(password: str, hasher: PasswordHasher | None = None) -> str:
    """A new hash in PHC string format, at the cost of today or that of `hasher`."""
    return (hasher or PasswordHasher()).hash(normalised(password))


def normalised(password: str) -> str:
    """What is hashed: systems send the same letters in different forms (RFC 8265 4.2)."""
    return unicodedata.normalize("NFC", password)


def checked_password(password: str, name: str) -> str:
    """`password` if the account `name` may have it.

    Raises:
        AccountError.
    Source: NIST SP 800-63B 5.1.1.2: length counts; rules about kinds of characters do harm.
    """
    if len(password) < MIN_CHARACTERS:
        raise AccountError(f"a password has at least {MIN_CHARACTERS} characters; a few random words make a good one")
    if len(password.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise AccountError(f"a password has at most {MAX_BYTES} bytes")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in password):
        raise AccountError("a password has no control characters")
    if name_key(password) == name_key(name) or len(set(password)) == 1:
        raise AccountError("the password is too easy to guess")
    if password.startswith(TOKEN_PREFIX):
        raise AccountError(f"a password does not begin with {TOKEN_PREFIX}: tokens do")
    return password
