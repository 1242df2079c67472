"""Certificates of clients: who shows one that the authority signed is the account that it names."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from davsql.accounts import users
from davsql.accounts.options import AccountOptions
from davsql.certificates.authority import Authority
from davsql.dav.access import RuleOptions, ShareRules
from davsql.dav.application import make_application
from davsql.dav.request import DavOptions
from davsql.server.tls import Tls, TlsFiles
from davsql.store.sidefile import SideFile
from davsql.store.store import Store
from tests.accounts.account_steps import PASSWORD, add_account, gate_of, new_accounts
from tests.live_server import LiveServer, serving
from tests.server.raw import read_to_end, request, status_of
from tests.tls.tls_steps import ClientAuthority, plain_connection, trusting

Ask = Callable[..., int]
Serve = Callable[..., AbstractContextManager[Ask]]

CLOSE = "Connection: close"
RULES = {"/": ShareRules("", [RuleOptions(users=("ann",), path="/", allow=("read", "write"))])}


@pytest.fixture
def accounts(tmp_path: Path) -> Iterator[SideFile]:
    file = new_accounts(tmp_path)
    yield file
    file.close()


@pytest.fixture
def people(tmp_path: Path) -> ClientAuthority:
    return ClientAuthority(tmp_path)


@pytest.fixture
def serve(store: Store, accounts: SideFile, authority: Authority, people: ClientAuthority) -> Serve:
    @contextmanager
    def serve(*, requires_client: bool = True) -> Iterator[Ask]:
        tls = Tls(TlsFiles(authority.certificate, None, people.certificate, requires_client))
        gate = gate_of(accounts, AccountOptions())
        application = make_application({"/": store}, DavOptions(), rules=RULES, gate=gate)
        with serving(application, tls=tls) as server:

            def ask(certificate: Path | None, line: str = "GET /", *fields: str) -> int:
                return status_of(reply_of(server, trusting(authority, certificate), request(line, CLOSE, *fields)))

            yield ask

    return serve


def reply_of(server: LiveServer, context: ssl.SSLContext, data: bytes) -> bytes:
    with context.wrap_socket(plain_connection(server.address), server_hostname="localhost") as client:
        client.sendall(data)
        return read_to_end(client)


def basic(name: str) -> str:
    return "Authorization: Basic " + base64.b64encode(f"{name}:{PASSWORD}".encode()).decode()


def test_certificate__is_its_account_and_rules_hold(serve: Serve, people: ClientAuthority) -> None:
    with serve() as ask:
        assert ask(people.client("ann"), "PUT /a.txt", "Content-Length: 0") == 201
        assert ask(people.client("bob")) in (403, 404)


def test_certificate__is_its_account_by_a_mail_address(
    serve: Serve, people: ClientAuthority, accounts: SideFile
) -> None:
    with serve() as ask:
        shown = people.client("Ann Example", ["ann@example.org"])
        assert ask(shown) == 403
        add_account(accounts, "ann@example.org")
        assert ask(shown, "OPTIONS *") == 200
        assert ask(shown) in (403, 404)  # an account, and no rule


def test_certificate__common_name_counts_before_mail_addresses(serve: Serve, people: ClientAuthority) -> None:
    with serve() as ask:
        assert ask(people.client("ann", ["bob"])) == 200


@pytest.mark.parametrize("name", ["carol", "ann:x", "Änne", " "])
def test_certificate__of_no_account_is_refused(serve: Serve, people: ClientAuthority, name: str) -> None:
    with serve() as ask:
        shown = people.client(name)
        assert ask(shown) == 403
        assert ask(shown, "GET /", basic("ann")) == 403  # a password does not make another of it


def test_certificate__of_a_disabled_account_is_refused_at_once(
    serve: Serve, people: ClientAuthority, accounts: SideFile
) -> None:
    shown = people.client("ann")
    with serve() as ask:
        assert ask(shown) == 200
        with accounts.write() as tx:
            users.disable_user(tx, "ann", is_disabled=True)
        assert ask(shown) == 403


def test_certificate__that_is_refused_is_told_once_a_minute(
    serve: Serve, people: ClientAuthority, caplog: pytest.LogCaptureFixture
) -> None:
    shown = people.client("carol")
    with serve() as ask:
        assert [ask(shown), ask(shown)] == [403, 403]
    told = [each for each in caplog.messages if each.startswith("certificate refused")]
    assert told == ["certificate refused: address=127.0.0.1 user=carol"]


def test_certificate__of_another_authority_is_refused(serve: Serve, tmp_path: Path) -> None:
    foreign = ClientAuthority(tmp_path, "foreign").client("ann")
    with serve() as ask, pytest.raises((ssl.SSLError, ConnectionError)):
        ask(foreign)
    with serve(requires_client=False) as ask, pytest.raises((ssl.SSLError, ConnectionError)):
        ask(foreign)


def test_certificate__none_where_one_is_required_is_refused(serve: Serve) -> None:
    with serve() as ask, pytest.raises((ssl.SSLError, ConnectionError)):
        ask(None, "GET /", basic("ann"))


def test_certificate__none_where_it_is_optional_needs_a_password(serve: Serve, people: ClientAuthority) -> None:
    with serve(requires_client=False) as ask:
        assert ask(None) == 401
        assert ask(None, "GET /", basic("ann")) == 200
        assert ask(people.client("ann")) == 200


def test_certificate__cannot_be_claimed_in_a_header(serve: Serve) -> None:
    with serve(requires_client=False) as ask:
        claims = ("SSL_CLIENT_VERIFY: SUCCESS", "SSL-Client-Verify: SUCCESS", "SSL-Client-S-DN-CN: ann")
        assert ask(None, "GET /", *claims) in (400, 401)
        assert ask(None, "GET /", *claims[1:]) == 401
