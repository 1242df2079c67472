"""Several clients at one moment: exactly one of them wins, and what is acknowledged is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Barrier, Event, Thread

from tests.http_client import Client
from tests.lost_data.scenario import scenario
from tests.lost_data.site import BROKEN, LOCKINFO, TIMEOUT_S, Site, expect, expect_that

ROUNDS = 6
LENGTHS = (10, 300_000)  # in one transaction of the store, and in several

Answer = int | str  # a status, or the name of the error that broke the connection
Step = Callable[[Client], Answer]


def together(address: tuple[str, int], steps: Iterable[Step]) -> list[Answer]:
    """Run steps at one moment, each on a connection of its own that is open already; what each gives."""
    wanted = list(steps)
    answers: list[Answer] = [""] * len(wanted)
    barrier = Barrier(len(wanted))

    def run(index: int, step: Step) -> None:
        with Client(address, timeout_s=TIMEOUT_S) as client:
            try:
                client.request("OPTIONS", "/")
                barrier.wait()
                answers[index] = step(client)
            except BROKEN as error:
                answers[index] = type(error).__name__

    threads = [Thread(target=run, args=each) for each in enumerate(wanted)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def sending(method: str, target: str, body: bytes | None = None, **headers: str) -> Step:
    """The step of one request; `If_Match` stands for If-Match."""
    pairs = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda client: client.request(method, target, body, pairs).status


def _bodies(length: int) -> list[bytes]:
    return [bytes([65 + number]) * length for number in range(6)]


def _one_wins(site: Site, answers: list[Answer], wins: int, bodies: list[bytes]) -> None:
    expect("answers", sorted(map(str, answers)), sorted([str(wins), *["412"] * (len(bodies) - 1)]))
    expect_that("the content is the winner's", site.content("/f") == bodies[answers.index(wins)])


@scenario(stock="answers: ['204', '204'")
def six_puts_with_one_if_match__one_wins(site: Site) -> None:
    for length in LENGTHS * ROUNDS:
        bodies = _bodies(length)
        etag = site.put("/f", b"-" * length)
        _one_wins(
            site, together(site.address, [sending("PUT", "/f", each, If_Match=etag) for each in bodies]), 204, bodies
        )


@scenario(stock="answers: ['201', '201'")
def six_creations__one_wins(site: Site) -> None:
    for length in LENGTHS * ROUNDS:
        bodies = _bodies(length)
        steps = [sending("PUT", "/f", each, If_None_Match="*") for each in bodies]
        _one_wins(site, together(site.address, steps), 201, bodies)
        site.prepared("DELETE", "/f")


@scenario()
def four_moves_of_one_tree__one_wins(site: Site) -> None:
    for number in range(ROUNDS):
        site.mkcol("/t/", "/t/c/")
        for name in ("a", "c/b", "c/d"):
            site.put(f"/t/{name}", name.encode())
        tops = [f"/{number}.{target}/" for target in range(4)]
        answers = together(site.address, [sending("MOVE", "/t/", Destination=top) for top in tops])
        expect("answers", sorted(map(str, answers)), ["201", "404", "404", "404"])
        top = tops[answers.index(201)]
        members = {member for member in site.members("/") if not member.startswith("/t")}
        expect("members", {each for each in members if each.startswith(f"/{number}.")}, _tree(top))
        expect("contents", [site.content(f"{top}{name}") for name in ("a", "c/b", "c/d")], [b"a", b"c/b", b"c/d"])


def _tree(top: str) -> set[str]:
    return {top, *(f"{top}{name}" for name in ("a", "c/", "c/b", "c/d"))}


@scenario(stock="are of one moment")
def copy_of_a_tree_while_members_change__is_of_one_moment(site: Site) -> None:
    """Members are written one after another, so at each moment none is older than one that comes after it."""
    names = [f"{number:02}" for number in range(12)]
    site.mkcol("/t/")
    for name in names:
        site.put(f"/t/{name}", b"0")
    is_done = Event()

    def write() -> None:
        with Client(site.address, timeout_s=TIMEOUT_S) as client:
            version = 0
            while not is_done.is_set():
                version += 1
                for name in names:
                    client.request("PUT", f"/t/{name}", b"%d" % version)

    writer = Thread(target=write)
    writer.start()
    try:
        for number in range(ROUNDS):
            expect("COPY", site.status("COPY", "/t/", None, {"Destination": f"/copy{number}/"}), 201)
    finally:
        is_done.set()
        writer.join()
    for number in range(ROUNDS):
        contents = [site.content(f"/copy{number}/{name}") for name in names]
        versions = [int(each) if isinstance(each, bytes) and each else -1 for each in contents]
        is_one_moment = versions == sorted(versions, reverse=True) and versions[0] - versions[-1] <= 1
        expect_that(f"{versions} are of one moment", is_one_moment)


THREADS = 20
LOCK_ROUNDS = 25


@scenario()
def twenty_lock_and_unlock_one_resource__without_any_error(site: Site) -> None:
    site.put("/f", b"content")
    seen: set[object] = set()

    def lock_and_unlock(client: Client) -> int:
        for _ in range(LOCK_ROUNDS):
            reply = client.request("LOCK", "/f", LOCKINFO, {"Depth": "0", "Timeout": "Second-600"})
            seen.add(("LOCK", reply.status))
            if reply.status == 200:
                headers = {"Lock-Token": str(reply.header("Lock-Token"))}
                seen.add(("UNLOCK", client.request("UNLOCK", "/f", None, headers).status))
        return 0

    answers = together(site.address, [lock_and_unlock] * THREADS)
    expect("broken connections", [each for each in answers if each], [])
    expect("answers", seen, {("LOCK", 200), ("LOCK", 423), ("UNLOCK", 204)})
    expect("LOCK by the next", site.status("LOCK", "/f", LOCKINFO, {"Depth": "0"}), 200)
