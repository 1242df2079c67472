"""The words that all layers share: nodes, locks, dead properties and the conditions that a request puts on them.

Times are integers in nanoseconds since the Unix epoch unless the name says otherwise. `None` means absent.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from functools import cached_property
from typing import Any, NamedTuple, NewType

from davsql.access import FULL_ACCESS, Access
from davsql.paths import DavPath

Inode = NewType("Inode", int)
BlobId = NewType("BlobId", int)
ChunkId = NewType("ChunkId", int)

ROOT_INODE = Inode(1)
_DIGEST_BYTES = 32
_TAG_CHARS = 43  # of a digest in base64 (RFC 4648 5)


class NodeType(IntEnum):
    """What a node is; the numbers are those in the schema."""

    COLLECTION = 1
    FILE = 2


class Node(NamedTuple):
    """One row of the tree: a collection or a file, as one snapshot saw it."""

    inode: Inode
    parent_inode: Inode | None
    name: str  # as the client sent it; "" for the root
    node_type: int
    blob_id: BlobId | None  # None for collections
    size: int  # bytes; 0 for collections
    digest: bytes | None  # SHA-256 of the content; None for collections
    content_type: str | None  # as sent with PUT
    created_at: int
    modified_at: int

    @property
    def is_collection(self) -> bool:
        return self.node_type == NodeType.COLLECTION

    @property
    def etag(self) -> str | None:
        """Strong entity tag with its quotes, from the digest of the content (RFC 9110 8.8.3); None for collections.

        The whole digest in 43 characters (RFC 4648 5): clients with small buffers cut the 64 of hexadecimal.
        """
        return None if self.digest is None else _etag(self.digest)


def _etag(digest: bytes) -> str:
    return f'"{urlsafe_b64encode(digest)[:_TAG_CHARS].decode()}"'


@dataclass(frozen=True, slots=True)
class Nodes:
    """Several nodes of one snapshot, column by column in the order of Node's fields.

    What is done once for a column costs a tenth of what it costs once for each node.
    """

    inodes: Sequence[Inode]
    parent_inodes: Sequence[Inode | None]
    names: Sequence[str]
    node_types: Sequence[int]
    blob_ids: Sequence[BlobId | None]
    sizes: Sequence[int]
    digests: Sequence[bytes | None]
    content_types: Sequence[str | None]
    created_at: Sequence[int]
    modified_at: Sequence[int]

    @classmethod
    def of(cls, *nodes: Node) -> Nodes:
        """At least one."""
        return cls(*zip(*nodes, strict=True))

    def __len__(self) -> int:
        return len(self.inodes)

    def __iter__(self) -> Iterator[Node]:
        return map(Node._make, zip(*self._columns(), strict=True))

    def picked(self, places: slice | Sequence[int]) -> Nodes:
        """The nodes at these places."""
        if isinstance(places, slice):
            return Nodes(*(column[places] for column in self._columns()))
        return Nodes(*([column[place] for place in places] for column in self._columns()))

    def etags(self) -> Sequence[str]:
        """Entity tags as of Node.etag; all nodes are files."""
        digests = [digest or b"" for digest in self.digests]
        if set(map(len, digests)) != {_DIGEST_BYTES}:  # damaged
            return list(map(_etag, digests))
        # With a byte of padding each takes four characters for each three bytes, so the tags lie side by side.
        tags = urlsafe_b64encode(b"\0".join([*digests, b""])).decode()
        return [f'"{tags[at : at + _TAG_CHARS]}"' for at in range(0, len(tags), _TAG_CHARS + 1)]

    def _columns(self) -> Sequence[Sequence[Any]]:
        return [getattr(self, name) for name in self.__slots__]


NO_NODES = Nodes([], [], [], [], [], [], [], [], [], [])


class DeadProperty(NamedTuple):
    """A property that the store keeps and does not interpret (RFC 4918 4.1)."""

    namespace: str  # "" for no namespace
    name: str
    xml: str  # the whole property element, serialised with every namespace declaration and xml:lang it needs


class PropertyUpdate(NamedTuple):
    """One step of a PROPPATCH: set when `xml` is given, remove when it is None."""

    namespace: str
    name: str
    xml: str | None


class LockScope(Enum):
    """RFC 4918 14.13, 14.26, 14.27."""

    EXCLUSIVE = "exclusive"
    SHARED = "shared"


class Lock(NamedTuple):
    """An active lock (RFC 4918 6, 7)."""

    token: str  # urn:uuid:...
    inode: Inode  # lock root
    root: DavPath
    is_collection: bool  # the lock root is
    scope: LockScope
    is_depth_infinity: bool
    owner_xml: str | None  # the <owner> element as sent, serialised; None when it was not sent
    principal: str
    timeout_s: int  # as granted
    expires_at: int


class LockRequest(NamedTuple):
    """What LOCK asks for; `timeout_s` is already within the configured bound."""

    scope: LockScope
    is_depth_infinity: bool
    owner_xml: str | None
    timeout_s: int


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: what authentication found out, and what rules are about.

    The limits are those of the token that was used; a password has none.
    """

    name: str | None  # None: nobody, where there are no accounts
    groups: frozenset[str] = frozenset()
    is_read_only: bool = False
    share: str | None = None  # the only share it may see, by its name as configured; None: any
    path: DavPath | None = None  # within each share, the tree that it may see; None: all


ANONYMOUS = Principal(None)


class Checksums(NamedTuple):
    """What some clients compare instead of the SHA-256."""

    sha1: bytes
    md5: bytes


class PutResult(NamedTuple):
    node: Node
    created: bool  # False: an existing file was replaced


class LockResult(NamedTuple):
    lock: Lock
    others: tuple[Lock, ...]  # that cover the resource too: shared ones
    created: bool  # True: the URL was unmapped and an empty file was made (RFC 4918 7.3)


# --- conditions (RFC 9110 13, RFC 4918 10.4): parsed in dav/, evaluated in the store's transaction -----------------


class EntityTag(NamedTuple):
    opaque: str  # with its quotes, as in Node.etag
    is_weak: bool


class Anything(Enum):
    """`*` in If-Match and If-None-Match: any current representation."""

    ANYTHING = "*"


ANYTHING = Anything.ANYTHING


class IfTarget(Enum):
    """Whom a list of the If header is about when it does not name a path of this share."""

    REQUEST = "the request's own target"
    ELSEWHERE = "a resource that this share does not hold"


class StateCondition(NamedTuple):
    """One condition of an If list: exactly one of `token` and `etag` is given."""

    negated: bool
    token: str | None
    etag: EntityTag | None


class StateList(NamedTuple):
    """One parenthesised list of an If header: true when all conditions hold for `target`."""

    target: DavPath | IfTarget
    conditions: tuple[StateCondition, ...]


@dataclass(frozen=True)
class Preconditions:
    """The conditional headers of a request, parsed; absent headers are None.

    `if_modified_since` matters to GET and HEAD only and is evaluated in dav/; the rest is evaluated by the store.
    """

    if_match: tuple[EntityTag, ...] | Anything | None = None
    if_none_match: tuple[EntityTag, ...] | Anything | None = None
    if_modified_since: int | None = None  # whole seconds since the epoch
    if_unmodified_since: int | None = None  # whole seconds since the epoch
    state_lists: tuple[StateList, ...] | None = None

    @cached_property
    def tokens(self) -> frozenset[str]:
        """All lock tokens that the If header submits (RFC 4918 10.4.1: negated or not)."""
        lists = self.state_lists or ()
        return frozenset(c.token for each in lists for c in each.conditions if c.token is not None)


NO_PRECONDITIONS = Preconditions()


class Limit(NamedTuple):
    """How much may be held; None: as much as there is room for."""

    nodes: int | None = None
    size_bytes: int | None = None

    @property
    def is_limited(self) -> bool:
        return self.nodes is not None or self.size_bytes is not None


class Limits(NamedTuple):
    """The quotas that a request is subject to."""

    user: Limit = Limit()
    share: Limit = Limit()


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Guard:
    """What must hold, inside the transaction, for a change to happen: the request's conditions, rights, quotas."""

    preconditions: Preconditions = NO_PRECONDITIONS
    principal: str = ""  # "" is the anonymous user
    access: Access = FULL_ACCESS
    limits: Limits = NO_LIMITS
    has_own_tokens: bool = False  # the principal's own locks count as submitted


NO_GUARD = Guard()
