"""Short words for what tests do with a store; paths are written as people write them (`/a/b.txt`)."""

from __future__ import annotations

from davsql.model import NO_GUARD, ROOT_INODE, Guard, Node, PutResult
from davsql.paths import DavPath
from davsql.store.migrate import SET_META
from davsql.store.presence import new_mark
from davsql.store.store import Store

NODES_MAX = 1_000_000


def at(text: str) -> DavPath:
    """The path that `text` names."""
    return DavPath.from_text(text)


def put(
    store: Store, path: str, data: bytes = b"", *, guard: Guard = NO_GUARD, modified_at: int | None = None
) -> PutResult:
    """Create or replace a file."""
    with store.upload() as upload:
        upload.write(data)
        return upload.commit(at(path), guard=guard, modified_at=modified_at)


def mkcol(store: Store, path: str) -> Node:
    """Create a collection."""
    return store.make_collection(at(path))


def leave_mark(store: Store) -> None:
    """As if a process that wrote to the store had been killed."""
    key, process = new_mark()
    store.write(lambda tx: tx.change(SET_META, (key, process + "0")))


def read(store: Store, path: str) -> bytes:
    """The whole content of a file."""
    with store.open_download(at(path)) as download:
        return b"".join(download.chunks())


def tree(store: Store) -> dict[str, bytes | None]:
    """Everything below the root: the content of files, None for collections."""
    with store.snapshot() as view:
        nodes = view.descendants(ROOT_INODE, NODES_MAX)
        assert nodes is not None
        paths = [(str(view.path_of(node.inode)), node.is_collection) for node in nodes]
    return {path: None if is_collection else read(store, path) for path, is_collection in paths}
