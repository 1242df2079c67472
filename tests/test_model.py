"""The words that all layers share."""

from __future__ import annotations

import pytest

from davsql.model import (
    ANONYMOUS,
    NO_GUARD,
    NO_NODES,
    NO_PRECONDITIONS,
    BlobId,
    EntityTag,
    IfTarget,
    Inode,
    Node,
    Nodes,
    NodeType,
    Preconditions,
    Principal,
    StateCondition,
    StateList,
)
from davsql.paths import DavPath

FILE = Node(Inode(2), Inode(1), "a", NodeType.FILE, BlobId(1), 3, bytes(range(32)), "text/plain", 1, 2)
COLLECTION = Node(Inode(3), Inode(1), "c", NodeType.COLLECTION, None, 0, None, None, 1, 2)


def test_node__knows_what_it_is() -> None:
    assert not FILE.is_collection
    assert COLLECTION.is_collection


def test_etag__is_strong_quoted_and_made_of_the_digest_alone() -> None:
    assert FILE.etag == '"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"'
    assert FILE._replace(name="b", modified_at=9, inode=Inode(7)).etag == FILE.etag
    assert FILE._replace(digest=bytes(32)).etag != FILE.etag
    assert COLLECTION.etag is None


def test_nodes__have_the_fields_of_node_and_give_nodes_back() -> None:
    nodes = Nodes.of(FILE, COLLECTION, FILE)
    assert len(nodes) == 3
    assert list(nodes) == [FILE, COLLECTION, FILE]
    assert list(nodes.picked([1, 0])) == [COLLECTION, FILE]
    assert list(nodes.picked(slice(1, 3))) == [COLLECTION, FILE]
    assert not list(NO_NODES)
    assert not NO_NODES


@pytest.mark.parametrize("size_bytes", [32, 31, 33])  # the others are damaged, and must not shift those beside them
def test_nodes__have_the_entity_tags_that_each_has_alone(size_bytes: int) -> None:
    digests = [bytes(32), bytes(range(32)), b"\xff" * size_bytes, b"\xfb\xef" * 16]
    nodes = [FILE._replace(digest=digest) for digest in digests]
    assert list(Nodes.of(*nodes).etags()) == [node.etag for node in nodes]


def test_tokens__are_all_that_the_if_header_names() -> None:
    def token(name: str, *, negated: bool = False) -> StateCondition:
        return StateCondition(negated=negated, token=name, etag=None)

    etag = StateCondition(negated=False, token=None, etag=EntityTag('"x"', is_weak=False))
    when = Preconditions(
        state_lists=(
            StateList(IfTarget.REQUEST, (token("a"), etag)),
            StateList(DavPath(["p"]), (token("b", negated=True),)),
            StateList(IfTarget.ELSEWHERE, (token("a"), token("c"))),
        )
    )
    assert when.tokens == {"a", "b", "c"}


def test_tokens__are_none_without_an_if_header() -> None:
    assert NO_PRECONDITIONS.tokens == frozenset()
    assert NO_GUARD.preconditions is NO_PRECONDITIONS
    assert NO_GUARD.principal == ""


def test_preconditions__cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        NO_PRECONDITIONS.if_match = ()  # type: ignore[misc]


def test_principal__has_no_limits_unless_its_token_brings_some() -> None:
    ann = Principal("ann", frozenset({"family"}))
    assert (ann.is_read_only, ann.share, ann.path) == (False, None, None)
    assert ANONYMOUS.name is None
    assert not ANONYMOUS.groups
