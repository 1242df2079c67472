"""Live properties (RFC 4918 15, RFC 4331), and a plan for writing what one PROPFIND asks for.

A plan is made once per request. It writes many nodes at once, column by column: what is the same for all is one string,
the values of a property are one list, and a response is its strings joined. Dead properties and locks come from the
store once per page and are handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from typing import NamedTuple

from davsql.access import Right
from davsql.dav.content import type_of_name
from davsql.dav.dates import http_dates, iso_dates
from davsql.dav.multistatus import (
    DAV,
    PROPSTAT_OPEN,
    empty_element,
    escape,
    escape_all,
    propstat,
    propstat_close,
    response,
)
from davsql.dav.privileges import privilege_set
from davsql.dav.xmlbody import PropertyName, PropfindRequest
from davsql.model import DeadProperty, Inode, Nodes


class Group(NamedTuple):
    """Some nodes, and what is known of them besides.

    Attributes:
        hrefs: percent-encoded and escaped, one for each node.
        locks: the content of lockdiscovery, of nodes that are covered by a lock.
        rights: what whoever asks may do with each, if `Plan.needs_rights`.
    """

    nodes: Nodes
    hrefs: Sequence[str]
    locks: Mapping[Inode, str]
    rights: Mapping[Inode, Right]

    def picked(self, places: Sequence[int]) -> Group:
        return Group(self.nodes.picked(places), [self.hrefs[place] for place in places], self.locks, self.rights)


Column = Callable[[Group], Iterable[str]]  # a string for each node
Parts = tuple[str | Column, ...]  # of a text about each node: what is the same for all, and what is not

SUPPORTED_LOCK = (
    "<D:supportedlock>"
    "<D:lockentry><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockentry>"
    "<D:lockentry><D:lockscope><D:shared/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockentry>"
    "</D:supportedlock>"
)

DISPLAYNAME = "displayname"
LOCKDISCOVERY = "lockdiscovery"
PRIVILEGES = "current-user-privilege-set"  # RFC 3744 5.4
QUOTA = ("quota-available-bytes", "quota-used-bytes")


def _content_types(group: Group) -> Iterable[str]:
    names, sent = group.nodes.names, group.nodes.content_types
    return [_escaped_type(each or type_of_name(name)) for each, name in zip(sent, names, strict=True)]


_escaped_type = lru_cache(maxsize=1024)(escape)


def _locks(group: Group) -> Iterable[str]:
    if not group.locks:
        return repeat("<D:lockdiscovery/>", len(group.nodes))
    found = [group.locks.get(inode) for inode in group.nodes.inodes]
    return [f"<D:lockdiscovery>{locks}</D:lockdiscovery>" if locks else "<D:lockdiscovery/>" for locks in found]


def _privileges(group: Group) -> Iterable[str]:
    columns = zip(group.nodes.inodes, group.nodes.digests, strict=True)
    return [privilege_set(group.rights[inode], is_collection=digest is None) for inode, digest in columns]


def _element(name: str, column: Column) -> Parts:
    return f"<D:{name}>", column, f"</D:{name}>"


_SHARED: dict[str, Parts] = {
    "creationdate": _element("creationdate", lambda group: iso_dates(group.nodes.created_at)),
    DISPLAYNAME: _element(DISPLAYNAME, lambda group: escape_all(group.nodes.names)),
    "getlastmodified": _element("getlastmodified", lambda group: http_dates(group.nodes.modified_at)),
    "supportedlock": (SUPPORTED_LOCK,),
}
# What files and collections have by themselves; locks, privileges and quota need more than the node.
_OF_FILES: dict[str, Parts] = {
    "resourcetype": ("<D:resourcetype/>",),
    **_SHARED,
    "getcontentlength": _element("getcontentlength", lambda group: map(str, group.nodes.sizes)),
    "getcontenttype": _element("getcontenttype", _content_types),
    "getetag": _element("getetag", lambda group: group.nodes.etags()),
}
_OF_COLLECTIONS: dict[str, Parts] = {"resourcetype": ("<D:resourcetype><D:collection/></D:resourcetype>",), **_SHARED}

# RFC 4918 15: what clients cannot set. A display name is theirs to choose: set, it is kept as a dead property.
PROTECTED = frozenset({*_OF_FILES, LOCKDISCOVERY, PRIVILEGES, *QUOTA}) - {DISPLAYNAME}
# DAV:lastmodified is how rclone sets a time (unix seconds). To keep it as a dead property would claim that it worked.
REFUSED = PROTECTED | {"lastmodified"}


def is_settable(namespace: str, name: str) -> bool:
    """False for properties that PROPPATCH must refuse (RFC 4918 16, cannot-modify-protected-property)."""
    return namespace != DAV or name not in REFUSED


class _KindPlan(NamedTuple):
    """What is written about files, or about collections."""

    live: Mapping[str, Parts]  # those that are asked for
    others: tuple[PropertyName, ...]  # asked for by name, and not live here
    response: Parts  # of nodes without dead properties


class Plan:
    """How to answer one PROPFIND for any number of nodes.

    Attributes:
        needs_dead: dead properties can be part of the answer.
        needs_locks: lockdiscovery is part of the answer.
        needs_rights: current-user-privilege-set is.
    """

    def __init__(self, asked: PropfindRequest, quota: Mapping[str, int] | None = None) -> None:
        """Args: quota: values of the quota properties; None: collections have none."""
        self.asked = asked
        named = dict.fromkeys(asked.names + asked.include)
        is_all = asked.kind == "allprop"
        self.needs_locks = is_all or (DAV, LOCKDISCOVERY) in named
        self.needs_rights = (DAV, PRIVILEGES) in named
        self.needs_dead = asked.kind != "prop" or any(ns != DAV or name not in PROTECTED for ns, name in named)
        values: dict[str, Parts] = {name: (f"<D:{name}>{value}</D:{name}>",) for name, value in (quota or {}).items()}
        self._files = self._kind_plan(_OF_FILES, named)
        self._collections = self._kind_plan({**_OF_COLLECTIONS, **values}, named)

    def _kind_plan(self, own: Mapping[str, Parts], named: Mapping[PropertyName, None]) -> _KindPlan:
        if self.asked.kind == "propname":
            live: dict[str, Parts] = {name: (f"<D:{name}/>",) for name in (*own, LOCKDISCOVERY, PRIVILEGES)}
            return _KindPlan(live, (), _response(live, ""))
        # RFC 4331 3, 4: quota is not part of allprop.
        wanted = [name for name in own if name not in QUOTA] if self.asked.kind == "allprop" else []
        wanted += [name for namespace, name in named if namespace == DAV and name in own and name not in wanted]
        live = {name: own[name] for name in wanted}
        if self.needs_locks:
            live[LOCKDISCOVERY] = (_locks,)
        if self.needs_rights:
            live[PRIVILEGES] = (_privileges,)
        has = {(DAV, name) for name in (*wanted, LOCKDISCOVERY, PRIVILEGES)}
        others = tuple(name for name in named if name not in has)
        missing = propstat(404, "".join(empty_element(*name) for name in others)) if others else ""
        return _KindPlan(live, others, _response(live, missing))

    def responses(self, group: Group, dead: Mapping[Inode, Sequence[DeadProperty]]) -> list[str]:
        """What is said about each node, in their order.

        Args:
            dead: dead properties, if `needs_dead`.
        """
        nodes = group.nodes
        if not dead and None not in nodes.digests:
            return _written(self._files.response, group)
        places: dict[tuple[bool, bool], list[int]] = {}
        for place, (inode, digest) in enumerate(zip(nodes.inodes, nodes.digests, strict=True)):
            places.setdefault((digest is None, inode in dead), []).append(place)
        found = [""] * len(nodes)
        for (is_collection, has_dead), chosen in places.items():
            kind = self._collections if is_collection else self._files
            part = group if len(places) == 1 else group.picked(chosen)
            texts = self._with_dead(kind, part, dead) if has_dead else _written(kind.response, part)
            for place, text in zip(chosen, texts, strict=True):
                found[place] = text
        return found

    def _with_dead(self, kind: _KindPlan, group: Group, dead: Mapping[Inode, Sequence[DeadProperty]]) -> Iterable[str]:
        live = {name: _written(parts, group) for name, parts in kind.live.items()}
        for place, (inode, href) in enumerate(zip(group.nodes.inodes, group.hrefs, strict=True)):
            values = {(each.namespace, each.name): each.xml for each in dead[inode]}
            if self.asked.kind == "propname":
                values = {name: empty_element(*name) for name in sorted(values)}
            parts = [texts[place] for name, texts in live.items() if (DAV, name) not in values]
            if self.asked.kind == "prop":
                parts += [values[name] for name in self.asked.names if name in values]
            else:
                parts += values.values()
            missing = "".join(empty_element(*name) for name in kind.others if name not in values)
            found = propstat(200, "".join(parts)) if parts or not missing else ""
            yield response(href, found + (propstat(404, missing) if missing else ""))


def _response(live: Mapping[str, Parts], missing: str) -> Parts:
    """The parts of a whole response, with as few as possible."""
    parts: list[str | Column] = ["<D:response><D:href>", lambda group: group.hrefs, "</D:href>"]
    if live or not missing:
        parts += [PROPSTAT_OPEN, *(part for each in live.values() for part in each), propstat_close(200)]
    parts += [missing, "</D:response>"]
    found: list[str | Column] = []
    for part in parts:
        if found and isinstance(part, str) and isinstance(found[-1], str):
            found[-1] += part
        else:
            found.append(part)
    return tuple(found)


def _written(parts: Parts, group: Group) -> list[str]:
    """A text for each node."""
    columns = [repeat(part, len(group.nodes)) if isinstance(part, str) else part(group) for part in parts]
    return list(map("".join, zip(*columns, strict=True)))


@lru_cache(maxsize=256)
def plan_without_quota(asked: PropfindRequest) -> Plan:
    """The plan for what clients ask again and again."""
    return Plan(asked)


def asks_for_quota(asked: PropfindRequest) -> bool:
    """Whether the answer needs the values of quota properties."""
    return asked.kind == "propname" or any(ns == DAV and name in QUOTA for ns, name in asked.names + asked.include)
