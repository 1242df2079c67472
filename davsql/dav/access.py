"""The rules of a share, and the access that they give to a principal.

Of the rules that name a principal, the one with the longest path decides; at one path those that name the user come
before those that name a group, and these before those for everybody (`*`). Rules of the same kind at one path add up.
Who is named nowhere has no rights.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache, reduce
from operator import or_
from typing import Literal

from davsql.access import FULL_ACCESS, Access, Keys, Right
from davsql.accounts.names import is_name, name_key
from davsql.errors import InvalidPath, NameTooLong
from davsql.model import Principal
from davsql.paths import DavPath, checked_name, lookup_key

RightName = Literal["read", "write", "delete"]

USER = "{user}"  # a name in the path of a rule that stands for the name of whoever asks
EVERYBODY = "*"
_CACHED_PRINCIPALS = 4096


class Kind(IntEnum):
    """How a principal is named; the greater one comes first."""

    NOBODY = 0
    EVERYBODY = 1
    GROUP = 2
    USER = 3


@dataclass(frozen=True, slots=True)
class Named:
    """Whom a table of the configuration is about."""

    users: tuple[str, ...] = ()  # "*": everybody who has an account
    groups: tuple[str, ...] = ()

    def require_names(self) -> None:
        """Raises: ValueError: nobody is named, or somebody by what can be no name; the message begins with the key."""
        if not self.users and not self.groups:
            raise ValueError("users or groups is missing: it is about nobody")
        for key, names in (("users", self.users), ("groups", self.groups)):
            for name in names:  # a rule that takes something away must not miss its user by a typing error
                if not is_name(unicodedata.normalize("NFC", name)) and (key, name) != ("users", EVERYBODY):
                    raise ValueError(f"{key}: {name!r} is no name")

    def kind_for(self, principal: Principal) -> Kind:
        """How the principal is named."""
        if principal.name is None:
            return Kind.NOBODY
        if name_key(principal.name) in map(name_key, self.users):
            return Kind.USER
        if set(map(name_key, principal.groups)) & set(map(name_key, self.groups)):
            return Kind.GROUP
        return Kind.EVERYBODY if EVERYBODY in self.users else Kind.NOBODY


@dataclass(frozen=True, slots=True)
class RuleOptions(Named):
    """One table [[share.rule]]: who may do what at a path and below it."""

    path: str = "/"  # as people write it; the name {user} stands for the user's own
    allow: tuple[RightName, ...] | None = None  # empty: nothing

    def __post_init__(self) -> None:
        """Raises: ValueError: something is missing, or no resource can have the path."""
        self.require_names()
        if self.allow is None:
            raise ValueError("allow is missing; an empty list allows nothing")
        try:
            names = DavPath.from_text(self.path).names
        except (InvalidPath, NameTooLong) as error:
            raise ValueError(f"path: {error}") from error
        if not self.path.startswith("/"):
            raise ValueError(f"path: expected a path in the share that begins with a slash, found {self.path!r}")
        if any(USER in name and name != USER for name in names) or names.count(USER) > 1:
            raise ValueError(f"path: {USER} must be one whole name, as in /home/{USER}")

    @property
    def right(self) -> Right:
        """All that it allows."""
        return reduce(or_, (Right[name.upper()] for name in self.allow or ()), Right.NONE)


class ShareRules:
    """All rules of one share. Threads: any."""

    def __init__(self, share: str, rules: Sequence[RuleOptions]) -> None:
        """Args: share: its name as configured, "" for the root."""
        self._share = share
        self._rules = [(rule, DavPath.from_text(rule.path)) for rule in rules]
        self.access_of = lru_cache(_CACHED_PRINCIPALS)(self._access_of)

    def _access_of(self, principal: Principal) -> Access:
        """What the rules, and the limits of the token that was used, allow the principal."""
        if principal.share is not None and lookup_key(principal.share) != lookup_key(self._share):
            return _access({(): Right.NONE}, ())
        kinds: dict[Keys, tuple[Kind, Right]] = {(): (Kind.NOBODY, Right.NONE)}
        homes: list[DavPath] = []
        for rule, path in self._rules:
            if USER in path.names:
                homes_at = path.names.index(USER)
                kinds.setdefault(path.keys[:homes_at], (Kind.NOBODY, Right.NONE))
            kind, where = rule.kind_for(principal), _own_path(path, principal)
            if kind is Kind.NOBODY or where is None:
                continue
            if USER in path.names:
                homes.append(DavPath(where.names[: homes_at + 1]))
            known, rights = kinds.get(where.keys, (kind, Right.NONE))
            if kind > known:
                kinds[where.keys] = (kind, rule.right)
            elif kind == known:
                kinds[where.keys] = (kind, rights | rule.right)
        by_path = {keys: rights for keys, (_, rights) in kinds.items()}
        return _limited(_access(by_path, homes), principal)


class OpenShare:
    """A share of a server without accounts: everybody may do everything."""

    def access_of(self, principal: Principal) -> Access:
        """The same for all."""
        del principal
        return FULL_ACCESS


def _own_path(path: DavPath, principal: Principal) -> DavPath | None:
    """The path with the user's name in it; None when no resource can have that name."""
    if USER not in path.names or principal.name is None:
        return path
    try:
        own = checked_name(principal.name)
    except (InvalidPath, NameTooLong):
        return None
    return DavPath(own if name == USER else name for name in path.names)


def _limited(access: Access, principal: Principal) -> Access:
    """`access` within the limits of the token that was used."""
    by_path = dict(access.by_path)
    if principal.path is not None:
        top = principal.path.keys
        by_path = {keys: rights for keys, rights in by_path.items() if keys[: len(top)] == top}
        by_path = {(): Right.NONE, top: access.rights(principal.path), **by_path}
    if principal.is_read_only:
        by_path = {keys: rights & Right.READ for keys, rights in by_path.items()}
    return _access(by_path, access.homes)


def _access(by_path: dict[Keys, Right], homes: Iterable[DavPath]) -> Access:
    """Without what says nothing new, so that there is little to look through."""
    kept: dict[Keys, Right] = {(): by_path[()]}
    for keys in sorted(by_path, key=len):
        above = next(kept[keys[:length]] for length in range(len(keys), -1, -1) if keys[:length] in kept)
        if by_path[keys] != above:
            kept[keys] = by_path[keys]
    access = Access(kept)
    return Access(kept, tuple(home for home in homes if Right.WRITE in access.rights(home)))


def with_everything(users: Sequence[str], groups: Sequence[str]) -> tuple[RuleOptions, ...]:
    """The rule that `users` and `groups` of a share itself stand for; none where both are empty."""
    if not users and not groups:
        return ()
    return (RuleOptions(tuple(users), tuple(groups), allow=("read", "write", "delete")),)
