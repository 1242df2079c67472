"""REPORT (RFC 3253 3.6): sync-collection (RFC 6578)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from davsql.access import Right
from davsql.dav import multistatus
from davsql.dav.conditions import parse_depth
from davsql.dav.methods.propfind import plan_for, top_of
from davsql.dav.multistatus import escape
from davsql.dav.properties import Group, Plan
from davsql.dav.request import Request
from davsql.dav.responses import HttpError, Response
from davsql.dav.xmlbody import SyncBody, parse_report, read_body, unknown_report
from davsql.model import Inode
from davsql.store.sync import SyncAnswer, SyncRequest

if TYPE_CHECKING:
    from davsql.store.snapshot import Snapshot


def handle(request: Request) -> Response:
    """What changed in a collection since the client's sync-token.

    Raises:
        HttpError: 400; 403 with supported-report; 412 when the If header does not hold; 413.
        NotFound.
        SyncTokenInvalid: the client is to begin again.
    """
    body = parse_report(read_body(request))
    asked = SyncRequest(body.token, _is_deep(request, body), body.limit)
    plan = plan_for(request, body.properties)
    with request.store.snapshot(request.access) as view:
        if not top_of(request, view).is_collection:
            raise unknown_report()
        answer = view.changes_since(request.path, asked)
        changed = _changed(request, view, plan, answer)
    return multistatus.multistatus(_responses(request, answer, changed))


def _is_deep(request: Request, body: SyncBody) -> bool:
    """RFC 6578 3.2, 3.3; without a sync-level the Depth header says it (appendix A)."""
    depth = parse_depth(request, "0")
    if body.level is None and depth == "0":
        raise HttpError(400, "sync-collection must hold a sync-level.")
    if body.level is not None and depth != "0":
        raise HttpError(400, "The Depth of a sync-collection report is 0; its sync-level says how far it goes.")
    return body.level == "infinite" or depth == "infinity"


def _changed(request: Request, view: Snapshot, plan: Plan, answer: SyncAnswer) -> list[str]:
    """The responses about what is there."""
    nodes, access = answer.nodes, request.access
    if not len(nodes):
        return []
    columns = zip(answer.paths, nodes.digests, strict=True)
    hrefs = [escape(request.share.href(path, is_collection=digest is None)) for path, digest in columns]
    only = Right.READ if request.store.options.read_only else Right.ALL
    rights = {inode: access.rights(path) & only for inode, path in zip(nodes.inodes, answer.paths, strict=True)}
    # Of what is there only because it leads further, nobody learns more than that.
    readable = [inode for inode in nodes.inodes if Right.READ in rights[inode]]
    dead = view.dead_properties(readable) if plan.needs_dead else {}
    locks = _locks(request, view, answer) if plan.needs_locks and view.has_locks() else {}
    blob_ids = [blob_id for blob_id in nodes.blob_ids if blob_id is not None]
    checksums = view.checksums(blob_ids) if plan.needs_checksums else {}
    collections = [inode for inode, digest in zip(nodes.inodes, nodes.digests, strict=True) if digest is None]
    sizes = view.tree_sizes(collections) if plan.needs_sizes else {}
    return plan.responses(Group(nodes, hrefs, locks, rights, checksums, sizes), dead)


def _locks(request: Request, view: Snapshot, answer: SyncAnswer) -> Mapping[Inode, str]:
    now, name = time.time_ns(), request.principal.name or ""
    found: dict[Inode, str] = {}
    for inode, path in zip(answer.nodes.inodes, answer.paths, strict=True):
        locks = view.locks_covering(path)
        roots = [request.share.href(lock.root, is_collection=lock.is_collection) for lock in locks]
        found[inode] = "".join(
            multistatus.active_lock(lock, root, now, name) for lock, root in zip(locks, roots, strict=True)
        )
    return found


def _responses(request: Request, answer: SyncAnswer, changed: list[str]) -> Iterator[str]:
    """RFC 6578 3.5, 3.6: first what is gone, so that its names are free for what came."""
    for removed in answer.removed:
        href = request.share.href(removed.path, is_collection=removed.was_collection)
        yield multistatus.response_status(escape(href), 404)
    yield from changed
    if answer.is_truncated:
        top = escape(request.share.href(request.path, is_collection=True))
        yield multistatus.response_status(top, 507, "number-of-matches-within-limits")
    yield f"<D:sync-token>{escape(answer.token)}</D:sync-token>"
