"""Uploads whose client, and then whose server, is killed in the middle of a piece go on, and become the same file."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from davsql.store.check import check
from davsql.store.store import Store
from tests.clients.uploader import BLOCK_BYTES, FILE, KINDS, content
from tests.http_client import Client
from tests.lost_data.torture.process import ROOT, ServerProcess

PIECE = 8 * BLOCK_BYTES
SIZE = 6 * PIECE
TIMEOUT_S = 600

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


@contextmanager
def uploading(
    server: ServerProcess, kind: str, size: int, piece: int, stop_at: int = 0
) -> Iterator[subprocess.Popen[str]]:
    """An uploader that runs; at the end it is killed."""
    numbers = map(str, (server.address[1], size, piece, stop_at))
    command = [sys.executable, "-m", "tests.clients.uploader", kind, *numbers]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str], form: str) -> int:
    """The number in the next line of an uploader's output."""
    assert process.stdout is not None
    text = process.stdout.readline()
    match = re.fullmatch(form + r"\n", text)
    assert match, text
    return int(match[1]) if match.groups() else 0


def upload_with_kills(server: ServerProcess, kind: str, size: int, piece: int) -> None:
    """Kill the client in the middle of the second third of an upload, the server in the last one; then let it end."""
    first, second = 2 * size // 5 // piece * piece, 4 * size // 5 // piece * piece
    for start, stop_at in ((0, first + piece // 2), (first, second + piece // 2)):
        with uploading(server, kind, size, piece, stop_at) as process:
            assert line(process, r"from (\d+)") == start
            line(process, r"stopped at (\d+)")
            if start:
                server.kill()
                server.start()
                server.wait_until_it_answers()
    with uploading(server, kind, size, piece) as process:
        assert line(process, r"from (\d+)") == second
        line(process, "done")
        assert process.wait(TIMEOUT_S) == 0


def digest_of(server: ServerProcess) -> str:
    with Client(server.address) as client:
        return hashlib.sha256(client.request("GET", FILE).body).hexdigest()


def started(folder: Path) -> ServerProcess:
    """A server that collects garbage all the time, but gives no upload up."""
    server = ServerProcess(folder, "normal")
    text = server.configuration.read_text(encoding="utf-8").replace("upload_expiry_s = 3.0", "upload_expiry_s = 600.0")
    server.configuration.write_text(f"{text}[dav]\nnextcloud_paths = true\n", encoding="utf-8")
    server.start()
    server.wait_until_it_answers()
    return server


@pytest.mark.parametrize("kind", KINDS)
def test_upload__killed_on_both_sides_becomes_the_same_file(tmp_path: Path, kind: str) -> None:
    server = started(tmp_path)
    try:
        upload_with_kills(server, kind, SIZE, PIECE)
        assert digest_of(server) == hashlib.sha256(b"".join(content(0, SIZE))).hexdigest()
        assert server.terminate() == 0
    finally:
        server.kill()
    with Store.open(server.store) as store:
        assert check(store, deep=True) == []
