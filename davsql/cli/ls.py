"""`davsql ls`: list what is in a store."""

from __future__ import annotations

import json
from collections.abc import Iterator

import click

from davsql.cli.printing import iso_time, printable
from davsql.cli.target import Target, target_option
from davsql.errors import StoreDamaged
from davsql.model import Inode, Node
from davsql.paths import DavPath, lookup_key
from davsql.store.store import Store

PAGE = 10_000


@click.command()
@click.argument("path", default="/")
@click.option("-l", "--long", "is_long", is_flag=True, help="With size and time of the last change (UTC).")
@click.option("-R", "--recursive", "is_recursive", is_flag=True, help="With everything below.")
@click.option("--json", "is_json", is_flag=True, help="One JSON object a line, with full paths.")
@target_option
def ls(target: Target, path: str, *, is_long: bool, is_recursive: bool, is_json: bool) -> None:
    """List a collection or a file of the store. The names of collections end with a slash.

    \b
    Examples:
      davsql ls
      davsql ls -l /Photos
      davsql ls -R --json / > tree.jsonl
    """
    start = DavPath.from_text(path)
    with target.open(read_only=True) as store:
        top = store.node(start)
        listing = walk(store, start, top.inode, is_recursive=is_recursive) if top.is_collection else [(start, top)]
        # Names alone in a flat listing, else paths from the collection that was asked for.
        skipped = len(start.names) if top.is_collection else len(start.names) - 1
        for at, node in listing:
            if is_json:
                click.echo(_as_json(at, node))
            else:
                name = "/".join(at.names[skipped:]) + ("/" if node.is_collection else "")
                click.echo(_as_line(name, node) if is_long else printable(name))


def members(store: Store, inode: Inode) -> Iterator[Node]:
    """The members of a collection, page by page: no snapshot is held while the caller works on them."""
    after = ""
    while True:
        with store.snapshot() as view:
            page = view.members(inode, after=after, limit=PAGE)
        yield from page
        if len(page) < PAGE:
            return
        after = lookup_key(page.names[-1])


def walk(store: Store, path: DavPath, inode: Inode, *, is_recursive: bool) -> Iterator[tuple[DavPath, Node]]:
    stack = [(path, inode, members(store, inode))]
    while stack:
        parent, _, rest = stack[-1]
        node = next(rest, None)
        if node is None:
            stack.pop()
            continue
        at = parent.child(node.name)
        yield at, node
        if is_recursive and node.is_collection:
            if any(node.inode == above for _, above, _ in stack):  # a bit that rots in the index of names is enough
                raise StoreDamaged(f"{at} seems to lie in itself; run `davsql check` and restore a backup")
            stack.append((at, node.inode, members(store, node.inode)))


def _as_line(name: str, node: Node) -> str:
    size = "-" if node.is_collection else f"{node.size}"
    return f"{size:>15}  {iso_time(node.modified_at)}  {printable(name)}"


def _as_json(path: DavPath, node: Node) -> str:
    found: dict[str, str | int | None] = {
        "path": str(path),
        "type": "collection" if node.is_collection else "file",
        "modified": iso_time(node.modified_at),
        "modified_ns": node.modified_at,
    }
    if node.digest is not None:
        found |= {"size": node.size, "content_type": node.content_type, "sha256": node.digest.hex()}
    return json.dumps(found)
