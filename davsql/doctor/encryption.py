"""Checks of the key of a store."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from davsql.doctor.finding import Finding, human_age, human_bytes, passed, warned
from davsql.errors import KeyFailed
from davsql.keys.envelope import Envelope
from davsql.keys.file import keys_file, read_envelopes
from davsql.store.cipher import is_plain_file
from davsql.store.convert import part_of
from davsql.store.options import StoreOptions

DATA_KEY_AGE_S = 2 * 365 * 86_400  # beyond, too many have had a look at it
ENCRYPTED_BYTES_MAX = 1 << 50  # far below what AES in CBC mode stands with random vectors (NIST SP 800-38A)


def check_encryption(file: Path, options: StoreOptions) -> Iterator[Finding]:
    """All of them; one line where the store is plain."""
    part = part_of(file.resolve())
    if part.exists():
        what = "plain copy" if is_plain_file(part) else "copy under another key"
        yield warned("unfinished copy", f"{part.name} is an unfinished {what}", "give the command again, or delete it")
    if options.key is None:
        yield passed("encryption", "none: whoever can read the file can read everything")
        return
    try:
        found = read_envelopes(keys_file(file.resolve()))
    except KeyFailed as error:
        yield warned("encryption", str(error), "a copy lies beside each backup: its name ends in .keys")
        return
    for envelope in found:
        if envelope.store == options.key.envelope.store:
            yield _data_key(envelope, file.stat().st_size)
            yield _keys(envelope)


def _data_key(envelope: Envelope, size_bytes: int) -> Finding:
    age_s = (datetime.now(UTC) - datetime.fromisoformat(envelope.created_at)).total_seconds()
    found = f"{envelope.cipher} 4, {human_bytes(size_bytes)} under a data key made {human_age(max(0, age_s))} ago"
    if age_s <= DATA_KEY_AGE_S and size_bytes <= ENCRYPTED_BYTES_MAX:
        return passed("encryption", found)
    return warned("encryption", found, "davsql key rotate --data-key")


def _keys(envelope: Envelope) -> Finding:
    names = ", ".join(each.name for each in envelope.keys)
    if len(envelope.keys) > 1:
        return passed("keys", f"each of these opens it: {names}")
    return warned("keys", f"only {names} opens it: lost, all is lost", "davsql key add --name recovery --recovery")
