"""The paths that clients of Nextcloud use, as other names of a share: files, and uploads in parts beside them.

Within a share they are /remote.php/dav/files/USER, /remote.php/dav/uploads/USER, the same without remote.php, and
/remote.php/webdav. They hide folders of these names, so they are there only where they are asked for.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from davsql.accounts.names import name_key
from davsql.dav.request import Share
from davsql.errors import NotFound
from davsql.model import Principal
from davsql.paths import DavPath

_BASES = (("remote.php", "dav"), ("dav",))
_WEBDAV = ("remote.php", "webdav")


class Located(NamedTuple):
    """What a path of Nextcloud's stands for."""

    share: Share  # under the name that the client uses
    path: DavPath
    files: Share | None  # of an upload: where the file goes


def locate(share: Share, path: DavPath, principal: Principal) -> Located | None:
    """What a path within a share stands for; None when it is none of Nextcloud's.

    Raises:
        NotFound: it is another user's.
    """
    if path.names[:2] == _WEBDAV:
        return Located(_named(share, _WEBDAV), DavPath(path.names[2:]), None)
    for base in _BASES:
        kind, rest = path.names[len(base) : len(base) + 2], DavPath(path.names[len(base) + 2 :])
        if path.names[: len(base)] != base or len(kind) < 2 or kind[0] not in ("files", "uploads"):
            continue
        if principal.name is not None and name_key(kind[1]) != name_key(principal.name):
            raise NotFound(f"{path} is another user's")
        files = _named(share, (*base, "files", kind[1]))
        if kind[0] == "files":
            return Located(files, rest, None)
        return Located(_named(share, (*base, *kind)), rest, files)
    return None


def _named(share: Share, names: tuple[str, ...]) -> Share:
    return replace(share, mount=share.href(DavPath(names)))
