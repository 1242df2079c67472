"""What Litestream is told, and what it is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from davsql.errors import ReplicaError
from davsql.maintenance import litestream
from davsql.maintenance.litestream import ReplicaOptions, Replicated, configuration, duration, write_configuration


def replica_of(url: str, share: str = "", **more: object) -> Replicated:
    return Replicated(ReplicaOptions(url=url, **more), share)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "share", "wanted"),
    [
        ("file:///srv/replica/", "", {"type": "file", "path": "/srv/replica"}),
        ("file:///srv/a%20b$HOME", "caf\u00e9 100%", {"type": "file", "path": "/srv/a b$HOME/caf\u00e9 100%"}),
        ("s3://bucket/path?region=eu", "a b", {"url": "s3://bucket/path/a%20b?region=eu"}),
        ("s3://bucket", "", {"url": "s3://bucket"}),
    ],
)
def test_destination__is_a_folder_for_each_share(url: str, share: str, wanted: dict[str, str]) -> None:
    assert replica_of(url, share).destination() == {**wanted, "sync-interval": "0.500s"}


def test_destination__sftp_knows_its_server(tmp_path: Path) -> None:
    made = replica_of("sftp://u@h/p", "x", sftp_key_file=tmp_path / "key", sftp_host_key="ssh-ed25519 A").destination()
    assert made["url"] == "sftp://u@h/p/x"
    assert (made["key-path"], made["host-key"]) == (str(tmp_path / "key"), "ssh-ed25519 A")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "expected file:///FOLDER"),
        ("webdav://h/p", "expected file:///FOLDER"),
        ("file://srv/replica", "three slashes"),
        ("s3:///path", "without a bucket"),
        ("sftp://h/p", "expected a user"),
        ("sftp://u:secret@h/p", "expected no password"),
        ("s3://key:secret@bucket", "expected no password"),
        ("sftp://u@h/p", "needs sftp_key_file and sftp_host_key"),
        ("s3://[x", "url"),
    ],
)
def test_options__url_that_cannot_be_used_is_refused(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        ReplicaOptions(url=url)
    assert "secret" not in str(caught.value)


def test_options__intervals_are_more_than_nothing() -> None:
    with pytest.raises(ValueError, match="interval_s: expected more than 0"):
        ReplicaOptions(interval_s=0)


def test_configuration__is_for_us_only_and_whole(tmp_path: Path) -> None:
    file = tmp_path / "litestream.yml"
    store = tmp_path / "d\u00e4ten \U0001f600.db"
    content = configuration(store, tmp_path / "state", tmp_path / "control", replica_of("file:///srv", retention_s=60))
    write_configuration(file, content)
    write_configuration(file, content)
    assert file.stat().st_mode & 0o777 == 0o600
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written == content
    assert "\U0001f600" in file.read_text(encoding="utf-8"), "YAML has no surrogate pairs"
    assert written["snapshot"] == {"interval": "86400.000s", "retention": "60.000s"}
    assert written["dbs"][0]["path"] == str(store)


def test_configuration__path_that_is_no_text_is_refused(tmp_path: Path) -> None:
    content = configuration(tmp_path / "\udc80.db", tmp_path, None, replica_of("file:///srv"))
    with pytest.raises(ReplicaError, match="not UTF-8"):
        write_configuration(tmp_path / "c", content)


def test_duration__suits_go() -> None:
    assert [duration(0), duration(0.25), duration(1e30)] == ["0.001s", "0.250s", "315360000.000s"]


def test_environment__keeps_keys_of_s3_and_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("DAVSQL_KEY", "x")
    monkeypatch.setenv("LOG_LEVEL", "trace")
    monkeypatch.setenv("AWS_CA_BUNDLE", "/etc/ca.pem")
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    assert "AWS_SECRET_ACCESS_KEY" in (passed := litestream.environment())
    assert passed.keys() & {"DAVSQL_KEY", "LOG_LEVEL", "AWS_CA_BUNDLE"} == set()
    assert passed["SSL_CERT_FILE"] == "/etc/ca.pem"


def test_program__old_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litestream, "MIN_VERSION", (0, 6, 0))
    with pytest.raises(ReplicaError, match=r"is too old, 0\.6\.0 is needed: pip install"):
        litestream.program()
