"""A folder as a ZIP file (PKWARE APPNOTE), written while it is sent: no temporary file, nothing compressed.

What is in it is decided in one snapshot. A file has the content that it has when its turn comes; one that is gone by
then is left out. What its reader may not read is not in it. Memory: about 1 KB for each entry, so their number has a
bound, and 2 MiB for content.

Python's zipfile does it: streaming libraries either give all files the present time (zipstream-ng) or need a
library for encryption that nothing here encrypts with (stream-zip).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from urllib.parse import quote
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from davsql.access import Access
from davsql.dav.content import PRIVATE
from davsql.dav.dates import NS_PER_S
from davsql.dav.request import Request
from davsql.dav.responses import HttpError, Response
from davsql.errors import IsCollection, NotFound
from davsql.model import Inode, Node
from davsql.paths import DavPath, checked_name
from davsql.store.snapshot import Snapshot
from davsql.store.store import Store

ENTRIES_MAX = 50_000

_FIRST_DATE, _LAST_DATE = (1980, 1, 1, 0, 0, 0), (2107, 12, 31, 23, 59, 58)  # what the format can say
_FOLDER_ATTRIBUTES = 0o40755 << 16 | 0x10
_FILE_ATTRIBUTES = 0o100644 << 16


class Entry(NamedTuple):
    """What becomes part of the archive."""

    path: DavPath  # within the share
    name: str  # within the archive; a collection's ends with a slash
    modified_at: int


def archive(request: Request) -> Response:
    """The request's collection, or the members of it that the query names, as a ZIP file.

    Raises:
        NotFound: it has gone, or a member that is named.
        HttpError: 403, more than ENTRIES_MAX entries.
        InvalidPath, NameTooLong: a name that no member can have.
    """
    chosen = [checked_name(name) for name in request.query.get("name", ())]
    with request.store.snapshot(request.access) as view:
        top = view.node(request.path)
        if top is None:
            raise NotFound(str(request.path))
        entries = _chosen(view, request.path, chosen) if chosen else _below(view, request.path, top, "", ENTRIES_MAX)
    filename = quote((request.path.name or request.share.name or "files") + ".zip", safe="")
    headers = [
        ("Content-Type", "application/zip"),
        ("Content-Disposition", f"attachment; filename*=UTF-8''{filename}"),
        *PRIVATE,
        ("Cache-Control", "no-store"),
    ]
    is_wanted = request.method != "HEAD"
    return Response(200, headers, _zipped(request.store, request.access, entries) if is_wanted else iter(()))


def _chosen(view: Snapshot, parent: DavPath, names: Sequence[str]) -> list[Entry]:
    found: list[Entry] = []
    for name in dict.fromkeys(names):
        path = parent.child(name)
        node = view.node(path)
        if node is None:
            raise NotFound(str(path))
        found.append(_entry(path, "", node))
        if node.is_collection:
            found += _below(view, path, node, found[-1].name, ENTRIES_MAX - len(found))
    return found


def _below(view: Snapshot, path: DavPath, top: Node, prefix: str, room: int) -> list[Entry]:
    nodes = view.descendants(top.inode, max(room, 0))
    if nodes is None:
        raise HttpError(403, f"An archive has at most {ENTRIES_MAX:,} entries: download smaller folders.")
    places: dict[Inode | None, tuple[DavPath, str]] = {top.inode: (path, prefix)}
    found: list[Entry] = []
    for node in nodes:
        above, inside = places[node.parent_inode]
        entry = _entry(above.child(node.name), inside, node)
        if node.is_collection:
            places[node.inode] = entry.path, entry.name
        found.append(entry)
    return found


def _entry(path: DavPath, prefix: str, node: Node) -> Entry:
    # A backslash separates folders for programs on Windows: `..\x` would be written outside of the folder.
    name = node.name.replace("\\", "_") + ("/" if node.is_collection else "")
    return Entry(path, prefix + name, node.modified_at)


class _Sink:
    """The file that zipfile writes to: it cannot seek, and hands on what was written."""

    def __init__(self) -> None:
        self._written: list[bytes] = []

    def write(self, data: bytes) -> int:
        """File protocol."""
        self._written.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """File protocol."""

    def taken(self) -> bytes:
        """What was written since the last call."""
        data = b"".join(self._written)
        self._written.clear()
        return data


def _zipped(store: Store, access: Access, entries: Sequence[Entry]) -> Iterator[bytes]:
    """The bytes of the archive; a StoreError in between, which cuts the answer, so nobody takes it for whole."""
    sink = _Sink()
    archive = ZipFile(sink, "w", ZIP_STORED)  # type: ignore[call-overload]  # an object that can only write is enough
    for entry in entries:
        info = ZipInfo(entry.name, _date(entry.modified_at))
        if entry.name.endswith("/"):
            info.external_attr = _FOLDER_ATTRIBUTES
            archive.writestr(info, b"")
        else:
            yield from _file(store, access, entry, info, archive, sink)
        if data := sink.taken():
            yield data
    archive.close()
    yield sink.taken()


def _file(store: Store, access: Access, entry: Entry, info: ZipInfo, archive: ZipFile, sink: _Sink) -> Iterator[bytes]:
    try:
        download = store.open_download(entry.path, access)
    except (NotFound, IsCollection):
        return
    info.external_attr = _FILE_ATTRIBUTES
    info.file_size = download.node.size  # decides whether the entry has numbers of 64 bits
    with download, archive.open(info, "w") as file:
        for piece in download.chunks():
            file.write(piece)
            yield sink.taken()


def _date(modified_at: int) -> tuple[int, int, int, int, int, int]:
    """Local time: the format knows no zone."""
    date = time.localtime(modified_at // NS_PER_S)[:6]
    return min(max(date, _FIRST_DATE), _LAST_DATE)
