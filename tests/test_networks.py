from __future__ import annotations

import pytest

from davsql.networks import Networks, checked_networks, is_local, neighbourhood, plain_address


@pytest.mark.parametrize("address", ["10.1.2.3", "::ffff:10.1.2.3", "192.0.2.7", "fd00::1", "fd00::1%eth0"])
def test_networks__hold_their_addresses(address: str) -> None:
    assert address in Networks(["10.0.0.0/8", "192.0.2.7", "fd00::/8"])


@pytest.mark.parametrize("address", ["11.1.2.3", "192.0.2.8", "2001:db8::1", "", "nobody", "10.1.2.3:80"])
def test_networks__hold_no_others(address: str) -> None:
    assert address not in Networks(["10.0.0.0/8", "192.0.2.7", "fd00::/8"])
    assert address not in Networks([])


@pytest.mark.parametrize("text", ["10.0.0.0/33", "localhost", "", "10.0.0"])
def test_checked_networks__names_setting_and_value(text: str) -> None:
    with pytest.raises(ValueError, match=f"^never_blocked: expected addresses or networks .* found {text!r}"):
        checked_networks("never_blocked", ["10.0.0.0/8", text])


def test_plain_address__has_one_form() -> None:
    assert plain_address("::ffff:192.0.2.7") == "192.0.2.7"
    assert plain_address("2001:DB8:0::1") == "2001:db8::1"
    assert plain_address("unknown") is None


def test_neighbourhood__is_what_one_customer_has() -> None:
    assert neighbourhood("192.0.2.7") == "192.0.2.7"
    assert neighbourhood("2001:db8:1:2:3::4") == "2001:db8:1:2::/64"
    assert neighbourhood("?") == "?"


@pytest.mark.parametrize(
    ("address", "expected"), [("127.3.2.1", True), ("::1", True), ("10.0.0.1", False), ("", False)]
)
def test_is_local__is_loopback_only(address: str, *, expected: bool) -> None:
    assert is_local(address) is expected
