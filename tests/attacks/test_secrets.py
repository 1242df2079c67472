"""Passwords, tokens and content are nowhere but where they belong."""

from __future__ import annotations

import base64
import logging
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from davsql.cli.logging_setup import OneLine, set_up_logging
from davsql.config import LogOptions
from tests.attacks.conftest import Started, started
from tests.attacks.table import request as raw_request
from tests.http_client import exchange, request

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

PASSWORD = "canary-9d1f-password"  # noqa: S105  # of an account that exists here only
WRONG = "canary-9d1f-wrong"
CONTENT = b"canary-9d1f-content"
CONFIGURATION = """
[server]
port = 0
workers = {workers}
[admin]
port = 0
[accounts]
file = "accounts.db"
[audit]
level = "all"
[log]
level = "debug"
access = "combined"
access_file = "access.log"
[[share]]
name = "/"
db = "store.db"
users = ["ann"]
"""


def davsql(folder: Path, *arguments: str, stdin: str = "", code: int = 0) -> str:
    """What a command says that ends with this code."""
    command = [sys.executable, "-m", "davsql", *arguments]
    done = subprocess.run(command, cwd=folder, input=stdin, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def processes(pid: int) -> Iterator[int]:
    """A process and its children."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from processes(int(child))


def use(server: Started, token: str) -> bytes:
    """Log in in every way, right and wrong, and return all that was answered."""
    heads = [
        ("PUT /f", f"Authorization: {basic('ann', PASSWORD)}"),
        ("GET /missing", f"Authorization: Bearer {token}"),
        ("GET /f", f"Authorization: {basic('ann', WRONG)}"),
        ("GET /f", f"Authorization: {basic('nobody', WRONG)}"),
        ("GET /f", f"Authorization: Basic {WRONG}"),
        ("GET /f", f"Authorization: Digest {WRONG}"),
        ("GET /f", f"Authorization: Bearer {WRONG}"),
        ("GET /f", f"Authorization: {PASSWORD}"),
        ("GET /f", f"Authorization: {basic('ann', PASSWORD)}", f"Authorization: {basic('ann', WRONG)}"),
        ("GET /f", f"Proxy-Authorization: {basic('ann', PASSWORD)}"),
        (f"GET http://ann:{PASSWORD}@127.0.0.1/f",),
        ("MOVE /f", f"Authorization: Bearer {token}", f"Destination: http://ann:{PASSWORD}@other.example/g"),
        ("LOCK /f", f"Authorization: Bearer {token}", "If: (<x"),
        ("PROPFIND /f", f"Authorization: Bearer {token}", f"X: {PASSWORD}\x01"),
    ]
    replies = []
    for line, *fields in heads:
        data = raw_request(line, *fields, f"Content-Length: {len(CONTENT)}", body=CONTENT)
        replies.append(exchange(server.address, data))
    assert replies[0].startswith(b"HTTP/1.1 201")
    assert replies[1].startswith(b"HTTP/1.1 404")
    return b"".join(replies)


@pytest.mark.parametrize("workers", [1, 2])
def test_secrets__are_not_said_shown_or_dumped(tmp_path: Path, workers: int) -> None:
    (tmp_path / "c.toml").write_text(CONFIGURATION.format(workers=workers))
    here = ("--config", "c.toml")
    said = davsql(tmp_path, "user", "add", "ann", *here, "--password-stdin", stdin=PASSWORD + "\n")
    token = max(davsql(tmp_path, "token", "create", "ann", "--name", "t", *here).split(), key=len)
    said += davsql(tmp_path, "user", "list", *here) + davsql(tmp_path, "token", "list", *here)
    with started(tmp_path, "--config", "c.toml", first="ulimit -S -c 1") as server:
        answers = use(server, token)
        said += davsql(tmp_path, "stats", *here) + davsql(tmp_path, "doctor", *here)
        undumped = 0
        for pid in processes(server.pid):
            answers += Path(f"/proc/{pid}/cmdline").read_bytes()
            with suppress(PermissionError):  # so it is for all but root
                answers += Path(f"/proc/{pid}/environ").read_bytes()
            undumped += "Max core file size        0 " in Path(f"/proc/{pid}/limits").read_text()
        assert undumped >= workers  # who only starts others and looks after stores knows no password
        for name in ("accounts.db", "accounts.db-wal", "access.log", "davsql-audit.db", "davsql-audit.db-wal"):
            answers += (tmp_path / name).read_bytes()
    assert b'"PUT /f HTTP/1.1" 201' in answers
    everything = answers + said.encode() + server.output.read_bytes()
    assert b"DEBUG" in everything or b"INFO" in everything, "the log was looked at"
    forms = [PASSWORD, WRONG, basic("ann", PASSWORD)[6:], basic("ann", WRONG)[6:], token, CONTENT.decode()]
    found = [form for form in forms if form.encode() in everything]
    assert found == []


def test_keep_memory_private__leaves_no_dump() -> None:
    program = (
        "import ctypes; from davsql.cli.secrecy import keep_memory_private as k; k(); "
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "0\n"


# --- files --------------------------------------------------------------------------------------------------------


def test_files__are_for_their_owner_only_whatever_the_umask(tmp_path: Path) -> None:
    (tmp_path / "backups").mkdir()
    extra = '[backup]\nfolder = "backups"\n'
    text = CONFIGURATION.format(workers=1).replace('level = "debug"', 'file = "davsql.log"')
    (tmp_path / "c.toml").write_text(text + extra)
    old = os.umask(0)
    try:
        davsql(tmp_path, "user", "add", "ann", "--config", "c.toml", "--password-stdin", stdin=PASSWORD + "\n")
        with started(tmp_path, "--config", "c.toml", first="umask 0") as server:
            headers = {"Authorization": basic("ann", PASSWORD)}
            assert request(server.address, "PUT", "/f", CONTENT, headers).status == 201
            davsql(tmp_path, "backup", "--config", "c.toml")
            given = {"backups", "c.toml", "output"}  # by the test
            ours = [file for file in tmp_path.iterdir() if file.name not in given]
            assert {"store.db-wal", "accounts.db", "davsql.log", "access.log"} <= {file.name for file in ours}
            assert {
                file.name: oct(stat.S_IMODE(file.stat().st_mode)) for file in ours if file.stat().st_mode & 0o077
            } == {}
            assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "backups").iterdir()} == {0o600}
    finally:
        os.umask(old)


def test_files__a_store_behind_a_link_is_opened_only_when_told(tmp_path: Path) -> None:
    davsql(tmp_path, "init", "--db", "real.db")
    (tmp_path / "link.db").symlink_to("real.db")
    (tmp_path / "folder").symlink_to(tmp_path, target_is_directory=True)
    for command in (["serve"], ["ls"], ["check"], ["backup", "copy.davsql"]):
        said = davsql(tmp_path, *command, "--db", "link.db", code=1)
        assert "link.db is a symbolic link to " in said
        assert said.endswith("name the file itself, or set store.follow_symlinks = true\n")
    assert "is a symbolic link" in davsql(tmp_path, "doctor", "--db", "link.db", code=1)
    davsql(tmp_path, "check", "--db", "folder/real.db")
    (tmp_path / "c.toml").write_text('[store]\nfollow_symlinks = true\n[[share]]\nname = "/"\ndb = "link.db"\n')
    davsql(tmp_path, "check", "--config", "c.toml")


def test_log__lines_cannot_be_forged_and_a_new_file_is_private(tmp_path: Path) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    for handler in handlers:
        root.removeHandler(handler)
    try:
        set_up_logging(LogOptions(file=tmp_path / "log"))
        assert isinstance(root.handlers[0].formatter, OneLine)
        logging.getLogger("davsql.test").warning("GET %s", "/a\r\n2026-01-01 ERROR forged\x1b[2J\u2028\x85\u202e")
    finally:
        for handler in root.handlers[:]:
            root.removeHandler(handler)
            handler.close()
        for handler in handlers:
            root.addHandler(handler)
        root.setLevel(level)
    text = (tmp_path / "log").read_text(encoding="utf-8")
    assert len(text.splitlines()) == 1
    assert "\\r\\n2026-01-01 ERROR forged\\x1b[2J" in text
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o600
