"""Random commands of one client in a collection of its own, and every state that they lead through."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import NamedTuple
from unittest.mock import patch

from davsql.model import ROOT_INODE, LockRequest, LockScope, Node, PropertyUpdate
from davsql.paths import DavPath
from davsql.store.snapshot import Snapshot
from davsql.store.store import Store
from tests.store_steps import NODES_MAX, at, put

MARK = ("urn:test", "mark")
CHUNK_BYTES = 64 * 1024
NAMES = ("a", "b", "c", "d")

Entry = tuple[bytes | None, str]  # content (None: a collection) and the property MARK
Tree = dict[str, Entry]


class Step(NamedTuple):
    """One command: what it does to a store, and to the model."""

    words: str
    run: Callable[[Store], object]
    after: Tree


@contextmanager
def small_pieces(wal_bytes_limit: int = 16 * CHUNK_BYTES) -> Iterator[None]:
    """Chunks and batches small enough for uploads of many transactions in no time, and WALs that start over often."""
    with (
        patch("davsql.store.blobs.CHUNK_BYTES", CHUNK_BYTES),
        patch("davsql.store.upload.CHUNK_BYTES", CHUNK_BYTES),
        patch("davsql.store.upload.STAGE_BATCH_BYTES", 2 * CHUNK_BYTES),
        patch("davsql.store.wal.BYTES_LIMIT", wal_bytes_limit),
    ):
        yield


class Client:
    """Walks through random states of `/NAME`."""

    def __init__(self, name: str, seed: int) -> None:
        self.home = f"/{name}"
        self.tree: Tree = {}
        self._rng = random.Random(seed)  # noqa: S311
        self._serial = count()

    def next_step(self) -> Step:
        """A command that will succeed, unless the disk does not."""
        if not self.tree:
            return self._make_collection(self.home)
        choices: list[Callable[[], Step | None]] = [
            self._put_small, self._put_small, self._put_small, self._put_large, self._make_some_collection,
            self._copy, self._move, self._delete, self._mark, self._lock,
        ]  # fmt: skip
        while True:
            step = self._rng.choice(choices)()
            if step is not None:
                return step

    def done(self, step: Step) -> None:
        self.tree = step.after

    # --- the commands --------------------------------------------------------------------------------------------

    def _put_small(self) -> Step | None:
        return self._put(self._rng.choice((0, 1, 100, 5000, 20_000)))

    def _put_large(self) -> Step | None:
        return self._put(self._rng.randint(CHUNK_BYTES + 1, 5 * CHUNK_BYTES))

    def _put(self, size: int) -> Step | None:
        path = self._somewhere()
        if self._is_collection(path):
            return None
        shared = b"shared" * (CHUNK_BYTES // 6 + 1)
        data = f"{path} {next(self._serial)} ".encode() + self._rng.randbytes(size)
        if size > CHUNK_BYTES and self._rng.random() < 0.5:
            data = shared[:CHUNK_BYTES] + data  # a chunk that other files have too
        mark = self.tree[path][1] if path in self.tree else ""
        return Step(f"PUT {path} ({len(data)})", lambda s: put(s, path, data), {**self.tree, path: (data, mark)})

    def _make_some_collection(self) -> Step | None:
        path = self._somewhere()
        return None if path in self.tree else self._make_collection(path)

    def _make_collection(self, path: str) -> Step:
        return Step(f"MKCOL {path}", lambda s: s.make_collection(at(path)), {**self.tree, path: (None, "")})

    def _delete(self) -> Step | None:
        path = self._something()
        if path == self.home:
            return None
        return Step(f"DELETE {path}", lambda s: s.delete(at(path)), _without(self.tree, path))

    def _copy(self) -> Step | None:
        source, destination = self._something(), self._somewhere()
        if len(self.tree) > 60 or not _are_apart(source, destination):
            return None
        copied = {destination + path[len(source) :]: self.tree[path] for path in _within(self.tree, source)}
        after = {**_without(self.tree, destination), **copied}
        return Step(f"COPY {source} {destination}", lambda s: s.copy(at(source), at(destination)), after)

    def _move(self) -> Step | None:
        source, destination = self._something(), self._somewhere()
        if source == self.home or not _are_apart(source, destination):
            return None
        moved = {destination + path[len(source) :]: self.tree[path] for path in _within(self.tree, source)}
        after = {**_without(_without(self.tree, destination), source), **moved}
        return Step(f"MOVE {source} {destination}", lambda s: s.move(at(source), at(destination)), after)

    def _mark(self) -> Step | None:
        path, mark = self._something(), f"<mark>{next(self._serial)}</mark>"
        updates = [PropertyUpdate(*MARK, mark)]
        after = {**self.tree, path: (self.tree[path][0], mark)}
        return Step(f"PROPPATCH {path}", lambda s: s.set_properties(at(path), updates), after)

    def _lock(self) -> Step:
        path = self._something()

        def lock_and_unlock(store: Store) -> None:
            made = store.lock(at(path), LockRequest(LockScope.EXCLUSIVE, False, None, 600))  # noqa: FBT003
            store.unlock(at(path), made.lock.token)

        return Step(f"LOCK, UNLOCK {path}", lock_and_unlock, self.tree)

    # --- where ---------------------------------------------------------------------------------------------------

    def _something(self) -> str:
        return self._rng.choice(list(self.tree))

    def _somewhere(self) -> str:
        """A path in a collection that exists; it may exist itself."""
        parents = [path for path in self.tree if self._is_collection(path) and path.count("/") < 4]
        return f"{self._rng.choice(parents)}/{self._rng.choice(NAMES)}"

    def _is_collection(self, path: str) -> bool:
        return path in self.tree and self.tree[path][0] is None


def _is_within(path: str, top: str) -> bool:
    return path == top or path.startswith(top + "/")


def _within(tree: Tree, top: str) -> list[str]:
    return [path for path in tree if _is_within(path, top)]


def _without(tree: Tree, top: str) -> Tree:
    return {path: entry for path, entry in tree.items() if not _is_within(path, top)}


def _are_apart(one: str, other: str) -> bool:
    return not _is_within(one, other) and not _is_within(other, one)


# --- what a store holds ---------------------------------------------------------------------------------------------


def tree_of(store: Store) -> Tree:
    """Everything in a store, read as a client would."""
    with store.snapshot() as view:
        nodes = view.descendants(ROOT_INODE, NODES_MAX)
        assert nodes is not None
        named = [(view.path_of(node.inode), node, _mark_of(view, node)) for node in nodes]
    return {str(path): (None if node.is_collection else _content(store, path), mark) for path, node, mark in named}


def _mark_of(view: Snapshot, node: Node) -> str:
    properties = view.dead_properties([node.inode]).get(node.inode, [])
    return "".join(each.xml for each in properties if (each.namespace, each.name) == MARK)


def _content(store: Store, path: DavPath) -> bytes:
    with store.open_download(path) as download:
        return b"".join(download.chunks())
