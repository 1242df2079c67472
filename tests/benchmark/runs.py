"""One run of one workload on one server: what it is given, what it gives, and small steps that workloads share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.benchmark import load
from tests.benchmark.load import Wrong
from tests.benchmark.seed import Size
from tests.benchmark.servers import Server

FOLDERS = 16  # that new files are spread over, as in load.lua
DONE = {200, 201, 204}


@dataclass(frozen=True, slots=True)
class Bench:
    """What a workload is given."""

    server: Server
    size: Size
    seconds: int  # that a rate is measured
    rep: int
    tree: Path  # what servers were seeded with
    folder: Path  # for files that are uploaded, emptied after each repetition

    @property
    def url(self) -> str:
        """The server's, without a slash at the end."""
        return self.server.url


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run measured."""

    values: dict[str, float]  # by the key of a row
    requests: int = 0  # where the CPU time of one is worth knowing


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the tables."""

    key: str
    title: str  # {big}, {part}, {list0} and so on come from the size
    unit: str

    @property
    def more_is_better(self) -> bool:
        """So it is for rates, and not for times."""
        return "/" in self.unit


@dataclass(frozen=True, slots=True)
class Workload:
    """Something that servers do while we measure."""

    rows: tuple[Row, ...]
    run: Callable[[Bench], Figures]
    writes: bool = False  # so durability matters
    hello: bool = False  # an application that stores nothing can take part
    ours: bool = False  # only davsql takes part
    all_at_once: bool = False  # the client is the limit and CPU seconds are measured: servers need not wait in turn


def make_collection(bench: Bench, path: str) -> None:
    """MKCOL, which must succeed."""
    status = load.ask(f"{bench.url}{path}/", "MKCOL").status
    if status != 201:
        raise Wrong(f"MKCOL: status {status}")


def make_folders(bench: Bench, base: str) -> None:
    """The collections that new files are spread over."""
    if bench.server.peer.stores:
        make_collection(bench, base)
        for index in range(FOLDERS):
            make_collection(bench, f"{base}/{index:02d}")


def expect_file(bench: Bench, path: str, size_bytes: int) -> None:
    """Look whether a file has the right size, by its HEAD."""
    if not bench.server.peer.stores:
        return
    answer = load.ask(bench.url + path, "HEAD")
    if answer.status != 200 or f"content-length: {size_bytes}\r\n".encode() not in answer.body.lower():
        raise Wrong(f"{path}: {answer.status}, not {size_bytes} bytes")


def expect_members(bench: Bench, path: str, members: int) -> None:
    """Look whether a collection has so many members."""
    answer = load.ask(f"{bench.url}{path}/", "PROPFIND", {"Depth": "1"})
    if answer.status != 207 or load.count_members(answer.body) != members + 1:
        raise Wrong(f"{path}: {answer.status}, {load.count_members(answer.body) - 1} members instead of {members}")


def delete(bench: Bench, path: str) -> float:
    """DELETE of a collection or, without a slash at the end, a file; return its seconds."""
    answer = load.ask(bench.url + path, "DELETE")
    if answer.status not in DONE:
        raise Wrong(f"DELETE: status {answer.status}")
    return answer.time_s
