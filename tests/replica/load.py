"""Clients that write as fast as they can and remember what was acknowledged, and when."""

from __future__ import annotations

import hashlib
import http.client
import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

NAMES = 40  # files of one client, written over and over
SIZES = (0, 100, 3_000, 20_000, 60_000)


class Write(NamedTuple):
    """One PUT that was begun."""

    name: str
    digest: bytes
    begun_at: float  # time.time()
    acknowledged_at: float | None


@dataclass
class Client:
    """Puts files into a folder of its own, one after the other."""

    folder: str
    seed: int
    writes: list[Write] = field(default_factory=list)

    def run(self, address: tuple[str, int], stopping: threading.Event) -> None:
        """Write until told to stop or the server is gone."""
        chance = random.Random(self.seed)  # noqa: S311  # no secret
        connection = http.client.HTTPConnection(*address, timeout=30)
        try:
            connection.request("MKCOL", self.folder)
            connection.getresponse().read()
            while not stopping.is_set():
                name = f"{self.folder}/{chance.randrange(NAMES)}"
                body = chance.randbytes(chance.choice(SIZES))
                begun_at = time.time()
                self.writes.append(Write(name, hashlib.sha256(body).digest(), begun_at, None))
                connection.request("PUT", name, body)
                answer = connection.getresponse()
                answer.read()
                assert answer.status in (201, 204), answer.status
                self.writes[-1] = self.writes[-1]._replace(acknowledged_at=time.time())
        except (OSError, http.client.HTTPException):
            pass  # killed; what was not acknowledged is on record as such
        finally:
            connection.close()


class Loss(NamedTuple):
    """What a restored store lacks of what clients were told is stored."""

    acknowledged: int
    lost: int
    window_s: float  # from the oldest write that was lost to the end of the load


class Load:
    """Some clients at work."""

    def __init__(self, address: tuple[str, int], clients: int, *, label: str, seed: int) -> None:
        self.clients = [Client(f"/{label}-{number}", seed + number) for number in range(clients)]
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=client.run, args=(address, self._stopping), daemon=True) for client in self.clients
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Stop the clients; where the server was killed they have stopped themselves."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def loss(self, found: Mapping[str, bytes | None], *, ended_at: float) -> Loss:
        """Compare a restored store with the record: each client's files must be as after some of its writes."""
        acknowledged = lost = 0
        oldest = ended_at
        for client in self.clients:
            kept = kept_writes(client, found)
            done = [write for write in client.writes if write.acknowledged_at is not None]
            acknowledged += len(done)
            lost += max(0, len(done) - kept)
            oldest = min([oldest, *(write.acknowledged_at or ended_at for write in done[kept:])])
        return Loss(acknowledged, lost, ended_at - oldest)


def kept_writes(client: Client, found: Mapping[str, bytes | None]) -> int:
    """How many of a client's writes, from the first, make up what was found; as many as possible."""
    wanted = {path: digest for path, digest in found.items() if path.startswith(client.folder + "/")}
    state: dict[str, bytes] = {}
    kept = 0 if not wanted else None
    for number, write in enumerate(client.writes, start=1):
        state[write.name] = write.digest
        if state == wanted:
            kept = number
    assert kept is not None, f"{client.folder} is as it never was"
    return kept


def writes_around(clients: Sequence[Client], moment: float, slack_s: float) -> list[tuple[int, int]]:
    """For each client, the least and the most writes that a store as of `moment` may have."""
    return [
        (
            sum(
                write.acknowledged_at is not None and write.acknowledged_at < moment - slack_s
                for write in client.writes
            ),
            sum(write.begun_at <= moment for write in client.writes),
        )
        for client in clients
    ]
