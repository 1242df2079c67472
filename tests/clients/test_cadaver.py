"""cadaver, driven by a script on its standard input as a person would type."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from davsql.model import LockRequest, LockScope
from davsql.store.store import Store
from tests.clients.programs import Program
from tests.live_server import LiveServer
from tests.store_steps import at, mkcol, put, tree

PROMPT = re.compile(r"^dav:/.*?> ", re.MULTILINE)
FAILURE = re.compile(r"failed|could not|refusing|not known|not supported|unrecognised", re.IGNORECASE)
EXCLUSIVE = LockRequest(LockScope.EXCLUSIVE, is_depth_infinity=False, owner_xml=None, timeout_s=600)


def play(cadaver: Program, url: str, commands: Sequence[str]) -> list[str]:
    """Run the commands; what each of them printed, the command itself included.

    cadaver's exit status says nothing about commands that failed: its words do.
    """
    script = "\n".join((*commands, "quit", ""))
    finished = cadaver.succeed(url, stdin=script.encode())
    answers = [each.strip() for each in PROMPT.split(finished.out)[1:]]
    assert len(answers) == len(commands) + 1, finished
    assert finished.err == ""
    return answers[:-1]


def play_without_failure(cadaver: Program, url: str, commands: Sequence[str]) -> list[str]:
    """Run commands that must all succeed."""
    answers = play(cadaver, url, commands)
    assert [each for each in answers if FAILURE.search(each)] == []
    return answers


def test_cadaver__puts_copies_moves_and_removes(cadaver: Program, server: LiveServer, store: Store) -> None:
    (cadaver.folder / "a.txt").write_bytes(b"a")
    play_without_failure(
        cadaver,
        f"{server.url}/",
        [
            "mkcol docs",
            "cd docs",
            "put a.txt",
            "put a.txt b.txt",
            "mkcol deep",
            "copy a.txt deep",
            "mkcol /other",
            "copy deep /other",  # into it: 0.26 refuses a name that is not there for a folder
            "move b.txt c.txt",
            "move /other/deep /",
            "put a.txt gone.txt",
            "rm gone.txt",
            "rmcol deep",
            "ls",
        ],
    )
    assert tree(store) == {
        "/docs": None,
        "/docs/a.txt": b"a",
        "/docs/c.txt": b"a",
        "/other": None,
        "/deep": None,
        "/deep/a.txt": b"a",
    }


def test_cadaver__names_with_spaces_and_beyond_ascii(cadaver: Program, server: LiveServer, store: Store) -> None:
    names = ("two words.txt", "Übung 1.txt", "日本語.txt", "emoji 🎉.txt", "50% #1; really?.txt")
    for name in names:
        (cadaver.folder / name).write_text(name)
    play_without_failure(
        cadaver,
        f"{server.url}/",
        [
            'mkcol "neuer Ördner"',
            'cd "neuer Ördner"',
            *(f'put "{name}"' for name in names),
            'copy "Übung 1.txt" "Übung 2.txt"',
            'move "two words.txt" "three short words.txt"',
            *(f'get "{name}" "got {name}"' for name in names[1:]),
        ],
    )
    expected: dict[str, bytes | None] = {f"/neuer Ördner/{name}": name.encode() for name in names[1:]}
    expected |= {
        "/neuer Ördner": None,
        "/neuer Ördner/Übung 2.txt": "Übung 1.txt".encode(),
        "/neuer Ördner/three short words.txt": b"two words.txt",
    }
    assert tree(store) == expected
    for name in names[1:]:
        assert (cadaver.folder / f"got {name}").read_text() == name


def test_cadaver__lists_what_is_there(cadaver: Program, server: LiveServer, store: Store) -> None:
    mkcol(store, "/a collection")
    put(store, "/b.bin", b"x" * 12345, modified_at=1_700_000_000_000_000_000)
    (listing,) = play_without_failure(cadaver, f"{server.url}/", ["ls"])
    collection, file = listing.splitlines()[2:]
    assert re.fullmatch(r"Coll:   a collection +0 .*", collection)
    assert re.fullmatch(r" +b\.bin +12345  Nov 14  2023", file)


def test_cadaver__gets_and_shows(cadaver: Program, server: LiveServer, store: Store) -> None:
    put(store, "/a.bin", bytes(range(256)) * 4000)
    put(store, "/b.txt", b"shown here\n")
    shown = play_without_failure(cadaver, f"{server.url}/", ["get a.bin", "mget b.txt", "cat b.txt"])
    assert (cadaver.folder / "a.bin").read_bytes() == bytes(range(256)) * 4000
    assert (cadaver.folder / "b.txt").read_bytes() == b"shown here\n"
    assert shown[-1].splitlines()[1:] == ["shown here"]


def test_cadaver__properties(cadaver: Program, server: LiveServer, store: Store) -> None:
    put(store, "/a.txt")
    commands = ["propset a.txt colour blau-grün", "propget a.txt colour", "propnames a.txt", "propdel a.txt colour"]
    _, value, names, _ = play_without_failure(cadaver, f"{server.url}/", commands)
    assert value.endswith("Value of colour is: blau-grün")
    # 0.26 leaves the space out
    assert re.search(r"^ http://webdav\.org/cadaver/custom-properties/ ?colour$", names, re.MULTILINE)
    (gone,) = play(cadaver, f"{server.url}/", ["propget a.txt colour"])
    assert gone.endswith("404 Not Found")


def test_cadaver__locks_and_writes_under_the_lock(cadaver: Program, server: LiveServer, store: Store) -> None:
    put(store, "/a.txt", b"old")
    (cadaver.folder / "new.txt").write_bytes(b"new")
    _, discovered, *_ = play_without_failure(
        cadaver,
        f"{server.url}/",
        ["lock a.txt", "discover a.txt", "showlocks", "put new.txt a.txt", "propset a.txt colour red", "unlock a.txt"],
    )
    assert "Scope: exclusive  Type: write" in discovered
    assert tree(store) == {"/a.txt": b"new"}
    assert store.stats().locks == 0


def test_cadaver__is_kept_out_by_the_lock_of_another(cadaver: Program, server: LiveServer, store: Store) -> None:
    put(store, "/a.txt", b"old")
    lock = store.lock(at("/a.txt"), EXCLUSIVE).lock
    (cadaver.folder / "new.txt").write_bytes(b"new")
    commands = ["put new.txt a.txt", "rm a.txt", "move a.txt b.txt", "lock a.txt", "propset a.txt colour red"]
    for answer in play(cadaver, f"{server.url}/", commands):
        assert "423 Locked" in answer
    assert tree(store) == {"/a.txt": b"old"}
    store.unlock(at("/a.txt"), lock.token)
    play_without_failure(cadaver, f"{server.url}/", ["put new.txt a.txt"])
    assert tree(store) == {"/a.txt": b"new"}


def test_cadaver__edits_under_a_lock(cadaver: Program, server: LiveServer, store: Store, tmp_path: Path) -> None:
    put(store, "/a.txt", b"first\n")
    editor = tmp_path / "editor"
    # cadaver sees a change by the time alone, in whole seconds
    editor.write_text('#!/bin/sh\necho second >>"$1"\ntouch -d 2001-01-01 "$1"\n')
    editor.chmod(0o755)
    (cadaver.folder / ".cadaverrc").write_text(f"set editor {editor}\n")
    play_without_failure(cadaver, f"{server.url}/", ["edit a.txt"])
    assert tree(store) == {"/a.txt": b"first\nsecond\n"}
    assert store.stats().locks == 0


def test_cadaver__is_told_what_is_not_possible(cadaver: Program, server: LiveServer, store: Store) -> None:
    put(store, "/a.txt", b"a")
    commands = ["mkcol a.txt", "rm missing", "mkcol no/where", "move a.txt no/where.txt"]
    answers = play(cadaver, f"{server.url}/", commands)
    statuses = [answer.splitlines()[-1] for answer in answers]
    assert statuses == ["405 Method Not Allowed", "404 Not Found", "409 Conflict", "409 Conflict"]
    assert tree(store) == {"/a.txt": b"a"}
