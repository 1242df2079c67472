"""What 207 and LOCK answers say, as plain values; and the bodies that tests send."""

from __future__ import annotations

from typing import TypeAlias

from lxml import etree

from tests.http_client import Reply

DAV = "{DAV:}"
Properties: TypeAlias = "dict[str, etree._Element]"  # noqa: SLF001  # its public name

LOCKINFO = (
    '<?xml version="1.0"?><D:lockinfo xmlns:D="DAV:"><D:lockscope><D:{scope}/></D:lockscope>'
    "<D:locktype><D:write/></D:locktype>{owner}</D:lockinfo>"
)


def responses(reply: Reply) -> dict[str, dict[int, Properties]]:
    """href -> status -> property (in Clark notation) -> element; each href, and each property in it, comes once."""
    assert reply.status == 207, reply
    assert reply.header("Content-Type") == "application/xml; charset=utf-8"
    found: dict[str, dict[int, Properties]] = {}
    assert reply.xml.tag == f"{DAV}multistatus"
    for response in reply.xml:
        href = response.findtext(f"{DAV}href")
        assert href is not None
        assert href not in found
        by_status = found[href] = {}
        names = set()
        for propstat in response.findall(f"{DAV}propstat"):
            status = int((propstat.findtext(f"{DAV}status") or "").split()[1])
            properties = by_status.setdefault(status, {})
            for element in propstat[0]:
                assert element.tag not in names
                names.add(element.tag)
                properties[str(element.tag)] = element
    return found


def only_response(reply: Reply) -> dict[int, Properties]:
    """What is said of the one resource of the answer."""
    (by_status,) = responses(reply).values()
    return by_status


def names(properties: Properties) -> set[str]:
    """Names of properties; those of DAV: without their namespace."""
    return {name.removeprefix(DAV) for name in properties}


def propfind_body(*names: str, prefix: str = "D") -> bytes:
    """A propfind document that asks for properties of DAV: by name."""
    inside = "".join(f"<{prefix}:{name}/>" for name in names)
    return (
        f'<{prefix}:propfind xmlns:{prefix}="DAV:"><{prefix}:prop>{inside}</{prefix}:prop></{prefix}:propfind>'.encode()
    )


def proppatch_body(inside: str) -> bytes:
    """A propertyupdate document with these set and remove elements (prefix D)."""
    return f'<?xml version="1.0"?><D:propertyupdate xmlns:D="DAV:">{inside}</D:propertyupdate>'.encode()


def set_body(*properties: str) -> bytes:
    """A propertyupdate document that sets these elements."""
    return proppatch_body(f"<D:set><D:prop>{''.join(properties)}</D:prop></D:set>")


def lock_body(scope: str = "exclusive", owner: str = "") -> bytes:
    """A lockinfo document."""
    return LOCKINFO.format(scope=scope, owner=owner).encode()


def token_of(reply: Reply) -> str:
    """The token of a new lock, without its brackets."""
    assert reply.status in (200, 201), reply
    value = reply.header("Lock-Token")
    assert value is not None
    assert value.startswith("<urn:uuid:")
    assert value.endswith(">")
    return value[1:-1]


def locks_in(element: etree._Element) -> list[dict[str, str]]:
    """The active locks in a lockdiscovery, each as the text of what it says."""
    found = []
    for active in element.iter(f"{DAV}activelock"):
        said = {str(child.tag).removeprefix(DAV): "".join(child.itertext()) for child in active}
        scope = active.find(f"{DAV}lockscope")
        assert scope is not None
        said["lockscope"] = str(scope[0].tag).removeprefix(DAV)
        found.append(said)
    return found
