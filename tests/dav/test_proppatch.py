from __future__ import annotations

import pytest
from lxml import etree

from davsql.dav.xmlbody import MAX_PROPERTIES
from davsql.store.store import Store
from tests.access.wsgi import one_share, rule, user
from tests.dav.answers import DAV, Properties, lock_body, names, only_response, proppatch_body, set_body, token_of
from tests.http_client import Reply
from tests.live_server import LiveServer
from tests.store_steps import mkcol, put

COLOUR = '<x:colour xmlns:x="urn:x">red</x:colour>'
SIZE = '<x:size xmlns:x="urn:x">12</x:size>'
NS_COLOUR, NS_SIZE = "{urn:x}colour", "{urn:x}size"
PROTECTED = f"{DAV}cannot-modify-protected-property"


@pytest.fixture(autouse=True)
def file(store: Store) -> None:
    put(store, "/a.txt", b"a")


def patch(server: LiveServer, body: bytes, path: str = "/a.txt", **headers: str) -> Reply:
    return server.request("PROPPATCH", path, body, {name.replace("_", "-"): text for name, text in headers.items()})


def statuses(reply: Reply) -> dict[int, set[str]]:
    return {status: names(properties) for status, properties in only_response(reply).items()}


def found(server: LiveServer, path: str = "/a.txt") -> Properties:
    return only_response(server.request("PROPFIND", path, None, {"Depth": "0"}))[200]


def canonical(element: etree._Element | str) -> str:
    """Content and names, whatever the prefixes."""
    text = element if isinstance(element, str) else etree.tostring(element, encoding="unicode", with_tail=False)
    return etree.canonicalize(text, rewrite_prefixes=True)


def test_proppatch__sets_and_removes(server: LiveServer) -> None:
    reply = patch(server, set_body(COLOUR, SIZE))
    assert statuses(reply) == {200: {NS_COLOUR, NS_SIZE}}
    assert all(len(element) == 0 and element.text is None for element in only_response(reply)[200].values())
    assert found(server)[NS_COLOUR].text == "red"
    assert statuses(patch(server, proppatch_body(f"<D:remove><D:prop>{COLOUR}</D:prop></D:remove>"))) == {
        200: {NS_COLOUR}
    }
    assert names(found(server)) >= {NS_SIZE}
    assert NS_COLOUR not in found(server)


def test_proppatch__removing_what_is_not_there_succeeds(server: LiveServer) -> None:
    body = proppatch_body(f"<D:remove><D:prop>{COLOUR}</D:prop></D:remove>")
    for _ in range(2):  # RFC 4918 14.23
        assert statuses(patch(server, body)) == {200: {NS_COLOUR}}


def test_proppatch__steps_count_in_their_order(server: LiveServer) -> None:
    set_red, set_blue = (
        f"<D:set><D:prop>{COLOUR.replace('red', colour)}</D:prop></D:set>" for colour in ("red", "blue")
    )
    remove = f"<D:remove><D:prop>{COLOUR}</D:prop></D:remove>"
    for steps, result in (
        (set_red + set_blue, "blue"),
        (set_blue + remove + set_red, "red"),
        (set_red + remove, None),
    ):
        assert statuses(patch(server, proppatch_body(steps))) == {200: {NS_COLOUR}}
        assert getattr(found(server).get(NS_COLOUR), "text", None) == result


@pytest.mark.parametrize(
    "value",
    [
        '<v xmlns="urn:v"/>',
        '<v xmlns="urn:v">a &amp; &lt;b&gt; \U0001f600 \u00e9</v>',
        "<v>no namespace</v>",
        '<v xmlns="urn:v" xml:lang="de" a="1">one<b xmlns="urn:b" b:c="2" xmlns:b="urn:c"><i/>two</b> three </v>',
        '<x:v xmlns:x="urn:v"><v xmlns=""/><D:href>/x</D:href></x:v>',
        '<v xmlns="urn:v">\n  lines\tand  spaces \n</v>',
        '<v xmlns="DAV:">an unknown one of DAV:</v>',
    ],
)
def test_proppatch__values_come_back_whole(server: LiveServer, value: str) -> None:
    (name,) = statuses(patch(server, set_body(value)))[200]
    said = found(server)
    wanted = canonical(value.replace("<D:href>", '<D:href xmlns:D="DAV:">'))
    assert canonical(said[name] if name in said else said[DAV + name]) == wanted


def test_proppatch__xml_lang_of_an_ancestor_is_kept(server: LiveServer) -> None:
    # RFC 4918 4.3; WsgiDAV loses it.
    patch(server, set_body(COLOUR).replace(b"<D:set>", b'<D:set xml:lang="de">'))
    assert found(server)[NS_COLOUR].get("{http://www.w3.org/XML/1998/namespace}lang") == "de"


def test_proppatch__display_name_is_the_clients_to_choose(server: LiveServer) -> None:
    # WsgiDAV always answers 403.
    assert found(server)[f"{DAV}displayname"].text == "a.txt"
    assert statuses(patch(server, set_body("<D:displayname>Title &amp; more</D:displayname>"))) == {
        200: {"displayname"}
    }
    assert found(server)[f"{DAV}displayname"].text == "Title & more"
    patch(server, proppatch_body("<D:remove><D:prop><D:displayname/></D:prop></D:remove>"))
    assert found(server)[f"{DAV}displayname"].text == "a.txt"


@pytest.mark.parametrize("name", ["getetag", "getcontentlength", "resourcetype", "lockdiscovery", "quota-used-bytes"])
def test_proppatch__protected_property_leaves_everything_as_it_was(server: LiveServer, name: str) -> None:
    # Atomic (RFC 4918 9.2); WsgiDAV keeps what came before the failure.
    patch(server, set_body(COLOUR))
    steps = proppatch_body(
        f"<D:set><D:prop>{SIZE}{COLOUR.replace('red', 'blue')}</D:prop></D:set>"
        f"<D:set><D:prop><D:{name}>x</D:{name}></D:prop></D:set>"
        f'<D:remove><D:prop><other xmlns="urn:o"/></D:prop></D:remove>'
    )
    reply = patch(server, steps)
    assert statuses(reply) == {403: {name}, 424: {NS_SIZE, NS_COLOUR, "{urn:o}other"}}
    errors = list(reply.xml.iter(f"{DAV}error"))
    assert [child.tag for error in errors for child in error] == [PROTECTED]
    said = found(server)
    assert said[NS_COLOUR].text == "red"
    assert NS_SIZE not in said


def test_proppatch__limits_answer_507_and_leave_everything_as_it_was(server: LiveServer) -> None:
    large = f'<x xmlns="urn:x">{"x" * 64 * 1024}</x>'
    remove = '<D:remove><D:prop><other xmlns="urn:o"/></D:prop></D:remove>'
    reply = patch(server, proppatch_body(f"<D:set><D:prop>{COLOUR}{large}</D:prop></D:set>{remove}"))
    assert statuses(reply) == {507: {NS_COLOUR, "{urn:x}x"}, 424: {"{urn:o}other"}}
    assert NS_COLOUR not in found(server)
    many = [f"<p{number}/>" for number in range(MAX_PROPERTIES)]
    assert set(statuses(patch(server, set_body(*many)))) == {200}
    assert statuses(patch(server, set_body(COLOUR))) == {507: {NS_COLOUR}}
    assert patch(server, set_body(*many, "<more/>")).status == 400


def test_proppatch__needs_a_resource_and_a_document(server: LiveServer) -> None:
    assert patch(server, set_body(COLOUR), "/missing").status == 404
    assert patch(server, set_body("<D:getetag/>"), "/missing").status == 404
    for body in (b"", b"text", proppatch_body(""), b"<x/>"):
        assert patch(server, body).status == 400
    assert patch(server, b" " * (1024 * 1024 + 1)).status == 413


def test_proppatch__chunked_body_counts(server: LiveServer) -> None:
    body = set_body(COLOUR)
    assert server.request("PROPPATCH", "/a.txt", iter([body[:30], body[30:]])).status == 207
    assert found(server)[NS_COLOUR].text == "red"


def test_proppatch__lock_protects_properties(server: LiveServer) -> None:
    token = token_of(server.request("LOCK", "/a.txt", lock_body()))
    for body in (set_body(COLOUR), set_body("<D:getetag/>")):
        reply = patch(server, body)
        assert reply.status == 423
        assert [child.tag for child in reply.xml] == [f"{DAV}lock-token-submitted"]
    assert NS_COLOUR not in found(server)
    assert statuses(patch(server, set_body(COLOUR), If=f"(<{token}>)")) == {200: {NS_COLOUR}}


def test_proppatch__of_windows_attributes_needs_no_token_of_ones_own_lock(store: Store) -> None:
    ann, bob, site = user("ann"), user("bob"), one_share(store, rule("/", "ann bob", "rwd"))
    lock = site.ask(ann, "LOCK", "/a.txt", lock_body())
    assert lock.status == 200
    name, when = "Win32LastModifiedTime", "Tue, 06 Jan 2026 08:49:38 GMT"
    win32 = f'<z:{name} xmlns:z="urn:schemas-microsoft-com:">{when}</z:{name}>'
    assert site.ask(ann, "PROPPATCH", "/a.txt", set_body(win32)).status == 207
    assert site.ask(ann, "HEAD", "/a.txt").header("Last-Modified") == when
    elsewhere = f'<z:{name} xmlns:z="urn:x">{when}</z:{name}>'
    other = '<z:Other xmlns:z="urn:schemas-microsoft-com:">x</z:Other>'
    for more in (COLOUR, elsewhere, other):
        assert site.ask(ann, "PROPPATCH", "/a.txt", set_body(win32, more)).status == 423
    assert site.ask(ann, "PUT", "/a.txt", b"x").status == 423
    assert site.ask(bob, "PROPPATCH", "/a.txt", set_body(win32)).status == 423


def test_proppatch__conditions_are_those_of_the_request(server: LiveServer) -> None:
    for name, value in (("If_Match", '"other"'), ("If", '(["other"])')):
        assert patch(server, set_body(COLOUR), **{name: value}).status == 412
    assert NS_COLOUR not in found(server)
    etag = server.request("HEAD", "/a.txt").header("ETag")
    assert etag is not None
    assert patch(server, set_body(COLOUR), If_Match=etag).status == 207
    assert server.request("HEAD", "/a.txt").header("ETag") == etag


def test_proppatch__names_the_resource_as_the_client_did(server: LiveServer, store: Store) -> None:
    mkcol(store, "/c d")
    for path in ("/c%20d", "/c%20d/", "/"):
        reply = patch(server, set_body(COLOUR), path)
        assert reply.xml.findtext(f"{DAV}response/{DAV}href") == path


def test_proppatch__windows_explorer_sets_its_times_and_reads_them_back(server: LiveServer) -> None:
    # WebClient: LOCK without Depth, PUT, PROPPATCH with the token, UNLOCK.
    token = token_of(server.request("LOCK", "/new.txt", lock_body(owner="<D:owner><D:href>PC\\me</D:href></D:owner>")))
    server.request("PUT", "/new.txt", b"x", {"If": f"(<{token}>)"})
    values = {
        "Win32CreationTime": "Tue, 06 Jan 2026 08:49:37 GMT",
        "Win32LastModifiedTime": "Tue, 06 Jan 2026 08:49:38 GMT",
        "Win32LastAccessTime": "Tue, 06 Jan 2026 08:49:39 GMT",
        "Win32FileAttributes": "00000020",
    }
    inside = "".join(f"<Z:{name}>{value}</Z:{name}>" for name, value in values.items())
    body = (
        '<?xml version="1.0" encoding="utf-8" ?><D:propertyupdate xmlns:D="DAV:" '
        f'xmlns:Z="urn:schemas-microsoft-com:"><D:set><D:prop>{inside}</D:prop></D:set></D:propertyupdate>'
    )
    reply = patch(server, body.encode(), "/new.txt", If=f"(<{token}>)")
    assert statuses(reply) == {200: {f"{{urn:schemas-microsoft-com:}}{name}" for name in values}}
    assert server.request("UNLOCK", "/new.txt", None, {"Lock-Token": f"<{token}>"}).status == 204
    said = found(server, "/new.txt")
    assert {name: said[f"{{urn:schemas-microsoft-com:}}{name}"].text for name in values} == values


def test_proppatch__properties_go_with_a_copy_and_a_move(server: LiveServer) -> None:
    patch(server, set_body(COLOUR))
    server.request("COPY", "/a.txt", None, {"Destination": "/b.txt"})
    server.request("MOVE", "/b.txt", None, {"Destination": "/c.txt"})
    for path in ("/a.txt", "/c.txt"):
        assert found(server, path)[NS_COLOUR].text == "red"
