"""One thread goes round the connections whose clients are at work, and keeps nobody waiting."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from davsql.server.round import Round
from tests.server.raw import QUICK, Environ, Served, answer, eventually, read_until, request, served

CALM = replace(QUICK, threads=4, stall_timeout_s=10, header_timeout_s=10)


class Echo:
    """Says what was asked for and sent; /hang waits until it is released, the answer to /large is large."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.hanging = threading.Semaphore(0)

    def __call__(self, environ: Environ, start_response: Any) -> list[bytes]:
        path = environ["PATH_INFO"]
        if path == "/hang":
            self.hanging.release()
            self.release.wait(10)
        body = environ["wsgi.input"].read()
        return answer(start_response, "200 OK", bytes(8_000_000) if path == "/large" else path.encode() + b" " + body)


@contextmanager
def at_work(live: Served, count: int) -> Iterator[list[socket.socket]]:
    """Connections that are members of the round until they are silent."""
    with ExitStack() as stack:
        clients = [stack.enter_context(live.connect()) for _ in range(count)]
        for client in clients:
            ask(client, "/warm")
        yield clients


def ask(client: socket.socket, path: str) -> None:
    client.sendall(request(f"GET {path}"))
    assert read_until(client, path.encode() + b" ")


class Member:
    """What a round needs of a connection."""

    def __init__(self, ours: socket.socket, theirs: socket.socket) -> None:
        self.socket = ours
        self.client = theirs


def test_round__belongs_to_one_thread_until_it_leaves_or_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    tour: Any = Round(lambda: calls.append("call"), lambda _member: calls.append("let go"))

    def next_of(thread: ThreadPoolExecutor) -> object:
        return thread.submit(tour.next, lambda: None).result(5)

    with ExitStack() as stack, ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as two:
        first, second = [Member(*map(stack.enter_context, socket.socketpair())) for _ in range(2)]
        monkeypatch.setattr("davsql.server.round.SILENT_S", 5.0)
        for member in (first, second):
            tour.add(member)
            member.client.sendall(b"x")
        assert {next_of(one), next_of(one)} == {first, second}
        assert next_of(two) is None
        tour.leave()  # of a thread that does not go round
        assert (next_of(two), calls) == (None, [])
        one.submit(tour.leave).result()
        assert calls == ["call"]
        assert next_of(two) in (first, second)  # the one that `one` does not serve
        monkeypatch.setattr("davsql.server.round.SLOW_S", 0.0)
        tour.look()  # `two` loses it
        assert tour.is_empty
        tour.add(first)
        tour.look()
        assert calls == ["call", "call"]  # until somebody comes
        assert next_of(one) is first
        tour.add(first)  # served; a look before its thread comes again must not lose it
        tour.look()
        assert next_of(one) is first
        tour.forget(first)
        tour.forget(second)
        assert tour.is_empty
        tour.close()


@pytest.mark.parametrize("threads", [2, 4])
def test_round__request_that_hangs_keeps_nobody_waiting(threads: int) -> None:
    app = Echo()
    with served(app, replace(CALM, threads=threads)) as live, at_work(live, 3) as clients:
        clients[0].sendall(request("GET /hang"))
        assert app.hanging.acquire(timeout=5)
        for client in clients[1:]:
            ask(client, "/other")
        app.release.set()
        read_until(clients[0], b"/hang ")
        for client in clients:
            ask(client, "/after")


def test_round__body_that_does_not_come_keeps_nobody_waiting() -> None:
    with served(Echo(), CALM) as live, at_work(live, 3) as clients:
        clients[0].sendall(request("PROPFIND /slow", "Content-Length: 4", body=b"ab"))
        for client in clients[1:]:
            ask(client, "/other")
        clients[0].sendall(b"cd")
        read_until(clients[0], b"/slow abcd")


def test_round__client_that_takes_nothing_keeps_nobody_waiting() -> None:
    with served(Echo(), CALM) as live, at_work(live, 3) as clients:
        clients[0].sendall(request("GET /large"))
        for client in clients[1:]:
            ask(client, "/other")
        received = 0
        while received < 8_000_000:
            received += len(clients[0].recv(1 << 20))


def test_round__clients_that_take_nothing_make_the_pool_grow() -> None:
    options = replace(CALM, threads=2, threads_max=20, stall_timeout_s=60)
    with served(Echo(), options) as live, at_work(live, 8) as clients:
        for client in clients[1:]:
            client.sendall(request("GET /large"))
        for turn in range(3):
            ask(clients[0], f"/{turn}")


def test_round__half_a_head_is_waited_for_elsewhere() -> None:
    with served(Echo(), CALM) as live, at_work(live, 2) as clients:
        head = request("GET /late")
        clients[0].sendall(head[:20])
        ask(clients[1], "/other")
        clients[0].sendall(head[20:])
        read_until(clients[0], b"/late ")


def test_round__silent_connections_go_to_the_selector_and_come_back() -> None:
    with served(Echo(), CALM) as live, at_work(live, 3) as clients:
        eventually(lambda: live.http.requests.round.is_empty)
        for client in clients:
            ask(client, "/again")


def test_round__members_that_close_are_forgotten() -> None:
    with served(Echo(), CALM) as live:
        for _ in range(20):  # their descriptors are used again
            with at_work(live, 3) as clients:
                clients[0].sendall(request("GET /last", "Connection: close"))
                read_until(clients[0], b"/last ")
        eventually(lambda: live.http.requests.round.is_empty and not live.http.connections_open)


def test_round__only_thread_also_serves_who_comes_new() -> None:
    with served(Echo(), replace(CALM, threads=1, threads_max=1)) as live, at_work(live, 2) as clients:
        for turn in range(20):
            ask(clients[0], f"/{turn}")
            assert b"/new " in live.exchange(request("GET /new", "Connection: close"))


def test_round__pipelined_requests_of_a_member_are_answered_once_and_in_order() -> None:
    with served(Echo(), CALM) as live, at_work(live, 3) as clients:
        paths = [f"/{number}" for number in range(60)]
        clients[0].sendall(b"".join(request(f"GET {path}") for path in paths[:30]))
        ask(clients[1], "/other")
        clients[0].sendall(b"".join(request(f"GET {path}") for path in paths[30:]))
        for path in paths:
            assert read_until(clients[0], path.encode() + b" ").count(b"HTTP/1.1 200") == 1


def test_round__every_client_gets_its_own_answers_whatever_the_others_do() -> None:
    seed = random.randrange(1 << 32)  # noqa: S311
    print(f"seed {seed}")  # noqa: T201

    def work(number: int) -> None:
        dice = random.Random(seed + number)  # noqa: S311
        for _ in range(4):
            with live.connect() as client:
                for turn in range(dice.randrange(1, 25)):
                    path = f"/{number}-{turn}"
                    methods = dice.choices(("GET", "PUT", "PROPFIND"), k=dice.choice((1, 1, 1, 3)))
                    data = b"".join(request(f"{each} {path}", "Content-Length: 3", body=b"abc") for each in methods)
                    cut = dice.choice((len(data), dice.randrange(len(data))))
                    client.sendall(data[:cut])
                    if dice.random() < 0.1:
                        threading.Event().wait(dice.choice((0.001, 0.03)))
                    client.sendall(data[cut:])
                    for _ in methods:
                        assert read_until(client, f"{path} abc".encode()).count(b"HTTP/1.1 ") == 1

    with served(Echo(), CALM) as live, ThreadPoolExecutor(12) as crowd:
        list(crowd.map(work, range(12)))
