"""The key that a store's pages are encrypted with, wrapped by the keys of those who may open it.

Rule 1: the data key is random and never leaves this process but wrapped: AES-256-GCM under a key of its owner, which
        for a passphrase is made by Argon2id (RFC 9106).
Rule 2: all that stands beside a wrapped key is authenticated with it: whoever changes the file makes it useless, and
        gains nothing.
Rule 3: one wrapped copy is left always: the last one cannot be revoked.
An envelope bears the name of its store: the 16 bytes of salt with which the database's file begins.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from davsql.errors import BadKey, WrongKey
from davsql.keys.secret import KEY_BYTES, GivenKey, Kind, Secret

SALT_BYTES = 16
_NONCE_BYTES = 12

Cipher = Literal["sqlcipher"]


@dataclass(frozen=True, slots=True)
class Stretching:
    """How a key is made from a passphrase (Argon2id)."""

    salt: str
    iterations: int = 3
    lanes: int = 4
    memory_kib: int = 256 * 1024


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """The data key as one of those who may open the store has it."""

    key_id: str  # a key's fingerprint, or random
    name: str
    kind: Kind
    created_at: str  # UTC, ISO 8601
    stretching: Stretching | None  # of a passphrase
    nonce: str
    wrapped: str


@dataclass(frozen=True, slots=True)
class Envelope:
    """What is known of a data key without any secret, and its wrapped copies."""

    store: str  # its salt
    cipher: Cipher
    page_size: int
    created_at: str
    keys: tuple[WrappedKey, ...]


@dataclass(frozen=True, slots=True)
class DataKey:
    """What opens a store."""

    envelope: Envelope
    secret: Secret

    @property
    def raw(self) -> str:
        """The key and the salt in SQLCipher's form for raw keys (https://www.zetetic.net/sqlcipher/sqlcipher-api/#key)."""
        return f"x'{self.secret.reveal().hex()}{self.envelope.store}'"


def new_data_key(page_size: int, owners: Sequence[tuple[str, GivenKey]]) -> DataKey:
    """A random data key for a new file, wrapped for each of the owners.

    Args:
        owners: a name for each key, and the key.
    """
    envelope = Envelope(secrets.token_hex(SALT_BYTES), "sqlcipher", page_size, _now(), ())
    return owned_by(DataKey(envelope, Secret(secrets.token_bytes(KEY_BYTES))), owners)


def owned_by(key: DataKey, owners: Sequence[tuple[str, GivenKey]]) -> DataKey:
    """The same data key, wrapped for these owners and nobody else."""
    key = replace(key, envelope=replace(key.envelope, keys=()))
    for name, given in owners:
        key = with_key(key, name, given)
    return key


def unlock(envelope: Envelope, given: GivenKey) -> DataKey:
    """The data key.

    Raises:
        WrongKey: the key is none of this store.
        BadKey: the envelope was changed.
    """
    return DataKey(envelope, _unwrapped(envelope, given)[1])


def opened_by(envelope: Envelope, given: GivenKey) -> WrappedKey:
    """Which of the wrapped keys `given` is; raises as `unlock`."""
    return _unwrapped(envelope, given)[0]


def with_key(key: DataKey, name: str, given: GivenKey) -> DataKey:
    """The same with one more that opens it.

    Raises:
        BadKey: there is one of this name, or the key is there already.
    """
    for each in key.envelope.keys:
        if each.name == name:
            raise BadKey(f"there is a key named {name} already; choose another name")
        if each.key_id == given.fingerprint:
            raise BadKey(f"this key opens the store already: it is there as {each.name}")
    made = _wrap(key, name, given)
    return replace(key, envelope=replace(key.envelope, keys=(*key.envelope.keys, made)))


def exchanged(key: DataKey, old: WrappedKey, given: GivenKey) -> DataKey:
    """The same with `given` in the place of a key that opens it; raises as `with_key`."""
    others = tuple(each for each in key.envelope.keys if each != old)
    return with_key(replace(key, envelope=replace(key.envelope, keys=others)), old.name, given)


def without_key(envelope: Envelope, name: str) -> Envelope:
    """The same without the key of this name or id.

    Raises:
        BadKey: there is none, or it is the last one.
    """
    left = tuple(each for each in envelope.keys if name not in (each.name, each.key_id))
    if len(left) == len(envelope.keys):
        names = ", ".join(each.name for each in envelope.keys)
        raise BadKey(f"no key is called {name}; there are: {names}")
    if not left:
        raise BadKey(f"{name} is the last key: without it nobody could open the store; add another one first")
    return replace(envelope, keys=left)


def _wrap(key: DataKey, name: str, given: GivenKey) -> WrappedKey:
    stretching = Stretching(secrets.token_hex(SALT_BYTES)) if given.kind == "passphrase" else None
    nonce = secrets.token_bytes(_NONCE_BYTES)
    key_id = given.fingerprint or secrets.token_hex(8)
    made = WrappedKey(key_id, name, given.kind, _now(), stretching, nonce.hex(), "")
    cipher = _cipher(given, stretching)
    content = cipher.encrypt(nonce, bytes(key.secret.reveal()), _beside(key.envelope, made))
    return replace(made, wrapped=content.hex())


def _unwrapped(envelope: Envelope, given: GivenKey) -> tuple[WrappedKey, Secret]:
    for each in envelope.keys:
        if each.kind != given.kind or given.fingerprint not in (None, each.key_id):
            continue
        cipher = _cipher(given, each.stretching)
        try:
            content = cipher.decrypt(bytes.fromhex(each.nonce), bytes.fromhex(each.wrapped), _beside(envelope, each))
        except InvalidTag:
            if given.kind == "key":  # the fingerprint says that it is this one
                raise BadKey(f"what is kept for the key {each.name} was changed or damaged") from None
            continue
        return each, Secret(content)
    if given.kind == "key":
        raise WrongKey(f"the key {given.fingerprint} is none of those that open the store")
    raise WrongKey("the passphrase is wrong")


def _cipher(given: GivenKey, stretching: Stretching | None) -> AESGCM:
    content = given.secret.reveal()
    if stretching is None:
        return AESGCM(content)
    derivation = Argon2id(
        salt=bytes.fromhex(stretching.salt),
        length=KEY_BYTES,
        iterations=stretching.iterations,
        lanes=stretching.lanes,
        memory_cost=stretching.memory_kib,
    )
    return AESGCM(derivation.derive(bytes(content)))


def _beside(envelope: Envelope, key: WrappedKey) -> bytes:
    """What is authenticated together with a wrapped key (rule 2); other keys come and go."""
    about = {"envelope": asdict(replace(envelope, keys=())), "key": asdict(replace(key, wrapped=""))}
    return json.dumps(about, sort_keys=True).encode()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
