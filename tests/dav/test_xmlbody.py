from __future__ import annotations

import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from lxml import etree

from davsql.dav import safexml, xmlbody
from davsql.dav.request import DavOptions, Request, Share
from davsql.dav.responses import HttpError
from davsql.dav.xmlbody import (
    ALLPROP,
    MAX_PROPERTIES,
    LockInfo,
    PropfindRequest,
    parse_lockinfo,
    parse_propfind,
    parse_proppatch,
    read_body,
)
from davsql.model import LockScope, PropertyUpdate
from davsql.paths import ROOT
from davsql.store.store import Store

MIB = 1024 * 1024
PROP = '<D:propfind xmlns:D="DAV:"><D:prop>{}</D:prop></D:propfind>'


def refused(body: bytes, parse: Callable[[bytes], object] = parse_propfind) -> int:
    """The status with which a body is refused."""
    with pytest.raises(HttpError) as caught:
        parse(body)
    return caught.value.status


def prop(inside: str) -> bytes:
    return PROP.format(inside).encode()


# --- reading ------------------------------------------------------------------------------------------------------


class DripStream:
    """A body that comes a few bytes at a time, and says how much of it was taken."""

    def __init__(self, size: int) -> None:
        self.left = size
        self.taken = 0

    def read(self, size: int = -1) -> bytes:
        assert size > 0, "an unbounded read"
        count = min(size, 1000, self.left)
        self.left -= count
        self.taken += count
        return b"x" * count


def request_with(stream: object, **environ: str) -> Request:
    share = Share("", cast(Store, None), DavOptions(xml_body_limit=10_000))
    return Request({"REQUEST_METHOD": "PROPFIND", "wsgi.input": stream, **environ}, share, ROOT)


def test_read_body__returns_the_whole_body() -> None:
    assert read_body(request_with(DripStream(10_000))) == b"x" * 10_000
    assert read_body(request_with(io.BytesIO(b""))) == b""


def test_read_body__refuses_a_declared_length_over_the_limit_unread() -> None:
    stream = DripStream(20_000)
    with pytest.raises(HttpError) as caught:
        read_body(request_with(stream, CONTENT_LENGTH="10001"))
    assert caught.value.status == 413
    assert stream.taken == 0


def test_read_body__stops_a_chunked_body_at_the_limit() -> None:
    stream = DripStream(10 * MIB)
    with pytest.raises(HttpError) as caught:
        read_body(request_with(stream, HTTP_TRANSFER_ENCODING="chunked"))
    assert caught.value.status == 413
    assert stream.taken == 10_001


# --- propfind -----------------------------------------------------------------------------------------------------


def test_parse_propfind__without_a_body_is_allprop() -> None:
    assert parse_propfind(b"") == ALLPROP


def test_parse_propfind__reads_the_three_kinds() -> None:
    assert parse_propfind(b'<propfind xmlns="DAV:"><allprop/></propfind>') == ALLPROP
    assert parse_propfind(b'<propfind xmlns="DAV:"><propname/></propfind>') == PropfindRequest("propname")
    asked = parse_propfind(prop('<D:getetag/><x xmlns="urn:x"/><plain/><D:getetag/>'))
    assert asked == PropfindRequest("prop", (("DAV:", "getetag"), ("urn:x", "x"), ("", "plain")))


def test_parse_propfind__reads_include() -> None:
    body = b'<propfind xmlns="DAV:"><allprop/><include><acl/><x xmlns="urn:x"/></include></propfind>'
    assert parse_propfind(body) == PropfindRequest("allprop", include=(("DAV:", "acl"), ("urn:x", "x")))


def test_parse_propfind__ignores_comments_and_unknown_elements() -> None:
    # RFC 4918 17; WsgiDAV answers a comment with 500.
    body = (
        b'<?xml version="1.0"?><!-- one --><D:propfind xmlns:D="DAV:"><!-- two --><?pi x?><D:extra/>'
        b'<E:prop xmlns:E="urn:e"><E:x/></E:prop><D:prop><!-- three --><D:getetag/></D:prop></D:propfind><!-- four -->'
    )
    assert parse_propfind(body).names == (("DAV:", "getetag"),)


@pytest.mark.parametrize(
    "body",
    [
        b"<propfind xmlns='DAV:'>",
        b"not xml",
        b"\r\n",
        b'<propfind xmlns="DAV:"/>',
        b'<D:propfind xmlns:D="DAV:"><E:expired xmlns:E="u"/></D:propfind>',  # RFC 4918 A.3
        b'<D:propfind xmlns:D="DAV:"><D:prop/><D:allprop/></D:propfind>',
        b'<D:other xmlns:D="DAV:"><D:prop/></D:other>',
        b"<propfind><prop/></propfind>",
        b'<D:propfind xmlns:D="DAV:"><D:prop><bar:foo xmlns:bar=""/></D:prop></D:propfind>',  # litmus propfind_invalid2
        b'<D:propfind xmlns:D="DAV:"><D:prop><bar:foo/></D:prop></D:propfind>',
        b'<?xml version="1.0" encoding="utf-7"?><propfind xmlns="DAV:"><allprop/></propfind>',
        b'<?xml version="1.0" encoding="utf-8"?><propfind xmlns="DAV:">\xff<allprop/></propfind>',
        b'<propfind xmlns="DAV:"><allprop/>\x00</propfind>',
    ],
)
def test_parse_propfind__refuses_what_is_none(body: bytes) -> None:
    assert refused(body) == 400


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_parse_propfind__reads_every_unicode_encoding(encoding: str) -> None:
    declared = "utf-16" if "16" in encoding else "utf-8"
    text = f'<?xml version="1.0" encoding="{declared}"?>' + PROP.format('<é xmlns="urn:x"/>')
    assert parse_propfind(text.encode(encoding)).names == (("urn:x", "é"),)


def test_parse_propfind__refuses_more_properties_than_anyone_needs() -> None:
    exactly = "".join(f"<p{number}/>" for number in range(MAX_PROPERTIES))
    assert len(parse_propfind(prop(exactly)).names) == MAX_PROPERTIES
    assert refused(prop(exactly + "<one-more/>")) == 400


def test_parse_propfind__refuses_long_names_that_every_member_would_repeat() -> None:
    assert refused(prop(f'<x xmlns="{"u" * 20_000}"/>')) == 400


def test_parse_propfind__remembers_small_bodies_and_keeps_no_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []
    parse = safexml.parse

    def noting(body: bytes) -> etree._Element:
        parsed.append(body)
        return parse(body)

    monkeypatch.setattr(safexml, "parse", noting)
    small, large, bad = prop("<a1/>"), prop("<a1/>" + " " * xmlbody.REMEMBERED_BODY_BYTES), b"<bad1"
    for _ in range(2):
        parse_propfind(small)
        parse_propfind(large)
        refused(bad)
    assert [parsed.count(body) for body in (small, large, bad)] == [1, 2, 2]


# --- attacks ------------------------------------------------------------------------------------------------------

LAUGHS = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
BILLION_LAUGHS = f'<!DOCTYPE l [<!ENTITY a0 "ha">{LAUGHS}]>' + PROP.format("<x>&a9;</x>")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_parse__refuses_a_doctype_in_every_encoding_before_libxml2_sees_it(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unwanted(*args: object) -> None:
        raise AssertionError("parsed")

    monkeypatch.setattr(etree, "fromstring", unwanted)
    assert refused(BILLION_LAUGHS.encode(encoding)) == 400
    assert refused(('<?xml version="1.0"?><!-- <x> --><?pi <x> ?>\n' + BILLION_LAUGHS).encode(encoding)) == 400


def test_parse__refuses_external_entities_and_dtds(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    for doctype in (
        f'<!DOCTYPE x [<!ENTITY e SYSTEM "{secret.as_uri()}">]>',
        f'<!DOCTYPE x SYSTEM "{secret.as_uri()}">',
        '<!DOCTYPE x [<!ENTITY % p SYSTEM "http://127.0.0.1:1/x"> %p;]>',
    ):
        assert refused((doctype + PROP.format("<x>&e;</x>")).encode()) == 400
    assert refused(prop("<x>&e;</x>")) == 400


def test_parse__takes_a_doctype_inside_of_content_for_text() -> None:
    assert update("<D:set><D:prop><x><![CDATA[<!DOCTYPE html>]]></x></D:prop></D:set>") == [
        PropertyUpdate("", "x", "<x>&lt;!DOCTYPE html&gt;</x>")
    ]


@pytest.mark.parametrize(
    "inside",
    [
        "<a>" * 70 + "</a>" * 70,
        "<a>" * 1000 + "</a>" * 1000,
        "<a>" * 100_000 + "</a>" * 100_000,
        "<a/>" * 250_000,
        "".join(f"<p{number}/>" for number in range(50_000)),
        "<r " + " ".join(f'a{number}=""' for number in range(95_000)) + "/>",
        "<r " + " ".join(f'xmlns:a{number}="u{number}"' for number in range(40_000)) + "/>",
        "<!---->" * 140_000,
        "<" * 1_000_000,
        "&#x0;" * 200_000,
        '<r a="' + "x" * 1_000_000,
    ],
    ids=lambda inside: inside[:12],
)
def test_parse__refuses_what_is_made_to_be_large(inside: str) -> None:
    body = prop(inside)
    assert len(body) < 1.4 * MIB
    assert refused(body) == 400


def test_parse__counts_tags_and_namespaces_before_it_builds_a_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    def unwanted(*args: object) -> None:
        raise AssertionError("parsed")

    monkeypatch.setattr(etree, "fromstring", unwanted)
    assert refused(prop("<a/>" * 250_000)) == 400
    assert refused(prop("<r " + " ".join(f'xmlns:a{number}="u"' for number in range(2_000)) + "/>")) == 400


def test_read_apart__leaves_no_thread_and_no_names_behind() -> None:
    # lxml keeps the names it saw for as long as the thread lives; see safexml.
    threads: list[threading.Thread] = []
    before = threading.active_count()
    safexml.read_apart(lambda _: threads.append(threading.current_thread()), b"<x/>")
    assert threads[0] is not threading.current_thread()
    assert not threads[0].is_alive()
    assert threading.active_count() == before


# --- proppatch ----------------------------------------------------------------------------------------------------


def update(inside: str, attributes: str = "") -> list[PropertyUpdate]:
    return parse_proppatch(f'<D:propertyupdate xmlns:D="DAV:"{attributes}>{inside}</D:propertyupdate>'.encode())


def test_parse_proppatch__keeps_the_order_of_the_document() -> None:
    steps = update(
        "<D:set><D:prop><a/><b/></D:prop></D:set><D:remove><D:prop><a/></D:prop></D:remove>"
        "<D:ignored/><D:set><D:prop><D:author/></D:prop><D:prop><a>2</a></D:prop></D:set>"
    )
    assert steps == [
        ("", "a", "<a/>"),
        ("", "b", "<b/>"),
        ("", "a", None),
        ("DAV:", "author", '<D:author xmlns:D="DAV:"/>'),
        ("", "a", "<a>2</a>"),
    ]


def test_parse_proppatch__keeps_values_whole() -> None:
    inside = 'one<b xmlns="urn:b"><i>two</i></b> 3 &amp; <D:c/>four'
    value = f'<z:m xmlns:z="urn:z" xmlns:D="DAV:" z:k="D:v" k="&quot;&lt;">{inside}</z:m>'
    (step,) = update(f"<D:set><D:prop>{value}tail</D:prop></D:set>")
    assert step == ("urn:z", "m", value)


def test_parse_proppatch__makes_each_value_stand_alone() -> None:
    steps = update(
        "<D:set><D:prop><z:text>D:name</z:text><z:plain>12</z:plain><z:tree><z:x/></z:tree></D:prop></D:set>",
        ' xmlns:z="urn:z"',
    )
    assert [step.xml for step in steps] == [
        '<z:text xmlns:z="urn:z" xmlns:D="DAV:">D:name</z:text>',  # the text may mean the prefix
        '<z:plain xmlns:z="urn:z">12</z:plain>',
        '<z:tree xmlns:z="urn:z" xmlns:D="DAV:"><z:x/></z:tree>',
    ]


def test_parse_proppatch__keeps_xml_lang_of_an_ancestor() -> None:
    # RFC 4918 4.3; WsgiDAV loses it.
    steps = update('<D:set xml:lang="de"><D:prop><a>x</a><b xml:lang="fr">y</b></D:prop></D:set>', ' xml:lang="en"')
    assert [step.xml for step in steps] == ['<a xml:lang="de">x</a>', '<b xml:lang="fr">y</b>']


@pytest.mark.parametrize(
    "body",
    [
        b'<propertyupdate xmlns="DAV:"/>',
        b'<propertyupdate xmlns="DAV:"><set><prop/></set></propertyupdate>',
        b'<propfind xmlns="DAV:"><set><prop><a/></prop></set></propfind>',
        b"",
        b'<propertyupdate xmlns="DAV:"><set><prop>'
        + b"<a/>" * (MAX_PROPERTIES + 1)
        + b"</prop></set></propertyupdate>",
    ],
)
def test_parse_proppatch__refuses_what_is_none(body: bytes) -> None:
    assert refused(body, parse_proppatch) == 400


# --- lockinfo -----------------------------------------------------------------------------------------------------

LOCKINFO = '<lockinfo xmlns="DAV:"><locktype>{}</locktype><lockscope>{}</lockscope>{}</lockinfo>'


def test_parse_lockinfo__reads_scope_and_owner() -> None:
    owner = '<owner>me <x:a xmlns:x="urn:x" k="1">&lt;</x:a> too</owner>'
    body = LOCKINFO.format("<write/>", "<shared/>", owner).encode()
    kept = '<owner xmlns="DAV:">me <x:a xmlns:x="urn:x" k="1">&lt;</x:a> too</owner>'
    assert parse_lockinfo(body) == LockInfo(LockScope.SHARED, kept)
    body = LOCKINFO.format("<write/>", "<exclusive/>", "").encode()
    assert parse_lockinfo(body) == LockInfo(LockScope.EXCLUSIVE, None)


@pytest.mark.parametrize(
    ("kind", "scope"), [("<read/>", "<shared/>"), ("<write/>", ""), ("", "<shared/>"), ("<write/>", "<both/>")]
)
def test_parse_lockinfo__refuses_other_types_and_scopes(kind: str, scope: str) -> None:
    assert refused(LOCKINFO.format(kind, scope, "").encode(), parse_lockinfo) == 400


def test_parse_lockinfo__refuses_an_owner_that_every_member_would_repeat() -> None:
    body = LOCKINFO.format("<write/>", "<shared/>", f"<owner>{'x' * 5000}</owner>").encode()
    assert refused(body, parse_lockinfo) == 413
