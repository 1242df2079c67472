"""What tests of the engine share: looking at every row, breaking a file on purpose, guards, a hand on the clock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import apsw
import pytest

from davsql.errors import DavsqlError
from davsql.model import (
    EntityTag,
    Guard,
    IfTarget,
    Lock,
    LockRequest,
    LockScope,
    Preconditions,
    StateCondition,
    StateList,
)
from davsql.store.store import Store
from davsql.store.transaction import Row
from tests.store_steps import at

TABLES = ("meta", "nodes", "blobs", "chunks", "blob_chunks", "uploads", "properties", "locks", "sqlite_sequence")
LOCK_TIMEOUT_S = 600
NO_LOCK = "DAV:no-lock"  # RFC 4918 10.4.8: a token that no lock has

Rows = dict[str, list[Row]]


def rows_of(store: Store) -> Rows:
    """Every row of every table but the bytes of chunks."""
    with store.read() as tx:
        return {table: tx.rows(f"SELECT * FROM {table} ORDER BY 1, 2") for table in TABLES}  # noqa: S608


def count(store: Store, table: str) -> int:
    """How many rows a table has."""
    with store.read() as tx:
        return int(tx.value(f"SELECT count(*) FROM {table}"))  # noqa: S608


def chunk_count(store: Store) -> int:
    return count(store, "chunks")


@contextmanager
def refused(store: Store, error: type[DavsqlError]) -> Iterator[pytest.ExceptionInfo[DavsqlError]]:
    """What happens inside must raise exactly `error` and change no row."""
    before = rows_of(store)
    with pytest.raises(DavsqlError) as raised:
        yield raised
    assert type(raised.value) is error, repr(raised.value)
    assert rows_of(store) == before


@contextmanager
def raw(store: Store) -> Iterator[apsw.Connection]:
    """A connection that obeys nothing: no foreign keys, no CHECK, no triggers' company. For damage."""
    connection = apsw.Connection(str(store.file))
    try:
        connection.set_busy_timeout(5000)
        connection.pragma("foreign_keys", 0)
        connection.pragma("ignore_check_constraints", 1)
        connection.pragma("recursive_triggers", 0)
        yield connection
    finally:
        connection.close()


def inode_of(store: Store, path: str) -> int:
    return store.node(at(path)).inode


# --- guards ---------------------------------------------------------------------------------------------------------


def submitting(*tokens: str, principal: str = "") -> Guard:
    """A request of `principal` that submits tokens in an If header which holds whatever they are worth."""
    lists = [StateList(IfTarget.REQUEST, (StateCondition(negated=False, token=token, etag=None),)) for token in tokens]
    lists.append(StateList(IfTarget.REQUEST, (StateCondition(negated=True, token=NO_LOCK, etag=None),)))
    return Guard(Preconditions(state_lists=tuple(lists)), principal)


def when(*conditions: StateCondition, target: str | IfTarget = IfTarget.REQUEST, principal: str = "") -> Guard:
    """A request whose If header is one list."""
    about = target if isinstance(target, IfTarget) else at(target)
    return Guard(Preconditions(state_lists=(StateList(about, conditions),)), principal)


def has_token(token: str, *, negated: bool = False) -> StateCondition:
    return StateCondition(negated=negated, token=token, etag=None)


def has_etag(opaque: str | None, *, negated: bool = False, is_weak: bool = False) -> StateCondition:
    assert opaque is not None
    return StateCondition(negated=negated, token=None, etag=EntityTag(opaque, is_weak))


def if_match(*opaques: str | None, is_weak: bool = False) -> Guard:
    return Guard(Preconditions(if_match=tuple(EntityTag(str(opaque), is_weak) for opaque in opaques)))


def if_none_match(*opaques: str | None, is_weak: bool = False) -> Guard:
    return Guard(Preconditions(if_none_match=tuple(EntityTag(str(opaque), is_weak) for opaque in opaques)))


# --- locks ----------------------------------------------------------------------------------------------------------


def lock(
    store: Store,
    path: str,
    scope: LockScope = LockScope.EXCLUSIVE,
    *,
    infinity: bool = False,
    guard: Guard | None = None,
    timeout_s: int = LOCK_TIMEOUT_S,
) -> Lock:
    """Lock a path and return the lock."""
    request = LockRequest(scope, infinity, None, timeout_s)
    return store.lock(at(path), request, Guard() if guard is None else guard).lock


def locks_at(store: Store, path: str) -> list[str]:
    """Tokens of the active locks that cover a path."""
    with store.snapshot() as view:
        return sorted(each.token for each in view.locks_covering(at(path)))


class Clock:
    """What `time.time_ns` says while a test holds it; it moves only when told."""

    def __init__(self, now_ns: int) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        return self.now_ns

    def advance(self, seconds: float) -> None:
        self.now_ns += int(seconds * 1_000_000_000)
