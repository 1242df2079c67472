"""Single bits that rot in the tree or in an index: nobody walks in circles because of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from davsql.cli import export, ls
from davsql.errors import NotFound, PathTooDeep, StoreDamaged
from davsql.maintenance.tasks import Scrub
from davsql.model import ChunkId, Inode
from davsql.store.check import check
from davsql.store.options import StoreOptions
from davsql.store.rehash import rehash_chunks
from davsql.store.store import Store
from tests.store.engine_steps import inode_of, lock, raw
from tests.store_steps import at, mkcol, put

ENDLESS = 1000


def replace_once(file: Path, old: bytes, new: bytes) -> None:
    """Change bytes of a closed store, which it must hold once."""
    content = file.read_bytes()
    assert content.count(old) == 1
    file.write_bytes(content.replace(old, new))


def index_entry(parent: int, name: str, inode: int) -> bytes:
    """What the index of names holds (https://www.sqlite.org/fileformat2.html, 2.1)."""
    types = bytes((9 if parent == 1 else 1, 13 + 2 * len(name), 1))  # 9 is the number 1 itself
    return bytes((4,)) + types + (b"" if parent == 1 else bytes((parent,))) + name.encode() + bytes((inode,))


@pytest.fixture
def circle(tmp_path: Path) -> Path:
    """A store in whose index of names `/a/b`, which is inode 3, has become inode 2, which is `/a`."""
    file = tmp_path / "circle.db"
    with Store.open(file, create=True) as store:
        for path in ("/a", "/a/b", "/a/c"):
            mkcol(store, path)
        put(store, "/a/f", b"content")
    replace_once(file, index_entry(2, "b", 3), index_entry(2, "b", 2))
    return file


def test_path_of__of_a_node_in_itself_is_damage(unchecked_store: Store) -> None:
    mkcol(unchecked_store, "/a")
    lock(unchecked_store, "/a")
    inode = inode_of(unchecked_store, "/a")
    with raw(unchecked_store) as connection:
        connection.execute("UPDATE nodes SET parent_inode = inode WHERE inode = ?", (inode,))
    with unchecked_store.snapshot() as view:
        with pytest.raises(StoreDamaged):
            view.path_of(Inode(inode))
        with pytest.raises(StoreDamaged):
            view.locks_on([Inode(inode)])


def test_circle__is_walked_to_a_bound_and_found(circle: Path) -> None:
    with Store.open(circle, StoreOptions(max_depth=20)) as store:
        with store.snapshot() as view:
            assert view.descendants(Inode(1), 1000) is None
        with pytest.raises(PathTooDeep):
            store.copy(at("/a"), at("/copy"))
        mkcol(store, "/d")
        with pytest.raises(PathTooDeep):
            store.move(at("/a"), at("/d/a"))
        with pytest.raises(StoreDamaged):
            store.node(at("/a/b/c"))
        assert check(store) != []


def test_circle__nothing_below_it_counts_as_missing(circle: Path) -> None:
    """A client that is told 404 may delete its own copy."""
    with Store.open(circle) as store:
        for path in ("/a/b", "/a/b/f", "/a/b/missing", "/a/b/missing/too"):
            with pytest.raises(StoreDamaged):
                store.node(at(path))
            with pytest.raises(StoreDamaged):
                store.open_download(at(path))
        with pytest.raises(NotFound):
            store.node(at("/a/missing"))


def test_circle__is_listed_and_exported_once(circle: Path, tmp_path: Path) -> None:
    with Store.open(circle) as store:
        walk = ls.walk(store, at("/"), Inode(1), is_recursive=True)
        with pytest.raises(StoreDamaged, match="/a/b"):
            for number, _ in enumerate(walk):
                assert number < ENDLESS
    target = tmp_path / "target"
    with pytest.raises(SystemExit) as ended:
        export.export.main(["/", str(target), "--db", str(circle)])
    assert ended.value.code == 1
    assert sorted(path.relative_to(target).as_posix() for path in target.rglob("*")) == ["a", "a/c", "a/f"]


def test_members__of_an_index_out_of_order_have_an_end(unchecked_store: Store) -> None:
    for name in ("a", "b", "c", "d"):
        mkcol(unchecked_store, f"/{name}")
    unchecked_store.close()
    replace_once(unchecked_store.file, index_entry(1, "d", 5), index_entry(1, "D", 5))
    with Store.open(unchecked_store.file) as store, pytest.raises(StoreDamaged):
        after = ""
        for _ in range(ENDLESS):
            with store.snapshot() as view:
                after = view.members(Inode(1), after=after, limit=2).names[-1]


def test_chunks__of_a_table_out_of_order_are_checked_and_scrubbed_to_an_end(unchecked_store: Store) -> None:
    contents = [b"%d" % number * 100 for number in range(5)]
    for number, content in enumerate(contents):
        put(unchecked_store, f"/{number}", content)
    unchecked_store.close()
    row = hashlib.sha256(contents[4]).digest()
    content = unchecked_store.file.read_bytes()
    # The row of chunk 5: its number, five bytes that say what is in it, the digest. That of the blob has one byte more.
    (number,) = [
        at - 6
        for at in range(len(content))
        if content.startswith(row, at) and content[at - 6 : at - 2] == b"\x05\x05\x00\x4c"
    ]
    unchecked_store.file.write_bytes(content[:number] + b"\x01" + content[number + 1 :])

    def count(done: int, total: int) -> None:
        assert done <= 2 * total

    calls = iter(range(ENDLESS))
    with Store.open(unchecked_store.file) as store:
        assert check(store, deep=True, progress=count) != []
        with pytest.raises(StoreDamaged):
            Scrub(0, 1e15).run(store, lambda: next(calls) < 0)


@pytest.mark.parametrize("data", [b"text", b"\xff\xfe"])
def test_chunk__whose_bytes_have_become_a_text_is_served_and_healed(unchecked_store: Store, data: bytes) -> None:
    store = unchecked_store
    put(store, "/f", data)
    with raw(store) as connection:
        # As a bit in the type of the value does it: the table is STRICT.
        connection.pragma("writable_schema", 1)
        connection.execute(
            "UPDATE sqlite_schema SET sql = replace(sql, 'data BLOB', 'data ANY') WHERE name = 'chunk_data'"
        )
        connection.pragma("schema_version", int(connection.pragma("schema_version")) + 1)
    with raw(store) as connection:
        connection.execute("UPDATE chunk_data SET data = CAST(data AS TEXT)")
    with store.open_download(at("/f")) as download:
        assert b"".join(download.chunks()) == data
    with store.read() as tx:
        assert rehash_chunks(tx, ChunkId(0), 10).damaged == []
    put(store, "/g", data)
    with store.read() as tx:
        assert tx.value("SELECT typeof(data) FROM chunk_data") == "blob"
