"""Rows of the audit log, and the chain that ties each to all before it."""

from __future__ import annotations

import hmac
import json
from typing import NamedTuple

NO_MAC = bytes(32)  # before the first row


class Entry(NamedTuple):
    """What is recorded of one act; see entries.sql for the columns."""

    at: int
    user: str | None
    address: str
    method: str
    path: str
    destination: str | None
    status: int | None
    bytes: int | None
    request_id: str


class Record(NamedTuple):
    """A row: an entry with its place in the chain."""

    seq: int
    entry: Entry
    mac: bytes


def mac_of(key: bytes, previous: bytes, seq: int, entry: Entry) -> bytes:
    """HMAC-SHA256 (RFC 2104) over the mac of the row before and all of this one. JSON says where a value ends."""
    text = json.dumps([seq, *entry], separators=(",", ":"))
    return hmac.digest(key, previous + text.encode("ascii"), "sha256")


def link(key: bytes, previous: bytes, seq: int, entry: Entry) -> Record:
    """The row that follows one with the mac `previous`."""
    return Record(seq, entry, mac_of(key, previous, seq, entry))
