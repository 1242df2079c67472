"""What a fault sweep does to a store, one command after the other, and what each makes of its tree."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from davsql.errors import StoreBusy, StoreError
from davsql.maintenance.gc import collect_garbage
from davsql.model import LockRequest, LockScope, PropertyUpdate
from davsql.store.store import Store
from tests.faults.workload import CHUNK_BYTES, MARK, Tree
from tests.store_steps import at, mkcol, put


class Step(NamedTuple):
    """A command, and what it does to a tree; None: not possible in this tree, so that it must be refused."""

    words: str
    run: Callable[[Store], object]
    change: Callable[[Tree], Tree | None]
    may_raise: tuple[type[StoreError], ...] = ()  # besides what the disk's fault leads to


def _blob(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)  # noqa: S311


LARGE = _blob(1, 5 * CHUNK_BYTES + 17)
SHARING = LARGE[: 2 * CHUNK_BYTES] + _blob(2, 9000)


def _put(path: str, data: bytes) -> Step:
    def change(tree: Tree) -> Tree | None:
        if not _has_parent(tree, path):
            return None
        return {**tree, path: (data, tree[path][1] if path in tree else "")}

    return Step(f"PUT {path}", lambda s: put(s, path, data), change)


def _mkcol(path: str) -> Step:
    def change(tree: Tree) -> Tree | None:
        return None if path in tree else {**tree, path: (None, "")}

    return Step(f"MKCOL {path}", lambda s: mkcol(s, path), change)


def _has_parent(tree: Tree, path: str) -> bool:
    parent = path.rpartition("/")[0]
    return not parent or parent in tree


def _below(tree: Tree, top: str) -> Tree:
    return {path: entry for path, entry in tree.items() if (path + "/").startswith(top + "/")}


def _without(tree: Tree, top: str) -> Tree:
    return {path: entry for path, entry in tree.items() if not (path + "/").startswith(top + "/")}


def _delete(path: str) -> Step:
    return Step(
        f"DELETE {path}", lambda s: s.delete(at(path)), lambda tree: _without(tree, path) if path in tree else None
    )


def _copy(source: str, target: str) -> Step:
    def change(tree: Tree) -> Tree | None:
        copied = {target + path[len(source) :]: entry for path, entry in _below(tree, source).items()}
        if not _has_parent(tree, target):
            return None
        return {**_without(tree, target), **copied} if copied else None

    return Step(f"COPY {source} {target}", lambda s: s.copy(at(source), at(target)), change)


def _move(source: str, target: str) -> Step:
    def change(tree: Tree) -> Tree | None:
        moved = {target + path[len(source) :]: entry for path, entry in _below(tree, source).items()}
        if not _has_parent(tree, target):
            return None
        return {**_without(_without(tree, target), source), **moved} if moved else None

    return Step(f"MOVE {source} {target}", lambda s: s.move(at(source), at(target)), change)


def _mark(path: str, mark: str) -> Step:
    def change(tree: Tree) -> Tree | None:
        return {**tree, path: (tree[path][0], mark)} if path in tree else None

    return Step(f"PROPPATCH {path}", lambda s: s.set_properties(at(path), [PropertyUpdate(*MARK, mark)]), change)


def _lock(path: str) -> Step:
    def run(store: Store) -> None:
        made = store.lock(at(path), LockRequest(LockScope.EXCLUSIVE, False, None, 600))  # noqa: FBT003
        store.unlock(at(path), made.lock.token)

    return Step(f"LOCK, UNLOCK {path}", run, lambda tree: tree if path in tree else None)


def _same(tree: Tree) -> Tree:
    return tree


def _collect(store: Store) -> None:
    collect_garbage(store, grace_s=0, upload_expiry_s=0)


CHECKPOINT = Step("checkpoint", lambda s: s.checkpoint(), _same, (StoreBusy,))
GC = Step("gc", _collect, _same)
BEFORE = (
    _put("/locked", b""),
    _mkcol("/d"),
    _put("/d/old", b"old" * 3000),
    _mkcol("/d/e"),
    _put("/d/e/f", _blob(3, 20_000)),
    _mark("/d", "<m/>"),
)
SCENARIO: tuple[Step | tuple[Step, ...], ...] = (  # steps of an inner tuple become one batch of the writer
    _put("/a", b"small"),
    _put("/large", LARGE),
    CHECKPOINT,
    _mkcol("/n"),
    _copy("/d", "/n/copy"),
    _lock("/locked"),
    _move("/d/e", "/n/moved"),
    (_put("/b1", _blob(4, 9000)), _mkcol("/b2"), _delete("/a"), _put("/b3", b""), _mark("/n", "<n/>")),
    _put("/n/sharing", SHARING),
    _delete("/d"),
    _put("/large", b"not any more"),
    GC,
    CHECKPOINT,
    _put("/last", _blob(5, 40_000)),
    _copy("/n", "/nn"),
    _delete("/n"),
    GC,
)
AFTER = (_put("/after", _blob(6, 30_000)), _delete("/after"), _mkcol("/z"), _put("/z/large", LARGE), GC, CHECKPOINT)
