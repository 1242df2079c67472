"""The page for people who open a collection in a browser.

As it is sent it shows names, sizes and dates, and works without script. Its modules (`browser/`) then turn it into
more, by WebDAV. It shows a bounded number of members and links to the next ones, so it costs the same whatever the
collection holds.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, NamedTuple
from urllib.parse import quote

from davsql.dav.assets import asset_url
from davsql.dav.content import PRIVATE
from davsql.dav.dates import iso_date
from davsql.dav.peer import BASE_KEY
from davsql.dav.request import Request, principal_of
from davsql.dav.responses import Response
from davsql.errors import NotFound
from davsql.model import Node
from davsql.paths import ROOT, encoded_name, lookup_key

PAGE_MEMBERS = 1000

# By the nonce run our modules, and what they import. 'self' would let in what users stored on this origin.
_POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src 'self'; "
    "media-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_DOCUMENT = """\
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{title}</title>
<link rel="icon" href="{icons}"><link rel="stylesheet" href="{style}" nonce="{nonce}">
<script type="module" src="{script}" nonce="{nonce}"></script></head>
<body data-base="{base}" data-share="{share}" data-user="{user}" data-icons="{icons}">
<header id="top"><nav id="crumbs" aria-label="Folders">{crumbs}</nav></header>
<main><h1 class="unseen">{title}</h1>
<table class="plain"><thead><tr><th>Name</th><th class="n">Size</th><th class="n">Modified (UTC)</th></tr></thead>
<tbody>{lines}</tbody></table>
{download}</main>
</body></html>
"""
# No link: programs that follow every link of a tree would fetch each file once more for every folder above it.
_DOWNLOAD = (
    '<form class="plain"><button name="download" value="zip">Download everything here as a ZIP file</button></form>'
)


class Row(NamedTuple):
    """One line of the table."""

    href: str
    text: str
    size_bytes: int | None = None
    modified_at: int | None = None


class Crumb(NamedTuple):
    """A collection on the way to the one that is shown."""

    href: str
    text: str


def collection_page(request: Request) -> Response:
    """One page of the members of the request's collection.

    Raises:
        NotFound: the collection has gone since it was looked at.
    """
    after = request.query.get("after", [""])[0]
    with request.store.snapshot(request.access) as view:
        node = view.node(request.path)
        if node is None:
            raise NotFound(str(request.path))
        members = view.members(node.inode, after=after, limit=PAGE_MEMBERS)
    base = request.share.href(request.path, is_collection=True)
    rows = [_row(base, member) for member in members]
    if after:
        rows.insert(0, Row(base, "(from the beginning)"))
    if len(members) == PAGE_MEMBERS:
        rows.append(Row(f"{base}?after={quote(lookup_key(members.names[-1]), safe='')}", "(more)"))
    return page(request.environ, _crumbs(request), rows, share=request.share.href(ROOT, is_collection=True))


def page(environ: Mapping[str, Any], crumbs: Iterable[Crumb], rows: Iterable[Row], *, share: str = "") -> Response:
    """The whole document.

    Args:
        crumbs: the way to what is shown, below the root of the server.
        share: the href of the share's root; "": the list of shares.
    """
    base: str = environ[BASE_KEY]
    way = [Crumb(f"{base}/", "Home"), *crumbs]
    nonce = secrets.token_urlsafe(16)
    is_basic = environ.get("HTTP_AUTHORIZATION", "")[:6].lower() == "basic "
    text = _DOCUMENT.format(
        title=escape("/" + "/".join(crumb.text for crumb in way[1:])),
        base=escape(f"{base}/"),
        share=escape(share),
        user=escape(principal_of(environ).name or "") if is_basic else "",  # only a password can be forgotten
        icons=escape(asset_url(base, "icons.svg")),
        style=escape(asset_url(base, "page.css")),
        script=escape(asset_url(base, "app.js")),
        crumbs=" ".join(f'<a href="{escape(crumb.href)}">{escape(crumb.text)}</a>' for crumb in way),
        lines="".join(map(_line, rows)),
        download=_DOWNLOAD if share else "",
        nonce=nonce,
    )
    headers = [
        ("Content-Type", "text/html; charset=utf-8"),
        *PRIVATE,
        ("Content-Security-Policy", _POLICY.format(nonce=nonce)),
        ("Referrer-Policy", "same-origin"),
        ("Cache-Control", "no-cache"),
    ]
    return Response(200, headers, text.encode())


def _line(row: Row) -> str:
    size = "" if row.size_bytes is None else f"{row.size_bytes:,}"
    modified = "" if row.modified_at is None else iso_date(row.modified_at).replace("T", " ").rstrip("Z")
    link = f'<a href="{escape(row.href)}">{escape(row.text)}</a>'
    return f'<tr><td>{link}</td><td class="n">{size}</td><td class="n">{modified}</td></tr>\n'


def _row(base: str, node: Node) -> Row:
    if node.is_collection:
        return Row(f"{base}{encoded_name(node.name)}/", f"{node.name}/", None, node.modified_at)
    return Row(base + encoded_name(node.name), node.name, node.size, node.modified_at)


def _crumbs(request: Request) -> list[Crumb]:
    share, names = request.share, request.path.names
    crumbs = (
        [Crumb(share.href(ROOT, is_collection=True), share.name)] if share.mount != request.environ[BASE_KEY] else []
    )
    path = ROOT
    for name in names:
        path = path.child(name)
        crumbs.append(Crumb(share.href(path, is_collection=True), name))
    return crumbs
