"""A plain page for people who open a collection in a browser: names, sizes, dates; no script, nothing from elsewhere.

A page shows a bounded number of members and links to the next one, so it costs the same whatever the collection holds.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple
from urllib.parse import parse_qs, quote

from davsql.dav.content import PRIVATE
from davsql.dav.dates import iso_date
from davsql.dav.request import Request
from davsql.dav.responses import Response
from davsql.errors import NotFound
from davsql.model import Node
from davsql.paths import encoded_name, lookup_key

PAGE_MEMBERS = 1000

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:2em auto;max-width:60em;padding:0 1em;color:#222;background:#fff}"
    "table{border-collapse:collapse;width:100%}td,th{padding:.2em .6em;text-align:left}"
    "td.n{text-align:right;white-space:nowrap}tr:hover{background:#f2f2f2}a{color:#0645ad;text-decoration:none}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}a{color:#8ab4f8}tr:hover{background:#2a2a2a}}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    ("Content-Type", "text/html; charset=utf-8"),
    *PRIVATE,
    ("Content-Security-Policy", _POLICY),
    ("Cache-Control", "no-cache"),
)
_DOCUMENT = """\
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>{style}</style></head>
<body><h1>{title}</h1>
<table><tr><th>Name</th><th>Size</th><th>Modified</th></tr>
{lines}</table></body></html>
"""


class Row(NamedTuple):
    """One line of the table."""

    href: str
    text: str
    size_bytes: int | None = None
    modified_at: int | None = None


def collection_page(request: Request) -> Response:
    """One page of the members of the request's collection.

    Raises:
        NotFound: the collection has gone since it was looked at.
    """
    after = _after(request)
    with request.store.snapshot(request.access) as view:
        node = view.node(request.path)
        if node is None:
            raise NotFound(str(request.path))
        members = view.members(node.inode, after=after, limit=PAGE_MEMBERS)
    base = request.share.href(request.path, is_collection=True)
    rows = [_row(base, member) for member in members]
    if after or request.path.names or request.share.mount:
        rows.insert(0, Row(base if after else _parent_href(request), "../" if not after else "(from the beginning)"))
    if len(members) == PAGE_MEMBERS:
        rows.append(Row(f"{base}?after={quote(lookup_key(members.names[-1]), safe='')}", "(more)"))
    title = request.share.name + str(request.path) if request.share.mount else str(request.path)
    return page(title, rows)


def page(title: str, rows: Iterable[Row]) -> Response:
    """The whole document."""
    lines = "".join(_line(row) for row in rows)
    text = _DOCUMENT.format(title=escape(title), style=_STYLE, lines=lines)
    return Response(200, list(_HEADERS), text.encode())


def _line(row: Row) -> str:
    size = "" if row.size_bytes is None else f"{row.size_bytes:,}"
    modified = "" if row.modified_at is None else iso_date(row.modified_at).replace("T", " ").rstrip("Z")
    link = f'<a href="{escape(row.href)}">{escape(row.text)}</a>'
    return f'<tr><td>{link}</td><td class="n">{size}</td><td class="n">{modified}</td></tr>\n'


def _row(base: str, node: Node) -> Row:
    if node.is_collection:
        return Row(f"{base}{encoded_name(node.name)}/", f"{node.name}/", None, node.modified_at)
    return Row(base + encoded_name(node.name), node.name, node.size, node.modified_at)


def _parent_href(request: Request) -> str:
    if request.path.is_root:
        return "/"
    return request.share.href(request.path.parent, is_collection=True)


def _after(request: Request) -> str:
    """The key after which the page begins, from the query."""
    values: Sequence[str] = parse_qs(request.environ.get("QUERY_STRING", ""), max_num_fields=8).get("after", [""])
    return values[0]
