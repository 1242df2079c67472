"""What lies on the disk while an encrypted store is served, changed, copied and looked after: nothing in the clear."""

from __future__ import annotations

import socket
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from tests.live_server import ROOT, ServerProcesses, serving_processes

CONTENT = b"canary-content-"
OTHERS = (b"canary-property", b"canary-owner", b"canary-name")
PAGE_BYTES = 8192

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="several workers")


def davsql(folder: Path, *arguments: object) -> None:
    command = [sys.executable, "-m", "davsql", *map(str, arguments)]
    environment = {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "tmp"), "PATH": "/usr/bin:/bin"}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, timeout=60)


def load(served: ServerProcesses) -> None:
    """Something of everything that puts what users know into a store."""
    name = f"/{OTHERS[2].decode()}"
    update = (
        '<D:propertyupdate xmlns:D="DAV:"><D:set><D:prop>'
        f'<x xmlns="u:">{OTHERS[0].decode()}</x></D:prop></D:set></D:propertyupdate>'
    )
    lock = (
        '<D:lockinfo xmlns:D="DAV:"><D:lockscope><D:shared/></D:lockscope><D:locktype><D:write/></D:locktype>'
        f"<D:owner>{OTHERS[1].decode()}</D:owner></D:lockinfo>"
    )
    for number in range(30):
        assert served.request("PUT", f"{name}-{number}", CONTENT * (1 + number * 500)).status == 201
    assert served.request("PUT", f"{name}-large", CONTENT * 400_000).status == 201
    assert served.request("MKCOL", "/folder").status == 201
    for method, path, field, body in (
        ("COPY", f"{name}-1", {"Destination": "/folder/copy"}, b""),
        ("MOVE", f"{name}-2", {"Destination": f"/folder{name}"}, b""),
        ("PROPPATCH", f"{name}-3", {}, update.encode()),
        ("LOCK", f"{name}-4", {}, lock.encode()),
        ("PUT", f"{name}-5", {}, CONTENT * 1000),
        ("DELETE", f"{name}-6", {}, b""),
    ):
        assert served.request(method, path, body, field).status < 300


def files_in_the_clear(folder: Path) -> dict[str, str]:
    """By name the first of the words that is in a file; looked for by another process, because of SQLite's locks."""
    found: dict[str, str] = {}
    for word in (CONTENT.decode(), *(each.decode() for each in OTHERS)):
        command = ["grep", "-rlaF", "--exclude=*.log", word, str(folder)]
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        assert told.returncode < 2, told.stderr
        found |= {Path(each).name: word for each in told.stdout.splitlines()}
    return found


def test_served__no_file_holds_plaintext(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "backups").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    db, at = tmp_path / "store.db", ("--db", "store.db", "--key-file", "a.key")
    davsql(tmp_path, "key", "new", "a.key")
    davsql(tmp_path, "init", "--encrypt", *at)
    more = f"key_file = {str(tmp_path / 'a.key')!r}\n[backup]\nfolder = {str(tmp_path / 'backups')!r}\n"
    with serving_processes(db, 2, more) as served, socket.create_connection(served.address) as under_way:
        load(served)
        under_way.sendall(b"PUT /unfinished HTTP/1.1\r\nHost: h\r\nContent-Length: 9000000\r\n\r\n")
        under_way.sendall(CONTENT * (8_000_000 // len(CONTENT)))
        davsql(tmp_path, "backup", tmp_path / "backups" / "mine.davsql", *at)
        davsql(tmp_path, "maintain", "vacuum", *at)
        davsql(tmp_path, "check", "--deep", *at)
        names = {each.name for each in tmp_path.rglob("*")}
        assert {"store.db", "store.db-wal", "store.db-shm", "store.db.keys", "store.log", "mine.davsql"} <= names
        assert files_in_the_clear(tmp_path) == {}
        assert CONTENT not in served.log.read_bytes()
    assert files_in_the_clear(tmp_path) == {}
    for file in (db, tmp_path / "backups" / "mine.davsql"):
        content = file.read_bytes()
        pages = [content[start : start + PAGE_BYTES] for start in range(0, len(content), PAGE_BYTES)]
        assert len(pages) > 500
        assert [number for number, page in enumerate(pages, 1) if len(zlib.compress(page)) < PAGE_BYTES] == []


def test_files_in_the_clear__finds_what_is(tmp_path: Path) -> None:
    davsql(tmp_path, "init", "--db", "store.db")
    with serving_processes(tmp_path / "store.db", 2) as served:
        load(served)
        assert {"store.db-wal"} <= files_in_the_clear(tmp_path).keys()
