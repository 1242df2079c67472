"""XML request bodies: read within a bound and turned into plain values.

A body is at most `DavOptions.xml_body_limit` bytes, whether its length was declared or it came chunked. What clients
send again and again is remembered parsed.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

from lxml import etree

from davsql.dav.responses import HttpError
from davsql.dav.safexml import bad_body, read_apart
from davsql.model import LockScope, PropertyUpdate

if TYPE_CHECKING:
    from davsql.dav.request import Request

MAX_PROPERTIES = 256  # in one request
MAX_NAME_CHARS = 16 * 1024  # of all names asked for together: each member of a listing may repeat them
MAX_OWNER_BYTES = 4096  # each member of a locked tree repeats it
MAX_DIGITS = 10
REMEMBERED_BODY_BYTES = 4096

DAV = "DAV:"
_XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
_BLOCK_BYTES = 64 * 1024

PropertyName = tuple[str, str]  # namespace ("" for none), local name


class PropfindRequest(NamedTuple):
    """What a PROPFIND asks for (RFC 4918 14.20)."""

    kind: Literal["allprop", "propname", "prop"]
    names: tuple[PropertyName, ...] = ()  # of prop
    include: tuple[PropertyName, ...] = ()  # with allprop


class SyncBody(NamedTuple):
    """What a sync-collection report asks for (RFC 6578 6.1)."""

    token: str  # "": all there is
    level: Literal["1", "infinite"] | None  # None: the Depth header says it, as in drafts of the RFC
    limit: int | None
    properties: PropfindRequest


class LockInfo(NamedTuple):
    """What a LOCK body asks for (RFC 4918 14.11); the only type there is, write, is not kept."""

    scope: LockScope
    owner_xml: str | None


ALLPROP = PropfindRequest("allprop")


def read_body(request: Request) -> bytes:
    """The whole body of a request, b"" when there is none.

    Raises:
        HttpError: 413 beyond the limit.
        IncompleteBody, MalformedBody: as the server found.
    """
    limit = request.share.options.xml_body_limit
    declared = request.header("Content-Length")
    if declared is not None and declared.isdecimal() and int(declared[:20]) > limit:
        raise _too_large(limit)
    stream = request.environ["wsgi.input"]
    body = bytearray()
    while block := stream.read(min(_BLOCK_BYTES, limit + 1 - len(body))):
        body += block
        if len(body) > limit:
            raise _too_large(limit)
    return bytes(body)


def parse_propfind(body: bytes) -> PropfindRequest:
    """Parse the body of a PROPFIND; without one it asks for all properties (RFC 4918 9.1).

    Raises:
        HttpError: 400.
    """
    if not body:
        return ALLPROP
    return _remembered_propfind(body) if len(body) <= REMEMBERED_BODY_BYTES else read_apart(_propfind, body)


def parse_report(body: bytes) -> SyncBody:
    """Parse the body of a REPORT (RFC 3253 3.6); sync-collection is the only one there is.

    Raises:
        HttpError: 400; 403 with supported-report.
    """
    return read_apart(_report, body)


def parse_proppatch(body: bytes) -> list[PropertyUpdate]:
    """Parse the body of a PROPPATCH into its steps, in the order of the document (RFC 4918 9.2, 14.19).

    Raises:
        HttpError: 400.
    """
    return read_apart(_proppatch, body)


def parse_lockinfo(body: bytes) -> LockInfo:
    """Parse the body of a LOCK that asks for a new lock (RFC 4918 9.10.1).

    Raises:
        HttpError: 400; 413 for an owner of more than MAX_OWNER_BYTES.
    """
    return _remembered_lockinfo(body) if len(body) <= REMEMBERED_BODY_BYTES else read_apart(_lockinfo, body)


@lru_cache(maxsize=256)
def _remembered_propfind(body: bytes) -> PropfindRequest:
    return read_apart(_propfind, body)


@lru_cache(maxsize=256)
def _remembered_lockinfo(body: bytes) -> LockInfo:
    return read_apart(_lockinfo, body)


# --- the three documents ------------------------------------------------------------------------------------------


def _propfind(root: etree._Element) -> PropfindRequest:
    # RFC 4918 17: unknown elements are ignored; what is left must be one of the three (RFC 4918 A.3: else 400).
    _expect(root, "propfind")
    kinds = [child for child in root if child.tag in ("{DAV:}allprop", "{DAV:}propname", "{DAV:}prop")]
    if len(kinds) != 1:
        raise bad_body("propfind must hold exactly one of allprop, propname and prop")
    kind = kinds[0]
    if kind.tag == "{DAV:}prop":
        return PropfindRequest("prop", _names_in([kind]))
    if kind.tag == "{DAV:}propname":
        return PropfindRequest("propname")
    return PropfindRequest("allprop", include=_names_in(root.findall("{DAV:}include")))


def _report(root: etree._Element) -> SyncBody:
    if root.tag != "{DAV:}sync-collection":
        raise unknown_report()
    level, limit = _text_in(root, "{DAV:}sync-level"), _text_in(root, "{DAV:}limit/{DAV:}nresults")
    if level not in (None, "1", "infinite"):
        raise bad_body("sync-level must be 1 or infinite")
    if limit is not None and not (limit.isascii() and limit.isdecimal() and len(limit) < MAX_DIGITS and int(limit)):
        raise bad_body("nresults must be a number above 0")
    token = _text_in(root, "{DAV:}sync-token")
    if token is None:
        raise bad_body("sync-collection must hold a sync-token, an empty one to begin with")
    names = PropfindRequest("prop", _names_in(root.findall("{DAV:}prop")))
    return SyncBody(token, cast('Literal["1", "infinite"] | None', level), None if limit is None else int(limit), names)


def _text_in(root: etree._Element, path: str) -> str | None:
    """The text of an element; None when it is not there."""
    found = root.find(path)
    return None if found is None else (found.text or "").strip()


def unknown_report() -> HttpError:
    """The error for a report that there is not (RFC 3253 3.6)."""
    return HttpError(403, "The only report is sync-collection, of collections.", condition="supported-report")


def _proppatch(root: etree._Element) -> list[PropertyUpdate]:
    _expect(root, "propertyupdate")
    updates = list(_updates_in(root))
    if not updates:
        raise bad_body("propertyupdate must set or remove a property")
    return updates


def _updates_in(root: etree._Element) -> Iterator[PropertyUpdate]:
    count = 0
    for step in root:
        if step.tag not in ("{DAV:}set", "{DAV:}remove"):
            continue
        for element in (each for prop in step.findall("{DAV:}prop") for each in prop):
            count += 1
            if count > MAX_PROPERTIES:
                raise bad_body(f"more than {MAX_PROPERTIES} properties in one request")
            namespace, name = _name_of(element)
            yield PropertyUpdate(namespace, name, _serialised(element) if step.tag == "{DAV:}set" else None)


def _lockinfo(root: etree._Element) -> LockInfo:
    _expect(root, "lockinfo")
    scopes = [child.tag for scope in root.findall("{DAV:}lockscope") for child in scope]
    types = [child.tag for kind in root.findall("{DAV:}locktype") for child in kind]
    if types != ["{DAV:}write"] or scopes not in (["{DAV:}exclusive"], ["{DAV:}shared"]):
        raise bad_body("lockinfo must ask for an exclusive or a shared write lock")
    owner = root.find("{DAV:}owner")
    owner_xml = None if owner is None else _serialised(owner)
    if owner_xml is not None and len(owner_xml.encode()) > MAX_OWNER_BYTES:
        raise HttpError(413, f"the owner of a lock can have {MAX_OWNER_BYTES} bytes")
    return LockInfo(LockScope.EXCLUSIVE if scopes == ["{DAV:}exclusive"] else LockScope.SHARED, owner_xml)


def _names_in(props: list[etree._Element]) -> tuple[PropertyName, ...]:
    names = tuple(dict.fromkeys(_name_of(element) for prop in props for element in prop))
    if len(names) > MAX_PROPERTIES or sum(len(part) for name in names for part in name) > MAX_NAME_CHARS:
        raise bad_body(f"more than {MAX_PROPERTIES} properties asked for")
    return names


def _name_of(element: etree._Element) -> PropertyName:
    tag = str(element.tag)
    if not tag.startswith("{"):
        return "", tag
    namespace, _, name = tag[1:].rpartition("}")  # a namespace may hold a brace, a name may not
    return namespace, name


def _serialised(element: etree._Element) -> str:
    """An element as text that stands alone: with the namespaces and the xml:lang in scope (RFC 4918 4.3)."""
    language = _language_of(element)
    # A prefix can be meant in a text or an attribute as well: only where there is no colon are declarations left out.
    if len(element) == 0 and ":" not in "".join([element.text or "", *map(str, element.attrib.values())]):
        element = copy.deepcopy(element)
        etree.cleanup_namespaces(element)
    if language is not None:
        element.set(_XML_LANG, language)
    return str(etree.tostring(element, encoding="unicode", with_tail=False))


def _language_of(element: etree._Element) -> str | None:
    above: etree._Element | None = element
    while above is not None:
        if (language := above.get(_XML_LANG)) is not None:
            return str(language)
        above = above.getparent()
    return None


def _expect(root: etree._Element, name: str) -> None:
    if root.tag != f"{{DAV:}}{name}":
        raise bad_body(f"the root element of the body must be {name} in the namespace DAV:")


def _too_large(limit: int) -> HttpError:
    return HttpError(413, f"an XML body can have {limit} bytes")
