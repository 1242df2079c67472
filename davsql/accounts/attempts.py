"""Failed logins, and how long whoever caused them has to wait: twice as long after each further one.

Counted are three subjects, each with a limit of its own:
  the address          slows one machine that tries many names;
  name and address     slows one machine that tries one name;
  the name             slows many machines that try one name. It waits a minute at most, and addresses from which the
                       account was used before do not wait: else anybody could lock anybody out.
The counts are in the account file, so they are those of all processes, and survive a restart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from davsql.store.transaction import ReadTx, WriteTx

NS_PER_S = 1_000_000_000
FORGET_NS = 3600 * NS_PER_S  # without a failure: all is forgotten
MAX_ROWS = 20_000  # the oldest go first


class Limit(NamedTuple):
    """How often a subject may fail, and how long it waits at most."""

    free: int
    longest_s: int


OF_ADDRESS = Limit(20, 900)
OF_NAME_AND_ADDRESS = Limit(10, 900)  # more than the processes that each meet one old password once an hour
OF_NAME = Limit(50, 60)


class Subject(NamedTuple):
    """What failures are counted for."""

    digest: bytes
    limit: Limit


def subjects_of(key: str | None, address: str, *, is_known: bool) -> tuple[Subject, ...]:
    """What an attempt is counted for, and checked against.

    Args:
        key: the account's name in lookup form; None where the credentials have none.
        address: as `networks.neighbourhood` gives it.
        is_known: the account was used from this address before.
    """
    if key is None:
        return (_subject(OF_ADDRESS, "", address),)
    pair = _subject(OF_NAME_AND_ADDRESS, key, address)
    return (pair,) if is_known else (pair, _subject(OF_ADDRESS, "", address), _subject(OF_NAME, key, ""))


SELECT_FAILURES = "SELECT count, last_failed_at, blocked_until FROM failures WHERE subject = ?"


def waiting_s(tx: ReadTx, subjects: Iterable[Subject]) -> int:
    """Whole seconds until one of the subjects may try again; 0: now."""
    longest = 0
    for subject in subjects:
        row = tx.row(SELECT_FAILURES, (subject.digest,))
        if row is not None:
            # A clock that was set back must not shut anybody out for longer than the limit.
            longest = max(longest, min(row[2] - tx.now, subject.limit.longest_s * NS_PER_S))
    return -(-longest // NS_PER_S)


SET_FAILURE = """
INSERT INTO failures (subject, count, last_failed_at, blocked_until) VALUES (:subject, :count, :now, :until)
ON CONFLICT (subject) DO UPDATE SET
  count = excluded.count, last_failed_at = excluded.last_failed_at, blocked_until = excluded.blocked_until
"""
FORGET_OLD = "DELETE FROM failures WHERE last_failed_at < ?"
FORGET_OLDEST = """
DELETE FROM failures WHERE last_failed_at <= (
  SELECT last_failed_at FROM failures ORDER BY last_failed_at DESC LIMIT 1 OFFSET ?
)
"""


def record_failure(tx: WriteTx, subjects: Iterable[Subject]) -> None:
    """Count one more failure for each of the subjects."""
    for subject in subjects:
        row = tx.row(SELECT_FAILURES, (subject.digest,))
        count = 1 if row is None or row[1] < tx.now - FORGET_NS else row[0] + 1
        wait_s = (
            min(2 ** min(count - subject.limit.free, 30), subject.limit.longest_s) if count >= subject.limit.free else 0
        )
        until = tx.now + int(wait_s) * NS_PER_S
        tx.change(SET_FAILURE, {"subject": subject.digest, "count": count, "now": tx.now, "until": until})
    tx.change(FORGET_OLD, (tx.now - FORGET_NS,))
    tx.change(FORGET_OLDEST, (MAX_ROWS,))


FORGET_SUBJECT = "DELETE FROM failures WHERE subject = ?"


def forgive(tx: WriteTx, subject: Subject) -> None:
    """Forget the failures of a subject."""
    tx.change(FORGET_SUBJECT, (subject.digest,))


def has_failed(tx: ReadTx, subject: Subject) -> bool:
    """Whether there is something to forgive."""
    return tx.row(SELECT_FAILURES, (subject.digest,)) is not None


def _subject(limit: Limit, key: str, address: str) -> Subject:
    return Subject(hashlib.sha256(f"{key}\0{address}".encode("utf-8", "surrogatepass")).digest(), limit)
