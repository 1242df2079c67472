"""Who the client is: what trusted proxies say is believed, what others say is not."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from davsql.dav.peer import PROXIED_KEY, Peers, ProxyOptions, href_of_base, is_private
from davsql.dav.responses import HttpError
from davsql.networks import plain_address

CLIENT = "203.0.113.9"
PROXIES = ("192.0.2.0/24", "2001:db8::/32")


def settled(options: ProxyOptions, peer: str, **headers: str) -> dict[str, Any]:
    """environ after `settle`."""
    environ = {"REMOTE_ADDR": peer, "wsgi.url_scheme": "http", "HTTP_HOST": "inside:8080"}
    environ |= {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    Peers(options).settle(environ)
    return environ


def seen(options: ProxyOptions, peer: str, **headers: str) -> tuple[str, str, str]:
    """Address, scheme and host of the client."""
    environ = settled(options, peer, **headers)
    return environ["REMOTE_ADDR"], environ["wsgi.url_scheme"], environ["HTTP_HOST"]


X = ProxyOptions(trusted_proxies=PROXIES)
RFC_7239 = ProxyOptions(trusted_proxies=PROXIES, forwarded_header="Forwarded")


def test_settle__believes_a_trusted_proxy() -> None:
    said = {"x_forwarded_for": CLIENT, "x_forwarded_proto": "https", "x_forwarded_host": "dav.example.org"}
    assert seen(X, "192.0.2.1", **said) == (CLIENT, "https", "dav.example.org")
    assert seen(X, "::ffff:192.0.2.1", **said) == (CLIENT, "https", "dav.example.org")
    assert settled(X, "192.0.2.1", **said)[PROXIED_KEY] is True


@pytest.mark.parametrize("peer", ["198.51.100.1", "127.0.0.1", "::1"])
def test_settle__believes_nobody_else(peer: str) -> None:
    said = {"x_forwarded_for": CLIENT, "x_forwarded_proto": "https", "x_forwarded_host": "evil.example"}
    forwarded = {"forwarded": f"for={CLIENT};proto=https;host=evil.example"}
    for options, headers in ((X, said), (RFC_7239, forwarded), (ProxyOptions(), said)):
        environ = settled(options, peer, **headers)
        assert (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]) == (peer, "http")
        assert (environ["HTTP_HOST"], environ[PROXIED_KEY]) == ("inside:8080", False)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (CLIENT, CLIENT),
        (f"1.1.1.1, {CLIENT}", CLIENT),  # the client wrote the first one
        (f"1.1.1.1, {CLIENT}, 192.0.2.9", CLIENT),  # two proxies
        (f"{CLIENT}:4711", CLIENT),
        ("[2001:db9::9]:4711", "2001:db9::9"),
        ("2001:db9::9", "2001:db9::9"),
        ("192.0.2.8, 192.0.2.9", "192.0.2.8"),  # nothing but proxies
        ("unknown", "192.0.2.1"),
        ("", "192.0.2.1"),
        ("1.1.1.1, nonsense", "192.0.2.1"),
    ],
)
def test_settle__takes_the_last_address_that_is_no_proxy(value: str, expected: str) -> None:
    assert seen(X, "192.0.2.1", x_forwarded_for=value)[0] == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (f"for={CLIENT};proto=https;host=dav.example.org", (CLIENT, "https", "dav.example.org")),
        (f'For="{CLIENT}:47"; Proto=HTTPS', (CLIENT, "https", "inside:8080")),
        ('for="[2001:db9::9]:47";host="a.example:8443"', ("2001:db9::9", "http", "a.example:8443")),
        (f"for=1.1.1.1;proto=https, for={CLIENT};proto=http", (CLIENT, "http", "inside:8080")),
        (f"for={CLIENT};proto=https, for=192.0.2.9;proto=http", (CLIENT, "https", "inside:8080")),
        (f'for="1.1.1.1, for=2.2.2.2", for={CLIENT}', (CLIENT, "http", "inside:8080")),
        ("for=_hidden;proto=https", ("192.0.2.1", "https", "inside:8080")),
        (f'for={CLIENT};host="evil example/x"', (CLIENT, "http", "inside:8080")),
        ('for="', ("192.0.2.1", "http", "inside:8080")),
        # What the client wrote must not swallow, or speak for, what the proxy has written after it.
        ('for="x, for="[2001:db9::9]:47"', ("2001:db9::9", "http", "inside:8080")),
        ('for=1.1.1.1;x="y, for="[2001:db9::9]:47";proto=http', ("2001:db9::9", "http", "inside:8080")),
        (f'for={CLIENT};host="a;for=1.1.1.1;proto=https"', (CLIENT, "http", "inside:8080")),
        (f'for={CLIENT};host="a, for=1.1.1.1;proto=https"', ("192.0.2.1", "http", "inside:8080")),
        (";;,,=", ("192.0.2.1", "http", "inside:8080")),
    ],
)
def test_settle__reads_forwarded(value: str, expected: tuple[str, str, str]) -> None:
    assert seen(RFC_7239, "192.0.2.1", forwarded=value) == expected


def test_settle__the_header_that_the_proxy_does_not_set_is_the_clients_own() -> None:
    assert seen(X, "192.0.2.1", forwarded=f"for={CLIENT};proto=https") == ("192.0.2.1", "http", "inside:8080")
    assert seen(RFC_7239, "192.0.2.1", x_forwarded_for=CLIENT, x_forwarded_proto="https")[1] == "http"


def test_settle__long_headers_are_read_in_no_time() -> None:
    for value in ("for=" * 10_000, '"' * 50_000, "\\" * 50_000, 'for="' + "\\" * 50_000, ",;" * 20_000, " " * 60_000):
        seen(RFC_7239, "192.0.2.1", forwarded=value)
        seen(X, "192.0.2.1", x_forwarded_for=value, x_forwarded_host=value, x_forwarded_proto=value)


@settings(max_examples=300, deadline=None)
@given(st.text('forphst=;,":[]\\\\12.:x ', max_size=60), st.text(max_size=40))
def test_settle__always_leaves_an_address_a_scheme_and_a_host(forwarded: str, other: str) -> None:
    for options in (X, RFC_7239):
        said = {"forwarded": forwarded, "x_forwarded_for": forwarded, "x_forwarded_proto": other}
        address, scheme, host = seen(options, "192.0.2.1", **said, x_forwarded_host=other)
        assert plain_address(address) == address
        assert scheme in ("http", "https")
        assert host == "inside:8080" or "/" not in host


def test_is_private__is_tls_or_this_machine() -> None:
    assert is_private(settled(X, "127.0.0.1"))
    assert is_private(settled(X, "192.0.2.1", x_forwarded_for=CLIENT, x_forwarded_proto="https"))
    assert not is_private(settled(X, "192.0.2.1", x_forwarded_for=CLIENT, x_forwarded_proto="http"))
    assert not is_private(settled(X, CLIENT))
    local_proxy = ProxyOptions(trusted_proxies=("127.0.0.1",))
    assert not is_private(settled(local_proxy, "127.0.0.1", x_forwarded_for=CLIENT))
    assert is_private(settled(local_proxy, "127.0.0.1"))  # who logs in at this machine, past the proxy


@pytest.mark.parametrize(
    "said",
    [
        {"x_forwarded_for": "unknown"},
        {"x_forwarded_for": ""},
        {"x_forwarded_proto": "http"},
        {"forwarded": "for=_hidden"},
        {"forwarded": 'for="'},
    ],
)
def test_is_private__a_client_that_its_proxy_does_not_name_is_elsewhere(said: dict[str, str]) -> None:
    """The proxy being on this machine says nothing of how the password came to it."""
    for header in ("X-Forwarded-For", "Forwarded"):
        options = ProxyOptions(trusted_proxies=("127.0.0.1",), forwarded_header=header)
        assert not is_private(settled(options, "127.0.0.1", **said))
    assert is_private(settled(options, "127.0.0.1", forwarded="for=_hidden;proto=https"))


def test_settle__warns_once_of_a_local_proxy_that_is_not_named(caplog: pytest.LogCaptureFixture) -> None:
    peers = Peers(ProxyOptions())
    with caplog.at_level(logging.WARNING, "davsql"):
        for _ in range(3):
            peers.settle({"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": CLIENT})
    assert ["trusted_proxies" in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.parametrize(
    "url",
    [
        *("dav.example.org", "ftp://x", "https://u@x", "https://", "https://a b", "https://x?a", "https://x/a?b"),
        *("https://x/a#b", "https://x/../a", "https://x/%zz", "https://x/a%2Fb"),
    ],
)
def test_proxy_options__public_url_has_a_scheme_a_host_and_a_path(url: str) -> None:
    with pytest.raises(ValueError, match=r"^public_url: "):
        ProxyOptions(public_url=url)


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("https://[2001:db8::1]:8443/", ""),
        ("https://example.org", ""),
        ("https://example.org/files", "/files"),
        ("https://example.org/my%20files//caf%c3%a9/", "/my%20files/caf%C3%A9"),
    ],
)
def test_proxy_options__the_path_of_the_public_url_is_where_all_begins(url: str, base: str) -> None:
    assert href_of_base(ProxyOptions(public_url=url).base) == base


# --- the names of this server -------------------------------------------------------------------------------------


def is_own(peers: Peers, host: str | None, peer: str = CLIENT) -> bool:
    """Whether a request for this host is let in."""
    environ = {"REMOTE_ADDR": peer} | ({} if host is None else {"HTTP_HOST": host})
    peers.settle(environ)
    try:
        peers.require_host(environ)
    except HttpError as error:
        return error.status != 421
    return True


def test_require_host__knows_the_names_of_the_configuration() -> None:
    peers = Peers(ProxyOptions(hosts=("Drive.example", "10.0.0.1", "[::1]"), public_url="https://dav.example:444"))
    own = ["drive.example", "DRIVE.example:8080", "drive.example.", "10.0.0.1:80", "[::1]:80", "[0::1]", "dav.example"]
    for host in own:
        assert is_own(peers, host), host
    assert not is_own(peers, None)
    for host in ("", "evil.example", "drive.example.evil", "xdrive.example", "10.0.0.2", "localhost", "drive"):
        assert not is_own(peers, host), host


def test_require_host__takes_any_name_where_there_are_accounts() -> None:
    assert is_own(Peers(ProxyOptions()), "any.example")


def test_require_host__without_accounts_takes_what_no_stranger_can_name() -> None:
    peers = Peers(ProxyOptions(trusted_proxies=PROXIES), is_open=True)
    for host in (
        None,
        "localhost",
        "localhost:8080",
        "a.localhost",
        "127.0.0.1:1",
        "192.0.2.1",
        "[::1]",
        "[fe80::1]:80",
    ):
        assert is_own(peers, host), host
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "evil.example:80", "0x7f.1"):
        assert not is_own(peers, host), host
        assert is_own(peers, host, peer="192.0.2.9"), "a trusted proxy looks after names itself"


@pytest.mark.parametrize("host", ["https://a.example", "a.example:80", "a/b", "", "*", "a..b"])
def test_proxy_options__refuse_what_is_no_host(host: str) -> None:
    with pytest.raises(ValueError, match="hosts: expected names or addresses"):
        ProxyOptions(hosts=(host,))
