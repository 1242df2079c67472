"""PROPFIND and PROPPATCH: what is said of a resource is true, and what is set is kept whole."""

from __future__ import annotations

from threading import Event, Thread

from tests.dav.answers import DAV, propfind_body, set_body
from tests.http_client import Body, Client
from tests.lost_data.scenario import scenario
from tests.lost_data.site import BROKEN, TIMEOUT_S, Property, Site, expect, expect_that, properties

XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"


def _found(site: Site, target: str, body: Body) -> dict[str, Property]:
    """The properties of one resource that a PROPFIND gives."""
    (found,) = properties(site.request("PROPFIND", target, body, {"Depth": "0"})).values()
    return found


@scenario(stock="statuses: set()")
def propname__gives_names_without_values(site: Site) -> None:
    site.put("/f", b"content")
    found = _found(site, "/f", b'<D:propfind xmlns:D="DAV:"><D:propname/></D:propfind>')
    expect("statuses", {each.status for each in found.values()}, {200})
    expect_that("getetag is named", f"{DAV}getetag" in found)
    values = [name for name, each in found.items() if len(each.element) or each.element.text]
    expect("names with a value", values, [])


@scenario(stock="not so: what is included is there")
def allprop_with_include__gives_what_is_included(site: Site) -> None:
    site.put("/f", b"content")
    body = (
        b'<D:propfind xmlns:D="DAV:"><D:allprop/><D:include><D:supported-report-set/><X:a xmlns:X="urn:x"/></D:include>'
        b"</D:propfind>"
    )
    found = _found(site, "/f", body)
    expect_that("what is included is there", "{urn:x}a" in found)
    expect("not found", found["{urn:x}a"].status, 404)
    expect("all", found[f"{DAV}getcontentlength"].element.text, "7")


@scenario(stock="getetag: ")
def getetag__is_the_header(site: Site) -> None:
    etag = site.put("/f", b"content")
    found = _found(site, "/f", propfind_body("getetag"))
    expect("getetag", found[f"{DAV}getetag"].element.text, etag)


@scenario(stock="PROPFIND: 500 instead of 207")
def comments_in_xml__are_ignored(site: Site) -> None:
    site.put("/f", b"content")
    body = (
        b"<!-- 1 --><D:propfind xmlns:D='DAV:'><!-- 2 --><D:prop><!-- 3 --><D:getcontentlength/><!-- 4 --></D:prop>"
        b"</D:propfind><!-- 5 -->"
    )
    expect("length", _found(site, "/f", body)[f"{DAV}getcontentlength"].element.text, "7")


@scenario(stock="PROPPATCH: 500 instead of 207")
def comments_in_proppatch__are_ignored(site: Site) -> None:
    site.put("/f", b"content")
    body = set_body("<!-- 1 -->", '<X:a xmlns:X="urn:x">value</X:a>', "<!-- 2 -->")
    found = properties(site.request("PROPPATCH", "/f", body), "PROPPATCH")["/f"]
    expect("PROPPATCH", {name: each.status for name, each in found.items()}, {"{urn:x}a": 200})


@scenario(stock="property: ('Wert', None)")
def language_of_a_property__is_kept(site: Site) -> None:
    site.put("/f", b"content")
    body = (
        b'<D:propertyupdate xmlns:D="DAV:" xml:lang="de"><D:set><D:prop><X:a xmlns:X="urn:x">Wert</X:a></D:prop>'
        b"</D:set></D:propertyupdate>"
    )
    site.prepared("PROPPATCH", "/f", body)
    asked = b'<D:propfind xmlns:D="DAV:"><D:prop><X:a xmlns:X="urn:x"/></D:prop></D:propfind>'
    kept = _found(site, "/f", asked)["{urn:x}a"].element
    expect("property", (kept.text, kept.get(XML_LANG)), ("Wert", "de"))


@scenario(stock="displayname: 'f' instead of 'Ferien'")
def displayname__can_be_set(site: Site) -> None:
    site.put("/f", b"content")
    site.prepared("PROPPATCH", "/f", set_body("<D:displayname>Ferien</D:displayname>"))
    expect("displayname", _found(site, "/f", propfind_body("displayname"))[f"{DAV}displayname"].element.text, "Ferien")


@scenario()
def proppatch_with_one_refusal__changes_nothing(site: Site) -> None:
    site.put("/f", b"content")
    body = set_body('<X:a xmlns:X="urn:x">1</X:a>', "<D:getetag>mine</D:getetag>", '<X:b xmlns:X="urn:x">2</X:b>')
    found = properties(site.request("PROPPATCH", "/f", body), "PROPPATCH")["/f"]
    statuses = {"{urn:x}a": 424, f"{DAV}getetag": 403, "{urn:x}b": 424}
    expect("PROPPATCH", {name: each.status for name, each in found.items()}, statuses)
    asked = b'<D:propfind xmlns:D="DAV:" xmlns:X="urn:x"><D:prop><X:a/><X:b/></D:prop></D:propfind>'
    after = _found(site, "/f", asked)
    expect("afterwards", {name: each.status for name, each in after.items()}, {"{urn:x}a": 404, "{urn:x}b": 404})


# --- PROPPATCH is one step ----------------------------------------------------------------------------------------

COUNT = 40
ROUNDS = 25


def _all_set_to(value: str) -> bytes:
    return set_body(*(f'<X:p{number} xmlns:X="urn:x">{value}</X:p{number}>' for number in range(COUNT)))


@scenario(stock="values of one moment")
def proppatch__is_one_step_for_a_reader(site: Site) -> None:
    site.put("/f", b"content")
    site.prepared("PROPPATCH", "/f", _all_set_to("0"))
    asked = "".join(f'<X:p{number} xmlns:X="urn:x"/>' for number in range(COUNT))
    body = f'<D:propfind xmlns:D="DAV:"><D:prop>{asked}</D:prop></D:propfind>'.encode()
    mixtures: list[object] = []
    is_done = Event()

    def read() -> None:
        try:
            with Client(site.address, timeout_s=TIMEOUT_S) as client:
                while not is_done.is_set():
                    (found,) = properties(client.request("PROPFIND", "/f", body, {"Depth": "0"})).values()
                    values = {each.element.text for each in found.values()}
                    if len(values) != 1:
                        mixtures.append(values)
        except BROKEN as error:
            mixtures.append(error)

    readers = [Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for value in range(ROUNDS):
            expect("PROPPATCH", site.status("PROPPATCH", "/f", _all_set_to(str(value))), 207)
    finally:
        is_done.set()
        for reader in readers:
            reader.join()
    expect("values of one moment", mixtures[:3], [])


# --- bodies in chunks ---------------------------------------------------------------------------------------------


@scenario(stock="properties: [")
def propfind_in_chunks__is_not_allprop(site: Site) -> None:
    site.put("/f", b"content")
    found = _found(site, "/f", [propfind_body("getcontentlength")])
    expect("properties", sorted(found), [f"{DAV}getcontentlength"])


@scenario(stock="PROPPATCH: 400 instead of 207")
def proppatch_in_chunks__is_done(site: Site) -> None:
    site.put("/f", b"content")
    body = set_body('<X:a xmlns:X="urn:x">value</X:a>')
    expect("PROPPATCH", site.status("PROPPATCH", "/f", [body[:50], body[50:]]), 207)
    asked = b'<D:propfind xmlns:D="DAV:"><D:prop><X:a xmlns:X="urn:x"/></D:prop></D:propfind>'
    expect("property", _found(site, "/f", asked)["{urn:x}a"].element.text, "value")


@scenario(stock="MKCOL: 201 instead of 415")
def mkcol_with_a_body_in_chunks__is_refused(site: Site) -> None:
    expect("MKCOL", site.status("MKCOL", "/c/", [b"<make-me-an-addressbook/>"]), 415)
    expect("collection", site.content("/c/"), 404)
