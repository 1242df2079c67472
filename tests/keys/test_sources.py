"""Where keys come from, and what is said when there is none."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import keyring
import pytest
from keyring.backend import KeyringBackend

from davsql.errors import BadKey, KeyMissing
from davsql.keys.secret import GivenKey, new_key_text
from davsql.keys.sources import CREDENTIALS, ENVIRONMENT, KeySource, fetch_key

TEXT = new_key_text()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "a.key"
    file.write_text(TEXT + "\n", encoding="ascii")
    file.chmod(0o600)
    return file


def refuse(message: str) -> None:
    raise AssertionError(message)


def fetch(source: KeySource) -> str | None:
    return fetch_key(source, refuse, None).fingerprint


def test_fetch_key__from_file_command_and_credential(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CREDENTIALS, str(file.parent))
    program = f"'{sys.executable}' -c \"print(open('{file}').read())\""
    sources = [KeySource(file=file), KeySource(command=program), KeySource(credential=file.name)]
    assert {fetch(each) for each in sources} == {GivenKey(TEXT).fingerprint}


@pytest.mark.skipif(os.name == "nt", reason="no /dev/fd")
def test_fetch_key__from_a_descriptor() -> None:
    reading, writing = os.pipe()
    os.write(writing, TEXT.encode())
    os.close(writing)
    try:
        assert fetch(KeySource(file=Path(f"/dev/fd/{reading}"))) == GivenKey(TEXT).fingerprint
    finally:
        os.close(reading)


class Ring(KeyringBackend):
    """A keyring in memory; this machine may have none."""

    priority = 1.0
    entries: ClassVar[dict[tuple[str, str], str]] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.entries[service, username] = password


@pytest.fixture
def ring() -> Iterator[None]:
    """A keyring with one entry."""
    before = keyring.get_keyring()
    keyring.set_keyring(Ring())  # type: ignore[no-untyped-call]
    keyring.set_password("davsql", "photos", TEXT)
    yield
    keyring.set_keyring(before)


@pytest.mark.usefixtures("ring")
def test_fetch_key__from_the_keyring() -> None:
    assert fetch(KeySource(keyring="photos")) == GivenKey(TEXT).fingerprint
    with pytest.raises(KeyMissing, match="keyring set davsql others"):
        fetch(KeySource(keyring="others"))


def test_fetch_key__environment_with_a_warning_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, TEXT)
    said: list[str] = []
    assert fetch_key(KeySource(), said.append, None).fingerprint == GivenKey(TEXT).fingerprint
    assert len(said) == 1
    assert "other programs may see" in said[0]
    assert TEXT not in said[0]


def test_fetch_key__asks_when_no_place_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    assert fetch_key(KeySource(), refuse, lambda: "correct horse").kind == "passphrase"
    with pytest.raises(KeyMissing, match="--key-file FILE or --key-command CMD"):
        fetch_key(KeySource(), refuse, None)


@pytest.mark.skipif(os.name == "nt", reason="modes say nothing there")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_fetch_key__file_that_others_can_read_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(BadKey, match="others can read it"):
        fetch(KeySource(file=file))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b"\xff\xfe", "not text"), (b"x" * 5000, "too long"), (TEXT[:40].encode(), "cut or mistyped")],
    ids=["empty", "not text", "too long", "cut"],
)
def test_fetch_key__file_that_is_no_key(file: Path, content: bytes, message: str) -> None:
    file.write_bytes(content)
    with pytest.raises(BadKey, match=message) as refused:
        fetch(KeySource(file=file))
    assert str(file) in str(refused.value)


def test_fetch_key__file_with_a_byte_order_mark(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    assert fetch(KeySource(file=file)) == GivenKey(TEXT).fingerprint


def test_fetch_key__missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CREDENTIALS, raising=False)
    with pytest.raises(KeyMissing, match="is its disk mounted"):
        fetch(KeySource(file=tmp_path / "none"))
    with pytest.raises(KeyMissing, match="LoadCredential=store:FILE"):
        fetch(KeySource(credential="store"))
    monkeypatch.setenv(CREDENTIALS, str(tmp_path))
    with pytest.raises(BadKey, match="no name of a credential"):
        fetch(KeySource(credential="../store"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [("-c pass", "empty"), ("-c 'raise SystemExit(3)'", "exit code 3"), ("'", "cannot be run")],
)
def test_fetch_key__command_that_gives_none(arguments: str, message: str) -> None:
    with pytest.raises(BadKey, match=message):
        fetch(KeySource(command=f"'{sys.executable}' {arguments}"))


def test_key_source__is_one_place() -> None:
    with pytest.raises(ValueError, match="key_file and key_command"):
        KeySource(file=Path("a"), command="b")
