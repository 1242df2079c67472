"""DELETE, COPY and MOVE: all of it or nothing, where the client said, and nobody sees a state in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from threading import Event, Thread
from typing import TypeVar

from tests.http_client import Client
from tests.lost_data.scenario import scenario
from tests.lost_data.site import BROKEN, TIMEOUT_S, Site, expect, expect_one_of

Seen = TypeVar("Seen")

# --- onto an ancestor, into the own tree --------------------------------------------------------------------------


def _nested(site: Site) -> None:
    site.mkcol("/p/", "/p/q/")
    site.put("/p/f", b"beside")
    site.put("/p/q/f", b"inside")


def _refused_and_nothing_gone(site: Site, method: str, source: str, destination: str) -> None:
    reply = site.status(method, source, None, {"Destination": destination, "Overwrite": "T"})
    expect("content of /p/f", site.content("/p/f"), b"beside")
    expect("content of /p/q/f", site.content("/p/q/f"), b"inside")
    expect("members", site.members("/"), {"/p/", "/p/f", "/p/q/", "/p/q/f"})
    expect(f"{method} {source} to {destination}", reply, 403)


@scenario(stock="content of /p/f: 404 instead of b'beside'")
def move_onto_an_ancestor__is_refused_and_nothing_gone(site: Site) -> None:
    _nested(site)
    for source, destination in (("/p/q/", "/p/"), ("/p/q", "/p"), ("/p/q/f", "/p")):
        _refused_and_nothing_gone(site, "MOVE", source, destination)


@scenario(stock="content of /p/f: 404 instead of b'beside'")
def move_of_a_file_onto_an_ancestor__is_refused_and_nothing_gone(site: Site) -> None:
    _nested(site)
    _refused_and_nothing_gone(site, "MOVE", "/p/q/f", "/p/")


@scenario(stock="content of /p/q/f: 404 instead of b'inside'")
def copy_onto_an_ancestor__is_refused_and_nothing_gone(site: Site) -> None:
    _nested(site)
    for source, destination in (("/p/q/", "/p/"), ("/p/q", "/p"), ("/p/q/f", "/p/")):
        _refused_and_nothing_gone(site, "COPY", source, destination)


@scenario()
def move_into_the_own_tree__is_refused_and_nothing_gone(site: Site) -> None:
    _nested(site)
    for destination in ("/p/q/", "/p/q", "/p/new", "/p/q/new/", "/p/", "/p/q/f"):
        _refused_and_nothing_gone(site, "MOVE", "/p/", destination)


@scenario()
def copy_into_the_own_tree__is_refused_and_nothing_gone(site: Site) -> None:
    _nested(site)
    for destination in ("/p/q/", "/p/q", "/p/new", "/p/q/new/", "/p/", "/p/q/f"):
        _refused_and_nothing_gone(site, "COPY", "/p/", destination)


# --- a locked member protects itself from what happens to its parents ---------------------------------------------


def _with_locked_member(site: Site) -> None:
    site.mkcol("/c/", "/c/d/", "/other/")
    site.put("/c/free", b"free")
    site.put("/c/d/locked", b"locked")
    site.put("/other/f", b"other")
    site.lock("/c/d/locked", depth="0")


def _is_kept(site: Site, method: str, target: str, headers: Mapping[str, str] | None = None) -> None:
    reply = site.request(method, target, None, headers or {})
    expect("content of the locked member", site.content("/c/d/locked"), b"locked")
    expect("members", site.members("/"), {"/c/", "/c/free", "/c/d/", "/c/d/locked", "/other/", "/other/f"})
    # RFC 4918 9.6.1: the error is about a member, so 207; 423 where the method is all or nothing.
    expect_one_of(f"{method} {target}", reply.status, 423, 207)


@scenario(stock="content of the locked member: 404 instead of b'locked'")
def delete_of_a_parent_without_the_slash__locked_member_stays(site: Site) -> None:
    _with_locked_member(site)
    for target in ("/c", "/c/d"):
        _is_kept(site, "DELETE", target)


@scenario(stock="content of the locked member: 404 instead of b'locked'")
def delete_of_a_parent_with_the_slash__nothing_is_gone(site: Site) -> None:
    _with_locked_member(site)
    for target in ("/c/d/", "/c/"):
        _is_kept(site, "DELETE", target)


@scenario()
def move_of_a_parent__locked_member_stays(site: Site) -> None:
    _with_locked_member(site)
    for target in ("/c", "/c/", "/c/d", "/c/d/"):
        _is_kept(site, "MOVE", target, {"Destination": "/new"})
        _is_kept(site, "MOVE", target, {"Destination": "/other/", "Overwrite": "T"})


@scenario()
def copy_over_a_parent__locked_member_stays(site: Site) -> None:
    _with_locked_member(site)
    for destination in ("/c", "/c/", "/c/d/", "/c/d/locked"):
        _is_kept(site, "COPY", "/other/", {"Destination": destination, "Overwrite": "T"})
        _is_kept(site, "COPY", "/other/f", {"Destination": destination, "Overwrite": "T"})


@scenario()
def move_over_a_parent__locked_member_stays(site: Site) -> None:
    _with_locked_member(site)
    for destination in ("/c", "/c/", "/c/d/", "/c/d/locked"):
        _is_kept(site, "MOVE", "/other/", {"Destination": destination, "Overwrite": "T"})
        _is_kept(site, "MOVE", "/other/f", {"Destination": destination, "Overwrite": "T"})


# --- COPY ---------------------------------------------------------------------------------------------------------


@scenario(stock="members of the copy: {")
def copy_of_depth_0__has_no_members(site: Site) -> None:
    _nested(site)
    expect("COPY", site.status("COPY", "/p/", None, {"Destination": "/new/", "Depth": "0"}), 201)
    expect("members of the copy", site.members("/new/"), set())


@scenario(stock="members of the copy: {")
def copy_of_depth_0_over_a_collection__leaves_no_old_member(site: Site) -> None:
    _nested(site)
    site.mkcol("/old/")
    site.put("/old/f", b"old")
    expect("COPY", site.status("COPY", "/p/", None, {"Destination": "/old/", "Depth": "0"}), 204)
    expect("members of the copy", site.members("/old/"), set())


# --- Destination --------------------------------------------------------------------------------------------------


def _arrives(site: Site, name: str) -> None:
    """What is put, copied and moved under one spelling of a name is there under that spelling, and nothing else."""
    site.mkcol("/d/")
    site.put("/f", b"content")
    site.put("/d/x", b"x")
    site.put("/d/q", b"q")
    site.prepared("PUT", f"/d/{name}", b"old")
    before = site.members("/d/")
    for method, destination in (("COPY", f"/d/{name}"), ("MOVE", f"http://{_host(site)}/d/{name}")):
        expect(method, site.status(method, "/f", None, {"Destination": destination}), 204)
        expect(f"content of {name} after {method}", site.content(f"/d/{name}"), b"content")
        expect(f"members after {method}", site.members("/d/"), before)
        expect("content of x", site.content("/d/x"), b"x")
        expect("content of q", site.content("/d/q"), b"q")


def _host(site: Site) -> str:
    return f"{site.address[0]}:{site.address[1]}"


@scenario(stock="content of x;y after COPY: b'old'")
def destination_with_a_semicolon__is_what_it_says(site: Site) -> None:
    _arrives(site, "x;y")


@scenario(stock="content of x%3By after COPY: b'old'")
def destination_with_an_encoded_semicolon__is_what_it_says(site: Site) -> None:
    _arrives(site, "x%3By")


@scenario(stock="content of q%3Fz after COPY: b'old'")
def destination_with_an_encoded_question_mark__is_what_it_says(site: Site) -> None:
    _arrives(site, "q%3Fz")


@scenario()
def destination_with_an_encoded_hash__is_what_it_says(site: Site) -> None:
    _arrives(site, "q%23z")


@scenario(stock="members: {")
def encoded_slash__means_the_same_everywhere(site: Site) -> None:
    site.mkcol("/d/")
    site.put("/f", b"content")
    as_target = site.status("PUT", "/d%2Fa", b"content")
    as_destination = site.status("COPY", "/f", None, {"Destination": "/d%2Fb"})
    expect("COPY to /d%2Fb as PUT of /d%2Fa", as_destination, as_target)
    expect("members", {"/d/a" in site.members("/"), "/d/b" in site.members("/")}, {as_target == 201})


@scenario()
def encoded_percent_sign__is_decoded_once(site: Site) -> None:
    _arrives(site, "x%253By")


# --- an overwriting MOVE is one step ------------------------------------------------------------------------------

FILES = 60


def _collection_of(site: Site, target: str, content: bytes) -> None:
    site.mkcol(target)
    for number in range(FILES):
        site.put(f"{target}{number}", content)


@scenario(stock="what a reader saw that never was")
def overwriting_move_of_a_tree__is_one_step_for_a_reader(site: Site) -> None:
    _collection_of(site, "/new/", b"new")
    _collection_of(site, "/old/", b"old")
    seen = _watched(
        site,
        lambda client: [client.request("GET", f"/old/{number}").body for number in (0, FILES - 1)],
        lambda: expect("MOVE", site.status("MOVE", "/new/", None, {"Destination": "/old/"}), 204),
    )
    # Two requests are no snapshot: the first may see the old state and the second the new one, never the reverse.
    states = ([b"old", b"old"], [b"old", b"new"], [b"new", b"new"])
    expect("what a reader saw that never was", [pair for pair in seen if pair not in states][:3], [])
    expect("what is there", seen[-1], [b"new", b"new"])
    expect("what is left", site.content("/new/0"), 404)


@scenario(stock="what a reader saw that never was")
def overwriting_move_of_a_tree__listing_is_whole(site: Site) -> None:
    _collection_of(site, "/new/", b"new")
    _collection_of(site, "/old/", b"older")
    names = b"<D:propfind xmlns:D='DAV:'><D:prop><D:getcontentlength/></D:prop></D:propfind>"

    def listing(client: Client) -> tuple[int, int, int]:
        reply = client.request("PROPFIND", "/old/", names, {"Depth": "1"})
        return reply.status, reply.body.count(b">3<"), reply.body.count(b">5<")

    seen = _watched(
        site, listing, lambda: expect("MOVE", site.status("MOVE", "/new/", None, {"Destination": "/old/"}), 204)
    )
    states = ((207, 0, FILES), (207, FILES, 0))
    expect("what a reader saw that never was", [each for each in seen if each not in states][:3], [])
    expect("what is there", seen[-1], (207, FILES, 0))


def _watched(site: Site, look: Callable[[Client], Seen], act: Callable[[], object]) -> list[Seen]:
    """What a reader sees that looks again and again before, while and after something is done."""
    seen: list[Seen] = []
    broken: list[Exception] = []
    has_begun, is_done = Event(), Event()

    def read() -> None:
        try:
            with Client(site.address, timeout_s=TIMEOUT_S) as client:
                while not is_done.is_set():
                    seen.append(look(client))
                    has_begun.set()
                seen.append(look(client))
        except BROKEN as error:
            broken.append(error)
        finally:
            has_begun.set()

    reader = Thread(target=read)
    reader.start()
    try:
        has_begun.wait()
        act()
    finally:
        is_done.set()
        reader.join()
    expect("a reader's connection", broken, [])
    return seen
