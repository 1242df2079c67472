"""Live properties (RFC 4918 15, RFC 4331), and a plan for writing what one PROPFIND asks for.

A plan is made once per request; after that a member costs one call per property and one join. Dead properties and
locks come from the store once per page and are handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from davsql.dav.content import content_type_of
from davsql.dav.dates import http_date, iso_date
from davsql.dav.multistatus import DAV, PROPSTAT_OPEN, empty_element, escape, propstat, propstat_close
from davsql.dav.xmlbody import PropertyName, PropfindRequest
from davsql.model import DeadProperty, Node

Renderer = Callable[[Node], str]

SUPPORTED_LOCK = (
    "<D:supportedlock>"
    "<D:lockentry><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockentry>"
    "<D:lockentry><D:lockscope><D:shared/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockentry>"
    "</D:supportedlock>"
)
_COLLECTION_TYPE = "<D:resourcetype><D:collection/></D:resourcetype>"
_NO_TYPE = "<D:resourcetype/>"
_OK_CLOSE = propstat_close(200)

DISPLAYNAME = "displayname"
LOCKDISCOVERY = "lockdiscovery"
QUOTA = ("quota-available-bytes", "quota-used-bytes")


def _displayname(node: Node) -> str:
    return f"<D:displayname>{escape(node.name)}</D:displayname>"


def _creationdate(node: Node) -> str:
    return f"<D:creationdate>{iso_date(node.created_at)}</D:creationdate>"


def _getlastmodified(node: Node) -> str:
    return f"<D:getlastmodified>{http_date(node.modified_at)}</D:getlastmodified>"


def _getcontentlength(node: Node) -> str:
    return f"<D:getcontentlength>{node.size}</D:getcontentlength>"


def _getcontenttype(node: Node) -> str:
    return f"<D:getcontenttype>{escape(content_type_of(node))}</D:getcontenttype>"


def _getetag(node: Node) -> str:
    return f"<D:getetag>{node.etag}</D:getetag>"


def _supportedlock(node: Node) -> str:
    del node
    return SUPPORTED_LOCK


_SHARED: dict[str, Renderer] = {
    "creationdate": _creationdate,
    DISPLAYNAME: _displayname,
    "getlastmodified": _getlastmodified,
    "supportedlock": _supportedlock,
}
# What files and collections have by themselves, without lockdiscovery and quota, which need more than the node.
_OF_FILES: dict[str, Renderer] = {
    "resourcetype": lambda _: _NO_TYPE,
    **_SHARED,
    "getcontentlength": _getcontentlength,
    "getcontenttype": _getcontenttype,
    "getetag": _getetag,
}
_OF_COLLECTIONS: dict[str, Renderer] = {"resourcetype": lambda _: _COLLECTION_TYPE, **_SHARED}

# RFC 4918 15: what clients cannot set. A display name is theirs to choose: set, it is kept as a dead property.
PROTECTED = frozenset({*_OF_FILES, LOCKDISCOVERY, *QUOTA}) - {DISPLAYNAME}
# DAV:lastmodified is how rclone sets a time (unix seconds). To keep it as a dead property would claim that it worked.
REFUSED = PROTECTED | {"lastmodified"}


def is_settable(namespace: str, name: str) -> bool:
    """False for properties that PROPPATCH must refuse (RFC 4918 16, cannot-modify-protected-property)."""
    return namespace != DAV or name not in REFUSED


class _KindPlan(NamedTuple):
    """What is written about files, or about collections."""

    live: tuple[tuple[str, Renderer], ...]
    renderers: tuple[Renderer, ...]
    others: tuple[PropertyName, ...]  # asked for by name, and not live here
    missing: str  # the propstat that says so of a node without dead properties


class Plan:
    """How to answer one PROPFIND for any number of nodes.

    Attributes:
        needs_dead: dead properties can be part of the answer.
        needs_locks: lockdiscovery is part of the answer.
    """

    def __init__(self, asked: PropfindRequest, quota: Mapping[str, int] | None = None) -> None:
        """Args: quota: values of the quota properties; None: collections have none."""
        self.asked = asked
        named = dict.fromkeys(asked.names + asked.include)
        is_all = asked.kind == "allprop"
        self.needs_locks = is_all or (DAV, LOCKDISCOVERY) in named
        self.needs_dead = asked.kind != "prop" or any(ns != DAV or name not in PROTECTED for ns, name in named)
        values = {name: _constant(f"<D:{name}>{value}</D:{name}>") for name, value in (quota or {}).items()}
        self._files = self._kind_plan(_OF_FILES, named)
        self._collections = self._kind_plan({**_OF_COLLECTIONS, **values}, named)

    def _kind_plan(self, own: Mapping[str, Renderer], named: Mapping[PropertyName, None]) -> _KindPlan:
        if self.asked.kind == "propname":
            names = "".join(f"<D:{name}/>" for name in (*own, LOCKDISCOVERY))
            return _KindPlan((), (_constant(names),), (), "")
        # RFC 4331 3, 4: quota is not part of allprop.
        wanted = [name for name in own if name not in QUOTA] if self.asked.kind == "allprop" else []
        wanted += [name for namespace, name in named if namespace == DAV and name in own and name not in wanted]
        live = tuple((name, own[name]) for name in wanted)
        has = {(DAV, name) for name in (*wanted, LOCKDISCOVERY)}
        others = tuple(name for name in named if name not in has)
        missing = propstat(404, "".join(empty_element(*name) for name in others)) if others else ""
        return _KindPlan(live, tuple(renderer for _, renderer in live), others, missing)

    def propstats(self, node: Node, dead: Sequence[DeadProperty] = (), locks: str = "") -> str:
        """What is said about one node.

        Args:
            dead: its dead properties, if `needs_dead`.
            locks: the content of its lockdiscovery, if `needs_locks`.
        """
        kind = self._collections if node.digest is None else self._files
        if dead:
            return self._propstats_with_dead(kind, node, dead, locks)
        found = "".join([render(node) for render in kind.renderers])
        if self.needs_locks:
            found += f"<D:lockdiscovery>{locks}</D:lockdiscovery>" if locks else "<D:lockdiscovery/>"
        if not found and kind.missing:
            return kind.missing
        return f"{PROPSTAT_OPEN}{found}{_OK_CLOSE}{kind.missing}"

    def _propstats_with_dead(self, kind: _KindPlan, node: Node, dead: Sequence[DeadProperty], locks: str) -> str:
        values = {(each.namespace, each.name): each.xml for each in dead}
        if self.asked.kind == "propname":
            own = {name for name in values if name != (DAV, DISPLAYNAME)}
            names = kind.renderers[0](node) + "".join(empty_element(*name) for name in sorted(own))
            return propstat(200, names)
        parts = [render(node) for name, render in kind.live if (DAV, name) not in values]
        if self.asked.kind == "allprop":
            parts += values.values()
        else:
            parts += [values[name] for name in self.asked.names if name in values]
        if self.needs_locks:
            parts.append(f"<D:lockdiscovery>{locks}</D:lockdiscovery>")
        missing = "".join(empty_element(*name) for name in kind.others if name not in values)
        found = propstat(200, "".join(parts)) if parts or not missing else ""
        return found + (propstat(404, missing) if missing else "")


@lru_cache(maxsize=256)
def plan_without_quota(asked: PropfindRequest) -> Plan:
    """The plan for what clients ask again and again."""
    return Plan(asked)


def asks_for_quota(asked: PropfindRequest) -> bool:
    """Whether the answer needs the values of quota properties."""
    return asked.kind == "propname" or any(ns == DAV and name in QUOTA for ns, name in asked.names + asked.include)


def _constant(xml: str) -> Renderer:
    return lambda _: xml
