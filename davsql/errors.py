"""Every error that davsql raises on purpose, in one place.

The engine raises these; each edge turns them into its own words once: `dav/errors.py` into an HTTP status,
`cli/` into an exit code. No class here knows HTTP. A message is for the person who reads it: it names the file,
path or setting and, where there is one, the remedy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from davsql.model import Lock


class DavsqlError(Exception):
    """Base of all errors of davsql."""

    retry_after_s: int | None = None  # when it is worth trying again; None: nobody knows


class ConfigError(DavsqlError):
    """The configuration cannot be used; the message names file and key."""


class ListenError(DavsqlError):
    """The server cannot, or must not, listen at this address; the message says why and the remedy."""


class TlsError(DavsqlError):
    """A certificate or its key cannot be used, or not be made; the message names the file and the remedy."""


class WorkerFailed(DavsqlError):
    """A process that `davsql serve` started could not begin its work; the message is its reason."""


class SourceChanged(DavsqlError):
    """A file of the disk changed while it was imported: nothing of it was stored."""


class ReplicaError(DavsqlError):
    """The store cannot be replicated, or restored from its replica; the message says why and the remedy."""


class InsecureFile(DavsqlError):
    """Others could read or exchange a file that must be private; the message says how to stop that."""


class KeyFailed(DavsqlError):
    """Base of what is wrong with the key of a store; the message says the remedy, and nothing was touched."""


class KeyMissing(KeyFailed):
    """A key is needed, and there is none."""


class WrongKey(KeyFailed):
    """The key is that of something else."""


class BadKey(KeyFailed):
    """A key, or a file of keys, cannot be used: damaged, readable to others, there already."""


class AccountError(DavsqlError):
    """An account, group or token is not there, is there already, or cannot be as it was asked for."""


# --- logins -------------------------------------------------------------------------------------------------------


class LoginRefused(DavsqlError):
    """Name, password or token is wrong, or the account is disabled: the client is not told which."""


class LoginBlocked(DavsqlError):
    """Too many logins have failed; nothing was looked at."""

    retry_after_s: int

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class LoginBusy(DavsqlError):
    """Too many others are logging in; nothing was looked at."""

    retry_after_s = 2


# --- requests that cannot be understood ---------------------------------------------------------------------------


class InvalidPath(DavsqlError):
    """The path is not one that a resource can have (`..`, control characters, invalid UTF-8, an encoded slash)."""


class NameTooLong(DavsqlError):
    """A name is longer than `paths.MAX_NAME_BYTES`."""


class PathTooLong(DavsqlError):
    """The whole path is longer than `paths.MAX_PATH_BYTES`."""


class PathTooDeep(DavsqlError):
    """The path has more segments than the share allows."""


class FileTooLarge(DavsqlError):
    """The file is larger than the server takes."""


class IncompleteBody(DavsqlError):
    """The request body ended before its declared end: nothing of it may be kept."""


class MalformedBody(DavsqlError):
    """The framing of the request body breaks RFC 9112 7.1 (chunked coding)."""


# --- the store ----------------------------------------------------------------------------------------------------


class StoreError(DavsqlError):
    """Base of what the store raises; after it nothing has changed."""


class NotFound(StoreError):
    """No node at this path."""


class ParentMissing(StoreError):
    """The collection that should hold the node does not exist, or is a file."""


class AlreadyExists(StoreError):
    """A node is there already (MKCOL)."""


class OverwriteRefused(StoreError):
    """The destination exists and Overwrite is F."""


class IsCollection(StoreError):
    """The path names a collection where a file is needed."""


class NotAllowed(StoreError):
    """The rules do not allow it to whoever asks."""


class ForbiddenTarget(StoreError):
    """The root cannot be deleted, moved or replaced; nor can a tree be copied or moved onto or into itself."""


class ContentChanged(StoreError):
    """Somebody else changed the file of which a part was to be replaced."""


class PreconditionFailed(StoreError):
    """If-Match, If-None-Match, If-Unmodified-Since or If does not hold."""


class LockError(StoreError):
    """Base of the errors that locks cause."""


class Locked(LockError):
    """Locks whose tokens were not submitted are in the way; one for each lock root (RFC 4918 16)."""

    def __init__(self, locks: Iterable[Lock]) -> None:
        self.locks = tuple({lock.inode: lock for lock in locks}.values())
        super().__init__("locked: " + ", ".join(str(lock.root) for lock in self.locks))


class LockConflict(Locked):
    """Locks are in the way of a new one (RFC 4918 16, no-conflicting-lock)."""


class LockTokenMismatch(LockError):
    """No such lock covers the resource (RFC 4918 16, lock-token-matches-request-uri)."""


class LockNotOwned(LockError):
    """The lock belongs to another principal."""


class SyncTokenInvalid(StoreError):
    """A sync-token leads nowhere any more: the client must ask for all there is (RFC 6578 3.2, valid-sync-token)."""


class TooManyProperties(StoreError):
    """A limit on dead properties of one resource is reached (RFC 4918 11.5)."""


class TooManyLocks(StoreError):
    """The limit on locks of one principal is reached."""


class QuotaExceeded(StoreError):
    """The user, or all users of the share together, would hold more than they may."""


class StoreReadOnly(StoreError):
    """The store is served read-only."""


class StoreBusy(StoreError):
    """The writer's queue or the pool of readers is full."""

    retry_after_s = 2


class StoreFull(StoreError):
    """No space is left for the store's file."""


class StoreUnavailable(StoreError):
    """The store cannot be read or written at the moment (I/O error, closed, shutting down)."""

    retry_after_s = 2


class Cancelled(StoreUnavailable):
    """A long task was told to stop; what it had half done is taken away again."""


class StoreDamaged(StoreError):
    """Bytes in the store are not what was stored."""


class StoreVersionError(StoreError):
    """The file's schema is newer than this davsql."""


class NotAStore(StoreError):
    """The file is no davsql store."""
