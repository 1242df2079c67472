"""Live properties (RFC 4918 15, RFC 4331), and a plan for writing what one PROPFIND asks for.

A plan is made once per request. It writes many nodes at once, column by column: what is the same for all is one string,
the values of a property are one list, and a response is its strings joined. Dead properties and locks come from the
store once per page and are handed in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from types import MappingProxyType
from typing import NamedTuple

from davsql.access import Right
from davsql.dav.content import type_of_name
from davsql.dav.dates import NS_PER_S, http_date, http_dates, iso_dates, parse_http_date, parse_unix_time
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
from davsql.dav.privileges import permission_letters, privilege_set
from davsql.dav.xmlbody import PropertyName, PropfindRequest
from davsql.model import BlobId, Checksums, DeadProperty, Inode, Nodes, NodeType, PropertyUpdate


class Group(NamedTuple):
    """Some nodes, and what is known of them besides.

    Attributes:
        hrefs: percent-encoded and escaped, one for each node.
        locks: the content of lockdiscovery, of nodes that are covered by a lock.
        rights: what whoever asks may do with each, if `Plan.needs_rights`.
        checksums: of blobs that have any, if `Plan.needs_checksums`.
        sizes: bytes in the trees of collections, of those that were counted, if `Plan.needs_sizes`.
    """

    nodes: Nodes
    hrefs: Sequence[str]
    locks: Mapping[Inode, str]
    rights: Mapping[Inode, Right]
    checksums: Mapping[BlobId, Checksums] = MappingProxyType({})
    sizes: Mapping[Inode, int] = MappingProxyType({})

    def picked(self, places: Sequence[int]) -> Group:
        return self._replace(nodes=self.nodes.picked(places), hrefs=[self.hrefs[place] for place in places])


Column = Callable[[Group], Iterable[str]]  # a string for each node
Parts = tuple[str | Column, ...]  # of a text about each node: what is the same for all, and what is not

SUPPORTED_LOCK = (
    "<D:supportedlock>"
    "<D:lockentry><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockentry>"
    "<D:lockentry><D:lockscope><D:shared/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockentry>"
    "</D:supportedlock>"
)

_COLLECTION = int(NodeType.COLLECTION)  # plain: compared for each node
DISPLAYNAME = "displayname"
LOCKDISCOVERY = "lockdiscovery"
PRIVILEGES = "current-user-privilege-set"  # RFC 3744 5.4
SYNC_STATE = "sync-token"  # RFC 6578 4
REPORTS = "supported-report-set"  # RFC 3253 3.1.5
QUOTA = ("quota-available-bytes", "quota-used-bytes")
LASTMODIFIED = "lastmodified"  # getlastmodified as rclone sets it, in unix seconds
MICROSOFT = "urn:schemas-microsoft-com:"
WIN32_MODIFIED = (MICROSOFT, "Win32LastModifiedTime")  # getlastmodified as Windows sets it, kept beside
OWNCLOUD = "http://owncloud.org/ns"


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
    columns = zip(group.nodes.inodes, group.nodes.node_types, strict=True)
    return [privilege_set(group.rights[inode], is_collection=kind == _COLLECTION) for inode, kind in columns]


def _permissions(group: Group) -> Iterable[str]:
    columns = zip(group.nodes.inodes, group.nodes.node_types, strict=True)
    return [permission_letters(group.rights[inode], is_collection=kind == _COLLECTION) for inode, kind in columns]


def _checksums(group: Group) -> Iterable[str]:
    """`SHA1:hex MD5:hex SHA256:hex`, as far as they are known; what ownCloud's clients compare comes first."""
    for blob_id, digest in zip(group.nodes.blob_ids, group.nodes.digests, strict=True):
        found = group.checksums.get(blob_id) if blob_id is not None else None
        texts = [] if found is None else [f"SHA1:{found.sha1.hex()}", f"MD5:{found.md5.hex()}"]
        texts.append(f"SHA256:{(digest or b'').hex()}")
        yield f"<x:checksum>{' '.join(texts)}</x:checksum>"


def _element(name: str, column: Column) -> Parts:
    return f"<D:{name}>", column, f"</D:{name}>"


def _owncloud(name: str, column: Column) -> dict[PropertyName, Parts]:
    return {(OWNCLOUD, name): (f'<x:{name} xmlns:x="{OWNCLOUD}">', column, f"</x:{name}>")}


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
_OF_COLLECTIONS: dict[str, Parts] = {
    "resourcetype": ("<D:resourcetype><D:collection/></D:resourcetype>",),
    **_SHARED,
}
_SUPPORTED_REPORTS = (
    f"<D:{REPORTS}><D:supported-report><D:report><D:sync-collection/></D:report></D:supported-report></D:{REPORTS}>"
)
# RFC 4331 3, 4; RFC 6578 4; RFC 3253 3.1.5: asked for by name.
_NOT_IN_ALLPROP = (*QUOTA, SYNC_STATE, REPORTS)

# For those who ask by name: no client expects them in allprop or propname.
_ASKED_OF_ALL: dict[PropertyName, Parts] = {
    (DAV, LASTMODIFIED): _element(LASTMODIFIED, lambda group: [str(ns // NS_PER_S) for ns in group.nodes.modified_at]),
    **_owncloud("fileid", lambda group: map(str, group.nodes.inodes)),
    **_owncloud("id", lambda group: map(str, group.nodes.inodes)),
    **_owncloud("permissions", _permissions),
}
_ASKED_OF_FILES: dict[PropertyName, Parts] = {
    **_ASKED_OF_ALL,
    **_owncloud("checksums", _checksums),
    **_owncloud("size", lambda group: map(str, group.nodes.sizes)),
}
# RFC 4918 15.4 gives collections no length, and every client asks for it by name. So it is for those alone who want to
# know how much a collection holds.
_ASKED_OF_COUNTED: dict[PropertyName, Parts] = {
    **_ASKED_OF_ALL,
    **_owncloud("size", lambda group: [str(group.sizes[inode]) for inode in group.nodes.inodes]),
    (DAV, "getcontentlength"): _element(
        "getcontentlength", lambda group: [str(group.sizes[inode]) for inode in group.nodes.inodes]
    ),
}
_NEED_DETAILS = frozenset({(DAV, "getetag"), (DAV, "getcontenttype"), (OWNCLOUD, "checksums")})
_NEED_RIGHTS = frozenset({(DAV, PRIVILEGES), (OWNCLOUD, "permissions")})

# RFC 4918 15: what clients cannot set. A display name is theirs to choose: set, it is kept as a dead property.
_OF_DAV = frozenset({*_OF_FILES, LOCKDISCOVERY, PRIVILEGES, REPORTS, SYNC_STATE, *QUOTA}) - {DISPLAYNAME}
PROTECTED: frozenset[PropertyName] = frozenset({*((DAV, name) for name in _OF_DAV), *_ASKED_OF_FILES})
_TEXT = re.compile(r"<[^>]*>\s*([^<]*?)\s*</")  # of a property without elements


def is_settable(namespace: str, name: str) -> bool:
    """False for properties that PROPPATCH must refuse (RFC 4918 16, cannot-modify-protected-property)."""
    return (namespace, name) not in PROTECTED


def is_of_windows(update: PropertyUpdate) -> bool:
    """Whether a step of a PROPPATCH is about a time or an attribute as Windows keeps them."""
    return update.namespace == MICROSOFT and update.name.startswith("Win32")


def is_time(update: PropertyUpdate) -> bool:
    """Whether a step of a PROPPATCH sets the time of the last change."""
    return update.xml is not None and (update.namespace, update.name) in _TIMES


def modified_at_of(update: PropertyUpdate) -> int | None:
    """The time that such a step sets, in nanoseconds; None where it is none."""
    text = _TEXT.match(update.xml or "")
    return None if text is None else _TIMES[update.namespace, update.name](text[1])


def _of_http_date(text: str) -> int | None:
    seconds = parse_http_date(text)
    return None if seconds is None else parse_unix_time(str(seconds))


_TIMES: Mapping[PropertyName, Callable[[str], int | None]] = {
    (DAV, LASTMODIFIED): parse_unix_time,
    WIN32_MODIFIED: _of_http_date,
}


def _win32_modified(modified_at: int) -> str:
    """What Windows reads back: others may have changed the file since it was set."""
    return f'<x:{WIN32_MODIFIED[1]} xmlns:x="{MICROSOFT}">{http_date(modified_at)}</x:{WIN32_MODIFIED[1]}>'


class _KindPlan(NamedTuple):
    """What is written about files, or about collections."""

    live: Mapping[PropertyName, Parts]  # those that are asked for
    others: tuple[PropertyName, ...]  # asked for by name, and not live here
    response: Parts  # of nodes without dead properties


class Plan:
    """How to answer one PROPFIND for any number of nodes.

    Attributes:
        needs_details: blobs, digests or content types can be part of the answer (see `Snapshot.members`).
        needs_dead: dead properties can be part of the answer.
        needs_locks: lockdiscovery is part of the answer.
        needs_rights: current-user-privilege-set is, or oc:permissions.
        needs_checksums: oc:checksums is.
        needs_sizes: oc:size is, which of collections has to be counted.
    """

    def __init__(
        self,
        asked: PropfindRequest,
        quota: Mapping[str, int] | None = None,
        sync_token: Callable[[Inode], str] | None = None,
    ) -> None:
        """Args:
        quota: values of the quota properties; None: collections have none.
        sync_token: gives that of a collection; None: there are no reports.
        """
        self.asked = asked
        named = dict.fromkeys(asked.names + asked.include)
        is_all = asked.kind == "allprop"
        self.needs_locks = is_all or (DAV, LOCKDISCOVERY) in named
        self.needs_rights = not _NEED_RIGHTS.isdisjoint(named)
        self.needs_checksums = (OWNCLOUD, "checksums") in named
        self.needs_sizes = (OWNCLOUD, "size") in named
        self.needs_details = asked.kind != "prop" or not _NEED_DETAILS.isdisjoint(named)
        self.needs_dead = asked.kind != "prop" or any(name not in PROTECTED for name in named)
        values: dict[str, Parts] = {name: (f"<D:{name}>{value}</D:{name}>",) for name, value in (quota or {}).items()}
        self._files = self._kind_plan(_OF_FILES, _ASKED_OF_FILES, named)
        if sync_token is not None:
            values[SYNC_STATE] = _element(SYNC_STATE, lambda group: map(sync_token, group.nodes.inodes))
            values[REPORTS] = (_SUPPORTED_REPORTS,)
        self._collections = self._kind_plan({**_OF_COLLECTIONS, **values}, _ASKED_OF_ALL, named)
        self._counted = self._collections
        if self.needs_sizes:
            self._counted = self._kind_plan({**_OF_COLLECTIONS, **values}, _ASKED_OF_COUNTED, named)

    def _kind_plan(
        self, own: Mapping[str, Parts], asked: Mapping[PropertyName, Parts], named: Mapping[PropertyName, None]
    ) -> _KindPlan:
        if self.asked.kind == "propname":
            names = (*own, LOCKDISCOVERY, PRIVILEGES)
            live: dict[PropertyName, Parts] = {(DAV, name): (f"<D:{name}/>",) for name in names}
            return _KindPlan(live, (), _response(live, ""))
        wanted = [name for name in own if name not in _NOT_IN_ALLPROP] if self.asked.kind == "allprop" else []
        wanted += [name for namespace, name in named if namespace == DAV and name in own and name not in wanted]
        live = {(DAV, name): own[name] for name in wanted}
        if self.needs_locks:
            live[DAV, LOCKDISCOVERY] = (_locks,)
        if (DAV, PRIVILEGES) in named:
            live[DAV, PRIVILEGES] = (_privileges,)
        live |= {name: asked[name] for name in named if name in asked}
        others = tuple(name for name in named if name not in live)
        missing = propstat(404, "".join(empty_element(*name) for name in others)) if others else ""
        return _KindPlan(live, others, _response(live, missing))

    def responses(self, group: Group, dead: Mapping[Inode, Sequence[DeadProperty]]) -> list[str]:
        """What is said about each node, in their order.

        Args:
            dead: dead properties, if `needs_dead`.
        """
        nodes = group.nodes
        if not dead and _COLLECTION not in nodes.node_types:
            return _written(self._files.response, group)
        places: dict[tuple[bool, bool, bool], list[int]] = {}
        for place, (inode, node_type) in enumerate(zip(nodes.inodes, nodes.node_types, strict=True)):
            places.setdefault((node_type == _COLLECTION, inode in group.sizes, inode in dead), []).append(place)
        found = [""] * len(nodes)
        for (is_collection, is_counted, has_dead), chosen in places.items():
            kind = self._files if not is_collection else self._counted if is_counted else self._collections
            part = group if len(places) == 1 else group.picked(chosen)
            texts = self._with_dead(kind, part, dead) if has_dead else _written(kind.response, part)
            for place, text in zip(chosen, texts, strict=True):
                found[place] = text
        return found

    def _with_dead(self, kind: _KindPlan, group: Group, dead: Mapping[Inode, Sequence[DeadProperty]]) -> Iterable[str]:
        live = {name: _written(parts, group) for name, parts in kind.live.items()}
        for place, (inode, href) in enumerate(zip(group.nodes.inodes, group.hrefs, strict=True)):
            values = {(each.namespace, each.name): each.xml for each in dead[inode]}
            if WIN32_MODIFIED in values:
                values[WIN32_MODIFIED] = _win32_modified(group.nodes.modified_at[place])
            if self.asked.kind == "propname":
                values = {name: empty_element(*name) for name in sorted(values)}
            parts = [texts[place] for name, texts in live.items() if name not in values]
            if self.asked.kind == "prop":
                parts += [values[name] for name in self.asked.names if name in values]
            else:
                parts += values.values()
            missing = "".join(empty_element(*name) for name in kind.others if name not in values)
            found = propstat(200, "".join(parts)) if parts or not missing else ""
            yield response(href, found + (propstat(404, missing) if missing else ""))


def _response(live: Mapping[PropertyName, Parts], missing: str) -> Parts:
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
def remembered_plan(asked: PropfindRequest) -> Plan:
    """The plan for what clients ask again and again."""
    return Plan(asked)


def asks_for_quota(asked: PropfindRequest) -> bool:
    """Whether the answer needs the values of quota properties."""
    return asked.kind == "propname" or any(ns == DAV and name in QUOTA for ns, name in asked.names + asked.include)


def asks_for_sync(asked: PropfindRequest) -> bool:
    """Whether the answer needs the values of the properties that syncing is about."""
    return asked.kind == "propname" or any(
        ns == DAV and name in (SYNC_STATE, REPORTS) for ns, name in asked.names + asked.include
    )
