from __future__ import annotations

import hashlib
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from davsql.dav.content import content_type_of
from davsql.dav.dates import http_date, iso_date
from davsql.dav.multistatus import MULTISTATUS_CLOSE, MULTISTATUS_OPEN
from davsql.dav.properties import Group, Plan, asks_for_quota, is_settable, remembered_plan
from davsql.dav.xmlbody import ALLPROP, PropertyName, PropfindRequest
from davsql.model import BlobId, DeadProperty, Inode, Node, Nodes, NodeType
from davsql.paths import encoded_names
from tests.dav.answers import DAV, Properties, names

MODIFIED = 1_700_000_000_000_000_000
FILE = Node(
    Inode(7),
    Inode(1),
    "a & <b>.txt",
    NodeType.FILE,
    BlobId(3),
    5,
    hashlib.sha256(b"hello").digest(),
    None,
    MODIFIED - 1,
    MODIFIED,
)
COLLECTION = Node(Inode(8), Inode(1), "c", NodeType.COLLECTION, None, 0, None, None, MODIFIED - 1, MODIFIED)
COLOUR = DeadProperty("urn:x", "colour", '<z:colour xmlns:z="urn:x">red</z:colour>')
TITLE = DeadProperty("DAV:", "displayname", '<d:displayname xmlns:d="DAV:">Title</d:displayname>')

SHARED = {"resourcetype", "creationdate", "displayname", "getlastmodified", "supportedlock", "lockdiscovery"}
OF_FILES = SHARED | {"getcontentlength", "getcontenttype", "getetag"}
QUOTA = {"quota-available-bytes", "quota-used-bytes"}


def asking(*asked: str | PropertyName) -> PropfindRequest:
    return PropfindRequest("prop", tuple(("DAV:", name) if isinstance(name, str) else name for name in asked))


def written(plan: Plan, node: Node, *dead: DeadProperty, locks: str = "") -> dict[int, Properties]:
    """What the plan says about a node."""
    group = Group(Nodes.of(node), ["/x"], {node.inode: locks} if locks else {}, {})
    document = MULTISTATUS_OPEN + "".join(plan.responses(group, {node.inode: dead} if dead else {})) + MULTISTATUS_CLOSE
    found: dict[int, Properties] = {}
    for propstat in etree.fromstring(document.encode())[0].findall(f"{DAV}propstat"):
        status = int((propstat.findtext(f"{DAV}status") or "").split()[1])
        assert status not in found
        found[status] = {str(element.tag): element for element in propstat[0]}
    return found


def texts(properties: Properties) -> dict[str, str | None]:
    return {name.removeprefix(DAV): element.text for name, element in properties.items()}


def test_plan__allprop_of_a_file_has_the_values_of_the_headers() -> None:
    said = written(Plan(ALLPROP), FILE)
    assert set(said) == {200}
    assert names(said[200]) == OF_FILES
    values = texts(said[200])
    assert values["getetag"] == FILE.etag
    assert values["getlastmodified"] == http_date(MODIFIED)
    assert values["creationdate"] == iso_date(MODIFIED - 1)
    assert (values["getcontentlength"], values["getcontenttype"]) == ("5", "text/plain")
    assert values["displayname"] == FILE.name
    assert len(said[200][f"{DAV}resourcetype"]) == 0
    assert len(said[200][f"{DAV}supportedlock"]) == 2


def test_plan__allprop_of_a_collection_has_no_content_and_no_quota() -> None:
    said = written(Plan(ALLPROP, {"quota-used-bytes": 1, "quota-available-bytes": 2}), COLLECTION)
    assert names(said[200]) == SHARED  # RFC 4331 3
    assert said[200][f"{DAV}resourcetype"][0].tag == f"{DAV}collection"


def test_plan__allprop_adds_dead_properties_and_prefers_a_display_name_that_was_set() -> None:
    said = written(Plan(ALLPROP), FILE, TITLE, COLOUR)
    assert names(said[200]) == OF_FILES | {"{urn:x}colour"}
    assert texts(said[200])["displayname"] == "Title"


def test_plan__include_adds_to_allprop() -> None:
    asked = PropfindRequest("allprop", include=(("DAV:", "quota-used-bytes"), ("DAV:", "acl"), ("urn:x", "colour")))
    plan = Plan(asked, {"quota-used-bytes": 1, "quota-available-bytes": 2})
    said = written(plan, COLLECTION, COLOUR)
    assert names(said[200]) == SHARED | {"quota-used-bytes", "{urn:x}colour"}
    assert names(said[404]) == {"acl"}
    assert names(written(plan, COLLECTION)[404]) == {"acl", "{urn:x}colour"}


def test_plan__propname_names_live_and_dead_properties_without_values() -> None:
    said = written(Plan(PropfindRequest("propname")), FILE, TITLE, COLOUR)
    assert set(said) == {200}
    assert names(said[200]) == OF_FILES | {"current-user-privilege-set", "{urn:x}colour"}
    assert all(len(element) == 0 and not element.text for element in said[200].values())
    assert names(written(Plan(PropfindRequest("propname")), COLLECTION)[200]) == SHARED | {"current-user-privilege-set"}


def test_plan__prop_answers_only_what_is_asked_and_404_for_the_rest() -> None:
    plan = Plan(asking("getetag", ("urn:x", "colour"), ("urn:x", "size"), "displayname", "nothing", ("", "bare")))
    said = written(plan, FILE, COLOUR)
    assert names(said[200]) == {"getetag", "displayname", "{urn:x}colour"}
    assert names(said[404]) == {"{urn:x}size", "nothing", "bare"}
    said = written(plan, COLLECTION)
    assert names(said[200]) == {"displayname"}
    assert names(said[404]) == {"getetag", "{urn:x}colour", "{urn:x}size", "nothing", "bare"}


def test_plan__prop_without_anything_found_has_no_200() -> None:
    assert set(written(Plan(asking(("urn:x", "size"))), FILE)) == {404}
    assert set(written(Plan(asking(("urn:x", "size"))), FILE, COLOUR)) == {404}


def test_plan__prop_without_names_is_an_empty_200() -> None:
    assert written(Plan(asking()), FILE) == {200: {}}
    assert written(Plan(asking()), FILE, COLOUR) == {200: {}}


def test_plan__quota_belongs_to_collections_and_is_written_when_asked_for() -> None:
    plan = Plan(asking(*sorted(QUOTA)), {"quota-available-bytes": 12, "quota-used-bytes": 34})
    assert texts(written(plan, COLLECTION)[200]) == {"quota-available-bytes": "12", "quota-used-bytes": "34"}
    assert names(written(plan, FILE)[404]) == QUOTA
    assert names(written(Plan(asking(*sorted(QUOTA))), COLLECTION)[404]) == QUOTA


def test_plan__lockdiscovery_holds_the_locks_it_is_given() -> None:
    for dead in ((), (COLOUR,)):
        said = written(Plan(asking("lockdiscovery")), FILE, *dead, locks="<D:activelock/>")
        assert [child.tag for child in said[200][f"{DAV}lockdiscovery"]] == [f"{DAV}activelock"]
        assert len(written(Plan(asking("lockdiscovery")), FILE, *dead)[200][f"{DAV}lockdiscovery"]) == 0


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\ufffe\uffff"), min_size=1)
TIMES = st.integers(-(2**60), 2**62)
FILES = st.builds(
    FILE._replace,
    name=NAMES,
    size=st.integers(0, 2**62),
    digest=st.binary(min_size=32, max_size=32),
    content_type=st.none() | st.sampled_from(["text/html", 'a/b; c="<&>"', "text/plain; charset=utf-8"]),
    created_at=TIMES,
    modified_at=TIMES,
)
COLLECTIONS = st.builds(COLLECTION._replace, name=NAMES, created_at=TIMES, modified_at=TIMES)


@given(st.lists(FILES | COLLECTIONS, min_size=1, max_size=8), st.data())
def test_plan__says_of_many_nodes_what_it_says_of_each_alone(nodes: list[Node], data: st.DataObject) -> None:
    nodes = [node._replace(inode=Inode(number)) for number, node in enumerate(nodes)]
    some = st.sets(st.sampled_from([node.inode for node in nodes]))
    dead = dict.fromkeys(data.draw(some), (TITLE, COLOUR))
    locks = dict.fromkeys(data.draw(some), "<D:activelock/>")
    hrefs = list(encoded_names([node.name for node in nodes]))
    kinds = [
        ALLPROP,
        PropfindRequest("propname"),
        asking("getetag", "displayname", "lockdiscovery", ("urn:x", "colour")),
    ]
    for plan in map(Plan, kinds):
        found = plan.responses(Group(Nodes.of(*nodes), hrefs, locks, {}), dead)
        for node, href, text in zip(nodes, hrefs, found, strict=True):
            assert text == "".join(plan.responses(Group(Nodes.of(node), [href], locks, {}), dead))


@given(FILES)
def test_plan__gives_the_values_of_any_file(node: Node) -> None:
    group = Group(Nodes.of(node, node), encoded_names([node.name] * 2), {}, {})
    document = MULTISTATUS_OPEN + "".join(Plan(ALLPROP).responses(group, {})) + MULTISTATUS_CLOSE
    for said in etree.fromstring(document.encode()):
        assert unquote(said.findtext(f"{DAV}href") or "") == node.name
        values = {element.tag: element.text for element in said.iterfind(f"{DAV}propstat/{DAV}prop/*")}
        assert values[f"{DAV}displayname"] == node.name
        assert values[f"{DAV}getcontentlength"] == str(node.size)
        assert values[f"{DAV}getcontenttype"] == content_type_of(node)
        assert values[f"{DAV}getetag"] == node.etag
        assert values[f"{DAV}creationdate"] == iso_date(node.created_at)
        assert values[f"{DAV}getlastmodified"] == http_date(node.modified_at)


@pytest.mark.parametrize(
    ("asked", "needs_dead", "needs_locks", "needs_quota"),
    [
        (ALLPROP, True, True, False),
        (PropfindRequest("propname"), True, False, True),
        (asking("getetag", "resourcetype"), False, False, False),
        (asking("displayname"), True, False, False),
        (asking(("urn:x", "colour")), True, False, False),
        (asking("lockdiscovery"), False, True, False),
        (asking("quota-used-bytes"), False, False, True),
    ],
)
def test_plan__asks_the_store_only_for_what_it_needs(
    asked: PropfindRequest, needs_dead: bool, needs_locks: bool, needs_quota: bool
) -> None:
    plan = remembered_plan(asked)
    assert (plan.needs_dead, plan.needs_locks, asks_for_quota(asked)) == (needs_dead, needs_locks, needs_quota)


def test_is_settable__protects_what_the_server_computes() -> None:
    for name in (OF_FILES | QUOTA) - {"displayname"}:
        assert not is_settable("DAV:", name)
    for name in ("displayname", "getcontentlanguage", "author"):
        assert is_settable("DAV:", name)
    assert is_settable("urn:x", "getetag")
    assert is_settable("", "getetag")
