"""Looks at everything that a server has, and says what of it cannot be."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote

from lxml import etree

from tests.dav.answers import DAV
from tests.http_client import Client
from tests.lost_data.torture.content import Bodies, Content, description
from tests.lost_data.torture.history import History
from tests.lost_data.torture.steps import PROPERTY_SPACE, SHARED
from tests.lost_data.torture.tree import SOME_TOKEN, Entry, Place, Tree, is_within
from tests.lost_data.torture.worker import TIMEOUT_S, Report, Worker

ASKED = (
    '<D:propfind xmlns:D="DAV:"><D:prop><D:resourcetype/><D:getetag/><D:getcontentlength/><D:lockdiscovery/>'
    f'<T:a xmlns:T="{PROPERTY_SPACE}"/><T:b xmlns:T="{PROPERTY_SPACE}"/></D:prop></D:propfind>'
).encode()


@dataclass(frozen=True, slots=True)
class Found:
    """All that a server has, and faults that need no history to be seen."""

    tree: Tree  # from the root down
    faults: list[str]


def look(address: tuple[str, int], folders: Sequence[str], bodies: Bodies, ignored: Collection[str] = ()) -> Found:
    """Read everything but what is `ignored` at the top: the listings of the top and of all folders, and each file."""
    found = Found({}, [])
    with Client(address, timeout_s=TIMEOUT_S) as client:
        _look_into(client, "/", "1", bodies, found, ignored)
        for folder in folders:
            _look_into(client, f"/{quote(folder)}/", "infinity", bodies, found, ignored)
    return found


def _look_into(client: Client, target: str, depth: str, bodies: Bodies, found: Found, ignored: Collection[str]) -> None:
    listing = client.request("PROPFIND", target, ASKED, {"Depth": depth})
    if listing.status != 207:
        found.faults.append(f"PROPFIND of {target}: {listing.status} {listing.body[:200]!r}")
        return
    for response in listing.xml.iterfind(f"{DAV}response"):
        href = str(response.findtext(f"{DAV}href"))
        place = tuple(unquote(name) for name in href.strip("/").split("/") if name)
        if not place or place[0] not in ignored:
            found.tree[place] = _entry(client, href, response, bodies, found.faults)


def _entry(client: Client, href: str, response: etree._Element, bodies: Bodies, faults: list[str]) -> Entry:
    """What one response of a listing, and GET, say of a resource."""
    text = {
        str(element.tag): element.text
        for propstat in response.iterfind(f"{DAV}propstat")
        for element in propstat.iterfind(f"{DAV}prop/*")
    }
    number = text[f"{{{PROPERTY_SPACE}}}a"]
    if number != text[f"{{{PROPERTY_SPACE}}}b"]:
        faults.append(f"{href}: one of two properties that were set together: {text}")
    tokens = [str(each.text) for each in response.iterfind(f".//{DAV}locktoken/{DAV}href")]
    if len(tokens) > 1:
        faults.append(f"{href}: several exclusive locks: {tokens}")
    content = None
    if response.find(f".//{DAV}resourcetype/{DAV}collection") is None:
        content, fault = _content(client, href, text, bodies)
        if content is None:
            faults.append(fault)
            content = Content(fault, -1, 0, "")
    return Entry(content, number, tokens[0] if tokens else None)


def _content(client: Client, href: str, text: dict[str, str | None], bodies: Bodies) -> tuple[Content | None, str]:
    reply = client.request("GET", href)
    if reply.status != 200:
        return None, f"{href}: listed, but GET gives {reply.status}"
    content = bodies.identified(reply.body)
    if content is None:
        return None, f"{href}: {description(reply.body)}"
    if text[f"{DAV}getcontentlength"] != str(len(reply.body)):
        return None, f"{href}: {len(reply.body)} bytes, listed with {text[f'{DAV}getcontentlength']}"
    etag = reply.header("ETag")
    if etag != text[f"{DAV}getetag"] or not bodies.is_one_tag(content, etag):
        return None, f"{href}: entity tag {etag}, listed with {text[f'{DAV}getetag']}"
    return content, ""


def verify(found: Found, workers: list[Worker], history: History, report: Report) -> None:
    """Compare what is there with what clients know, and tell them what has become of their unanswered requests."""
    for fault in found.faults:
        report.fault(fault)
    for worker in workers:
        _verify_folder(found.tree, worker, history, report)
    contents: dict[str, Content | None] = {}
    for name in SHARED:
        entry = found.tree.get((name,))
        contents[name] = None if entry is None else entry.content
        possible = history.possible(name)
        if contents[name] not in possible:
            wanted = " or ".join(map(str, possible))
            report.fault(f"/{name}: {contents[name]} instead of {wanted}")
    known = {worker.folder for worker in workers} | set(SHARED)
    for place in found.tree:
        if place and place[0] not in known:
            report.fault(f"{'/'.join(place)}: nobody has made this")
    history.start_again(contents)


def _verify_folder(found: Tree, worker: Worker, history: History, report: Report) -> None:
    """The folder is as after the last acknowledged step, or as after the one in flight: one of the two, whole."""
    mine = {place[1:]: entry for place, entry in found.items() if is_within(place, (worker.folder,))}
    step, worker.in_flight = worker.in_flight, None
    before = worker.tree
    worker.tree = mine
    is_applied = step is not None and not _differences(step.after, mine)
    is_unchanged = not _differences(before, mine)
    if not is_applied and not is_unchanged:
        report.fault(f"{worker.folder}: {'; '.join(_differences(before, mine)[:5])}")
        if step is not None:
            differences = "; ".join(_differences(step.after, mine)[:5])
            report.fault(f"{worker.folder}, if {step.method} {step.target} {step.headers} has happened: {differences}")
    if step is None:
        return
    if is_applied and step.after != before:
        report.count("cut_applied")
    if step.write is not None and step.method == "MOVE" and is_applied != is_unchanged:
        # Both sides of it have happened, or none.
        if is_applied:
            history.acknowledge(step.write)
        else:
            history.withdraw(step.write)


def _differences(wanted: Tree, found: Tree) -> list[str]:
    differences = []
    for place in sorted(wanted.keys() | found.keys()):
        left, right = wanted.get(place), found.get(place)
        if left is None or right is None:
            differences.append(f"{_text(place)} is {'missing' if right is None else 'there again'}")
        elif not _is_same(left, right):
            differences.append(f"{_text(place)} is {right} instead of {left}")
    return differences


def _is_same(wanted: Entry, found: Entry) -> bool:
    is_same_lock = found.token is not None if wanted.token == SOME_TOKEN else found.token == wanted.token
    return is_same_lock and wanted.content == found.content and wanted.number == found.number


def _text(place: Place) -> str:
    return "/".join(place) or "the folder"
