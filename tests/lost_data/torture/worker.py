"""One client: it does one step after another, notes what it intends before it asks, and what was acknowledged."""

from __future__ import annotations

import time
from dataclasses import replace
from random import Random
from threading import Event, Lock

from tests.http_client import Client, Reply
from tests.lost_data.site import BROKEN
from tests.lost_data.torture.content import Bodies, Content, description
from tests.lost_data.torture.history import History
from tests.lost_data.torture.steps import Step, Steps
from tests.lost_data.torture.tree import FOLDER, SOME_TOKEN, Tree

TIMEOUT_S = 30.0
BUSY = 503


class Report:
    """Counts, and what went wrong. Threads: any."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.acknowledged = 0  # writes
        self.reads = 0
        self.refused = 0
        self.cut = 0  # requests without an answer
        self.cut_applied = 0  # of these, those that have happened
        self._lock = Lock()

    def fault(self, text: str) -> None:
        with self._lock:
            self.faults.append(text)

    def count(self, kind: str) -> None:
        with self._lock:
            setattr(self, kind, getattr(self, kind) + 1)


class Worker:
    """One client with a folder of its own. Threads: one at a time.

    Attributes:
        tree: what is true of its folder by all that was answered.
        in_flight: the step that was sent and not answered when the server went away.
    """

    def __init__(self, number: int, random: Random, bodies: Bodies, history: History, report: Report) -> None:
        self.name = self.folder = f"client {number}"
        self.tree: Tree = FOLDER
        self.in_flight: Step | None = None
        self._steps = Steps(self.folder, random, bodies)
        self._bodies = bodies
        self._history = history
        self._report = report

    def make_folder(self, client: Client) -> None:
        """Once, before the first run."""
        if client.request("MKCOL", self._steps.href(()) + "/").status != 201:
            raise RuntimeError(f"the folder of {self.folder} could not be made")

    def run(self, address: tuple[str, int], is_ending: Event, steps_max: int | None = None) -> None:
        """Do steps until the server goes away, or so many.

        Args:
            is_ending: set before the server is made to end; a broken connection before that is a fault.
        """
        done = 0
        try:
            with Client(address, timeout_s=TIMEOUT_S) as client:
                while not is_ending.is_set() and done != steps_max:
                    if not self._do(client, self._steps.next(self.tree), is_ending):
                        return
                    done += 1
        except BROKEN as error:
            if not is_ending.is_set():
                step = self.in_flight
                what = "connecting" if step is None else f"{step.method} {step.target}"
                self._report.fault(f"{self.folder}: {what}: {error!r}")
            elif self.in_flight is not None:
                self._report.count("cut")

    def _do(self, client: Client, step: Step, is_ending: Event) -> bool:
        """Do one step; False when there is no sense in going on."""
        began_ns = time.monotonic_ns()
        self.in_flight = step
        if step.write is not None:
            self._history.begin(step.write)
        reply = client.request(step.method, step.target, step.body(), step.headers)
        self.in_flight = None
        if reply.status in step.done:
            self._settle(step, reply, began_ns)
            return True
        if step.write is not None:
            self._history.withdraw(step.write)
        if reply.status in step.refused:
            self._report.count("refused")
            return True
        if is_ending.is_set() and reply.status in (400, BUSY):  # a server that stops says that nothing has happened
            self._report.count("refused")
            return False
        wanted = ", ".join(map(str, step.done + step.refused))
        self._report.fault(
            f"{self.folder}: {step.method} {step.target} {step.headers}: {reply.status} instead of {wanted}: "
            f"{reply.body[:200]!r}"
        )
        return False

    def _settle(self, step: Step, reply: Reply, began_ns: int) -> None:
        if step.read is not None:
            self._report.count("reads")
            self._look(step, reply, began_ns)
            return
        self._report.count("acknowledged")
        if step.write is not None:
            self._history.acknowledge(step.write)
        tree = step.after
        if step.method == "LOCK":
            token = str(reply.header("Lock-Token")).strip("<>")
            tree = {
                place: replace(entry, token=token) if entry.token == SOME_TOKEN else entry
                for place, entry in tree.items()
            }
        self.tree = tree

    def _look(self, step: Step, reply: Reply, began_ns: int) -> None:
        """A read gives what is there, whole."""
        possible: list[Content | None]
        if isinstance(step.read, str):
            possible = self._history.possible(step.read, began_ns)
        else:
            assert step.read is not None
            possible = [self.tree[step.read].content]
        found = None if reply.status == 404 else self._bodies.identified(reply.body)
        if reply.status != 404 and found is None:
            self._report.fault(f"GET {step.target}: {description(reply.body)}")
        elif found not in possible:
            self._report.fault(f"GET {step.target}: {found}, which was not there then")
        elif found is not None and not self._bodies.is_one_tag(found, reply.header("ETag")):
            self._report.fault(f"GET {step.target}: another entity tag for {found}")
