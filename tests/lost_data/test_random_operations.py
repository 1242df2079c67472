"""Random operations of several clients at one time over HTTP, against a plain model; and proof that it would notice."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from threading import Event, Thread
from urllib.parse import quote

import pytest

from davsql.maintenance.gc import collect_garbage
from davsql.store.store import Store
from tests.http_client import Reply
from tests.live_server import LiveServer
from tests.lost_data.torture.content import Bodies, data_of
from tests.lost_data.torture.history import History, SharedWrite
from tests.lost_data.torture.steps import SHARED
from tests.lost_data.torture.tree import Entry
from tests.lost_data.torture.verification import look, verify
from tests.lost_data.torture.worker import Report, Worker

CLIENTS = 6
STEPS = 60
GC_PAUSE_S = 0.05


@dataclass(frozen=True)
class Play:
    """Clients, and what they know."""

    workers: list[Worker]
    bodies: Bodies
    history: History
    report: Report

    def verify(self, server: LiveServer) -> list[str]:
        """Compare everything; what is wrong."""
        folders = [worker.folder for worker in self.workers]
        verify(look(server.address, folders, self.bodies), self.workers, self.history, self.report)
        return self.report.faults


def play(server: LiveServer, seed: int, *, clients: int = CLIENTS, steps: int = STEPS) -> Play:
    """Let clients do so many random steps each, at one time."""
    bodies, history, report = Bodies(), History(), Report()
    history.start_again(dict.fromkeys(SHARED))
    workers = [
        Worker(number, Random(f"{seed} {number}"), bodies, history, report)  # noqa: S311
        for number in range(clients)
    ]
    with server.client() as client:
        for worker in workers:
            worker.make_folder(client)
    threads = [Thread(target=worker.run, args=(server.address, Event(), steps)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Play(workers, bodies, history, report)


@pytest.mark.parametrize("seed", [20_000, None], ids=["seed 20000", "new seed"])
def test_random_operations__agree_with_a_model(store: Store, server: LiveServer, seed: int | None) -> None:
    seed = secrets.randbits(32) if seed is None else seed
    is_over = Event()

    def collect() -> None:
        while not is_over.wait(GC_PAUSE_S):
            collect_garbage(store, grace_s=1.0, upload_expiry_s=60.0)

    collector = Thread(target=collect)
    collector.start()
    try:
        played = play(server, seed)
    finally:
        is_over.set()
        collector.join()
    assert played.verify(server) == [], f"seed {seed}"
    assert played.report.acknowledged > CLIENTS * STEPS // 2


# --- the model notices --------------------------------------------------------------------------------------------


def _target(played: Play, wanted: Callable[[Entry], object]) -> str:
    """The request target of some member for which this holds."""
    (worker,) = played.workers
    for place, entry in sorted(worker.tree.items()):
        if place and wanted(entry):
            return "/" + "/".join(quote(name, safe="") for name in (worker.folder, *place))
    raise LookupError("the play has made no such member; take another seed")


def _delete(server: LiveServer, played: Play) -> Reply:
    return server.request("DELETE", _target(played, lambda entry: not entry.is_collection and entry.token is None))


def _truncate(server: LiveServer, played: Play) -> Reply:
    target = _target(played, lambda entry: entry.content and entry.content.length > 100 and entry.token is None)
    return server.request("PUT", target, server.request("GET", target).body[:-1])


def _mix(server: LiveServer, played: Play) -> Reply:
    target = _target(played, lambda entry: entry.content and entry.content.length > 100 and entry.token is None)
    whole = server.request("GET", target).body
    return server.request("PUT", target, whole[:-50] + bytes(50))


def _restore_another_version(server: LiveServer, played: Play) -> Reply:
    target = _target(played, lambda entry: not entry.is_collection and entry.token is None)
    return server.request("PUT", target, data_of(played.bodies.new("another", 5000)))


def _add(server: LiveServer, played: Play) -> Reply:
    return server.request("PUT", "/client%200/stranger", b"")


def _set_properties(server: LiveServer, played: Play) -> Reply:
    target = _target(played, lambda entry: entry.token is None)
    body = (
        b'<D:propertyupdate xmlns:D="DAV:"><D:set><D:prop><T:a xmlns:T="urn:torture">x</T:a></D:prop></D:set>'
        b"</D:propertyupdate>"
    )
    return server.request("PROPPATCH", target, body)


def _restore_an_old_shared_version(server: LiveServer, played: Play) -> Reply:
    """What comes of a write that is lost: the version before it is there again."""
    old, new = (played.bodies.new(SHARED[0], 1000) for _ in range(2))
    target = f"/{quote(SHARED[0])}"
    for content in (old, new):
        write = SharedWrite(SHARED[0], content)
        played.history.begin(write)
        server.request("PUT", target, data_of(content))
        played.history.acknowledge(write)
    return server.request("PUT", target, data_of(old))


TAMPERINGS = [
    _delete,
    _truncate,
    _mix,
    _restore_another_version,
    _add,
    _set_properties,
    _restore_an_old_shared_version,
]


@pytest.mark.parametrize("tamper", TAMPERINGS, ids=lambda tamper: str(tamper.__name__).strip("_"))
def test_model__notices_what_is_lost(
    store: Store, server: LiveServer, tamper: Callable[[LiveServer, Play], Reply]
) -> None:
    played = play(server, seed=7, clients=1, steps=60)
    assert played.verify(server) == []
    assert tamper(server, played).status in (201, 204, 207)
    assert played.verify(server) != []
