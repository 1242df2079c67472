"""Authentication through the real server: who gets in, and what the others are told."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from davsql.accounts import users
from davsql.accounts.options import AccountOptions
from davsql.dav.application import make_application
from davsql.dav.authentication import parse_credentials
from davsql.dav.peer import ProxyOptions
from davsql.dav.request import PRINCIPAL_KEY, DavOptions
from davsql.errors import LoginRefused
from davsql.model import Principal
from davsql.store.sidefile import SideFile
from davsql.store.store import Store
from tests.accounts.account_steps import PASSWORD, add_token, basic, bearer, gate_of, new_accounts
from tests.live_server import LiveServer, serving

METHODS = [
    "OPTIONS",
    "GET",
    "HEAD",
    "PUT",
    "DELETE",
    "MKCOL",
    "COPY",
    "MOVE",
    "PROPFIND",
    "PROPPATCH",
    "LOCK",
    "UNLOCK",
]
CLIENT = "203.0.113.9"

Serve = Callable[..., AbstractContextManager[LiveServer]]


@pytest.fixture
def accounts(tmp_path: Any) -> Iterator[SideFile]:
    file = new_accounts(tmp_path)
    yield file
    file.close()


@pytest.fixture
def serve(store: Store, accounts: SideFile) -> Serve:
    """Serve the store at "/"; `peer` is where connections seem to come from."""

    @contextmanager
    def start(
        options: AccountOptions | None = None, proxy: ProxyOptions | None = None, peer: str | None = None
    ) -> Iterator[LiveServer]:
        application = make_application({"/": store}, DavOptions(), gate=gate_of(accounts, options), proxy=proxy)

        def from_peer(environ: dict[str, Any], start_response: Any) -> Any:
            environ["REMOTE_ADDR"] = peer or environ["REMOTE_ADDR"]
            return application(environ, start_response)

        with serving(from_peer) as server:
            yield server

    return start


@pytest.fixture
def server(serve: Serve) -> Iterator[LiveServer]:
    with serve() as live:
        yield live


def test_every_method__needs_an_account(server: LiveServer) -> None:
    for method in (*METHODS, "PATCH", "POST"):
        reply = server.request(method, "/a.txt", b"x" if method == "PUT" else None)
        assert reply.status == 401, method
        assert reply.header("WWW-Authenticate") == 'Basic realm="davsql", charset="UTF-8"'
        assert (reply.header("DAV") or "").startswith("1, 2, 3"), "Finder asks before it logs in"
    assert server.request("GET", "/a.txt", headers=basic("ann", PASSWORD)).status == 404


def test_put__unauthenticated_body_is_not_stored(server: LiveServer) -> None:
    assert server.request("PUT", "/a.txt", b"x" * 100_000, basic("ann", "wrong")).status == 401
    assert server.request("GET", "/a.txt", headers=basic("ann", PASSWORD)).status == 404


def test_right_credentials__let_in(server: LiveServer, accounts: SideFile) -> None:
    token = add_token(accounts, "ann")
    for number, headers in enumerate((basic("ann", PASSWORD), basic("Ann", token), basic("", token), bearer(token))):
        assert server.request("PUT", f"/{number}", b"x", headers).status == 201


MALFORMED = [
    "",
    "Basic",
    "Basic ",
    "Basic !!!",
    "Basic YW5u",  # no colon
    "Basic " + base64.b64encode(b"ann:correct horse\0").decode(),
    "Basic " + base64.b64encode(b"\0:x").decode(),
    "Basic " + base64.b64encode(b"\xff\xfe\xfd:\xff").decode(),
    "Basic " + base64.b64encode(b":").decode(),
    "Basic " + base64.b64encode(b"x" * 40_000).decode(),
    "Basic \xe9",
    "Basic QUFBQUFB QUFB",
    'Digest username="ann", realm="davsql", nonce="x", uri="/", response="y"',
    "Bearer",
    "Bearer x y z",
    "Negotiate abc",
    "correct horse",
]


def test_malformed_credentials__are_401(server: LiveServer) -> None:
    for value in MALFORMED:
        for target in ("/", "/?logout"):
            reply = server.request("GET", target, headers={"Authorization": value})
            assert reply.status == 401, value
            scheme = "Bearer" if value.startswith("Bearer ") else "Basic"
            assert str(reply.header("WWW-Authenticate")).startswith(f'{scheme} realm="davsql"')


def test_query__does_not_log_anybody_out(server: LiveServer) -> None:
    assert server.request("GET", "/?logout", headers=basic("ann", PASSWORD)).status == 200


def test_paths_that_cannot_be__say_nothing_of_what_there_is(server: LiveServer) -> None:
    assert server.request("GET", "/../x").status == 400
    assert server.request("GET", "/%2e%2e/x").status == 400


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_parse_credentials__takes_both_encodings(encoding: str) -> None:
    raw = base64.b64encode("zo\u00e9:caf\u00e9: x".encode(encoding)).decode()
    assert parse_credentials(f"bAsIc   {raw} ") == ("zo\u00e9", "caf\u00e9: x")
    assert parse_credentials(f"Basic {raw.rstrip('=')}") == ("zo\u00e9", "caf\u00e9: x")
    with pytest.raises(LoginRefused):
        parse_credentials(f"Basic{raw}")


@settings(max_examples=300, deadline=None)
@given(
    st.text(st.characters(max_codepoint=255))
    | st.builds("{} {}".format, st.sampled_from(["Basic", "basic", "Bearer", "Digest"]), st.text(max_size=50))
    | st.binary(max_size=50).map(lambda raw: "Basic " + base64.b64encode(raw).decode())
)
def test_parse_credentials__understands_or_refuses(header: str) -> None:
    try:
        credentials = parse_credentials(header)
    except LoginRefused:
        return
    assert "\0" not in (credentials.name or "")
    assert ":" not in (credentials.name or "")


def test_accounts__that_change_count_at_the_next_request(server: LiveServer, accounts: SideFile) -> None:
    with server.client() as client:
        assert client.request("GET", "/", headers=basic("bob", PASSWORD)).status == 200
        with accounts.write() as tx:
            users.disable_user(tx, "bob", is_disabled=True)
        assert client.request("GET", "/", headers=basic("bob", PASSWORD)).status == 401
        with accounts.write() as tx:
            users.disable_user(tx, "bob", is_disabled=False)
        assert client.request("GET", "/", headers=basic("bob", PASSWORD)).status == 200


def test_guessing__is_429_with_a_time_to_wait(server: LiveServer) -> None:
    statuses = [server.request("GET", "/", headers=basic("ann", f"guess {number}")).status for number in range(11)]
    assert statuses == [401] * 10 + [429]
    reply = server.request("GET", "/", headers=basic("ann", "another"))
    assert (reply.status, reply.header("WWW-Authenticate")) == (429, None)
    assert int(str(reply.header("Retry-After"))) in (1, 2)


def test_damaged_accounts__let_nobody_in_and_are_logged(
    server: LiveServer, accounts: SideFile, caplog: pytest.LogCaptureFixture
) -> None:
    assert server.request("GET", "/", headers=basic("ann", PASSWORD)).status == 200
    with accounts.write() as tx:
        tx.change("DELETE FROM state")
    reply = server.request("GET", "/", headers=basic("ann", PASSWORD))
    assert reply.status == 500
    assert str(accounts.file) not in reply.text
    assert "nobody can log in" in caplog.text


def test_environ__has_the_principal(store: Store, accounts: SideFile) -> None:
    application = make_application({"/": store}, DavOptions(), gate=gate_of(accounts))
    seen: dict[str, Any] = {}

    def spy(environ: dict[str, Any], start_response: Any) -> Any:
        seen["environ"] = environ
        return application(environ, start_response)

    with serving(spy) as server:
        assert server.request("GET", "/", headers=basic("ANN", PASSWORD)).status == 200
    assert seen["environ"][PRINCIPAL_KEY] == Principal("ann", frozenset({"family"}))
    assert seen["environ"]["REMOTE_USER"] == "ann"


# --- the way to the server -----------------------------------------------------------------------------------------


@pytest.mark.skipif("DAVSQL_TEST_TLS" in os.environ, reason="is about plain HTTP")
def test_plain_http__from_elsewhere_is_refused_and_no_password_asked_for(serve: Serve) -> None:
    with serve(peer=CLIENT) as server:
        for headers in ({}, basic("ann", PASSWORD), {"X-Forwarded-Proto": "https"}, {"X-Forwarded-For": "127.0.0.1"}):
            reply = server.request("GET", "/", headers=headers)
            assert (reply.status, reply.header("WWW-Authenticate")) == (403, None)
            assert "use https://" in reply.text


def test_plain_http__can_be_allowed(serve: Serve) -> None:
    with serve(AccountOptions(allow_plain_http=True), peer=CLIENT) as server:
        assert server.request("GET", "/").status == 401
        assert server.request("GET", "/", headers=basic("ann", PASSWORD)).status == 200


def test_tls_of_a_trusted_proxy__is_tls(serve: Serve) -> None:
    with serve(proxy=ProxyOptions(trusted_proxies=("192.0.2.1",)), peer="192.0.2.1") as server:
        said = {"X-Forwarded-For": CLIENT, "X-Forwarded-Proto": "https"}
        assert server.request("GET", "/", headers=said).status == 401
        assert server.request("GET", "/", headers=said | basic("ann", PASSWORD)).status == 200
        plain = said | {"X-Forwarded-Proto": "http"}
        assert server.request("GET", "/", headers=plain | basic("ann", PASSWORD)).status == 403


def test_backoff__counts_the_client_and_not_the_proxy(serve: Serve) -> None:
    with serve(proxy=ProxyOptions(trusted_proxies=("127.0.0.1",))) as server:

        def get(client: str, name: str, password: str) -> int:
            said = {"X-Forwarded-For": f"1.2.3.4, {client}", "X-Forwarded-Proto": "https"}
            return server.request("GET", "/", headers=said | basic(name, password)).status

        for number in range(20):
            assert get(CLIENT, f"name{number}", "guess") == 401
        assert get(CLIENT, "ann", PASSWORD) == 429
        assert get("203.0.113.10", "ann", PASSWORD) == 200


TRUSTING = AccountOptions(trusted_user_header="X-Remote-User")


def test_user_header__is_believed_from_a_trusted_proxy_only(serve: Serve, accounts: SideFile) -> None:
    claim = {"X-Remote-User": "ann"}
    with serve(TRUSTING, ProxyOptions(trusted_proxies=("192.0.2.1",)), "192.0.2.1") as server:
        assert server.request("GET", "/", headers=claim).status == 200
        assert server.request("GET", "/", headers={"X-Remote-User": "zo\u00e9"}).status == 200
        assert server.request("GET", "/", headers={"X-Remote-User": "../x"}).status == 401
        assert server.request("GET", "/").status == (403 if server.scheme == "http" else 401)
        with accounts.write() as tx:
            users.disable_user(tx, "ann", is_disabled=True)
        assert server.request("GET", "/", headers=claim).status == 401
    for options, proxy, peer in (
        (TRUSTING, ProxyOptions(trusted_proxies=("192.0.2.1",)), None),
        (TRUSTING, ProxyOptions(), None),
        (AccountOptions(), ProxyOptions(trusted_proxies=("127.0.0.1",)), None),
    ):
        with serve(options, proxy, peer) as server:
            assert server.request("GET", "/", headers=claim).status == 401


def test_destination__may_have_the_names_that_clients_know(serve: Serve) -> None:
    proxy = ProxyOptions(trusted_proxies=("127.0.0.1",), public_url="https://dav.example.org")
    with serve(proxy=proxy) as server:

        def copy(destination: str, **said: str) -> int:
            headers = {each.replace("_", "-"): value for each, value in said.items()}
            headers |= {"Destination": destination, "Overwrite": "T"} | basic("ann", PASSWORD)
            return server.request("COPY", "/a", headers=headers).status

        assert server.request("PUT", "/a", b"x", basic("ann", PASSWORD)).status == 201
        assert copy("https://dav.example.org/b") == 201
        assert copy("https://dav.example.org:443/b") == 204
        assert copy("https://other.example/b") == 502
        assert copy("https://other.example/b", X_Forwarded_For=CLIENT, X_Forwarded_Proto="https") == 502
        said = {"X_Forwarded_For": CLIENT, "X_Forwarded_Proto": "https", "X_Forwarded_Host": "other.example"}
        assert copy("https://other.example/b", **said) == 204
        assert copy("/b") == 204


def test_authentication__comes_before_the_body_is_asked_for(server: LiveServer) -> None:
    reply = server.exchange(
        b"PUT /f HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    )
    assert reply.startswith(b"HTTP/1.1 401 ")
