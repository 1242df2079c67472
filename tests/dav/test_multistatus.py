from __future__ import annotations

from collections.abc import Iterator

import pytest
from lxml import etree

from davsql.dav import multistatus
from davsql.dav.multistatus import active_lock, empty_element, error_body, escape, prop_body, propstat, response
from davsql.model import Inode, Lock, LockScope
from davsql.paths import DavPath

NOW = 1_700_000_000_000_000_000
LOCK = Lock(
    token="urn:uuid:1",  # noqa: S106  # a lock token
    inode=Inode(7),
    root=DavPath(["c"]),
    is_collection=True,
    scope=LockScope.SHARED,
    is_depth_infinity=False,
    owner_xml='<o:owner xmlns:o="DAV:">a &amp; <b/></o:owner>',
    principal="me",
    timeout_s=600,
    expires_at=NOW + 1,
)


def test_escape__is_safe_in_content_and_attributes() -> None:
    text = "a<b>&\"'c"
    element = etree.fromstring(f'<x k="{escape(text)}">{escape(text)}</x>')
    assert (element.text, element.get("k")) == (text, text)


def test_multistatus__is_one_document_with_a_declared_prefix_and_no_white_space() -> None:
    answer = multistatus.multistatus([response("/a", propstat(200, "<D:getetag/>"))])
    assert answer.status == 207
    assert ("Content-Type", "application/xml; charset=utf-8") in answer.headers
    assert answer.body == (
        b'<?xml version="1.0" encoding="utf-8"?><D:multistatus xmlns:D="DAV:"><D:response><D:href>/a</D:href>'
        b"<D:propstat><D:prop><D:getetag/></D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat>"
        b"</D:response></D:multistatus>"
    )


@pytest.mark.parametrize("status", [200, 403, 404, 409, 423, 424, 507])
def test_propstat__names_its_status(status: int) -> None:
    assert f"<D:status>HTTP/1.1 {status} " in propstat(status, "")


def test_propstat__names_the_condition_that_failed() -> None:
    assert propstat(403, "<D:getetag/>", "cannot-modify-protected-property").endswith(
        "</D:status><D:error><D:cannot-modify-protected-property/></D:error></D:propstat>"
    )


def test_multistatus__streams_what_is_too_large_to_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multistatus, "WHOLE_BODY_BYTES", 1000)
    taken = []

    def blocks() -> Iterator[str]:
        for number in range(100):
            taken.append(number)
            yield "x" * 99

    body = multistatus.multistatus(blocks()).body
    assert not isinstance(body, bytes)
    assert len(taken) < 12
    whole = b"".join(body)
    assert len(taken) == 100
    assert whole.count(b"x" * 99) == 100
    assert whole.endswith(b"</D:multistatus>")


@pytest.mark.parametrize("name", [("DAV:", "getetag"), ("", "plain"), ("http://x/?a&b'c", "x")])
def test_empty_element__has_the_name_it_was_given(name: tuple[str, str]) -> None:
    (element,) = etree.fromstring(prop_body(empty_element(*name)))
    found = etree.QName(element)
    assert (found.namespace or "", found.localname) == name


def test_error_body__names_condition_and_resources() -> None:
    assert error_body("propfind-finite-depth", ()) == (
        b'<?xml version="1.0" encoding="utf-8"?><D:error xmlns:D="DAV:"><D:propfind-finite-depth/></D:error>'
    )
    assert error_body("lock-token-submitted", ("/a&b", "/c/")).endswith(
        b"<D:lock-token-submitted><D:href>/a&amp;b</D:href><D:href>/c/</D:href></D:lock-token-submitted></D:error>"
    )


def test_active_lock__says_all_of_rfc_4918_14_1() -> None:
    element = etree.fromstring(prop_body(active_lock(LOCK, "/c/", NOW, LOCK.principal)))[0]
    said = {etree.QName(child).localname: "".join(child.itertext()) for child in element}
    assert said == {
        "locktype": "",
        "lockscope": "",
        "depth": "0",
        "owner": "a & ",
        "timeout": "Second-1",  # what remains, rounded up: a lock that is shown is still there
        "locktoken": "urn:uuid:1",
        "lockroot": "/c/",
    }
    assert element.find("{DAV:}lockscope/{DAV:}shared") is not None
    assert element.find("{DAV:}locktype/{DAV:}write") is not None
    assert element.find("{DAV:}owner/b") is not None


def test_active_lock__leaves_out_an_owner_that_was_not_sent() -> None:
    text = active_lock(LOCK._replace(owner_xml=None, is_depth_infinity=True, expires_at=NOW - 5), "/c", NOW, "")
    assert "owner" not in text
    assert "<D:depth>infinity</D:depth>" in text
    assert "Second-0" in text


def test_active_lock__shows_the_token_to_nobody_else() -> None:
    text = active_lock(LOCK._replace(principal="ann"), "/c/", NOW, "bob")
    assert "locktoken" not in text
    assert LOCK.token not in text
