"""Requests as the handlers see them, without a server: for what is decided from the headers alone."""

from __future__ import annotations

from typing import cast

from davsql.dav.request import DavOptions, Request, Share
from davsql.paths import DavPath
from davsql.store.store import Store


def make_request(path: str = "/", *, mount: str = "", **environ: str) -> Request:
    """A PUT of `path` on http://drive.example:8080 with these environ keys."""
    share = Share(mount, cast(Store, None), DavOptions())  # what is tested with it never touches the store
    base = {"REQUEST_METHOD": "PUT", "HTTP_HOST": "drive.example:8080", "wsgi.url_scheme": "http"}
    return Request({**base, **environ}, share, DavPath.from_text(path))
