"""What one principal may do in one share: rights by path.

Rule 1: rights belong to parsed paths, compared by lookup keys; there is nothing left to normalise, and `/a` says
        nothing about `/a_b`.
Rule 2: the longest path with rights of its own decides for everything below it.
Rule 3: what may not be read does not exist for whoever asks, except collections that lead to something that may be
        read: of those just the way is shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Flag
from typing import NamedTuple

from davsql.paths import DavPath

Keys = tuple[str, ...]  # a path in lookup form


class Right(Flag):
    """What can be allowed."""

    NONE = 0
    READ = 1
    WRITE = 2  # create and change: content, properties, locks
    DELETE = 4  # delete, move away, replace by COPY and MOVE
    ALL = 7


class MemberKeys(NamedTuple):
    """Members of a collection that are seen otherwise than the collection itself suggests, by lookup key."""

    readable: frozenset[str]
    passages: frozenset[str]  # seen if they are collections
    hidden: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class Access:
    """The rights of one principal in one share.

    Attributes:
        homes: collections that are made for the principal when they are missing.
    """

    by_path: Mapping[Keys, Right]  # always has one for the root
    homes: tuple[DavPath, ...] = ()
    is_full: bool = field(init=False)  # everything is allowed everywhere
    is_empty: bool = field(init=False)  # nothing is allowed anywhere
    _deepest: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_full", set(self.by_path.values()) == {Right.ALL})
        object.__setattr__(self, "is_empty", set(self.by_path.values()) == {Right.NONE})
        object.__setattr__(self, "_deepest", max(map(len, self.by_path)))

    def rights(self, path: DavPath) -> Right:
        """What may be done with the resource at `path`."""
        keys = path.keys[: self._deepest]
        while keys not in self.by_path:
            keys = keys[:-1]
        return self.by_path[keys]

    def may(self, right: Right, path: DavPath) -> bool:
        """Whether `right` is among the rights at `path`."""
        return self.is_full or right in self.rights(path)

    def may_anywhere(self, right: Right) -> bool:
        """Whether there is a path that has `right`."""
        return any(right in rights for rights in self.by_path.values())

    def is_passage(self, path: DavPath) -> bool:
        """Whether something below `path` may be read."""
        return any(Right.READ in rights for _, rights in self._below(path))

    def shows(self, path: DavPath, *, is_collection: bool) -> bool:
        """Whether the principal may know of the resource at `path`."""
        return self.may(Right.READ, path) or (is_collection and self.is_passage(path))

    def exceptions(self, path: DavPath, right: Right) -> list[Keys]:
        """The outermost paths below `path`, relative to it, that lack `right`."""
        found: list[Keys] = []
        for keys in sorted(keys for keys, rights in self._below(path) if right not in rights):
            if not found or keys[: len(found[-1])] != found[-1]:
                found.append(keys)
        return found

    def member_keys(self, path: DavPath) -> MemberKeys:
        """How the members of the collection at `path` are seen that paths with rights of their own lead to."""
        readable, passages, hidden = set[str](), set[str](), set[str]()
        for key in self.keys_apart(path):
            member = path.child(key)
            if Right.READ in self.rights(member):
                readable.add(key)
            else:
                (passages if self.is_passage(member) else hidden).add(key)
        return MemberKeys(frozenset(readable), frozenset(passages), frozenset(hidden))

    def keys_apart(self, path: DavPath) -> frozenset[str]:
        """The members of the collection at `path` that paths with rights of their own are, or lead through."""
        return frozenset(keys[0] for keys, _ in self._below(path))

    def _below(self, path: DavPath) -> Iterator[tuple[Keys, Right]]:
        length = len(path.keys)
        for keys, rights in self.by_path.items():
            if len(keys) > length and keys[:length] == path.keys:
                yield keys[length:], rights


FULL_ACCESS = Access({(): Right.ALL})
