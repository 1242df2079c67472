"""Pages of other origins: kept out, but for those that the configuration names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from davsql.dav.application import make_application
from davsql.dav.request import DavOptions
from davsql.store.store import Store
from tests.accounts.account_steps import gate_of, new_accounts
from tests.live_server import LiveServer, serving, serving_shares

APP = "https://notes.example.org"
OPTIONS = DavOptions(cors_origins=(APP, "capacitor://localhost"))
QUESTION = {"Origin": APP, "Access-Control-Request-Method": "PROPFIND"}


@pytest.fixture
def opened(store: Store) -> Iterator[LiveServer]:
    with serving_shares({"/": store}, dav=OPTIONS) as live:
        yield live


def test_cors__a_preflight_of_the_application_is_granted(opened: LiveServer) -> None:
    asked = "authorization, depth, if-none-match"
    reply = opened.request("OPTIONS", "/missing", headers={**QUESTION, "Access-Control-Request-Headers": asked})
    assert (reply.status, reply.body) == (204, b"")
    assert reply.header("Access-Control-Allow-Origin") == APP
    assert reply.header("Access-Control-Allow-Headers") == asked
    assert "PROPFIND" in str(reply.header("Access-Control-Allow-Methods"))
    assert reply.header("Access-Control-Allow-Credentials") is None
    assert reply.header("Vary") == "Origin"


def test_cors__the_application_reads_and_writes(opened: LiveServer) -> None:
    for method, body, status in (("PUT", b"x", 201), ("GET", None, 200), ("GET", None, 200), ("DELETE", None, 204)):
        reply = opened.request(method, "/a", body, {"Origin": APP})
        assert (reply.status, reply.header("Access-Control-Allow-Origin")) == (status, APP)
        assert reply.header("Access-Control-Expose-Headers") == "*"
    missing = opened.request("GET", "/a", headers={"Origin": APP})
    assert (missing.status, missing.header("Access-Control-Allow-Origin")) == (404, APP)


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", f"{APP}.evil.example", APP.upper(), "null", APP + "/", APP + ":444", f"{APP}, {APP}"],
)
def test_cors__others_stay_outside(opened: LiveServer, origin: str) -> None:
    preflight = opened.request("OPTIONS", "/", headers={**QUESTION, "Origin": origin})
    assert preflight.header("Access-Control-Allow-Origin") is None
    assert opened.request("PUT", "/a", b"x", {"Origin": origin}).status == 403
    reply = opened.request("GET", "/", headers={"Origin": origin})
    assert (reply.header("Access-Control-Allow-Origin"), reply.header("Vary")) == (None, "Origin")


def test_cors__is_off_by_itself(server: LiveServer) -> None:
    reply = server.request("OPTIONS", "/", headers=QUESTION)
    assert reply.status == 200
    assert not [name for name in reply.headers if name.startswith("Access-Control") or name == "Vary"]


def test_cors__an_odd_list_of_headers_is_not_sent_back(opened: LiveServer) -> None:
    reply = opened.request("OPTIONS", "/", headers={**QUESTION, "Access-Control-Request-Headers": "a b; c"})
    assert (reply.status, reply.header("Access-Control-Allow-Headers")) == (204, None)


def test_cors__a_preflight_needs_no_password_and_a_refused_login_can_be_seen(store: Store, tmp_path: Path) -> None:
    with (
        closing(new_accounts(tmp_path)) as accounts,
        serving(make_application({"/": store}, OPTIONS, gate=gate_of(accounts))) as live,
    ):
        assert live.request("OPTIONS", "/", headers=QUESTION).status == 204
        assert live.request("OPTIONS", "/", headers={**QUESTION, "Origin": "https://evil.example"}).status == 401
        refused = live.request("GET", "/", headers={"Origin": APP})
        assert (refused.status, refused.header("Access-Control-Allow-Origin")) == (401, APP)


@pytest.mark.parametrize(
    "origin", ["*", "null", "https://a.example/", "a.example", "https://a.example/path", "https://*.example"]
)
def test_dav_options__refuse_what_is_no_origin(origin: str) -> None:
    with pytest.raises(ValueError, match="cors_origins: expected origins like"):
        DavOptions(cors_origins=(origin,))
