"""LOCK and UNLOCK (RFC 4918 6, 7, 9.10, 9.11): what is locked is protected, and only by what is really locked."""

from __future__ import annotations

import time

from tests.dav.answers import DAV, propfind_body
from tests.http_client import Reply
from tests.lost_data.scenario import scenario
from tests.lost_data.site import LOCKINFO, Site, expect, expect_that, properties


def _tokens(site: Site, target: str) -> list[str]:
    """The tokens of the locks that lockdiscovery shows."""
    reply = site.request("PROPFIND", target, propfind_body("lockdiscovery"), {"Depth": "0"})
    (found,) = properties(reply).values()
    shown = found[f"{DAV}lockdiscovery"].element
    return [str(href.text) for href in shown.iterfind(f"{DAV}activelock/{DAV}locktoken/{DAV}href")]


def _condition(reply: Reply) -> tuple[str, list[str]]:
    """The precondition element in an error, and its hrefs."""
    if reply.xml.tag != f"{DAV}error":
        return str(reply.xml.tag), []
    return str(reply.xml[0].tag), [str(href.text).rstrip("/") for href in reply.xml[0].iterfind(f"{DAV}href")]


@scenario(stock="content: b'' instead of 404")
def lock_refused_on_an_unmapped_url__leaves_nothing(site: Site) -> None:
    site.mkcol("/c/")
    site.lock("/c/")
    expect("LOCK", site.status("LOCK", "/c/new", LOCKINFO, {"Depth": "0"}), 423)
    expect("content", site.content("/c/new"), 404)
    expect("members", site.members("/c/"), set())


@scenario(stock="LOCK: 201 instead of 412")
def lock_refused_by_its_condition__leaves_nothing(site: Site) -> None:
    site.mkcol("/c/")
    headers = {"Depth": "0", "If": "(<urn:uuid:00000000-0000-4000-8000-000000000000>)"}
    expect("LOCK", site.status("LOCK", "/c/new", LOCKINFO, headers), 412)
    expect("content", site.content("/c/new"), 404)


@scenario(stock="UNLOCK: 204 instead of 409")
def unlock_through_a_child_of_a_lock_of_depth_0__is_refused(site: Site) -> None:
    site.mkcol("/c/")
    site.put("/c/f", b"content")
    token = site.lock("/c/", depth="0")
    expect("UNLOCK", site.status("UNLOCK", "/c/f", None, {"Lock-Token": f"<{token}>"}), 409)
    expect("locks", _tokens(site, "/c/"), [token])


@scenario(stock="locks of /c/d/: []")
def member_of_a_locked_tree__shows_the_lock(site: Site) -> None:
    site.mkcol("/c/", "/c/d/")
    site.put("/c/d/f", b"content")
    token = site.lock("/c/")
    for target in ("/c/", "/c/d/", "/c/d/f"):
        expect(f"locks of {target}", _tokens(site, target), [token])


@scenario(stock="MOVE: 423 instead of 201")
def move_of_a_tree_with_a_locked_member_and_its_token__succeeds(site: Site) -> None:
    site.mkcol("/c/")
    site.put("/c/f", b"content")
    token = site.lock("/c/f", depth="0")
    headers = {"Destination": "/new/", "If": f"</c/f> (<{token}>)"}
    expect("MOVE", site.status("MOVE", "/c/", None, headers), 201)
    expect("content", (site.content("/new/f"), site.content("/c/f")), (b"content", 404))
    expect("locks", _tokens(site, "/new/f"), [])  # RFC 4918 7.6: a lock does not move


@scenario(stock="condition of PUT: ('{DAV:}no-conflicting-lock'")
def change_of_what_is_locked__names_the_lock_that_is_needed(site: Site) -> None:
    site.mkcol("/c/")
    site.put("/c/f", b"content")
    site.lock("/c/")
    for method, headers in (("PUT", {}), ("DELETE", {}), ("MOVE", {"Destination": "/g"})):
        reply = site.request(method, "/c/f", b"new" if method == "PUT" else None, headers)
        expect(method, reply.status, 423)
        expect(f"condition of {method}", _condition(reply), (f"{DAV}lock-token-submitted", ["/c"]))
    expect("content", site.content("/c/f"), b"content")


@scenario()
def lock_of_what_is_locked__names_the_lock_in_the_way(site: Site) -> None:
    site.put("/f", b"content")
    site.lock("/f", depth="0")
    reply = site.request("LOCK", "/f", LOCKINFO, {"Depth": "0"})
    expect("LOCK", reply.status, 423)
    expect("condition of LOCK", _condition(reply), (f"{DAV}no-conflicting-lock", ["/f"]))


@scenario(stock="timeout Second-2419")
def lock_without_end__ends_within_a_day(site: Site) -> None:
    site.put("/f", b"content")
    reply = site.prepared("LOCK", "/f", LOCKINFO, {"Depth": "0", "Timeout": "Infinite"})
    timeout = str(reply.xml.findtext(f".//{DAV}timeout"))
    seconds = int(timeout.removeprefix("Second-")) if timeout.startswith("Second-") else None
    expect_that(f"timeout {timeout} is within a day", seconds is not None and seconds <= 24 * 3600)


@scenario(stock="LOCK: 500 instead of 200")
def lock_of_a_tree_when_a_members_lock_has_expired__succeeds(site: Site) -> None:
    site.mkcol("/c/")
    site.put("/c/f", b"content")
    site.prepared("LOCK", "/c/f", LOCKINFO, {"Depth": "0", "Timeout": "Second-1"})
    time.sleep(1.05)
    expect("LOCK", site.status("LOCK", "/c/", LOCKINFO, {"Depth": "infinity"}), 200)
