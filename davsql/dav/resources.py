"""Read-only views of nodes and locks in WsgiDAV's terms, for middleware that asks a provider what there is.

No method of ours uses them; all that changes anything goes through the store's transactions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import unquote

from wsgidav.dav_error import HTTP_FORBIDDEN, DAVError
from wsgidav.dav_provider import DAVCollection, DAVNonCollection

from davsql.dav.content import content_type_of
from davsql.dav.dates import NS_PER_S
from davsql.model import Node
from davsql.paths import DavPath, lookup_key

if TYPE_CHECKING:
    from davsql.dav.provider import StoreProvider

_PAGE_MEMBERS = 1000


def make_resource(provider: StoreProvider, path: DavPath, node: Node, environ: dict[str, Any]) -> object:
    """The view of a node."""
    kind = CollectionView if node.is_collection else FileView
    return kind(provider, path, node, environ)


class _NodeView:
    """What collections and files have in common."""

    def __init__(self, provider: StoreProvider, path: DavPath, node: Node, environ: dict[str, Any]) -> None:
        super().__init__(str(path), {**environ, "wsgidav.provider": provider})  # type: ignore[call-arg]
        self.node = node
        self._share = provider.share
        self._where = path
        self._views = provider

    def get_display_name(self) -> str:
        return self.node.name

    def get_creation_date(self) -> float:
        return self.node.created_at / NS_PER_S

    def get_last_modified(self) -> float:
        return self.node.modified_at / NS_PER_S

    def get_etag(self) -> str | None:
        """WsgiDAV keeps entity tags without their quotes."""
        return None if self.node.etag is None else self.node.etag.strip('"')

    def support_etag(self) -> bool:
        return self.node.digest is not None

    def support_ranges(self) -> bool:
        return not self.node.is_collection


class FileView(_NodeView, DAVNonCollection):  # type: ignore[misc]  # WsgiDAV has no types
    """A file."""

    def get_content_length(self) -> int:
        return self.node.size

    def get_content_type(self) -> str:
        return content_type_of(self.node)

    def get_content(self) -> NoReturn:
        """Content is given out by GET alone, which pins it."""
        raise DAVError(HTTP_FORBIDDEN)


class CollectionView(_NodeView, DAVCollection):  # type: ignore[misc]  # WsgiDAV has no types
    """A collection."""

    def get_member_names(self) -> list[str]:
        names: list[str] = []
        with self._share.store.snapshot(self._share.access_of(self.environ)) as view:
            while page := view.members(
                self.node.inode, after=lookup_key(names[-1]) if names else "", limit=_PAGE_MEMBERS
            ):
                names.extend(page.names)
        return names

    def get_member(self, name: str) -> object | None:
        path = str(self._where.child(name))
        view: object | None = self._views.get_resource_inst(path, self.environ)
        return view


class StoreLocks:
    """What WsgiDAV may ask about locks."""

    def __init__(self, provider: StoreProvider) -> None:
        self._provider = provider

    def check_write_permission(self, **_: object) -> NoReturn:
        """WsgiDAV's own handlers, which would ask, are never reached: the store checks locks where it writes."""
        raise DAVError(HTTP_FORBIDDEN)

    def is_url_locked(self, ref_url: str) -> bool:
        """True when an active lock covers the resource of a WsgiDAV reference URL."""
        path = DavPath.from_text(unquote(ref_url))
        where = self._provider.share.path_within(path)
        if where is None:
            return False
        with self._provider.share.store.snapshot() as view:
            return bool(view.locks_covering(where))
