"""GVFS, with which GNOME's Files and programs like it reach a server: mounted, and used by `gio`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from davsql.dav.application import make_application
from davsql.dav.request import DavOptions
from davsql.model import LockRequest, LockScope
from davsql.store.store import Store
from tests.accounts.account_steps import PASSWORD, gate_of, new_accounts
from tests.clients.desktop import desktop_session
from tests.clients.programs import Program, find_program
from tests.clients.trees import brief, make_odd_tree, tree_on_disk
from tests.live_server import LiveServer, serving, serving_shares
from tests.store_steps import at, mkcol, put, read, tree
from tests.tls.tls_steps import make_authority, tls_of

EXCLUSIVE = LockRequest(LockScope.EXCLUSIVE, is_depth_infinity=False, owner_xml=None, timeout_s=600)


@pytest.fixture
def gio(folder: Path) -> Iterator[Program]:
    """`gio` in a session of its own, which has nothing mounted yet."""
    find_program("gvfsd-dav", folder)
    with desktop_session() as settings:
        yield find_program("gio", folder, settings)


@pytest.fixture
def drive(gio: Program, server: LiveServer) -> str:
    """The URL of the mounted store, without a slash at the end."""
    return mount(gio, server.url)


def mount(gio: Program, url: str, answers: bytes = b"") -> str:
    """Mount what is at an http or https URL, and answer questions; the URL by which GVFS knows it."""
    drive = re.sub("^http", "dav", url)
    gio.succeed("mount", f"{drive}/", stdin=answers)
    return drive


def here(gio: Program, content: bytes, name: str = "local.txt") -> Path:
    """A file to be sent."""
    path = gio.folder / name
    path.write_bytes(content)
    return path


# --- mounting -----------------------------------------------------------------------------------------------------


def test_gvfs__asks_for_a_password(gio: Program, store: Store, tmp_path: Path) -> None:
    accounts = new_accounts(tmp_path)
    with serving(make_application({"/": store}, DavOptions(), gate=gate_of(accounts))) as server:
        drive = f"dav://{server.url.removeprefix('http://')}"
        refused = gio.run("mount", f"{drive}/", stdin=b"ann\nwrong\n")
        assert refused.code != 0
        assert refused.err.endswith("HTTP Error: Unauthorized\n")
        mount(gio, server.url, b"ann\n" + PASSWORD.encode() + b"\n")
        gio.succeed("copy", here(gio, b"mine"), f"{drive}/a.txt")
        assert gio.succeed("cat", f"{drive}/a.txt").out == "mine"
    accounts.close()
    assert tree(store) == {"/a.txt": b"mine"}


def test_gvfs__asks_whether_an_unknown_certificate_is_right(gio: Program, store: Store, tmp_path: Path) -> None:
    with serving_shares({"/": store}, tls=tls_of(make_authority(tmp_path / "tls"))) as server:
        drive = f"davs://{server.url.removeprefix('https://')}"
        assert "Unacceptable TLS certificate" in gio.run("mount", f"{drive}/", stdin=b"2\n").err
        mount(gio, server.url, b"1\n")
        gio.succeed("copy", here(gio, bytes(range(256)) * 5000), f"{drive}/a.bin")
        gio.succeed("copy", f"{drive}/a.bin", "back.bin")
    assert (gio.folder / "back.bin").read_bytes() == read(store, "/a.bin") == bytes(range(256)) * 5000


def test_gvfs__mounts_unmounts_and_mounts_again(gio: Program, server: LiveServer, drive: str, store: Store) -> None:
    put(store, "/a.txt")
    assert f"-> {drive}/" in gio.succeed("mount", "--list").out
    gio.succeed("mount", "--unmount", f"{drive}/")
    assert gio.run("list", f"{drive}/").code != 0
    mount(gio, server.url)
    assert gio.succeed("list", f"{drive}/").out == "a.txt\n"


# --- there and back -----------------------------------------------------------------------------------------------


def test_gvfs__odd_names_go_there_and_back(gio: Program, share_url: str, tmp_path: Path) -> None:
    make_odd_tree(tmp_path / "source")
    source = sorted((tmp_path / "source" / "files").iterdir())
    names = sorted(path.name for path in source)
    drive = mount(gio, share_url)
    gio.succeed("mkdir", f"{drive}/files")
    gio.succeed("copy", *source, f"{drive}/files/")
    assert sorted(gio.succeed("list", "--hidden", f"{drive}/files").out.splitlines()) == names
    back = gio.folder / "back"
    back.mkdir()
    gio.succeed("copy", *(f"{drive}/files/{quote(name, safe='')}" for name in names), back)
    assert tree_on_disk(back) == tree_on_disk(tmp_path / "source" / "files")


def test_gvfs__content_is_kept_to_the_byte(gio: Program, drive: str, store: Store) -> None:
    content = bytes(range(256)) * 20_000 + b"the end"
    for name, each in (("big.bin", content), ("empty.txt", b""), ("lines.txt", b"a\r\nb\n\x00c")):
        gio.succeed("copy", here(gio, each, name), f"{drive}/")
        assert brief(read(store, f"/{name}")) == brief(each)
        gio.succeed("copy", f"{drive}/{name}", f"back {name}")
        assert brief((gio.folder / f"back {name}").read_bytes()) == brief(each)
    gio.succeed("copy", f"{drive}/big.bin", f"{drive}/copy.bin")
    assert brief(read(store, "/copy.bin")) == brief(content)


def test_gvfs__brings_the_time_of_a_file(gio: Program, drive: str, store: Store) -> None:
    put(store, "/a.txt", b"old", modified_at=1_700_000_000_000_000_000)
    gio.succeed("copy", "--preserve", f"{drive}/a.txt", "back.txt")
    assert int((gio.folder / "back.txt").stat().st_mtime) == 1_700_000_000


# --- saving -------------------------------------------------------------------------------------------------------


def test_gvfs__saves_over_what_is_there(gio: Program, drive: str, store: Store) -> None:
    put(store, "/a.txt", b"a longer text that was there")
    gio.succeed("copy", here(gio, b"copied"), f"{drive}/a.txt")
    assert read(store, "/a.txt") == b"copied"
    gio.succeed("save", f"{drive}/a.txt", stdin=b"saved")
    assert read(store, "/a.txt") == b"saved"
    gio.succeed("save", f"{drive}/new.txt", stdin=b"")
    assert tree(store) == {"/a.txt": b"saved", "/new.txt": b""}


def test_gvfs__saves_only_over_what_it_has_read(gio: Program, drive: str, store: Store) -> None:
    put(store, "/a.txt", b"one")
    tag = attributes(gio, f"{drive}/a.txt")["etag::value"]
    gio.succeed("save", f"--etag={tag}", f"{drive}/a.txt", stdin=b"two")
    refused = gio.run("save", f"--etag={tag}", f"{drive}/a.txt", stdin=b"three")
    assert refused.code != 0
    assert "The file was externally modified" in refused.err
    assert gio.run("save", "--create", f"{drive}/a.txt", stdin=b"four").code != 0
    assert tree(store) == {"/a.txt": b"two"}


def test_gvfs__does_not_change_what_another_has_locked(gio: Program, drive: str, store: Store) -> None:
    put(store, "/a.txt", b"old")
    lock = store.lock(at("/a.txt"), EXCLUSIVE).lock
    assert gio.run("save", f"{drive}/a.txt", stdin=b"new").code != 0
    assert gio.run("move", f"{drive}/a.txt", f"{drive}/b.txt").code != 0
    assert gio.run("remove", f"{drive}/a.txt").code != 0
    assert tree(store) == {"/a.txt": b"old"}
    store.unlock(at("/a.txt"), lock.token)
    gio.succeed("save", f"{drive}/a.txt", stdin=b"new")
    assert tree(store) == {"/a.txt": b"new"}


# --- folders ------------------------------------------------------------------------------------------------------


def test_gvfs__makes_moves_and_renames(gio: Program, drive: str, store: Store) -> None:
    put(store, "/a.txt", b"a")
    put(store, "/b.txt", b"b")
    # one by one: for --parent, GVFS 1.50 wants another error than the 409 that RFC 4918 9.3.1 asks for
    gio.succeed("mkdir", f"{drive}/one", f"{drive}/one/two%20words", f"{drive}/one/two%20words/100%25")
    gio.succeed("move", f"{drive}/a.txt", f"{drive}/one/")
    gio.succeed("rename", f"{drive}/one/a.txt", "ä & 50%.txt")
    gio.succeed("rename", f"{drive}/one/two%20words", "drei Wörter")
    gio.succeed("move", f"{drive}/one", f"{drive}/moved")
    gio.succeed("copy", here(gio, b"c"), f"{drive}/c.txt")
    gio.succeed("move", f"{drive}/c.txt", f"{drive}/b.txt")  # over another file
    expected: dict[str, bytes | None] = {"/b.txt": b"c", "/moved": None, "/moved/ä & 50%.txt": b"a"}
    assert tree(store) == expected | {"/moved/drei Wörter": None, "/moved/drei Wörter/100%": None}


def test_gvfs__removes_files_and_empty_folders_only(gio: Program, drive: str, store: Store) -> None:
    mkcol(store, "/full")
    put(store, "/full/a.txt", b"a")
    mkcol(store, "/empty")
    put(store, "/b.txt", b"b")
    gio.succeed("remove", f"{drive}/b.txt", f"{drive}/empty")
    assert "Directory not empty" in gio.run("remove", f"{drive}/full").err
    assert gio.run("trash", f"{drive}/full/a.txt").code != 0  # there is no trash on a drive of WebDAV: Files asks
    assert tree(store) == {"/full": None, "/full/a.txt": b"a"}


def test_gvfs__says_what_is_not_there_or_is_already(gio: Program, drive: str, store: Store) -> None:
    mkcol(store, "/c")
    for arguments, words in (
        (("cat", f"{drive}/missing"), "Not Found"),
        (("info", f"{drive}/missing"), "Not Found"),
        (("list", f"{drive}/missing/"), "Not Found"),
        (("remove", f"{drive}/missing"), "Not Found"),
        (("mkdir", f"{drive}/c"), "Target file already exists"),
        (("mkdir", f"{drive}/no/where"), "Conflict|No such file or directory"),  # GVFS 1.50, 1.57
        (("copy", here(gio, b"a"), f"{drive}/no/where.txt"), "Conflict|No such file or directory"),
    ):
        finished = gio.run(*arguments)
        assert (finished.code != 0, bool(re.search(words, finished.err))) == (True, True), finished
    assert tree(store) == {"/c": None}


def test_gvfs__sees_what_others_change(gio: Program, drive: str, store: Store) -> None:
    put(store, "/a.txt", b"one")
    assert gio.succeed("cat", f"{drive}/a.txt").out == "one"
    put(store, "/a.txt", b"two")
    put(store, "/b.txt", b"new")
    assert gio.succeed("cat", f"{drive}/a.txt").out == "two"
    assert gio.succeed("list", f"{drive}/").out.split() == ["a.txt", "b.txt"]


# --- properties ---------------------------------------------------------------------------------------------------


def test_gvfs__tells_the_properties_of_files_and_folders(gio: Program, drive: str, store: Store) -> None:
    put(store, "/a picture.png", b"x" * 12345, modified_at=1_700_000_000_000_000_000)
    mkcol(store, "/c")
    told = attributes(gio, f"{drive}/a%20picture.png")
    assert told["standard::size"] == "12345"
    assert told["standard::content-type"] == "image/png"
    assert told["standard::display-name"] == "a picture.png"
    assert told["time::modified"] == "1700000000"
    assert told["access::can-trash"] == "FALSE"
    assert "type: directory" in gio.succeed("info", f"{drive}/c").out
    assert gio.succeed("list", "-l", f"{drive}/").out.splitlines() == [
        "a picture.png\t12345\t(regular)",
        "c\t0\t(directory)",
    ]


def test_gvfs__tells_the_space_of_the_store(gio: Program, drive: str, store: Store) -> None:
    put(store, "/a.bin", bytes(range(256)) * 10_000)
    told = attributes(gio, f"{drive}/", "--filesystem")
    space = store.space()
    assert told["filesystem::type"] == "webdav"
    assert int(told["filesystem::used"]) == pytest.approx(space.used_bytes, rel=0.01)
    assert int(told["filesystem::free"]) == pytest.approx(space.available_bytes, rel=0.05)  # others write to this disk


def attributes(gio: Program, url: str, *options: str) -> dict[str, str]:
    """What `gio info` says of a file, or of the drive."""
    lines = gio.succeed("info", *options, url).out.partition("attributes:\n")[2].splitlines()
    return dict(line.strip().split(": ", 1) for line in lines)
