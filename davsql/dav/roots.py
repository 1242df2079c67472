"""The root of a server with several shares: a read-only collection that lists them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from davsql.access import Right
from davsql.dav.conditions import parse_depth
from davsql.dav.methods import options
from davsql.dav.multistatus import escape, multistatus
from davsql.dav.pages import Row, page
from davsql.dav.peer import BASE_KEY
from davsql.dav.properties import Group, remembered_plan
from davsql.dav.provider import METHODS, PATH_KEY, AnsweringProvider
from davsql.dav.request import Request, Share
from davsql.dav.responses import HttpError, Response
from davsql.dav.xmlbody import parse_propfind, read_body
from davsql.errors import NotFound
from davsql.model import ROOT_INODE, Node, Nodes, NodeType
from davsql.paths import ROOT

_READ = ("OPTIONS", "GET", "HEAD", "PROPFIND")
_MAKING = ("PUT", "MKCOL", "LOCK")  # what would make something of an unmapped URL


class RootsProvider(AnsweringProvider):
    """What is at "/" when shares are mounted below it. Threads: any."""

    def __init__(self, shares: Sequence[Share]) -> None:
        super().__init__()
        self._shares = sorted(shares, key=lambda share: share.name)
        now = time.time_ns()
        self._node = Node(
            ROOT_INODE, None, "davsql", NodeType.COLLECTION, None, 0, None, None, created_at=now, modified_at=now
        )

    def handle(self, environ: dict[str, Any]) -> Response:
        """List the shares; everything else is refused or missing."""
        method = environ["REQUEST_METHOD"]
        if method not in METHODS or method == "REPORT":
            raise HttpError(405, f"{method} is not possible here.")
        if method == "OPTIONS":
            headers = [("Allow", self.allowed_methods(environ)), ("DAV", options.CLASSES), ("MS-Author-Via", "DAV")]
            return Response(200, headers)
        if not environ[PATH_KEY].is_root and method not in _MAKING:
            raise NotFound(f"{environ[PATH_KEY]} is no share")
        if method == "PROPFIND":
            # Limits are the same for all shares.
            return self._propfind(Request(environ, self._shares[0], ROOT))
        if method in ("GET", "HEAD"):
            shares = self._seen(environ)
            rows = [Row(share.href(ROOT, is_collection=True), f"{share.name}/") for share in shares]
            return page(environ, [], rows)
        raise HttpError(403, "Shares are made in the configuration of the server.")

    def allowed_methods(self, environ: dict[str, Any]) -> str:
        """What `handle` does not refuse."""
        return ", ".join(_READ if environ[PATH_KEY].is_root else ("OPTIONS",))

    def get_resource_inst(self, path: str, environ: dict[str, Any]) -> None:
        """Nothing of WsgiDAV's own looks at the list of shares."""
        del path, environ

    def _seen(self, environ: Mapping[str, Any]) -> list[Share]:
        """The shares in which who asks may read anything."""
        return [share for share in self._shares if share.access_of(environ).may_anywhere(Right.READ)]

    def _propfind(self, request: Request) -> Response:
        depth = parse_depth(request, "infinity")
        if depth == "infinity":
            raise HttpError(403, "Ask with Depth: 0 or 1.", condition="propfind-finite-depth")  # RFC 4918 9.1
        plan = remembered_plan(parse_propfind(read_body(request)))
        nodes, hrefs = [self._node], [escape(f"{request.environ[BASE_KEY]}/")]
        if depth == "1":
            shares = self._seen(request.environ)
            nodes += [share.store.node(ROOT)._replace(name=share.name) for share in shares]
            hrefs += [escape(share.href(ROOT, is_collection=True)) for share in shares]
        return multistatus(plan.responses(Group(Nodes.of(*nodes), hrefs, {}, {ROOT_INODE: Right.READ}), {}))
