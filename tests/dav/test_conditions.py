from __future__ import annotations

import time

import pytest

from davsql.dav.conditions import (
    MAX_ENTITY_TAGS,
    MAX_STATE_CONDITIONS,
    MAX_STATE_LISTS,
    is_range_current,
    judge_read,
    parse_depth,
    parse_entity_tags,
    parse_overwrite,
    parse_preconditions,
)
from davsql.dav.dates import NS_PER_S, http_date
from davsql.dav.responses import HttpError
from davsql.errors import InvalidPath
from davsql.model import (
    ANYTHING,
    NO_PRECONDITIONS,
    EntityTag,
    IfTarget,
    Preconditions,
    StateCondition,
    StateList,
)
from davsql.paths import DavPath
from tests.dav.parsed import make_request

HELD = "urn:uuid:181d4fae-7d8c-11d0-a765-00a0c91e6bf2"
STRONG = EntityTag('"a"', is_weak=False)
WEAK = EntityTag('"a"', is_weak=True)
MODIFIED_S = 1_700_000_000


def parse_if(text: str, *, mount: str = "") -> tuple[StateList, ...]:
    lists = parse_preconditions(make_request(mount=mount, HTTP_IF=text)).state_lists
    assert lists is not None
    return lists


def token(text: str = HELD, *, negated: bool = False) -> StateCondition:
    return StateCondition(negated, text, None)


def etag(opaque: str, *, weak: bool = False, negated: bool = False) -> StateCondition:
    return StateCondition(negated, None, EntityTag(opaque, weak))


# --- Depth, Overwrite ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "depth"), [("0", "0"), ("1", "1"), ("infinity", "infinity"), (" Infinity ", "infinity")]
)
def test_parse_depth__takes_its_three_values(sent: str, depth: str) -> None:
    assert parse_depth(make_request(HTTP_DEPTH=sent), "0") == depth


@pytest.mark.parametrize("sent", ["", "2", "-1", "1,noroot", "infinite"])
def test_parse_depth__anything_else_is_400(sent: str) -> None:
    with pytest.raises(HttpError) as caught:
        parse_depth(make_request(HTTP_DEPTH=sent), "0")
    assert caught.value.status == 400


def test_parse_depth__absent_is_the_default() -> None:
    assert parse_depth(make_request(), "infinity") == "infinity"


def test_parse_overwrite__is_t_unless_f() -> None:
    assert parse_overwrite(make_request())
    assert parse_overwrite(make_request(HTTP_OVERWRITE="t"))
    assert not parse_overwrite(make_request(HTTP_OVERWRITE="F"))


@pytest.mark.parametrize("sent", ["", "X", "TRUE", "T, F"])
def test_parse_overwrite__anything_else_is_400(sent: str) -> None:
    with pytest.raises(HttpError) as caught:
        parse_overwrite(make_request(HTTP_OVERWRITE=sent))
    assert caught.value.status == 400


# --- entity tags --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ('"a"', (STRONG,)),
        ('W/"a"', (WEAK,)),
        ('"a", W/"a"', (STRONG, WEAK)),
        (', "a" ,, "b"\t,', (STRONG, EntityTag('"b"', is_weak=False))),
        ('"a,b"', (EntityTag('"a,b"', is_weak=False),)),
        ('"a,b","c,d"', (EntityTag('"a,b"', is_weak=False), EntityTag('"c,d"', is_weak=False))),
        ('""', (EntityTag('""', is_weak=False),)),
    ],
)
def test_parse_entity_tags__follows_the_grammar(text: str, tags: tuple[EntityTag, ...]) -> None:
    assert parse_entity_tags(text) == tags


def test_parse_entity_tags__asterisk_is_anything() -> None:
    assert parse_entity_tags(" * ") is ANYTHING


@pytest.mark.parametrize(
    "text", ["", ",", "a", '"a', 'a"', '"a" "b"', '"a"b', 'w/"a"', 'W/ "a"', '*, "a"', "JoplinIgnore-1"]
)
def test_parse_entity_tags__malformed_is_none(text: str) -> None:
    assert parse_entity_tags(text) is None


def test_parse_entity_tags__too_many_are_400() -> None:
    assert parse_entity_tags(",".join(['"a"'] * MAX_ENTITY_TAGS)) is not None
    with pytest.raises(HttpError) as caught:
        parse_entity_tags(",".join(['"a"'] * (MAX_ENTITY_TAGS + 1)))
    assert caught.value.status == 400


# --- the conditional headers of RFC 9110 --------------------------------------------------------------------------


def test_parse_preconditions__without_headers_there_are_none() -> None:
    assert parse_preconditions(make_request()) is NO_PRECONDITIONS


def test_parse_preconditions__unparsable_if_match_is_400() -> None:
    with pytest.raises(HttpError) as caught:
        parse_preconditions(make_request(HTTP_IF_MATCH="abc"))
    assert caught.value.status == 400


def test_parse_preconditions__joplins_if_none_match_is_ignored() -> None:
    parsed = parse_preconditions(make_request(HTTP_IF_NONE_MATCH="JoplinIgnore-1"))
    assert parsed == NO_PRECONDITIONS


def test_parse_preconditions__dates_that_are_none_are_ignored() -> None:
    parsed = parse_preconditions(make_request(HTTP_IF_MODIFIED_SINCE="now", HTTP_IF_UNMODIFIED_SINCE="tomorrow"))
    assert parsed == NO_PRECONDITIONS


def test_parse_preconditions__entity_tags_silence_dates() -> None:
    date = http_date(MODIFIED_S * NS_PER_S)
    parsed = parse_preconditions(
        make_request(
            HTTP_IF_MATCH='"a"', HTTP_IF_UNMODIFIED_SINCE=date, HTTP_IF_NONE_MATCH='"b"', HTTP_IF_MODIFIED_SINCE=date
        )
    )
    assert parsed.if_unmodified_since is None
    assert parsed.if_modified_since is None


def judge(*, etag: str | None = '"a"', modified_s: int | None = MODIFIED_S, **conditions: object) -> int | None:
    modified_at = None if modified_s is None else modified_s * NS_PER_S + 1
    return judge_read(Preconditions(**conditions), etag=etag, modified_at=modified_at)  # type: ignore[arg-type]


def test_judge_read__if_match_compares_strongly() -> None:
    assert judge(if_match=(STRONG,)) is None
    assert judge(if_match=ANYTHING) is None
    assert judge(if_match=(WEAK,)) == 412
    assert judge(if_match=(EntityTag('"b"', is_weak=False),)) == 412
    assert judge(etag=None, if_match=(STRONG,)) == 412


def test_judge_read__if_none_match_compares_weakly() -> None:
    assert judge(if_none_match=(STRONG,)) == 304
    assert judge(if_none_match=(WEAK,)) == 304
    assert judge(if_none_match=ANYTHING) == 304
    assert judge(if_none_match=(EntityTag('"b"', is_weak=False),)) is None


def test_judge_read__if_modified_since_compares_whole_seconds() -> None:
    assert judge(if_modified_since=MODIFIED_S) == 304
    assert judge(if_modified_since=MODIFIED_S + 1) == 304
    assert judge(if_modified_since=MODIFIED_S - 1) is None
    assert judge(if_modified_since=int(time.time()) + 3600) is None
    assert judge(modified_s=None, if_modified_since=MODIFIED_S) is None
    assert judge(modified_s=-5) is None


def test_judge_read__if_unmodified_since_compares_whole_seconds() -> None:
    assert judge(if_unmodified_since=MODIFIED_S) is None
    assert judge(if_unmodified_since=MODIFIED_S - 1) == 412


def test_judge_read__looks_in_the_order_of_the_rfc() -> None:
    other = (EntityTag('"b"', is_weak=False),)
    assert judge(if_match=other, if_none_match=(STRONG,)) == 412
    assert judge(if_match=(STRONG,), if_none_match=(STRONG,)) == 304
    assert judge(if_unmodified_since=MODIFIED_S - 1, if_none_match=(STRONG,)) == 412
    assert judge(if_match=(STRONG,), if_unmodified_since=MODIFIED_S - 1) is None
    assert judge(if_none_match=other, if_modified_since=MODIFIED_S) is None


def test_is_range_current__wants_the_exact_validator() -> None:
    now = MODIFIED_S * NS_PER_S + 5
    assert is_range_current('"a"', etag='"a"', modified_at=now)
    assert not is_range_current('W/"a"', etag='"a"', modified_at=now)
    assert not is_range_current('"b"', etag='"a"', modified_at=now)
    assert is_range_current(http_date(now), etag='"a"', modified_at=now)
    assert not is_range_current(http_date(now + NS_PER_S), etag='"a"', modified_at=now)
    assert not is_range_current("a", etag='"a"', modified_at=now)


# --- the If header of RFC 4918 ------------------------------------------------------------------------------------


def test_parse_if__untagged_lists_are_about_the_request() -> None:
    text = f'(<{HELD}> ["an-etag"]) (["a,)b"])'
    assert parse_if(text) == (
        StateList(IfTarget.REQUEST, (token(), etag('"an-etag"'))),
        StateList(IfTarget.REQUEST, (etag('"a,)b"'),)),
    )


def test_parse_if__tagged_lists_are_about_their_resource() -> None:
    text = f'</a%20b> (<{HELD}>) (Not <DAV:no-lock>) <http://drive.example:8080/c/>(Not[W/"a"]<{HELD}>)'
    assert parse_if(text) == (
        StateList(DavPath(("a b",)), (token(),)),
        StateList(DavPath(("a b",)), (token("DAV:no-lock", negated=True),)),
        StateList(DavPath(("c",)), (etag('"a"', weak=True, negated=True), token())),
    )


def test_parse_if__other_hosts_and_shares_are_elsewhere() -> None:
    elsewhere = (StateList(IfTarget.ELSEWHERE, (token(),)),)
    assert parse_if(f"<http://other.example/share/a> (<{HELD}>)", mount="/share") == elsewhere
    assert parse_if(f"</share_evil/a> (<{HELD}>)", mount="/share") == elsewhere
    assert parse_if(f"</share/a> (<{HELD}>)", mount="/share") == (StateList(DavPath(("a",)), (token(),)),)


def test_parse_if__collects_every_token() -> None:
    parsed = parse_preconditions(make_request(HTTP_IF=f"</a> (Not <{HELD}>) </b> (<opaquelocktoken:x>)"))
    assert parsed.tokens == {HELD, "opaquelocktoken:x"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "()",
        "(",
        ")",
        "nonsense",
        HELD,
        f"<{HELD}>",
        f"(<{HELD}>",
        f"<{HELD}>)",
        f"((<{HELD}>))",
        f"(<{HELD}>) </a> (<{HELD}>)",
        "</a>",
        "</a> </b> (<a:b>)",
        "(<a:b>) x",
        "(Not)",
        "(Not Not <a:b>)",
        "(Notx <a:b>)",
        "(<no-scheme>)",
        "(<>)",
        "(<a: b>)",
        "([a])",
        '(["a)',
        '(["a"',
        '(w/["a"])',
        "<a> (<a:b>)",
        "</a?b> (<a:b>)",
        "(<a:b>), (<c:d>)",
    ],
)
def test_parse_if__malformed_is_400(text: str) -> None:
    with pytest.raises(HttpError) as caught:
        parse_if(text)
    assert caught.value.status == 400


def test_parse_if__impossible_paths_are_refused() -> None:
    with pytest.raises(InvalidPath):
        parse_if("</a/../b> (<a:b>)")


def test_parse_if__is_bounded() -> None:
    assert len(parse_if("(<a:b>)" * MAX_STATE_LISTS)) == MAX_STATE_LISTS
    for text in ("(<a:b>)" * (MAX_STATE_LISTS + 1), "(" + "<a:b>" * (MAX_STATE_CONDITIONS + 1) + ")"):
        with pytest.raises(HttpError):
            parse_if(text)


@pytest.mark.parametrize("piece", ["(", "<", "[", "(<a:b> ", '(["', "Not ", '"', " ", "(Not ["])
def test_parse_if__garbage_costs_little(piece: str) -> None:
    begun = time.process_time()
    with pytest.raises(HttpError):
        parse_if(piece * 20_000)
    assert time.process_time() - begun < 0.5
