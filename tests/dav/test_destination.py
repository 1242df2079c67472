from __future__ import annotations

import pytest

from davsql.dav.destination import is_own_origin, parse_destination, split_target
from davsql.dav.responses import HttpError
from davsql.errors import InvalidPath, NameTooLong
from tests.dav.parsed import make_request


def destination(text: str, *, mount: str = "", **environ: str) -> str:
    """The parsed path as text."""
    return str(parse_destination(make_request(mount=mount, HTTP_DESTINATION=text, **environ)))


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/a/b", "/a/b"),
        ("/a/b/", "/a/b"),
        ("http://drive.example:8080/a", "/a"),
        ("HTTP://DRIVE.example:8080/A", "/A"),
        ("https://drive.example:8080/a", "/a"),  # behind a proxy that ends TLS
        ("webdav://drive.example:8080/a", "/a"),  # KIO 6
        ("webdavs://ann@drive.example:8080/a", "/a"),
        ("http://user:secret@drive.example:8080/a", "/a"),
        ("http://drive.example:8080", "/"),
        (" /a ", "/a"),
        ("/d/x;y", "/d/x;y"),
        ("/d/q%3Fz", "/d/q?z"),
        ("/d/h%23z", "/d/h#z"),
        ("/a%20b/c%C3%A9", "/a b/cé"),
        ("/c\xc3\xa9", "/cé"),  # WSGI hands bytes over as latin-1
        ("/100%2525", "/100%25"),
    ],
)
def test_parse_destination__reads_the_path_as_a_request_target(text: str, path: str) -> None:
    assert destination(text) == path


@pytest.mark.parametrize(
    ("host", "scheme", "text"),
    [
        ("drive.example", "http", "http://drive.example:80/a"),
        ("drive.example:80", "http", "http://drive.example/a"),
        ("drive.example", "http", "https://drive.example:443/a"),
        ("drive.example:443", "https", "https://drive.example/a"),
        ("drive.example:443", "https", "webdavs://drive.example/a"),
        ("drive.example", "https", "webdavs://drive.example:443/a"),
        ("[::1]:8080", "http", "http://[::1]:8080/a"),
        ("[::1]", "http", "http://[::1]:80/a"),
    ],
)
def test_parse_destination__knows_its_own_host_and_default_ports(host: str, scheme: str, text: str) -> None:
    assert destination(text, HTTP_HOST=host, **{"wsgi.url_scheme": scheme}) == "/a"


def test_parse_destination__without_host_it_is_the_server_name() -> None:
    environ = {"HTTP_HOST": "", "SERVER_NAME": "127.0.0.1", "SERVER_PORT": "8080"}
    assert destination("http://127.0.0.1:8080/a", **environ) == "/a"


@pytest.mark.parametrize(
    "text",
    [
        "http://other.example/a",
        "http://drive.example/a",
        "http://drive.example:8081/a",
        "http://drive.example:8080.evil.example/a",
        "http://drive.example:8080@evil.example/a",
        "ftp://drive.example:8080/a",
        "webdav://other.example/a",
        "//other.example/a",
        "//drive.example:8080/a",
    ],
)
def test_parse_destination__another_host_is_502(text: str) -> None:
    with pytest.raises(HttpError) as caught:
        destination(text)
    assert caught.value.status == 502


@pytest.mark.parametrize(
    "text", ["", "a", "a/b", "::::", "http:", "http://", "http:///a", "mailto:x@y", "?a", "/a?b", "/a#b", "/a?", "/a#"]
)
def test_parse_destination__malformed_is_400(text: str) -> None:
    with pytest.raises(HttpError) as caught:
        destination(text)
    assert caught.value.status == 400


def test_parse_destination__missing_is_400() -> None:
    with pytest.raises(HttpError) as caught:
        parse_destination(make_request())
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "text",
    ["/a/../b", "/a/%2e%2E/b", "/a//../b", "/a/.", "/a%2Fb", "/a%00", "/%0d%0a", "/%ff", "/%C0%AE", "/%zz", "/a%"],
)
def test_parse_destination__impossible_paths_are_refused_as_in_targets(text: str) -> None:
    with pytest.raises(InvalidPath):
        destination(text)


def test_parse_destination__long_names_are_refused() -> None:
    with pytest.raises(NameTooLong):
        destination("/" + "a" * 256)


def test_parse_destination__is_within_the_share() -> None:
    assert destination("/My%20files/a", mount="/My%20files") == "/a"
    assert destination("/my%20files", mount="/my%20files") == "/"


@pytest.mark.parametrize("text", ["/share_evil/a", "/other/a", "/Share/a", "/", "http://drive.example:8080/sharex"])
def test_parse_destination__another_share_is_502(text: str) -> None:
    with pytest.raises(HttpError) as caught:
        destination(text, mount="/share")
    assert caught.value.status == 502


def test_split_target__takes_absolute_form_apart() -> None:
    assert split_target("http://h:1/a%20b?q") == ("/a%20b?q", "h:1")
    assert split_target("http://h") == ("/", "h")
    assert split_target("http://h?q") == ("/?q", "h")
    assert split_target("/http://h/a") == ("/http://h/a", None)
    assert split_target("*") == ("*", None)


def test_is_own_origin__compares_host_and_port() -> None:
    environ = make_request().environ
    assert is_own_origin(environ, "http://drive.example:8080")
    assert not is_own_origin(environ, "http://drive.example")
    assert not is_own_origin(environ, "null")
