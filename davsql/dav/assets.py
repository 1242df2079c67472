"""Style, scripts and icons of the page for browsers: files of this package, under `/?asset=NAME`.

A query says nothing about a resource, so no name that a user gives can collide with them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

from davsql.dav.content import PRIVATE, type_of_name
from davsql.dav.responses import HttpError, Response

_VERSION_MARK = b"VERSION"  # in modules, where they name each other


class Asset(NamedTuple):
    """One file as it is sent."""

    content_type: str
    content: bytes


@lru_cache(maxsize=1)
def _load() -> tuple[str, Mapping[str, Asset]]:
    """The version, which changes with any of them, and all by name."""
    folder = files("davsql.dav").joinpath("browser")
    raw = {each.name: each.read_bytes() for each in sorted(folder.iterdir(), key=lambda each: each.name)}
    version = hashlib.sha256(b"\0".join(raw.values())).hexdigest()[:12]
    return version, {
        name: Asset(f"{type_of_name(name)}; charset=utf-8", content.replace(_VERSION_MARK, version.encode()))
        for name, content in raw.items()
    }


def asset_url(base: str, name: str) -> str:
    """Where a page finds it; it changes with the content, so that what a browser keeps is never out of date.

    Args:
        base: see peer.BASE_KEY.
    """
    return f"{base}/?asset={name}&v={_load()[0]}"


def asset_response(environ: Mapping[str, Any]) -> Response | None:
    """The answer to a request for one of them; None: it is for something else.

    Raises:
        HttpError: 404.
    """
    query: str = environ.get("QUERY_STRING", "")
    if not query.startswith("asset=") or environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        return None
    if environ["SCRIPT_NAME"] or environ["PATH_INFO"] != "/":
        return None
    version, assets = _load()
    name, _, asked = query.removeprefix("asset=").partition("&v=")
    if name not in assets:
        raise HttpError(404, "The page has no such part.")
    asset = assets[name]
    lasting = "private, max-age=31536000, immutable" if asked == version else "no-cache"
    headers = [("Content-Type", asset.content_type), *PRIVATE, ("Cache-Control", lasting), ("ETag", f'"{version}"')]
    if environ.get("HTTP_IF_NONE_MATCH") == f'"{version}"':
        return Response(304, headers)
    return Response(200, headers, asset.content)
