"""Holes that other servers had, and what comes near them, tried on this one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from davsql.dav.access import ShareRules
from davsql.dav.provider import METHODS
from davsql.model import Guard
from davsql.store import commands, trees
from davsql.store.options import StoreOptions
from davsql.store.store import Store
from davsql.store.transaction import WriteTx
from tests.access.wsgi import Site, one_share, rule, site, user
from tests.dav.answers import lock_body, only_response, propfind_body, responses, set_body, token_of
from tests.store_steps import at, mkcol, put, read, tree

ANN, BOB, EVE = user("ann"), user("bob"), user("eve")
RULES = (
    rule("/", "ann", "rwd"),
    rule("/share", "bob", "rwd"),
    rule("/share/secret", "bob", ""),
    rule("/public", "*", "r"),
)


@pytest.fixture
def filled(store: Store) -> Site:
    """ann may do everything, bob everything in /share but for /share/secret, all may read /public."""
    for path in ("/share", "/share/secret", "/share_evil", "/public", "/other"):
        mkcol(store, path)
        put(store, f"{path}/f", path.encode())
    return one_share(store, *RULES)


def test_access__a_path_that_begins_with_the_same_letters_is_another_one(filled: Site) -> None:
    assert filled.ask(BOB, "GET", "/share/f").status == 200
    assert filled.ask(BOB, "GET", "/share_evil/f").status == 404
    assert filled.put(BOB, "/share_evil/f") == 403
    assert filled.put(BOB, "/shar") == 403


@pytest.mark.parametrize(
    "target",
    ["/share/%2e%2e/other/f", "/share/../other/f", "/share/./secret/f", "/share/%2E./other/f", "/share/secret%2ff"],
)
def test_access__dots_and_encoded_slashes_lead_nowhere(filled: Site, target: str) -> None:
    assert filled.ask(BOB, "GET", target).status == 400
    assert filled.put(BOB, target) == 400
    assert filled.ask(BOB, "COPY", "/share/f", headers={"Destination": target}).status == 400


@pytest.mark.parametrize("target", ["/share/secret/f", "//share//secret/f", "/share/%73ecret/f", "/share/secret/f/"])
def test_access__a_path_is_judged_as_it_is_resolved(filled: Site, target: str) -> None:
    assert filled.ask(BOB, "GET", target).status == 404
    assert filled.ask(BOB, "DELETE", target).status == 404
    assert filled.put(BOB, target) == 403


@pytest.mark.parametrize("method", ["COPY", "MOVE"])
@pytest.mark.parametrize("destination", ["/other/g", "/other/f", "/public/f", "/share/secret/f", "/g"])
def test_access__destinations_are_judged_too(filled: Site, store: Store, method: str, destination: str) -> None:
    before = tree(store)
    assert filled.ask(BOB, method, "/share/f", headers={"Destination": destination}).status == 403
    assert tree(store) == before


def test_access__what_may_not_be_read_cannot_be_told_from_what_is_not_there(filled: Site) -> None:
    for method, headers in (
        ("GET", {}),
        ("HEAD", {}),
        ("PROPFIND", {"Depth": "0"}),
        ("DELETE", {}),
        ("PUT", {"If-None-Match": "*"}),
        ("PUT", {"If-Match": "*"}),
        ("MKCOL", {}),
        ("COPY", {"Destination": "/share/new"}),
        ("MOVE", {"Destination": "/share/new", "Overwrite": "F"}),
        ("PROPPATCH", {}),
        ("LOCK", {}),
        ("UNLOCK", {"Lock-Token": "<urn:x:y>"}),
        ("OPTIONS", {}),
    ):
        body = {"PROPPATCH": set_body("<D:displayname>x</D:displayname>"), "LOCK": lock_body()}.get(method, b"")
        there, missing, nowhere = (
            filled.ask(BOB, method, target, body, headers) for target in ("/other/f", "/other/g", "/nowhere/g")
        )
        assert (there.status, there.body) == (missing.status, missing.body) == (nowhere.status, nowhere.body), method
        assert there.headers.items() == missing.headers.items()


def test_access__the_destination_of_a_copy_does_not_tell_what_is_there(filled: Site) -> None:
    for headers in ({"Overwrite": "F"}, {"Overwrite": "T"}):
        found = [
            filled.ask(BOB, "COPY", "/share/f", headers={**headers, "Destination": target}).status
            for target in ("/other/f", "/other/g", "/nowhere/g")
        ]
        assert found == [403, 403, 403]


def test_access__the_if_header_does_not_tell_what_may_not_be_read(filled: Site, store: Store) -> None:
    etag = store.node(at("/other/f")).etag
    for state in (f"<http://drive.example/other/f> ([{etag}])", '<http://drive.example/other/f> (Not ["x"] ["x"])'):
        assert filled.ask(BOB, "PUT", "/share/f", b"x", {"If": state}).status == 412
        assert filled.ask(BOB, "GET", "/share/f", headers={"If": state}).status == 412
    assert (
        filled.ask(ANN, "GET", "/share/f", headers={"If": f"<http://drive.example/other/f> ([{etag}])"}).status == 200
    )


def test_access__a_tree_with_something_forbidden_in_it_stays(filled: Site, store: Store) -> None:
    before = tree(store)
    assert filled.ask(BOB, "DELETE", "/share").status == 403
    assert filled.ask(BOB, "MOVE", "/share", headers={"Destination": "/share/in"}).status == 403
    assert filled.ask(BOB, "COPY", "/share", headers={"Destination": "/share/in"}).status == 403
    assert filled.ask(BOB, "LOCK", "/share", lock_body(), {"Depth": "infinity"}).status == 403
    assert tree(store) == before
    assert filled.ask(ANN, "DELETE", "/share/secret").status == 204
    assert filled.ask(BOB, "DELETE", "/share").status == 204


def test_access__a_tree_is_not_moved_to_where_a_part_of_it_is_forbidden(filled: Site, store: Store) -> None:
    mkcol(store, "/share/x")
    mkcol(store, "/share/x/secret")
    assert filled.ask(ANN, "DELETE", "/share/secret").status == 204
    before = tree(store)
    rules = (rule("/", "bob", "rwd"), rule("/there/secret", "bob", "r"))
    drive = one_share(store, *rules)
    assert drive.ask(BOB, "MOVE", "/share/x", headers={"Destination": "/there"}).status == 403
    assert drive.ask(BOB, "COPY", "/share/x", headers={"Destination": "/there"}).status == 403
    assert tree(store) == before
    assert drive.ask(BOB, "COPY", "/share/x", headers={"Destination": "/there", "Depth": "0"}).status == 201


def test_access__a_listing_shows_just_the_way_to_what_may_be_read(store: Store) -> None:
    mkcol(store, "/a")
    mkcol(store, "/a/b")
    put(store, "/a/x")
    put(store, "/a/b/c")
    put(store, "/file")
    drive = one_share(store, rule("/a/b", "bob", "r"), rule("/file/in", "bob", "r"), rule("/", "ann", "rwd"))
    assert drive.ask(ANN, "PROPPATCH", "/a", set_body('<x:p xmlns:x="urn:x">hidden</x:p>')).status == 207
    assert drive.listed(BOB, "/", "infinity") == {"/", "/a/", "/a/b/", "/a/b/c"}
    assert drive.listed(BOB, "/", "1") == {"/", "/a/"}
    assert drive.listed(BOB, "/a", "1") == {"/a/", "/a/b/"}
    assert drive.listed(EVE, "/", "0") == 404
    assert "hidden" in drive.ask(ANN, "PROPFIND", "/a", headers={"Depth": "0"}).text
    for target in ("/", "/a"):
        assert "hidden" not in drive.ask(BOB, "PROPFIND", target, headers={"Depth": "1"}).text
    assert drive.ask(BOB, "COPY", "/a", headers={"Destination": "/a/b/new"}).status == 403


def test_access__a_file_is_no_way_to_anything(store: Store) -> None:
    put(store, "/hidden")
    put(store, "/seen")
    drive = one_share(store, rule("/", "bob", "r"), rule("/hidden", "bob", ""), rule("/hidden/in", "bob", "r"))
    for depth in ("1", "infinity"):
        assert drive.listed(BOB, "/", depth) == {"/", "/seen"}
    assert drive.listed(BOB, "/hidden", "0") == drive.ask(BOB, "GET", "/hidden").status == 404
    assert "hidden" not in drive.ask(BOB, "GET", "/").text


def test_access__pages_of_a_listing_are_whole_where_some_are_hidden(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("davsql.dav.methods.propfind.PAGE_MEMBERS", 3)
    for number in range(10):
        put(store, f"/{number}")
    drive = one_share(store, rule("/", "bob", "r"), *(rule(f"/{number}", "bob", "") for number in (0, 2, 3, 9)))
    assert drive.listed(BOB, "/", "1") == {"/", "/1", "/4", "/5", "/6", "/7", "/8"}


def test_access__a_token_that_may_only_read_changes_nothing_by_any_method(filled: Site, store: Store) -> None:
    reader = replace(ANN, is_read_only=True)
    before = tree(store)
    for method, headers in (
        ("PUT", {}),
        ("DELETE", {}),
        ("MKCOL", {}),
        ("PROPPATCH", {}),
        ("LOCK", {}),
        ("COPY", {"Destination": "/new"}),
        ("MOVE", {"Destination": "/new"}),
    ):
        body = {"PROPPATCH": set_body("<D:displayname>x</D:displayname>"), "LOCK": lock_body(), "PUT": b"x"}
        for target in ("/share/f", "/share", "/new"):
            status = filled.ask(reader, method, target, body.get(method, b""), headers).status
            is_there_already = method == "MKCOL" and target != "/new"
            expected = (405,) if is_there_already else (403, 404) if target == "/new" else (403,)
            assert status in expected, (method, target)
    assert tree(store) == before
    assert filled.ask(reader, "OPTIONS", "/share").header("DAV") == "1, 3"
    assert filled.ask(reader, "OPTIONS", "/share").header("Allow") == "OPTIONS, GET, HEAD, PROPFIND, REPORT"


def test_access__a_read_only_share_changes_nothing_by_any_method(tmp_path: Path) -> None:
    file = tmp_path / "s.db"
    with Store.open(file, create=True) as store:
        put(store, "/f", b"old")
    with Store.open(file, StoreOptions(read_only=True)) as store:
        drive = one_share(store, rule("/", "ann", "rwd"), rule("/home/{user}", "ann", "rwd"))
        for method in ("PUT", "DELETE", "MKCOL", "PROPPATCH", "LOCK", "COPY", "MOVE"):
            body = {"PROPPATCH": set_body("<D:displayname>x</D:displayname>"), "LOCK": lock_body(), "PUT": b"x"}
            for target in ("/f", "/new"):
                status = drive.ask(ANN, method, target, body.get(method, b""), {"Destination": "/g"}).status
                assert status in (403, 404, 405), (method, target)
        assert tree(store) == {"/f": b"old"}


def test_access__locks_are_their_users(filled: Site) -> None:
    token = token_of(filled.ask(BOB, "LOCK", "/share/f", lock_body()))
    tokens = {"If": f"(<{token}>)", "Lock-Token": f"<{token}>"}
    assert filled.ask(ANN, "PUT", "/share/f", b"x", tokens).status == 423
    assert filled.ask(ANN, "DELETE", "/share", headers={"If": f"</share/f> (<{token}>)"}).status == 423
    assert filled.ask(ANN, "UNLOCK", "/share/f", headers=tokens).status == 403
    assert filled.ask(ANN, "LOCK", "/share/f", headers=tokens).status == 403
    assert token in filled.ask(BOB, "PROPFIND", "/share/f", headers={"Depth": "0"}).text
    shown = filled.ask(ANN, "PROPFIND", "/share/f", headers={"Depth": "0"}).text
    assert "<D:activelock>" in shown
    assert token not in shown
    assert filled.ask(BOB, "PUT", "/share/f", b"x", tokens).status == 204
    assert filled.ask(BOB, "UNLOCK", "/share/f", headers=tokens).status == 204


def test_access__a_shared_lock_does_not_show_the_tokens_of_others(filled: Site) -> None:
    first = token_of(filled.ask(BOB, "LOCK", "/share/f", lock_body("shared")))
    second = filled.ask(ANN, "LOCK", "/share/f", lock_body("shared"))
    assert second.text.count("<D:activelock>") == 2
    assert first not in second.text


def test_access__who_lost_the_right_to_write_cannot_keep_a_lock(filled: Site, store: Store) -> None:
    token = token_of(filled.ask(BOB, "LOCK", "/share/f", lock_body()))
    later = one_share(store, rule("/", "bob", "r"))
    assert later.ask(BOB, "LOCK", "/share/f", headers={"If": f"(<{token}>)"}).status == 403


@pytest.mark.parametrize("limits", [{"is_read_only": True}, {"path": at("/share/secret")}])
def test_access__a_token_touches_no_lock_beyond_its_limits(filled: Site, limits: dict[str, Any]) -> None:
    """Its user has the lock, and lockdiscovery tells it the lock's token; the lock covers what the token may change."""
    limited, target = replace(ANN, **limits), "/share/secret/f"
    token = token_of(filled.ask(ANN, "LOCK", "/share", lock_body()))
    assert token in filled.ask(limited, "PROPFIND", target, headers={"Depth": "0"}).text
    assert filled.ask(limited, "UNLOCK", target, headers={"Lock-Token": f"<{token}>"}).status == 403
    assert filled.ask(limited, "LOCK", target, headers={"If": f"(<{token}>)"}).status == 403
    assert filled.ask(ANN, "UNLOCK", target, headers={"Lock-Token": f"<{token}>"}).status == 204


def test_access__who_may_only_write_can_end_his_lock(store: Store) -> None:
    mkcol(store, "/box")
    drive = one_share(store, rule("/box", "bob", "w"))
    token = token_of(drive.ask(BOB, "LOCK", "/box/f", lock_body()))
    assert drive.ask(BOB, "UNLOCK", "/box/f", headers={"Lock-Token": f"<{token}>"}).status == 204


def test_access__locks_do_not_name_what_may_not_be_read(store: Store) -> None:
    mkcol(store, "/box")
    put(store, "/box/resignation")
    put(store, "/mine")
    drive = one_share(store, rule("/", "ann", "rwd"), rule("/box", "bob", "wd"), rule("/mine", "bob", "r"))
    assert drive.ask(ANN, "LOCK", "/box/resignation", lock_body()).status == 200
    for reply in (
        drive.ask(BOB, "LOCK", "/box", lock_body(), {"Depth": "infinity"}),
        drive.ask(BOB, "COPY", "/mine", headers={"Destination": "/box"}),
    ):
        assert (reply.status, "resignation" in reply.text) == (423, False)
    assert "/box/resignation" in drive.ask(ANN, "DELETE", "/box").text


@pytest.mark.parametrize("condition", ["If-Match: {}", "If: ([{}])", "If: (Not [{}])", "If-None-Match: {}"])
def test_access__who_may_only_write_cannot_guess_what_a_file_holds(store: Store, condition: str) -> None:
    mkcol(store, "/box")
    put(store, "/box/f", b"guess")
    name, _, value = condition.partition(": ")
    drive = one_share(store, rule("/box", "bob", "w"))
    answers = []
    for tag in (store.node(at("/box/f")).etag, '"other"'):
        reply = drive.ask(BOB, "LOCK", "/box/f", lock_body(), {name: value.format(tag)})
        answers.append(reply.status)
        if reply.status == 200:
            store.unlock(at("/box/f"), token_of(reply), Guard(principal="bob"))
    assert answers[0] == answers[1]
    assert drive.ask(BOB, "PUT", "/box/f", b"x", {"If-None-Match": "*"}).status == 412
    assert drive.ask(BOB, "PUT", "/box/f", b"x", {"If-Match": "*"}).status == 204


def test_access__a_page_of_what_was_deleted_meanwhile_is_empty(store: Store) -> None:
    """It has no path any more, so nothing says what in it may be read."""
    mkcol(store, "/a")
    put(store, "/a/hidden")
    put(store, "/a/seen")
    access = ShareRules("", (rule("/", "bob", "r"), rule("/a/hidden", "bob", ""))).access_of(BOB)
    inode = store.node(at("/a")).inode
    with store.snapshot(access) as view:
        assert view.members(inode).names == ["seen"]
    store.delete(at("/a"))
    with store.snapshot(access) as view:
        assert len(view.members(inode)) == 0


def test_access__shares_that_show_nothing_are_not_listed(tmp_path: Path) -> None:
    with Store.open(tmp_path / "a.db", create=True) as a, Store.open(tmp_path / "b.db", create=True) as b:
        drive = site({"/a": (a, (rule("/", "ann", "rwd"),)), "/b": (b, (rule("/in", "*", "r"),))})
        put(a, "/f")
        assert drive.listed(ANN, "/", "1") == {"/", "/a/", "/b/"}
        assert drive.listed(BOB, "/", "1") == {"/", "/b/"}
        assert "/a/" not in drive.ask(BOB, "GET", "/").text
        assert drive.ask(BOB, "GET", "/a/f").status == drive.ask(BOB, "GET", "/a").status == 404
        assert drive.listed(replace(ANN, share="b"), "/", "1") == {"/", "/b/"}
        assert drive.ask(replace(ANN, share="b"), "GET", "/a/f").status == 404


def test_access__a_share_in_which_nothing_is_allowed_cannot_be_told_from_none(tmp_path: Path) -> None:
    with Store.open(tmp_path / "a.db", create=True) as a, Store.open(tmp_path / "b.db", create=True) as b:
        drive = site({"/a": (a, (rule("/", "ann", "rwd"),)), "/b": (b, (rule("/", "*", "r"),))})
        put(a, "/f")
        for method in (*METHODS, "POST"):
            for path in ("", "/", "/f", "/g", "/f?x"):
                for body in (b"", b"<x"):
                    hidden, missing = (drive.ask(BOB, method, share + path, body) for share in ("/a", "/c"))
                    assert (hidden.status, hidden.body) == (missing.status, missing.body), (method, path)
                    assert hidden.headers.items() == missing.headers.items(), (method, path)
        assert tree(a) == {"/f": b""}


def test_access__homes_are_made_when_their_user_comes(store: Store) -> None:
    drive = one_share(store, rule("/home/{user}", "*", "rwd"))
    assert drive.listed(ANN, "/", "infinity") == {"/", "/home/", "/home/ann/"}
    assert drive.put(ANN, "/home/ann/f", b"ann's") == 201
    assert drive.listed(BOB, "/home", "infinity") == {"/home/", "/home/bob/"}
    assert drive.ask(BOB, "GET", "/home/ann/f").status == 404
    assert drive.put(BOB, "/home/ann/g") == 403
    assert tree(store) == {"/home": None, "/home/ann": None, "/home/ann/f": b"ann's", "/home/bob": None}


def test_access__a_file_where_homes_should_be_stays(store: Store) -> None:
    put(store, "/home", b"mine")
    drive = one_share(store, rule("/home/{user}", "*", "rwd"))
    assert drive.put(ANN, "/home/ann/f") == 409
    assert drive.listed(ANN, "/", "1") == {"/"}
    assert read(store, "/home") == b"mine"


def test_access__privileges_are_shown_to_who_asks_for_them(filled: Site) -> None:
    body = propfind_body("current-user-privilege-set")

    def shown(reply_for: str, target: str) -> set[str]:
        reply = filled.ask(user(reply_for), "PROPFIND", target, body, {"Depth": "0"})
        (element,) = only_response(reply)[200].values()
        return {str(privilege[0].tag).removeprefix("{DAV:}") for privilege in element}

    reading = {"read", "read-current-user-privilege-set"}
    writing = {"write-content", "write-properties", "unlock"}
    assert shown("ann", "/share") == reading | writing | {"write", "bind", "unbind"}
    assert shown("ann", "/share/f") == reading | writing | {"write"}
    assert shown("eve", "/public") == shown("eve", "/public/f") == reading
    assert shown("bob", "/") == set()  # on the way to what he may read
    listed = responses(filled.ask(BOB, "PROPFIND", "/", body, {"Depth": "infinity"}))
    assert {href for href, found in listed.items() if len(found[200]["{DAV:}current-user-privilege-set"]) > 2} == {
        "/share/",
        "/share/f",
    }
    assert "privilege" not in filled.ask(ANN, "PROPFIND", "/", headers={"Depth": "0"}).text


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "STEP_NODES", 1)
    monkeypatch.setattr(trees, "AT_ONCE_NODES", 1)


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("forbidden", ["/from/c", "/to/c"])
def test_access__a_long_copy_does_not_bring_along_what_became_forbidden(
    store: Store, monkeypatch: pytest.MonkeyPatch, forbidden: str
) -> None:
    """While the copy is made something appears under a forbidden path for a while; the copy must not have it."""
    for path in ("/from", "/from/a", "/from/b", "/hidden"):
        mkcol(store, path)
    put(store, "/hidden/c", b"secret")
    rules = (rule("/", "bob", "rwd"), rule("/hidden", "bob", ""), rule(forbidden, "bob", ""))
    drive = one_share(store, *rules)
    begin, finish = commands.begin_copy, commands.finish_copy

    def begin_then_move(tx: WriteTx, *arguments: object) -> object:
        made = begin(tx, *arguments)  # type: ignore[arg-type]
        commands.move(tx, commands.Transfer(at("/hidden/c"), at("/from/c"), overwrite=False), Guard(), StoreOptions())
        return made

    def move_back_then_finish(tx: WriteTx, *arguments: object) -> object:
        commands.move(tx, commands.Transfer(at("/from/c"), at("/hidden/c"), overwrite=False), Guard(), StoreOptions())
        return finish(tx, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(commands, "begin_copy", begin_then_move)
    monkeypatch.setattr(commands, "finish_copy", move_back_then_finish)
    assert drive.ask(BOB, "COPY", "/from", headers={"Destination": "/to"}).status == 403
    assert "/to" not in tree(store)


@pytest.mark.usefixtures("small_steps")
def test_access__a_long_copy_does_not_follow_a_collection_to_where_it_may_not_be_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("/from", "/from/a", "/from/b", "/hidden"):
        mkcol(store, path)
    drive = one_share(store, rule("/", "bob", "rwd"), rule("/hidden", "bob", ""))
    copy_members, moved = trees.copy_members, list[bool]()

    def copy_then_hide(tx: WriteTx, *arguments: object) -> object:
        copied = copy_members(tx, *arguments)  # type: ignore[arg-type]
        if not moved:  # the members of /from are copied now, those of /from/a are not
            moved.append(True)
            commands.move(
                tx, commands.Transfer(at("/from/a"), at("/hidden/a"), overwrite=False), Guard(), StoreOptions()
            )
        return copied

    monkeypatch.setattr(trees, "copy_members", copy_then_hide)
    assert drive.ask(BOB, "COPY", "/from", headers={"Destination": "/to"}).status == 403
    assert moved
    assert "/to" not in tree(store)
