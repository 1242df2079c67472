"""The conditional headers of a request: parsed here once; for writes the store evaluates them in its transaction.

Reads are judged here, in the order of RFC 9110 13.2.2.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Literal, cast

from davsql.dav.dates import NS_PER_S, parse_http_date
from davsql.dav.destination import resolve_reference
from davsql.dav.responses import HttpError
from davsql.model import (
    ANYTHING,
    NO_PRECONDITIONS,
    Anything,
    EntityTag,
    IfTarget,
    Preconditions,
    StateCondition,
    StateList,
)
from davsql.paths import DavPath

if TYPE_CHECKING:
    from davsql.dav.request import Request

Depth = Literal["0", "1", "infinity"]

MAX_ENTITY_TAGS = 100
MAX_STATE_LISTS = 100
MAX_STATE_CONDITIONS = 1000

_OPAQUE_TAG = r'"[\x21\x23-\x7e\x80-\xff]*"'  # RFC 9110 8.8.3; commas may be inside
_ENTITY_TAG = re.compile(rf"(?P<weak>W/)?(?P<opaque>{_OPAQUE_TAG})[ \t]*(?:,|\Z)")
_EMPTY_ELEMENTS = re.compile(r"[ \t,]*")  # RFC 9110 5.6.1.2

# RFC 4918 10.4.2
_IF_ITEM = re.compile(r"(?:<(?P<tag>[^<>\s]+)>|\()[ \t]*")
_IF_CONDITION = re.compile(
    r"(?:(?P<negated>(?i:not))(?=[ \t<\[])[ \t]*)?"
    r"(?:<(?P<token>[A-Za-z][A-Za-z0-9+.-]*:[^<>\s]+)>"
    rf"|\[[ \t]*(?P<weak>W/)?(?P<opaque>{_OPAQUE_TAG})[ \t]*\])[ \t]*"
)
_IF_LIST_END = re.compile(r"\)[ \t]*")


def parse_depth(request: Request, default: Depth) -> Depth:
    """The Depth header (RFC 4918 10.2); HttpError 400 when it is none of its three values."""
    value = request.environ.get("HTTP_DEPTH")
    if value is None:
        return default
    depth = value.strip().lower()
    if depth not in ("0", "1", "infinity"):
        raise HttpError(400, "Depth must be 0, 1 or infinity.")
    return cast(Depth, depth)


def parse_overwrite(request: Request) -> bool:
    """The Overwrite header, T when absent (RFC 4918 10.6); HttpError 400 when it is neither T nor F."""
    value = request.environ.get("HTTP_OVERWRITE", "T").strip().upper()
    if value not in ("T", "F"):
        raise HttpError(400, "Overwrite must be T or F.")
    return bool(value == "T")


def parse_preconditions(request: Request) -> Preconditions:
    """Parse If-Match, If-None-Match, If-Modified-Since, If-Unmodified-Since and If.

    An If-Match or If that cannot be understood is an error: to write all the same could destroy what the client meant
    to protect. An If-None-Match that cannot be understood is ignored, because clients send such (Joplin:
    `JoplinIgnore-1`) and expect to write; so are dates that are none, as RFC 9110 13.1.3 and 13.1.4 ask.

    Raises:
        HttpError: 400.
    """
    get = request.environ.get
    if_match, if_none_match = get("HTTP_IF_MATCH"), get("HTTP_IF_NONE_MATCH")
    modified, unmodified, state = get("HTTP_IF_MODIFIED_SINCE"), get("HTTP_IF_UNMODIFIED_SINCE"), get("HTTP_IF")
    if if_match is if_none_match is modified is unmodified is state is None:
        return NO_PRECONDITIONS
    matching = None if if_match is None else parse_entity_tags(if_match)
    if if_match is not None and matching is None:
        raise HttpError(400, "If-Match must be * or a list of quoted entity tags.")
    return Preconditions(
        if_match=matching,
        if_none_match=None if if_none_match is None else parse_entity_tags(if_none_match),
        # RFC 9110 13.1.3, 13.1.4: a date counts only where no entity tags were sent.
        if_modified_since=parse_http_date(modified) if modified is not None and if_none_match is None else None,
        if_unmodified_since=parse_http_date(unmodified) if unmodified is not None and if_match is None else None,
        state_lists=None if state is None else _parse_if(request, state.strip()),
    )


def parse_entity_tags(text: str) -> tuple[EntityTag, ...] | Anything | None:
    """The value of If-Match or If-None-Match (RFC 9110 13.1.1); None when it is malformed.

    Raises:
        HttpError: 400, more tags than anyone needs.
    """
    text = text.strip()
    if text == "*":
        return ANYTHING
    tags: list[EntityTag] = []
    position = _skip(text, 0)
    while position < len(text):
        match = _ENTITY_TAG.match(text, position)
        if match is None:
            return None
        if len(tags) == MAX_ENTITY_TAGS:
            raise HttpError(400, f"At most {MAX_ENTITY_TAGS} entity tags are possible.")
        tags.append(EntityTag(match["opaque"], match["weak"] is not None))
        position = _skip(text, match.end())
    return tuple(tags) or None


def judge_read(conditions: Preconditions, *, etag: str | None, modified_at: int | None) -> Literal[304, 412] | None:
    """What the conditions make of a GET or HEAD of an existing resource; None: answer it (RFC 9110 13.2.2, 1 to 4).

    Args:
        etag: the current strong entity tag, None when the resource has none.
        modified_at: nanoseconds, None when no Last-Modified is sent.
    """
    if conditions is NO_PRECONDITIONS:
        return None
    modified_s = None if modified_at is None else modified_at // NS_PER_S
    if conditions.if_match is not None:
        if not _matches(conditions.if_match, etag, is_weak_enough=False):
            return 412
    elif _is_later(modified_s, conditions.if_unmodified_since):
        return 412
    if conditions.if_none_match is not None:
        if _matches(conditions.if_none_match, etag, is_weak_enough=True):
            return 304
    elif conditions.if_modified_since is not None and not _is_later(modified_s, conditions.if_modified_since):
        # A date in the future was never our Last-Modified: it proves nothing about what the client holds.
        return 304 if modified_s is not None and conditions.if_modified_since <= time.time() else None
    return None


def is_range_current(text: str, *, etag: str | None, modified_at: int) -> bool:
    """True when If-Range names exactly what is stored now, so that a range of it may be sent (RFC 9110 13.1.5)."""
    text = text.strip()
    if text.startswith(('"', "W/")):
        return text == etag  # strong comparison: ours are strong, and a weak one never equals them
    return parse_http_date(text) == modified_at // NS_PER_S


def _is_later(modified_s: int | None, date_s: int | None) -> bool:
    return modified_s is not None and date_s is not None and modified_s > date_s


def _matches(tags: tuple[EntityTag, ...] | Anything, etag: str | None, *, is_weak_enough: bool) -> bool:
    """RFC 9110 8.8.3.2; `*` matches any existing resource."""
    if isinstance(tags, Anything):
        return True
    return any(tag.opaque == etag and (is_weak_enough or not tag.is_weak) for tag in tags)


def _skip(text: str, position: int) -> int:
    match = _EMPTY_ELEMENTS.match(text, position)
    return position if match is None else match.end()


def _parse_if(request: Request, text: str) -> tuple[StateList, ...]:
    """The If header: untagged lists, or lists each after the resource that they are about (RFC 4918 10.4.2)."""
    lists: list[StateList] = []
    target: DavPath | IfTarget = IfTarget.REQUEST
    needs_list = False  # a tag has been read and no list yet
    position = conditions_count = 0
    while position < len(text):
        item = _IF_ITEM.match(text, position)
        if item is None or len(lists) == MAX_STATE_LISTS:
            raise _bad_if()
        position = item.end()
        if item["tag"] is not None:
            if needs_list or (lists and target is IfTarget.REQUEST):
                raise _bad_if()
            target = resolve_reference(request, item["tag"]) or IfTarget.ELSEWHERE
            needs_list = True
            continue
        conditions, position = _parse_if_list(text, position)
        conditions_count += len(conditions)
        if conditions_count > MAX_STATE_CONDITIONS:
            raise _bad_if()
        lists.append(StateList(target, conditions))
        needs_list = False
    if needs_list or not lists:
        raise _bad_if()
    return tuple(lists)


def _parse_if_list(text: str, position: int) -> tuple[tuple[StateCondition, ...], int]:
    """The conditions from `position` to the closing parenthesis, and where the text goes on after it."""
    conditions = []
    while (match := _IF_CONDITION.match(text, position)) is not None:
        etag = None if match["opaque"] is None else EntityTag(match["opaque"], match["weak"] is not None)
        conditions.append(StateCondition(match["negated"] is not None, match["token"], etag))
        position = match.end()
    end = _IF_LIST_END.match(text, position)
    if end is None or not conditions:
        raise _bad_if()
    return tuple(conditions), end.end()


def _bad_if() -> HttpError:
    return HttpError(400, "The If header cannot be understood (RFC 4918 10.4.2).")
