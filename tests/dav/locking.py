"""Locks taken in the store itself, for tests that are not about LOCK."""

from __future__ import annotations

from davsql.model import Lock, LockRequest, LockScope
from davsql.paths import DavPath
from davsql.store.store import Store


def lock_of(store: Store, path: str, *, is_depth_infinity: bool = False) -> Lock:
    """A new exclusive lock on `path`, percent-encoded as in a URL."""
    asked = LockRequest(LockScope.EXCLUSIVE, is_depth_infinity=is_depth_infinity, owner_xml=None, timeout_s=600)
    return store.lock(DavPath.parse(path), asked).lock
