"""Paths: what a URL may hold, and what it comes to mean."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from davsql.errors import DavsqlError, InvalidPath, NameTooLong, PathTooLong
from davsql.paths import (
    MAX_NAME_BYTES,
    MAX_PATH_BYTES,
    ROOT,
    DavPath,
    checked_name,
    encoded_name,
    encoded_names,
    lookup_key,
)

NFC = "caf\u00e9"
NFD = "cafe\u0301"


def as_wsgi(text: str) -> str:
    """UTF-8 bytes as WSGI hands them over."""
    return text.encode().decode("latin-1")


@pytest.mark.parametrize(
    ("raw", "names"),
    [
        ("/", ()),
        ("/a", ("a",)),
        ("/a/", ("a",)),
        ("/a/b/c", ("a", "b", "c")),
        ("/a%20b", ("a b",)),
        ("/a b", ("a b",)),
        ("/a+b", ("a+b",)),
        ("/x;y", ("x;y",)),
        ("/x%3By", ("x;y",)),
        ("/q%3Fz", ("q?z",)),
        ("/h%23z", ("h#z",)),
        ("/%25", ("%",)),
        ("/%252e%252e", ("%2e%2e",)),
        ("/%41", ("A",)),
        ("/caf%C3%A9", (NFC,)),
        ("/caf%c3%a9", (NFC,)),
        (as_wsgi("/café"), (NFC,)),
        (as_wsgi("/café") + "%20x", (NFC + " x",)),
        ("/cafe%CC%81", (NFD,)),
        ("/%F0%9F%93%84", ("\U0001f4c4",)),
        ("/...", ("...",)),
        ("/.hidden", (".hidden",)),
        ("/a.", ("a.",)),
        ("/back%5Cslash", ("back\\slash",)),
        ("/back\\slash", ("back\\slash",)),
        ("/C:/x", ("C:", "x")),
        ("/~", ("~",)),
        ("/ ", (" ",)),
    ],
)
def test_parse__gives_decoded_names(raw: str, names: tuple[str, ...]) -> None:
    path = DavPath.parse(raw)
    assert path.names == names


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "a",
        "*",
        "http://host/a",
        "/.",
        "/./",
        "/..",
        "/../",
        "/a/..",
        "/a/../b",
        "/a/./b",
        "/%2e",
        "/%2e%2e",
        "/%2E%2e/a",
        "/.%2e",
        "/a%2Fb",
        "/a%2fb",
        "/%2F",
        "/a%2F..%2Fb",
        "/a%00b",
        "/a\x00b",
        "/a%0Ab",
        "/a%0D%0Ab",
        "/a%09b",
        "/a\tb",
        "/a%1F",
        "/a%7F",
        "/a%C2%80",  # C1 controls
        "/a%C2%9F",
        "/a%EF%BF%BE",  # U+FFFE, U+FFFF
        "/a%EF%BF%BF",
        "/a%",
        "/a%2",
        "/a%zz",
        "/a%-1",
        "/%u0041",
        "/%FF",
        "/%80",
        "/%C3",
        "/%C3%28",
        "/%C0%AF",  # overlong "/"
        "/%E0%80%AF",
        "/%C0%AE%C0%AE",  # overlong ".."
        "/%F8%88%80%80%80",
        "/%ED%A0%80",  # a surrogate
        "/%F4%90%80%80",  # above U+10FFFF
        "/a\xff",
        "/a\u0100",  # no byte of WSGI's
    ],
)
def test_parse__refuses_what_no_resource_can_have(raw: str) -> None:
    with pytest.raises(InvalidPath):
        DavPath.parse(raw)


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127 + "x", "\U0001f4c4" * 63 + "abc"])
def test_parse__takes_a_name_of_255_bytes(name: str) -> None:
    assert len(name.encode()) == MAX_NAME_BYTES
    assert DavPath.parse(DavPath([name]).href()).names == (name,)


@pytest.mark.parametrize("name", ["n" * 256, "é" * 128, "\U0001f4c4" * 64])
def test_parse__refuses_a_name_of_256_bytes(name: str) -> None:
    assert len(name.encode()) == MAX_NAME_BYTES + 1
    with pytest.raises(NameTooLong):
        DavPath.parse(DavPath([name]).href())


def test_parse__measures_a_name_in_its_longer_unicode_form() -> None:
    shorter_in_nfd = "\u0958" * 85  # three bytes as sent, six in NFC (a composition exclusion)
    assert len(shorter_in_nfd.encode()) == MAX_NAME_BYTES
    with pytest.raises(NameTooLong):
        DavPath.parse(DavPath([shorter_in_nfd]).href())
    longer_in_nfd = "e\u0301" * 86  # 258 bytes as sent, 172 in NFC
    with pytest.raises(NameTooLong):
        DavPath.parse(DavPath([longer_in_nfd]).href())


def test_parse__takes_a_path_of_4_kib() -> None:
    names = ("n" * 255,) * 16
    assert sum(len(name) + 1 for name in names) == MAX_PATH_BYTES
    assert DavPath.parse("/" + "/".join(names)).names == names


@pytest.mark.parametrize(
    "raw",
    [
        "/" + "/".join(["n" * 255] * 16) + "/n",
        "/" + "/".join(["%C3%A9" * 100] * 21),
        "/" + "a/" * 100_000,
        "/" + "%41" * 1_000_000,
    ],
)
def test_parse__refuses_a_longer_path(raw: str) -> None:
    with pytest.raises((PathTooLong, NameTooLong)):
        DavPath.parse(raw)


def test_parse__measures_decoded_bytes() -> None:
    names = ("é" * 100,) * 20  # 4,020 bytes, 12,020 characters as encoded
    assert DavPath.parse(DavPath(names).href()).names == names


@given(st.text(max_size=40))
def test_parse__of_anything_gives_a_safe_path_or_an_error_of_ours(text: str) -> None:
    try:
        path = DavPath.parse("/" + text)
    except DavsqlError:
        return
    for name in path.names:
        assert name not in ("", ".", "..")
        assert "/" not in name
        assert not any(unicodedata.category(character) in ("Cc", "Cs") for character in name)
    assert DavPath.parse(path.href()).names == path.names


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=5))
def test_href__is_parsed_to_the_same_names(texts: list[str]) -> None:
    try:
        path = DavPath(checked_name(text) for text in texts)
    except DavsqlError:
        return
    assert DavPath.parse(path.href()).names == path.names
    assert DavPath.parse(path.href(is_collection=True)).names == path.names
    assert path.href().isascii()


@pytest.mark.parametrize(
    ("names", "is_collection", "href"),
    [
        ((), False, "/"),
        ((), True, "/"),
        (("a",), False, "/a"),
        (("a",), True, "/a/"),
        (("a b", "c"), False, "/a%20b/c"),
        (("a;b?c#d%e",), False, "/a%3Bb%3Fc%23d%25e"),
        (("(1)",), False, "/(1)"),
        ((NFC,), False, "/caf%C3%A9"),
        ((NFD,), False, "/cafe%CC%81"),
        (("-_.~",), False, "/-_.~"),
        (("a&<b>\"'",), True, "/a%26%3Cb%3E%22%27/"),
    ],
)
def test_href__is_encoded_with_upper_case_escapes(names: tuple[str, ...], is_collection: bool, href: str) -> None:
    assert DavPath(names).href(is_collection=is_collection) == href


def test_encoded_name__hides_slashes() -> None:
    assert encoded_name("a/b") == "a%2Fb"


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_encoded_names__are_each_as_alone(names: list[str]) -> None:
    assert list(encoded_names(names)) == [encoded_name(name) for name in names]


def test_encoded_names__of_plain_names_are_as_they_are() -> None:
    for names in (["a.b", "c~(1)"], ["a/b", "c"], ["%2F", "\n"], ["é", "e\u0301"], []):
        assert list(encoded_names(names)) == [encoded_name(name) for name in names]


@pytest.mark.parametrize(
    ("path", "other", "expected"),
    [
        ("/share", "/share", True),
        ("/share/a", "/share", True),
        ("/share/a/b", "/share", True),
        ("/share", "/", True),
        ("/", "/", True),
        ("/share_evil", "/share", False),
        ("/share_evil/a", "/share", False),
        ("/share", "/share_evil", False),
        ("/share", "/share/a", False),
        ("/", "/share", False),
        ("/Share", "/share", False),
        (f"/{NFC}/x", f"/{NFD}", True),
        (f"/{NFD}", f"/{NFC}", True),
    ],
)
def test_is_within__compares_whole_names(path: str, other: str, expected: bool) -> None:
    assert DavPath.from_text(path).is_within(DavPath.from_text(other)) is expected


def test_path__is_equal_in_nfc_and_nfd_and_keeps_what_was_sent() -> None:
    composed, decomposed = DavPath([NFC, "x"]), DavPath([NFD, "x"])
    assert composed == decomposed
    assert hash(composed) == hash(decomposed)
    assert composed.keys == decomposed.keys == (NFC, "x")
    assert decomposed.name == "x"
    assert decomposed.parent.name == NFD
    assert composed != DavPath(["cafe", "x"])
    assert composed != "/café/x"


def test_path__differs_by_case_and_compatibility_forms() -> None:
    assert DavPath(["A"]) != DavPath(["a"])
    assert DavPath(["\ufb01"]) != DavPath(["fi"])  # NFC, not NFKC


def test_path__of_the_root() -> None:
    assert ROOT.is_root
    assert ROOT.name == ""
    assert ROOT.parent == ROOT
    assert str(ROOT) == "/"
    assert DavPath.parse("/") == ROOT
    assert not ROOT.child("a").is_root


def test_path__parent_and_child_are_inverse() -> None:
    path = DavPath(["a", "b"])
    assert path.parent.child("b") == path
    assert path.parent == DavPath(["a"])
    assert str(path) == "/a/b"
    assert repr(path) == "DavPath('/a/b')"


def test_from_text__takes_names_as_people_write_them() -> None:
    assert DavPath.from_text("/Photos/2026 summer/100%").names == ("Photos", "2026 summer", "100%")
    assert DavPath.from_text("Photos//a/").names == ("Photos", "a")
    assert DavPath.from_text("/").is_root
    assert DavPath.from_text("").is_root


@pytest.mark.parametrize("text", ["/a/../b", "/.", "/a\nb", "/\udcff", "/a\x85"])
def test_from_text__refuses_bad_names(text: str) -> None:
    with pytest.raises(InvalidPath):
        DavPath.from_text(text)


def test_checked_name__takes_the_lookup_form_of_what_it_takes() -> None:
    """NFC maps some characters to others; none that is allowed may become one that is not."""
    for point in range(0xA0, sys.maxunicode + 1):
        key = lookup_key(chr(point))
        if key != chr(point):
            assert checked_name(key) == lookup_key(key) == key


@pytest.mark.parametrize(
    ("raw", "names"), [("//", ()), ("///", ()), ("//a", ("a",)), ("/a//b", ("a", "b")), ("/a//", ("a",))]
)
def test_parse__takes_slashes_in_a_row_for_one(raw: str, names: tuple[str, ...]) -> None:
    assert DavPath.parse(raw).names == names


@pytest.mark.parametrize("raw", ["//..", "/a//../b", "/./", "//%2e%2e//a", "/a//%2Fb"])
def test_parse__finds_dots_between_slashes(raw: str) -> None:
    with pytest.raises(InvalidPath):
        DavPath.parse(raw)
