"""A tree so large that the store copies it in steps, and a client that copies, moves and deletes the copy.

Nobody changes the tree, so its copy is whole or not there at all, at every moment and after every crash.
"""

from __future__ import annotations

import re
from random import Random
from threading import Event

from tests.dav.answers import propfind_body
from tests.http_client import Client
from tests.lost_data.site import BROKEN
from tests.lost_data.torture.worker import BUSY, TIMEOUT_S, Report

TOP = "/large"
COPY = "/large%20copy"
OTHER = "/large%20other"
PAUSE_S = 0.2  # at most, between two of its requests: the other clients want to write too
FAN = 10  # members of a collection that is made from copies
TAG = re.compile(rb"<D:getetag>([^<]*)</D:getetag>")
ASKED = propfind_body("getetag")


class LargeTree:
    """The tree, and the client. Threads: one at a time."""

    def __init__(self, nodes: int, random: Random, report: Report) -> None:
        self.name = "client of the large tree"
        self.names = {TOP.strip("/"), *(each.strip("/").replace("%20", " ") for each in (COPY, OTHER))}
        self._nodes = nodes
        self._random = random
        self._report = report
        self._possible = [frozenset[str]()]  # which of COPY and OTHER may be there

    def make(self, client: Client) -> None:
        """Once, before the first run: files, then copies of collections in collections."""
        count = 1
        step, collection = 0, f"{TOP}.0"
        self._must(client, "MKCOL", collection)
        while count < FAN:
            self._must(client, "PUT", f"{collection}/{count}", b"file %d" % count)
            count += 1
        while count < self._nodes:
            step += 1
            bigger = f"{TOP}.{step}"
            self._must(client, "MKCOL", bigger)
            copies = min(FAN, -(-self._nodes // count))
            for number in range(copies):
                self._must(client, "COPY", collection, None, {"Destination": f"{bigger}/{number}"})
            self._must(client, "DELETE", collection)
            collection, count = bigger, count * copies + 1
        self._must(client, "MOVE", collection, None, {"Destination": TOP})
        self._listing = self._listed(client, TOP)

    def run(self, address: tuple[str, int], is_ending: Event) -> None:
        """Do one thing after another until the server goes away."""
        try:
            with Client(address, timeout_s=TIMEOUT_S) as client:
                while self._do(client, is_ending) and not is_ending.wait(self._random.uniform(0, PAUSE_S)):
                    pass
        except BROKEN as error:
            if is_ending.is_set():
                self._report.count("cut")
            else:
                self._report.fault(f"the large tree: {error!r}")

    def verify(self, address: tuple[str, int]) -> None:
        """The tree is whole; its copies are whole or not there, as was acknowledged."""
        with Client(address, timeout_s=TIMEOUT_S) as client:
            there = frozenset(target for target in (COPY, OTHER) if self._listed(client, target) is not None)
            if there not in self._possible:
                self._report.fault(f"the large tree: copies {set(there)} instead of one of {self._possible}")
            self._possible = [there]
            for target in (TOP, *there):
                if self._listed(client, target) != self._listing:
                    self._report.fault(f"{target} is not whole")

    def _do(self, client: Client, is_ending: Event) -> bool:
        (there,) = self._possible
        source = self._random.choice([TOP, *sorted(there)])
        others = [target for target in (COPY, OTHER) if target != source]
        destination = self._random.choice(others)
        method = "COPY" if source == TOP else self._random.choice(("MOVE", "DELETE", "COPY"))
        after = there if method == "DELETE" else there | {destination}
        if method != "COPY":
            after -= {source}
        # An overwriting COPY or MOVE leaves something at its destination whatever becomes of it.
        self._possible = [there, after]
        headers = {} if method == "DELETE" else {"Destination": destination}
        status = client.request(method, source, None, headers).status
        if status in (201, 204):
            self._report.count("acknowledged")
            self._possible = [after]
            return True
        self._possible = [there]
        if not (is_ending.is_set() and status == BUSY):
            self._report.fault(f"{method} {source} to {destination}: {status}")
        return False

    def _listed(self, client: Client, target: str) -> list[bytes] | None:
        """Entity tags of the whole tree in the order of the listing, with one for each resource."""
        reply = client.request("PROPFIND", target, ASKED, {"Depth": "infinity"})
        if reply.status == 404:
            return None
        tags = sorted(TAG.findall(reply.body))
        return [b"%d" % reply.body.count(b"<D:response>"), *tags]

    def _must(
        self, client: Client, method: str, target: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> None:
        reply = client.request(method, target, body, headers or {})
        if reply.status not in (201, 204):
            raise RuntimeError(f"{method} {target}: {reply.status}")
