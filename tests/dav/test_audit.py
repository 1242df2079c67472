"""What requests leave in the audit log, and when they are refused because they cannot leave anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import apsw
import pytest

from davsql.accounts.gate import Gate
from davsql.accounts.options import AccountOptions
from davsql.audit.chain import Entry
from davsql.audit.log import AuditLog
from davsql.audit.verify import read
from davsql.dav.application import make_application
from davsql.dav.audit import Audited
from davsql.dav.request import DavOptions
from davsql.store.store import Store
from tests.accounts.account_steps import PASSWORD, basic, cheap_passwords, new_accounts
from tests.audit.audit_steps import file_in, opened
from tests.live_server import LiveServer, serving

ANN = basic("ann", PASSWORD)


@contextmanager
def audited(store: Store, folder: Path, *, with_reads: bool = False) -> Iterator[tuple[LiveServer, AuditLog]]:
    """A server with accounts and an audit log that nobody tends."""
    with closing(new_accounts(folder)) as accounts, opened(folder) as log:
        gate = Gate(accounts, AccountOptions(), cheap_passwords(), log.append_failed_login)
        application = make_application({"/": store}, DavOptions(), gate=gate)
        with serving(Audited(application, log, with_reads=with_reads)) as server:
            yield server, log


def entries(folder: Path) -> list[Entry]:
    return [each.entry for each in read(file_in(folder))]


def test_audited__has_the_row_when_the_answer_comes(store: Store, tmp_path: Path) -> None:
    with audited(store, tmp_path) as (server, _):
        reply = server.request("PUT", "/a%20b", b"12345", ANN)
        [entry] = entries(tmp_path)
        assert entry[1:] == ("ann", "127.0.0.1", "PUT", "/a b", None, 201, 5, reply.header("X-Request-ID"))
        server.request("PUT", "/chunked", iter([b"123", b"4"]), ANN)
        server.request(
            "MOVE", "/a%20b", None, ANN | {"Destination": f"{server.url.replace('://', '://ann:secret@')}/%C3%A9"}
        )
        server.request("DELETE", "/none", None, ANN)
        server.request("GET", "/chunked", None, ANN)
        assert [each[3:8] for each in entries(tmp_path)[1:]] == [
            ("PUT", "/chunked", None, 201, 4),
            ("MOVE", "/a b", "/é", 201, 0),
            ("DELETE", "/none", None, 404, 0),
        ]


def test_audited__has_reads_when_they_are_wanted(store: Store, tmp_path: Path) -> None:
    with audited(store, tmp_path, with_reads=True) as (server, log):
        server.request("PUT", "/a", b"12345", ANN)
        server.request("GET", "/a", None, ANN)
        server.request("PROPFIND", "/", None, ANN)
        log.tend()
        assert [(each.method, each.status) for each in entries(tmp_path)] == [
            ("PUT", 201),
            ("GET", 200),
            ("PROPFIND", 207),
        ]
        assert entries(tmp_path)[1].bytes == 5


def test_audited__has_failed_logins_but_not_those_who_bring_nothing(store: Store, tmp_path: Path) -> None:
    with audited(store, tmp_path) as (server, _):
        server.request("PUT", "/a", b"")
        server.request("GET", "/a", None, basic("ann", "not this one"))
        server.request("GET", "/a", None, basic("my secret password", "not this one"))
        assert [each[1:7] for each in entries(tmp_path)] == [
            ("ann", "127.0.0.1", "LOGIN", "", None, 401),
            ("-", "127.0.0.1", "LOGIN", "", None, 401),
        ]


def test_audited__refuses_changes_while_the_log_cannot_be_written(store: Store, tmp_path: Path) -> None:
    with audited(store, tmp_path) as (server, log):
        with closing(apsw.Connection(str(file_in(tmp_path)))) as connection:
            connection.execute("CREATE TRIGGER full BEFORE INSERT ON entries BEGIN SELECT raise(ABORT, 'no room'); END")
            assert server.request("PUT", "/a", b"a", ANN).status == 201
            refused = server.request("PUT", "/b", b"b", ANN)
            assert (refused.status, refused.header("Retry-After")) == (503, "2")
            assert server.request("GET", "/a", None, ANN).body == b"a"
            assert server.request("GET", "/b", None, ANN).status == 404
            connection.execute("DROP TRIGGER full")
        log.tend()
        assert server.request("PUT", "/b", b"b", ANN).status == 201
        assert [each.path for each in entries(tmp_path)] == ["/a", "/b"]


@pytest.mark.parametrize("path", ["/%ff", "/a%00b", "/%E2%80%AE", "/" + "x" * 5000])
def test_audited__takes_any_target(store: Store, tmp_path: Path, path: str) -> None:
    with audited(store, tmp_path) as (server, _):
        status = server.request("PUT", path, b"", ANN).status
        assert [each.status for each in entries(tmp_path)] == [status]
