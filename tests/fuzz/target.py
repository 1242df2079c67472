"""The server that is attacked: a process of its own, watched from outside."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from davsql.store.check import check
from davsql.store.store import Store
from tests.http_client import Client, exchange
from tests.lost_data.torture.process import ServerProcess

ANSWER_TIMEOUT_S = 10.0  # of the client; what takes longer hangs
CONTENT = bytes(range(256)) * 1200  # longer than one chunk
BAD_STATUS = re.compile(rb"HTTP/1\.1 5(?!01|02|05|07)")


NAMES_ONLY = b'<D:propfind xmlns:D="DAV:"><D:prop/></D:propfind>'
LOCKS = b'<D:propfind xmlns:D="DAV:"><D:prop><D:lockdiscovery/></D:prop></D:propfind>'


class Vitals(NamedTuple):
    """What must not grow."""

    memory_mib: float
    descriptors: int
    threads: int


class Target:
    """A running server, and what it must bear."""

    def __init__(self, process: ServerProcess) -> None:
        self._process = process
        self.sent = 0

    def survives(self, data: bytes) -> None:
        """Send the bytes: the server answers in time, without a fault of its own, and ends the connection."""
        self.sent += 1
        try:
            reply = exchange(self._process.address, data, half_close=True, timeout_s=ANSWER_TIMEOUT_S)
        except TimeoutError as error:
            raise AssertionError("no answer in time") from error
        except OSError:  # it refused before it had read everything
            reply = b""
        assert BAD_STATUS.search(reply) is None, reply[:500]

    def refresh(self) -> None:
        """The server still works; what the attacks have made is removed, and there is something to attack again."""
        with Client(self._process.address, timeout_s=ANSWER_TIMEOUT_S) as client:
            _unlock_all(client)
            listing = client.request("PROPFIND", "/", NAMES_ONLY, {"Depth": "1"})
            assert listing.status == 207, listing
            for href in listing.xml.findall(".//{*}response/{*}href"):
                if href.text not in (None, "/"):
                    reply = client.request("DELETE", str(href.text))
                    assert reply.status == 204, (href.text, reply)
            assert client.request("PUT", "/a", CONTENT).status in (201, 204)
            assert client.request("GET", "/a").body == CONTENT
            assert client.request("MKCOL", "/b").status == 201
            assert client.request("PUT", "/b/c", b"content").status == 201

    def vitals(self) -> Vitals:
        """As they are now (Linux)."""
        folder = Path("/proc") / str(self._process.pid)
        status = dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines() if ":\t" in line)
        descriptors = len(list((folder / "fd").iterdir()))
        return Vitals(int(status["VmRSS"].split()[0]) / 1024, descriptors, int(status["Threads"]))


@contextmanager
def attacked(folder: Path) -> Iterator[Target]:
    """A target for the length of a block; at its end it stops well, its log has no fault, and the store is sound."""
    process = ServerProcess(folder, "normal")
    process.start()
    try:
        process.wait_until_it_answers()
        yield Target(process)
        assert process.terminate() == 0
    finally:
        process.kill()
    log = process.log.read_text(encoding="utf-8")
    assert not re.search("ERROR|Traceback", log), log[-4000:]
    with Store.open(process.store) as store:
        assert check(store, deep=True) == []


def _unlock_all(client: Client) -> None:
    found = client.request("PROPFIND", "/", LOCKS, {"Depth": "infinity"})
    assert found.status == 207, found
    for lock in found.xml.findall(".//{*}activelock"):
        root, token = lock.findtext("{*}lockroot/{*}href"), lock.findtext("{*}locktoken/{*}href")
        client.request("UNLOCK", str(root), headers={"Lock-Token": f"<{token}>"})  # each member shows the locks above
