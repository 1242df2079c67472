"""GET and HEAD (RFC 9110 9.3.1, 9.3.2): files whole or in ranges, collections as a page or an archive."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING

from davsql.dav.archives import archive
from davsql.dav.conditions import is_range_current, judge_read
from davsql.dav.content import content_headers, content_type_of
from davsql.dav.dates import http_date
from davsql.dav.digests import repr_digest
from davsql.dav.pages import collection_page
from davsql.dav.ranges import Multipart, Span, parse_ranges
from davsql.dav.request import Request
from davsql.dav.responses import HttpError, Response
from davsql.errors import IsCollection, PreconditionFailed
from davsql.model import NO_PRECONDITIONS, Node

if TYPE_CHECKING:
    from davsql.store.download import Download

WHOLE_BODY_BYTES = 256 * 1024  # up to here a body is read at once and its reader given back


def handle_get(request: Request) -> Response:
    """The content of a file, or the page of a collection."""
    _require_state(request)
    try:
        download = request.store.open_download(request.path, request.access)
    except IsCollection:
        return _collection(request, request.store.node(request.path, request.access))
    try:
        return _file(request, download)
    except BaseException:
        download.close()
        raise


def handle_head(request: Request) -> Response:
    """What GET would say, exactly, without the content; Range means nothing here (RFC 9110 14.2)."""
    _require_state(request)
    node = request.store.node(request.path, request.access)
    if node.is_collection:
        return _collection(request, node)
    refusal = _refusal(request, node)
    if refusal is not None:
        return refusal
    return Response(200, [*_headers(request, node), ("Content-Length", str(node.size))])


class DownloadBody:
    """A response body that gives the download back whatever happens to the response."""

    def __init__(self, download: Download, spans: list[Span], framing: Multipart | None = None) -> None:
        self._download = download
        self._spans = spans
        self._framing = framing

    def __iter__(self) -> Iterator[bytes]:
        for index, span in enumerate(self._spans):
            if self._framing is not None:
                yield self._framing.heads[index]
            yield from self._download.chunks(span.start, span.stop)
        if self._framing is not None:
            yield self._framing.end

    def close(self) -> None:
        """PEP 3333: called at the end of the request, also when the client has gone."""
        self._download.close()


def _file(request: Request, download: Download) -> Response:
    node = download.node
    refusal = _refusal(request, node)
    if refusal is not None:
        download.close()
        return refusal
    spans = _asked_ranges(request, node)
    if spans is None:
        return _whole(request, download)
    if not spans:
        unsatisfied = (("Content-Range", f"bytes */{node.size}"), ("Accept-Ranges", "bytes"))  # RFC 9110 15.5.17
        raise HttpError(416, "No range asked for is in this file.", headers=unsatisfied)
    if len(spans) == 1:
        headers = [*_headers(request, node), ("Content-Range", spans[0].content_range(node.size))]
        return _partial(headers, spans[0].stop - spans[0].start, DownloadBody(download, spans))
    content_type = content_type_of(node)
    framing = Multipart(spans, node.size, content_type, secrets.token_hex(16))
    sandbox = content_headers(content_type)[1:]
    headers = [("Content-Type", framing.content_type), *sandbox, *_validators(node)]
    return _partial(headers, framing.length, DownloadBody(download, spans, framing))


def _whole(request: Request, download: Download) -> Response:
    node = download.node
    if node.size > WHOLE_BODY_BYTES:
        headers = [*_headers(request, node), ("Content-Length", str(node.size))]
        return Response(200, headers, DownloadBody(download, [Span(0, node.size)]))
    body = b"".join(download.chunks())
    download.close()
    return Response(200, _headers(request, node), body)


def _partial(headers: list[tuple[str, str]], length: int, body: DownloadBody) -> Response:
    headers.append(("Content-Length", str(length)))
    return Response(206, headers, body)


def _asked_ranges(request: Request, node: Node) -> list[Span] | None:
    header = request.environ.get("HTTP_RANGE")
    if header is None:
        return None
    if_range = request.environ.get("HTTP_IF_RANGE")
    if if_range is not None and not is_range_current(if_range, etag=node.etag, modified_at=node.modified_at):
        return None
    return parse_ranges(header, node.size, request.share.options.ranges_limit)


def _headers(request: Request, node: Node) -> list[tuple[str, str]]:
    return [*content_headers(content_type_of(node)), *_validators(node), *repr_digest(request, node)]


def _validators(node: Node) -> list[tuple[str, str]]:
    return [("ETag", node.etag or ""), ("Last-Modified", http_date(node.modified_at)), ("Accept-Ranges", "bytes")]


def _refusal(request: Request, node: Node) -> Response | None:
    """304 when the client has it already; None when it is to be sent.

    Raises:
        PreconditionFailed.
    """
    conditions = request.preconditions
    if conditions is NO_PRECONDITIONS:
        return None
    # A page has no validators: it shows the members, whose changes need not touch the collection.
    modified_at = None if node.is_collection else node.modified_at
    status = judge_read(conditions, etag=node.etag, modified_at=modified_at)
    if status == 412:
        raise PreconditionFailed("a condition of the request does not hold")
    if status == 304:  # RFC 9110 15.4.5: what a 200 would have said to keep a cache right
        return Response(304, [] if node.is_collection else _validators(node)[:2])
    return None


def _collection(request: Request, node: Node) -> Response:
    wants_archive = request.query.get("download") == ["zip"]
    return _refusal(request, node) or (archive(request) if wants_archive else collection_page(request))


def _require_state(request: Request) -> None:
    """The If header counts for reads too (RFC 4918 10.4.1)."""
    lists = request.preconditions.state_lists
    if lists is not None:
        with request.store.snapshot(request.access) as view:
            if view.node(request.path) is not None and not view.state_holds(request.path, lists):
                raise PreconditionFailed("the If header does not hold")
