"""KIO, with which KDE's Dolphin and programs like it reach a server, used by `kioclient`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from davsql.dav.application import make_application
from davsql.dav.request import DavOptions
from davsql.model import LockRequest, LockScope
from davsql.store.store import Store
from tests.accounts.account_steps import PASSWORD, gate_of, new_accounts
from tests.clients.desktop import desktop_session
from tests.clients.programs import Finished, Program, find_program
from tests.clients.trees import brief, make_odd_tree, tree_on_disk
from tests.live_server import LiveServer, serving
from tests.store_steps import at, mkcol, put, read, tree

EXCLUSIVE = LockRequest(LockScope.EXCLUSIVE, is_depth_infinity=False, owner_xml=None, timeout_s=600)


@dataclass(frozen=True, slots=True)
class Kio:
    """`kioclient` at one server; its URLs need no escapes but these of "%"."""

    program: Program
    url: str

    def run(self, command: str, *arguments: str | Path) -> Finished:
        """Run one command, whatever becomes of it. Paths that begin with "/" are on the server."""
        urls = (str(each) if isinstance(each, Path) else self.url + quote(each) for each in arguments)
        return self.program.run("--noninteractive", command, *urls)

    def succeed(self, command: str, *arguments: str | Path) -> str:
        """The same; it must succeed. What it printed."""
        finished = self.run(command, *arguments)
        assert (finished.code, finished.err) == (0, ""), (command, arguments, finished)
        return finished.out

    def names(self, path: str) -> list[str]:
        """What it lists, sorted."""
        return sorted(name for name in self.succeed("ls", path).splitlines() if name not in ("", "."))


@pytest.fixture
def kioclient(folder: Path) -> Iterator[Program]:
    with desktop_session() as settings:
        yield find_program("kioclient", folder, settings)


@pytest.fixture
def kio(kioclient: Program, server: LiveServer) -> Kio:
    return Kio(kioclient, re.sub("^http", "webdav", server.url))


def here(kio: Kio, content: bytes, name: str = "local.txt") -> Path:
    """A file to be sent."""
    path = kio.program.folder / name
    path.write_bytes(content)
    return path


def test_kio__copies_a_tree_there_and_back(kioclient: Program, share_url: str, tmp_path: Path) -> None:
    kio = Kio(kioclient, re.sub("^http", "webdav", share_url))
    make_odd_tree(tmp_path / "source")
    kio.succeed("copy", tmp_path / "source", "/two words %")
    kio.succeed("copy", "/two words %", kioclient.folder / "back")
    assert tree_on_disk(kioclient.folder / "back") == tree_on_disk(tmp_path / "source")


def test_kio__lists_and_shows(kio: Kio, store: Store) -> None:
    put(store, "/a 100% ä.txt", b"shown here\n", modified_at=1_700_000_000_000_000_000)
    mkcol(store, "/c")
    put(store, "/c/.hidden")
    assert kio.names("/") == ["a 100% ä.txt", "c"]
    assert kio.names("/c/") == [".hidden"]
    assert kio.succeed("cat", "/a 100% ä.txt") == "shown here\n"
    told = dict(re.split(" {2,}", line, maxsplit=1) for line in kio.succeed("stat", "/a 100% ä.txt").splitlines())
    assert told["SIZE"] == "11"
    assert told["MIME_TYPE"] == "text/plain"
    assert told["MODIFICATION_TIME"] == "Tue Nov 14 22:13:20 2023"


def test_kio__writes_over_only_when_told_to(kio: Kio, store: Store) -> None:
    put(store, "/a.txt", b"old")
    assert kio.run("copy", here(kio, b"new"), "/a.txt").code != 0
    assert read(store, "/a.txt") == b"old"
    kio.program.succeed("--noninteractive", "--overwrite", "copy", str(here(kio, b"new")), f"{kio.url}/a.txt")
    assert tree(store) == {"/a.txt": b"new"}


def test_kio__moves_and_removes(kio: Kio, store: Store) -> None:
    put(store, "/a.txt", b"a")
    mkcol(store, "/c")
    put(store, "/c/b.txt", b"b")
    mkcol(store, "/gone")
    put(store, "/gone/deep.txt")
    kio.succeed("move", "/a.txt", "/c/ä & 50%.txt")
    kio.succeed("move", "/c", "/moved here")
    kio.succeed("copy", "/moved here/b.txt", "/b.txt")
    kio.succeed("remove", "/gone")
    kio.succeed("move", "/b.txt", kio.program.folder / "fetched.txt")
    assert tree(store) == {"/moved here": None, "/moved here/ä & 50%.txt": b"a", "/moved here/b.txt": b"b"}
    assert (kio.program.folder / "fetched.txt").read_bytes() == b"b"


def test_kio__content_is_kept_to_the_byte(kio: Kio, store: Store) -> None:
    content = bytes(range(256)) * 20_000 + b"the end"
    for name, each in (("big.bin", content), ("empty.txt", b""), ("lines.txt", b"a\r\nb\n\x00c")):
        kio.succeed("copy", here(kio, each, name), f"/{name}")
        assert brief(read(store, f"/{name}")) == brief(each)
        kio.succeed("copy", f"/{name}", kio.program.folder / f"back {name}")
        assert brief((kio.program.folder / f"back {name}").read_bytes()) == brief(each)


def test_kio__says_what_is_not_there(kio: Kio, store: Store) -> None:
    put(store, "/a.txt", b"a")
    for arguments in (("ls", "/missing"), ("stat", "/missing"), ("copy", "/missing", "/b.txt"), ("remove", "/missing")):
        finished = kio.run(*arguments)
        assert (finished.code, finished.out) == (1, ""), finished
        assert re.search(r"does not exist|\(404\)", finished.err), finished
    assert kio.run("copy", here(kio, b"b"), "/no/where.txt").code != 0
    assert tree(store) == {"/a.txt": b"a"}


def test_kio__does_not_change_what_another_has_locked(kio: Kio, store: Store) -> None:
    put(store, "/a.txt", b"old")
    lock = store.lock(at("/a.txt"), EXCLUSIVE).lock
    for arguments in (("move", "/a.txt", "/b.txt"), ("remove", "/a.txt")):
        assert kio.run(*arguments).code != 0
    assert tree(store) == {"/a.txt": b"old"}
    store.unlock(at("/a.txt"), lock.token)
    kio.succeed("move", "/a.txt", "/b.txt")
    assert tree(store) == {"/b.txt": b"old"}


def test_kio__logs_in(kioclient: Program, store: Store, tmp_path: Path) -> None:
    accounts = new_accounts(tmp_path)
    put(store, "/a.txt", b"a")
    with serving(make_application({"/": store}, DavOptions(), gate=gate_of(accounts))) as server:
        host = server.url.removeprefix("http://")
        kio = Kio(kioclient, f"webdav://ann:{quote(PASSWORD)}@{host}")
        assert kio.names("/") == ["a.txt"]
        kio.succeed("copy", "/a.txt", kioclient.folder / "back.txt")
        kio.succeed("move", "/a.txt", "/b.txt")  # no upload: KIO 5 waits for ever when one is answered 401
        assert Kio(kioclient, f"webdav://ann:wrong@{host}").run("ls", "/").code != 0
    accounts.close()
    assert (kioclient.folder / "back.txt").read_bytes() == b"a"
    assert tree(store) == {"/b.txt": b"a"}
