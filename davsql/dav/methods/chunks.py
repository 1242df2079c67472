"""Uploads in parts, as clients of Nextcloud send them, versions 1 and 2 of its protocol.

MKCOL makes the upload, PUT stores its parts, MOVE of its member `.file` makes the file of them in one step: the bytes
are read to be hashed, and shared, not written again. Sources: Nextcloud's developer manual, "Chunked file upload";
backend/webdav/chunking.go of rclone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from davsql.access import Right
from davsql.dav.body import body_blocks, body_lengths, receive, require_identity, size_limit, stored
from davsql.dav.conditions import parse_depth, parse_overwrite
from davsql.dav.destination import parse_destination
from davsql.dav.digests import verification_of
from davsql.dav.multistatus import escape, multistatus
from davsql.dav.properties import Group, remembered_plan
from davsql.dav.request import Request, Share
from davsql.dav.responses import HttpError, Response
from davsql.dav.xmlbody import parse_propfind, read_body
from davsql.errors import FileTooLarge, IncompleteBody
from davsql.model import ANYTHING, Inode, Node, Nodes
from davsql.paths import ROOT
from davsql.store.assembly import Assembly

WHOLE = ".file"
ALLOW = "OPTIONS, MKCOL, PUT, MOVE, DELETE, PROPFIND"
# A number, of version 2; or the range of bytes, of version 1 and rclone.
_PART = re.compile(r"(?P<first>[0-9]{1,18})(?:-(?P<last>[0-9]{1,18}))?")


def handle(request: Request, files: Share) -> Response:
    """Answer a request to an upload or a part of one; `files` is where the file goes."""
    names = request.path.names
    if request.method == "OPTIONS":
        return Response(200, [("Allow", ALLOW), ("DAV", "1")])
    if len(names) == 1 and request.method in ("MKCOL", "DELETE", "PROPFIND"):
        assembly = Assembly(request.principal.name or "", names[0])
        if request.method == "PROPFIND":
            return _list(request, assembly)
        request.refuse_body()
        if request.method == "MKCOL":
            request.store.begin_assembly(assembly, request.guard)
            return Response(201)
        request.store.drop_assembly(assembly, request.guard)
        return Response(204)
    if len(names) == 2 and request.method in ("PUT", "MOVE"):
        assembly = Assembly(request.principal.name or "", names[0])
        if request.method == "PUT":
            return _put(request, assembly, names[1])
        if names[1] == WHOLE:
            return _assemble(request, assembly, files)
    raise HttpError(405, f"{request.method} is not possible here.")


def _put(request: Request, assembly: Assembly, name: str) -> Response:
    """Store a part, whole or not at all."""
    if _PART.fullmatch(name) is None:
        raise HttpError(400, "A part is named by its number, or by its first and last byte: 1, or 0-1048575.")
    require_identity(request)
    content_length, expected = body_lengths(request)
    guard, verification, limit = request.guard, verification_of(request), size_limit(request)
    if expected is not None and expected > limit:
        raise FileTooLarge(f"{expected} bytes")
    room = request.store.check_part(assembly, name, guard, expected or 0)
    with request.store.upload() as upload:
        receive(upload, verification.passing(body_blocks(request, content_length)), limit, room)
        if expected is not None and upload.size != expected:
            raise IncompleteBody(f"{upload.size} bytes came, {expected} were announced")
        verification.require()
        return stored(upload.commit_part(assembly, name, guard), None)


def _assemble(request: Request, assembly: Assembly, files: Share) -> Response:
    """Make the file of the parts; the conditions of the request are about the file."""
    about = Request(request.environ, files, ROOT)
    target, guard = parse_destination(about), about.guard
    request.refuse_body()
    modified_at, verification = request.modified_at, verification_of(request)
    if not parse_overwrite(request):
        guard = replace(guard, preconditions=replace(guard.preconditions, if_none_match=ANYTHING))
    top, parts = request.store.parts(assembly)
    parts = _in_order(parts)
    size, total = sum(part.size for part in parts), request.header("OC-Total-Length")
    if total is not None and total.strip() != str(size):
        raise HttpError(400, f"The parts have {size} bytes; OC-Total-Length says otherwise.")
    if size > size_limit(request):
        raise FileTooLarge(f"{size} bytes")
    with request.store.upload() as upload:
        for part in parts:
            with request.store.open_part(part) as download:
                upload.share(download, hear=verification.update if verification.is_needed else None)
        verification.require()
        if verification.is_needed:
            upload.checksums = verification.checksums()
        result = upload.commit(target, guard=guard, modified_at=modified_at, made_of=top)
    return stored(result, modified_at)


def _in_order(parts: Sequence[Node]) -> list[Node]:
    """The parts as their numbers say.

    Raises:
        HttpError: 400, one is missing.
    """
    spans = [(_PART.fullmatch(part.name), part) for part in parts]
    found = sorted((int(span["first"]), span["last"] is not None, part) for span, part in spans if span is not None)
    is_by_bytes = bool(found) and found[0][1]
    position = 0 if is_by_bytes or not found else min(found[0][0], 1)
    for first, has_last, part in found:
        if first != position or has_last is not is_by_bytes:
            raise HttpError(400, f"The part that begins with {position} is missing.")
        position += part.size if is_by_bytes else 1
    return [part for _, _, part in found]


def _list(request: Request, assembly: Assembly) -> Response:
    """What is there already, for who goes on after an interruption."""
    if parse_depth(request, "1") == "infinity":
        raise HttpError(403, "Ask with Depth: 0 or 1.", condition="propfind-finite-depth")
    plan = remembered_plan(parse_propfind(read_body(request)))
    top, parts = request.store.parts(assembly)
    inside = parts if parse_depth(request, "1") == "1" else []
    node = request.store.node(ROOT)._replace(inode=top, name=assembly.name)
    hrefs = [escape(request.share.href(request.path, is_collection=True))]
    hrefs += [escape(request.share.href(request.path.child(part.name))) for part in inside]
    rights: dict[Inode, Right] = dict.fromkeys((top, *(part.inode for part in inside)), Right.ALL)
    return multistatus(plan.responses(Group(Nodes.of(node, *inside), hrefs, {}, rights), {}))
