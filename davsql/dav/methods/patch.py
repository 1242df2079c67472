"""Parts of files: PATCH as SabreDAV defined it, and PUT with Content-Range for those who go on where they stopped.

The new content is put together of the old one and the body, and takes its place in one step, or not at all. If the
file was changed meanwhile, nothing happens.

Source: https://sabre.io/dav/http-patch/; RFC 5789; RFC 9110 14.4, 14.5; ChecksumUpdatePlugin of Nextcloud, which rclone
asks after an upload in parts.
"""

from __future__ import annotations

import re

from davsql.access import Right
from davsql.dav.body import body_blocks, body_lengths, receive, require_identity, size_limit, stored
from davsql.dav.content import accepted_content_type
from davsql.dav.digests import checksum_of, verification_of
from davsql.dav.request import Request
from davsql.dav.responses import HttpError, Response
from davsql.errors import FileTooLarge, IncompleteBody, NotFound
from davsql.store.commands import ABSENT
from davsql.store.download import Download

PATCH_TYPE = "application/x-sabredav-partialupdate"
_UPDATE_RANGE = re.compile(r"append|bytes=(?:(?P<first>[0-9]{1,18})-(?P<last>[0-9]{0,18})|-(?P<suffix>[0-9]{1,18}))")
_CONTENT_RANGE = re.compile(r"bytes (?P<first>[0-9]{1,18})-(?P<last>[0-9]{1,18})/(?P<size>\*|[0-9]{1,18})")


def handle(request: Request) -> Response:
    """Replace bytes of a file, or append to it, as X-Update-Range says; or tell a checksum of it, as Nextcloud does."""
    algorithm = request.header("X-Recalculate-Hash")
    if algorithm is not None:
        request.refuse_body()
        return _recalculate(request, algorithm.strip())
    if (request.header("Content-Type") or "").partition(";")[0].strip().lower() != PATCH_TYPE:
        raise HttpError(415, f"The Content-Type of PATCH is {PATCH_TYPE}.", headers=(("Accept-Patch", PATCH_TYPE),))
    match = _UPDATE_RANGE.fullmatch((request.header("X-Update-Range") or "").strip().lower())
    if match is None:
        raise HttpError(400, "X-Update-Range must be append, bytes=FIRST-LAST, bytes=FIRST- or bytes=-LENGTH.")
    with request.store.open_download(request.path, request.access) as base:
        size = base.node.size
        if match["suffix"] is not None:
            start = size - int(match["suffix"])
        else:
            start = size if match["first"] is None else int(match["first"])
        length = int(match["last"]) - start + 1 if match["last"] else None
        if not 0 <= start <= size or (length is not None and length < 1):
            raise _out_of_range(size)
        return _store(request, base, start, length, changed=base.node.digest)


def _recalculate(request: Request, algorithm: str) -> Response:
    """Tell a checksum, and remember those that clients compare later: rclone asks so after an upload in parts."""
    store = request.store
    with store.open_download(request.path, request.access) as download:
        told, found = checksum_of(download, algorithm)
        if not store.options.read_only and Right.WRITE in request.access.rights(request.path):
            store.keep_checksums(download.node, found)
    return Response(204, [("OC-Checksum", told)])


def append(request: Request) -> Response:
    """PUT with Content-Range: the next bytes of a file, which is made by the first ones.

    A range that is the whole file is an ordinary PUT: `curl -C -`, which cannot ask where to go on, begins again so.
    """
    match = _CONTENT_RANGE.fullmatch((request.header("Content-Range") or "").strip().lower())
    if match is None:
        raise HttpError(400, "Content-Range must be bytes FIRST-LAST/SIZE.")
    first, last = int(match["first"]), int(match["last"])
    if last < first or (match["size"] != "*" and int(match["size"]) <= last):
        raise HttpError(400, "The numbers of Content-Range contradict each other.")
    if first == 0 and match["size"] != "*" and int(match["size"]) == last + 1:
        return _store(request, None, 0, last + 1, changed=None)
    try:
        base = request.store.open_download(request.path, request.access)
    except NotFound:
        if first > 0:
            raise _out_of_range(0) from None
        return _store(request, None, 0, last + 1, changed=ABSENT)
    with base:
        if first != base.node.size:
            raise _out_of_range(base.node.size)
        return _store(request, base, first, last - first + 1, changed=base.node.digest)


def _store(
    request: Request, base: Download | None, start: int, length: int | None, *, changed: bytes | None
) -> Response:
    """Put the body in the place of the bytes from `start`.

    Args:
        length: how many bytes there must be, if that was said.
        changed: as `base` of `Upload.commit`.
    """
    require_identity(request)
    declared, expected = body_lengths(request)
    if expected is not None and length is not None and expected != length:
        raise HttpError(416, "The body is not as long as the range.")
    modified_at, verification = request.modified_at, verification_of(request)
    guard, old_size = request.guard, 0 if base is None else base.node.size
    limit = max(size_limit(request), old_size)
    new_size = max(old_size, start + (expected or length or 0))
    if new_size > limit:
        raise FileTooLarge(f"{new_size} bytes")
    room = request.store.check_put(request.path, guard, new_size)
    with request.store.upload() as upload:
        if base is not None:
            upload.share(base, 0, start)
        receive(upload, verification.passing(body_blocks(request, declared)), limit, room)
        if (length or expected) not in (None, upload.size - start):
            raise IncompleteBody(f"{upload.size - start} bytes came, {length or expected} were announced")
        verification.require()
        if base is None:
            upload.checksums = verification.checksums()
        elif upload.size < old_size:
            upload.share(base, upload.size)
        sent_type = accepted_content_type(request.header("Content-Type")) if base is None else base.node.content_type
        result = upload.commit(request.path, content_type=sent_type, guard=guard, modified_at=modified_at, base=changed)
    return stored(result, modified_at)


def _out_of_range(size: int) -> HttpError:
    """Nothing is filled in between; the size tells where to go on (RFC 9110 14.4)."""
    return HttpError(
        416, f"The file has {size} bytes; nothing can be put there.", headers=(("Content-Range", f"bytes */{size}"),)
    )
