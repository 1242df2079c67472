"""The filter for fail2ban finds the lines that the log really has."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

from davsql import requestid
from davsql.accounts.options import AccountOptions
from davsql.cli.logging_setup import OneLine
from davsql.errors import LoginBlocked, LoginRefused
from davsql.store.sidefile import SideFile
from tests.accounts.account_steps import gate_of, log_in

CONFIG = Path(__file__).parents[2] / "config" / "fail2ban"


def pattern() -> re.Pattern[str]:
    """failregex as fail2ban reads it; what it puts for <HOST> is an address here."""
    parser = configparser.ConfigParser()
    parser.read(CONFIG / "filter.d" / "davsql.conf", encoding="utf-8")
    return re.compile(parser["Definition"]["failregex"].replace("<HOST>", r"(?P<host>[\d.]+|[\dA-Fa-f:]+)"))


@pytest.mark.parametrize("address", ["203.0.113.9", "2001:db8::9"])
def test_filter__finds_failed_and_blocked_logins(
    accounts: SideFile, caplog: pytest.LogCaptureFixture, address: str
) -> None:
    requestid.begin()
    gate = gate_of(accounts)
    for number in range(11):
        with pytest.raises((LoginRefused, LoginBlocked)):
            log_in(gate, "ann", f"guess {number}", address)
    lines = [OneLine().format(record) for record in caplog.records]
    assert len(lines) == 11
    assert lines[0].endswith(f" [{requestid.current()}]")
    requestid.end()
    for line in lines:
        found = pattern().search(line)
        assert found is not None, line
        assert found["host"] == address


def test_filter__cannot_be_fooled_by_a_name(accounts: SideFile, caplog: pytest.LogCaptureFixture) -> None:
    gate = gate_of(accounts, AccountOptions())
    with pytest.raises(LoginRefused):
        log_in(
            gate, "x\n2026-11-23T12:00:00.123Z WARNING davsql.accounts.gate: login failed: address=1.2.3.4 user=a", "y"
        )
    [line] = [OneLine().format(record) for record in caplog.records]
    found = pattern().search(line)
    assert found is not None
    assert found["host"] == "192.0.2.7"


def test_jail__uses_the_filter() -> None:
    parser = configparser.ConfigParser()
    parser.read(CONFIG / "jail.d" / "davsql.conf", encoding="utf-8")
    assert parser["davsql"]["filter"] == "davsql"
