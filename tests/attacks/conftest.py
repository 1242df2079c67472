"""One server that all attacks of a module meet, and what must be true after each of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
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
