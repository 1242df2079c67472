"""curl: uploads and downloads whole, in parts, on conditions, cut short, and by names that need escapes."""

from __future__ import annotations

import random
import re
from email import message_from_string
from email.policy import default as default_policy
from pathlib import Path
from urllib.parse import quote

import pytest

from davsql.store.store import Store
from tests.clients.programs import Program
from tests.clients.trees import ODD_NAMES, brief
from tests.live_server import LiveServer
from tests.store_steps import mkcol, put, read, tree

BIG = random.Random(1).randbytes(2_000_000)  # noqa: S311  # content, no secret
WAIT_FOR_100_S = "30"  # a server that does not answer Expect makes curl wait for so long


@pytest.fixture
def big(folder: Path) -> Path:
    path = folder / "big.bin"
    path.write_bytes(BIG)
    return path


def status(curl: Program, *arguments: str | Path, stdin: bytes = b"") -> int:
    """The status of the last answer; its body is in the file `answer` unless the arguments say otherwise."""
    if "-o" not in arguments:
        arguments = ("-o", "answer", *arguments)
    return int(curl.succeed("-sS", "-w", "%{http_code}", *arguments, stdin=stdin).out)


# --- whole files --------------------------------------------------------------------------------------------------


def test_upload__creates_and_replaces(curl: Program, server: LiveServer, store: Store, big: Path) -> None:
    assert status(curl, "-T", big, f"{server.url}/") == 201  # the name is curl's to add
    assert brief(read(store, "/big.bin")) == brief(BIG)
    assert status(curl, "-T", "-", f"{server.url}/big.bin", stdin=b"small now") == 204
    assert read(store, "/big.bin") == b"small now"


def test_upload__of_unknown_length_is_chunked(curl: Program, server: LiveServer, store: Store) -> None:
    finished = curl.succeed("-sSv", "-T", "-", f"{server.url}/a.bin", stdin=BIG)
    assert "> Transfer-Encoding: chunked" in finished.err
    assert "< HTTP/1.1 201 Created" in finished.err
    assert brief(read(store, "/a.bin")) == brief(BIG)


def test_upload__waits_for_100_continue(curl: Program, server: LiveServer, store: Store, big: Path) -> None:
    arguments = ("-H", "Expect: 100-continue", "--expect100-timeout", WAIT_FOR_100_S, "-w", "%{time_total}")
    finished = curl.succeed("-sSv", *arguments, "-T", big, f"{server.url}/big.bin")
    assert "< HTTP/1.1 100 Continue" in finished.err
    assert "< HTTP/1.1 201 Created" in finished.err
    assert float(finished.out) < float(WAIT_FOR_100_S) / 2
    assert brief(read(store, "/big.bin")) == brief(BIG)


def test_upload__that_is_refused_is_never_sent(curl: Program, server: LiveServer, store: Store, big: Path) -> None:
    put(store, "/big.bin", b"old")
    arguments = ("-sSv", "-H", "Expect: 100-continue", "--expect100-timeout", WAIT_FOR_100_S, "-w", "%{size_upload}")
    for condition, target, refusal in (
        ("X-Nothing: 1", "/missing/big.bin", "409 Conflict"),
        ("If-None-Match: *", "/big.bin", "412 Precondition Failed"),
        ('If-Match: "other"', "/big.bin", "412 Precondition Failed"),
    ):
        finished = curl.succeed(*arguments, "-o", "answer", "-H", condition, "-T", big, server.url + target)
        assert f"< HTTP/1.1 {refusal}" in finished.err
        assert "100 Continue" not in finished.err
        assert finished.out == "0"
    assert tree(store) == {"/big.bin": b"old"}


@pytest.mark.parametrize("source", ["file", "stdin"])
def test_upload__given_up_midway_keeps_the_old_content(
    curl: Program, server: LiveServer, store: Store, big: Path, source: str
) -> None:
    put(store, "/big.bin", b"old")
    slow = ("--limit-rate", "500k", "--max-time", "0.7")
    for target in ("/big.bin", "/new.bin"):
        upload = ("-T", big if source == "file" else "-", server.url + target)
        finished = curl.run("-sS", *slow, *upload, stdin=BIG if source == "stdin" else b"")
        assert finished.code == 28, finished  # curl's own deadline
    assert tree(store) == {"/big.bin": b"old"}


def test_upload__is_resumed_where_it_ended(curl: Program, server: LiveServer, store: Store, big: Path) -> None:
    put(store, "/big.bin", BIG[:1000])
    assert status(curl, "-C", "1000", "-T", big, f"{server.url}/big.bin") == 204
    assert tree(store) == {"/big.bin": BIG}


@pytest.mark.parametrize("stored", [None, BIG[:1000], BIG + b"more"], ids=["nothing", "the beginning", "more"])
def test_upload__that_asks_curl_to_find_out_begins_again(
    curl: Program, server: LiveServer, store: Store, big: Path, stored: bytes | None
) -> None:
    if stored is not None:
        put(store, "/big.bin", stored)
    sent = curl.succeed("-sSv", "-C", "-", "-T", big, f"{server.url}/big.bin").err
    assert f"> Content-Range: bytes 0-{len(BIG) - 1}/{len(BIG)}" in sent
    assert tree(store) == {"/big.bin": BIG}


def test_upload__of_a_part_that_does_not_follow_is_refused(
    curl: Program, server: LiveServer, store: Store, big: Path
) -> None:
    put(store, "/big.bin", b"old")
    assert status(curl, "-C", "1000", "-T", big, f"{server.url}/big.bin") == 416
    assert tree(store) == {"/big.bin": b"old"}


def test_upload__many_at_a_time(curl: Program, server: LiveServer, store: Store, folder: Path) -> None:
    expected = {f"/{number}.txt": f"{number}\n".encode() * 1000 for number in range(100)}
    for path, data in expected.items():
        (folder / path[1:]).write_bytes(data)
    parallel = ("-Z", "--parallel-max", "20", "-w", "%{http_code} ")
    finished = curl.succeed("-sS", *parallel, "-T", "[0-99].txt", f"{server.url}/")
    assert finished.out.split() == ["201"] * 100
    assert tree(store) == expected


def test_head__says_what_get_says(curl: Program, server: LiveServer, store: Store) -> None:
    put(store, "/a.txt", BIG)
    mkcol(store, "/c")
    for path in ("/a.txt", "/c/", "/missing"):
        head = curl.succeed("-sS", "-I", server.url + path).out
        curl.succeed("-sS", "-D", "headers", "-o", "answer", server.url + path)
        got = (curl.folder / "headers").read_bytes().decode()
        assert without_those_of_one_answer(head) == without_those_of_one_answer(got)
        assert f"Content-Length: {(curl.folder / 'answer').stat().st_size}\r\n" in got


def without_those_of_one_answer(headers: str) -> list[str]:
    lines = [re.sub("'nonce-[^']*'", "'nonce'", line) for line in headers.splitlines()]
    return [line for line in lines if not line.startswith(("Date:", "X-Request-ID:"))]


def test_get__with_http_1_0(curl: Program, server: LiveServer, store: Store) -> None:
    put(store, "/a.bin", BIG)
    curl.succeed("-sS", "--http1.0", "-o", "a.bin", f"{server.url}/a.bin")
    assert brief((curl.folder / "a.bin").read_bytes()) == brief(BIG)


# --- parts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("already", [1, 777_777, len(BIG) - 1, len(BIG)])
def test_download__goes_on_where_it_stopped(curl: Program, server: LiveServer, store: Store, already: int) -> None:
    put(store, "/big.bin", BIG)
    target = curl.folder / "part.bin"
    target.write_bytes(BIG[:already])
    assert status(curl, "-C", "-", "-o", target, f"{server.url}/big.bin") == (416 if already == len(BIG) else 206)
    assert brief(target.read_bytes()) == brief(BIG)


@pytest.mark.parametrize(
    ("asked", "expected"), [("0-1", b"he"), ("3-", b"lo world"), ("-5", b"world"), ("6-100", b"world"), ("0-0", b"h")]
)
def test_download__one_range(curl: Program, server: LiveServer, store: Store, asked: str, expected: bytes) -> None:
    put(store, "/a.txt", b"hello world")
    assert status(curl, "-r", asked, f"{server.url}/a.txt") == 206
    assert (curl.folder / "answer").read_bytes() == expected


def test_download__several_ranges(curl: Program, server: LiveServer, store: Store) -> None:
    put(store, "/a.txt", b"hello world")
    answer = curl.succeed("-sS", "-i", "-r", "0-1,4-4,-3", f"{server.url}/a.txt").out
    status_line, _, message = answer.partition("\r\n")
    assert status_line == "HTTP/1.1 206 Partial Content"
    parts = message_from_string(message, policy=default_policy).iter_parts()
    assert [(part["Content-Range"], part.get_payload()) for part in parts] == [
        ("bytes 0-1/11", "he"),
        ("bytes 4-4/11", "o"),
        ("bytes 8-10/11", "rld"),
    ]


def test_download__of_a_range_that_is_not_there(curl: Program, server: LiveServer, store: Store) -> None:
    put(store, "/a.txt", b"hello world")
    assert status(curl, "-r", "11-", f"{server.url}/a.txt") == 416


# --- conditions ---------------------------------------------------------------------------------------------------


def test_download__only_when_changed(curl: Program, server: LiveServer, store: Store) -> None:
    url, target = f"{server.url}/a.txt", curl.folder / "a.txt"
    tags = ("--etag-save", "tag", "--etag-compare", "tag", "-o", target)
    put(store, "/a.txt", b"one")
    (curl.folder / "tag").touch()
    assert status(curl, *tags, url) == 200
    assert status(curl, *tags, url) == 304
    assert target.read_bytes() == b"one"
    put(store, "/a.txt", b"two")
    assert status(curl, *tags, url) == 200
    assert target.read_bytes() == b"two"


def test_download__only_when_newer(curl: Program, server: LiveServer, store: Store) -> None:
    put(store, "/a.txt", b"one", modified_at=1_700_000_000_000_000_000)
    url = f"{server.url}/a.txt"
    assert status(curl, "-R", "-o", "copy", url) == 200
    assert (curl.folder / "copy").stat().st_mtime == 1_700_000_000
    assert status(curl, "-z", "copy", url) == 304
    assert status(curl, "-z", "2020-01-01", url) == 200


# --- names --------------------------------------------------------------------------------------------------------


def test_names__odd_ones_go_there_and_back(curl: Program, server: LiveServer, store: Store) -> None:
    arguments: list[str | Path] = []
    expected: dict[str, bytes | None] = {}
    for number, name in enumerate(ODD_NAMES):
        path = curl.folder / f"{number}.txt"
        path.write_text(name)
        arguments += ["-T", path, f"{server.url}/{quote(name, safe='')}"]
        expected[f"/{name}"] = name.encode()
    curl.succeed("-sS", "-f", *arguments)
    assert tree(store) == expected
    for name in ODD_NAMES:
        for escaped in (quote(name, safe=""), quote(name, safe="!$&'()*+,;=:@~")):  # RFC 3986 3.3: both are the same
            assert status(curl, "--globoff", f"{server.url}/{escaped}") == 200
            assert (curl.folder / "answer").read_text() == name


@pytest.mark.parametrize(
    "path", ["/../a.txt", "/c/../a.txt", "/c/../../a.txt", "/./a.txt", "/%2e%2e/a.txt", "/c/%2E%2E/a.txt", "/c/.."]
)
def test_names__dots_lead_nowhere(curl: Program, server: LiveServer, store: Store, path: str) -> None:
    mkcol(store, "/c")
    put(store, "/a.txt", b"old")
    url = server.url + path
    assert status(curl, "--path-as-is", url) == 400
    assert status(curl, "--path-as-is", "-T", "-", url, stdin=b"new") == 400
    assert status(curl, "--path-as-is", "-X", "DELETE", url) == 400
    assert status(curl, "-X", "MOVE", "-H", f"Destination: {url}", f"{server.url}/c") == 400
    assert tree(store) == {"/c": None, "/a.txt": b"old"}


def test_names__slashes_in_a_row_count_as_one(curl: Program, server: LiveServer, store: Store) -> None:
    mkcol(store, "/c")
    for path in ("//a.txt", "/c//b.txt", "//c///d.txt"):
        assert status(curl, "-T", "-", server.url + path, stdin=b"x") == 201
    assert status(curl, "-X", "MOVE", "-H", f"Destination: {server.url}//c//e.txt", f"{server.url}//a.txt") == 201
    assert tree(store) == {"/c": None, "/c/b.txt": b"x", "/c/d.txt": b"x", "/c/e.txt": b"x"}
