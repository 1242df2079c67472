"""One server that all attacks of a module meet, and what must be true after each of them."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from davsql.store.check import check
from davsql.store.store import Store
from tests.live_server import LiveServer, serving_shares
from tests.store_steps import tree

CONTENT = bytes(range(256)) * 16
NEXT_REQUEST_S = 5.0  # a second on a machine that is not busy


@dataclass(frozen=True, slots=True)
class Victim:
    """A server with the files /f, /g and /c/h."""

    store: Store
    server: LiveServer
    before: dict[str, bytes | None]

    def is_unharmed(self) -> None:
        """The next request is served soon, nothing was stored, nothing is half there."""
        began = time.monotonic()
        reply = self.server.request("GET", "/f")
        assert (reply.status, reply.body) == (200, CONTENT)
        assert time.monotonic() - began < NEXT_REQUEST_S
        assert tree(self.store) == self.before
        assert check(self.store) == []


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    file: Path = tmp_path_factory.mktemp("victim") / "store.db"
    with Store.open(file, create=True) as store, serving_shares({"/": store}) as server:
        server.request("MKCOL", "/c")
        for path in ("/f", "/g", "/c/h"):
            assert server.request("PUT", path, CONTENT).status == 201
        yield Victim(store, server, tree(store))


@dataclass(frozen=True, slots=True)
class Started:
    """`davsql serve` as a process of its own."""

    pid: int
    address: tuple[str, int]
    output: Path  # all that it says


@contextmanager
def started(folder: Path, *arguments: str, first: str = "true") -> Iterator[Started]:
    """Serve in a folder, after what a shell does first (`umask 0`, say), until the block ends, and end well."""
    output = folder / "output"
    command = ["sh", "-c", f'{first} && exec "$@"', "sh", sys.executable, "-m", "davsql", "serve", *arguments]
    with (
        output.open("wb") as out,
        subprocess.Popen(
            command, cwd=folder, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        ) as process,
    ):
        try:
            deadline = time.monotonic() + 30
            while "Ctrl-C" not in (said := output.read_text(encoding="utf-8")):
                assert process.poll() is None, said
                assert time.monotonic() < deadline, said
                time.sleep(0.02)
            found = re.search(r"serving .* on http://127\.0\.0\.1:(\d+)/", said)
            assert found is not None
            yield Started(process.pid, ("127.0.0.1", int(found[1])), output)
            process.terminate()
            assert process.wait(30) == 0, output.read_text(encoding="utf-8")
        finally:
            process.kill()
