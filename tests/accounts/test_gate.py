"""Logins: who is let in, what is remembered and for how long."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from davsql.accounts import tokens, users
from davsql.accounts.attempts import OF_ADDRESS, OF_NAME, OF_NAME_AND_ADDRESS
from davsql.accounts.file import open_accounts
from davsql.accounts.memory import Memory
from davsql.accounts.options import AccountOptions
from davsql.accounts.passwords import Passwords
from davsql.accounts.tokens import TokenLimits
from davsql.errors import LoginBlocked, LoginRefused, StoreError
from davsql.model import Principal
from davsql.paths import DavPath
from davsql.store.sidefile import SideFile
from davsql.store.transaction import WriteTx
from tests.accounts.account_steps import ELSEWHERE, HOME, PASSWORD, add_token, cheap_passwords, gate_of, log_in

FREE = OF_NAME_AND_ADDRESS.free
HOUR_NS = 3600 * 10**9


class Counted(Passwords):
    """Counts the hashes that were compared."""

    def __init__(self) -> None:
        super().__init__(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        self.of: list[str | None] = []

    def verify(self, password_hash: str | None, password: str) -> bool:
        self.of.append(password_hash)
        return super().verify(password_hash, password)


def test_admit__a_password_gives_name_and_groups(accounts: SideFile) -> None:
    assert log_in(gate_of(accounts), "ANN", PASSWORD) == Principal("ann", frozenset({"family"}))


@pytest.mark.parametrize(
    ("name", "secret"),
    [("ann", "wrong"), ("ann", ""), ("ann", PASSWORD + "\0"), ("ann", "x" * 5000), ("eve", PASSWORD), ("", PASSWORD)],
)
def test_admit__refuses_what_is_wrong(accounts: SideFile, name: str, secret: str) -> None:
    with pytest.raises(LoginRefused):
        log_in(gate_of(accounts), name, secret)


def test_admit__unknown_names_take_the_way_of_known_ones(accounts: SideFile) -> None:
    passwords = Counted()
    gate = gate_of(accounts, passwords=passwords)
    for name in ("ann", "eve"):
        with pytest.raises(LoginRefused):
            log_in(gate, name, "wrong")
    assert [each is None for each in passwords.of] == [False, True]


def test_recall__hashes_once_and_forgets_after_a_while(accounts: SideFile) -> None:
    passwords = Counted()
    gate = gate_of(accounts, passwords=passwords)
    for _ in range(5):
        log_in(gate, "ann", PASSWORD)
    assert len(passwords.of) == 1
    forgetful = gate_of(accounts, AccountOptions(cache_s=0), passwords)
    for _ in range(2):
        log_in(forgetful, "ann", PASSWORD)
    assert len(passwords.of) == 3


def test_recall__the_same_wrong_password_is_neither_hashed_nor_counted_again(accounts: SideFile) -> None:
    passwords = Counted()
    gate = gate_of(accounts, passwords=passwords)
    for _ in range(50):  # a telephone with the password of last year
        with pytest.raises(LoginRefused):
            log_in(gate, "ann", "password of last year")
    assert len(passwords.of) == 1
    assert log_in(gate, "ann", PASSWORD).name == "ann"


def test_memory__is_of_one_generation_and_bounded_in_time() -> None:
    memory: Memory[str] = Memory(idle_s=60)
    memory.keep("a", "answer", generation=3)
    assert memory.recall("a", 3) == "answer"
    assert memory.recall("a", 4) is None
    assert memory.recall("b", 3) is None
    memory.keep("a", "answer", 3, age_s=-1)
    assert memory.recall("a", 3) is None


def test_memory__keeps_no_credential(accounts: SideFile) -> None:
    memory: Memory[str] = Memory()
    memory.keep("Basic secret", "answer", generation=1)
    assert "secret" not in repr(vars(memory))


CHANGES: dict[str, Callable[[WriteTx], object]] = {
    "password": lambda tx: users.set_password(tx, "ann", cheap_passwords().hash("another password")),
    "disabled": lambda tx: users.disable_user(tx, "ann", is_disabled=True),
    "removed": lambda tx: users.remove_user(tx, "ann"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_recall__a_change_by_another_connection_counts_at_once(accounts: SideFile, change: str) -> None:
    gate = gate_of(accounts)
    token = add_token(accounts, "ann")
    log_in(gate, "ann", PASSWORD)
    log_in(gate, "ann", token)
    other = open_accounts(accounts.file)
    with other.write() as tx:
        CHANGES[change](tx)
    other.close()
    with pytest.raises(LoginRefused):
        log_in(gate, "ann", PASSWORD)
    if change != "password":
        with pytest.raises(LoginRefused):
            log_in(gate, "ann", token)


def test_recall__groups_are_those_of_now(accounts: SideFile) -> None:
    gate = gate_of(accounts)
    log_in(gate, "bob", PASSWORD)
    with accounts.write() as tx:
        users.change_groups(tx, "bob", add=("family",))
    assert log_in(gate, "bob", PASSWORD).groups == {"family"}


@pytest.mark.parametrize("name", ["ann", "Ann", "", None])
def test_admit__a_token_is_its_owner_with_its_limits(accounts: SideFile, name: str | None) -> None:
    limits = TokenLimits(is_read_only=True, share="photos", path=DavPath(("x",)))
    secret = add_token(accounts, "ann", "laptop", limits)
    found = log_in(gate_of(accounts), name, secret)
    assert found == Principal("ann", frozenset({"family"}), is_read_only=True, share="photos", path=DavPath(("x",)))


def test_admit__a_token_is_of_its_owner_only(accounts: SideFile) -> None:
    secret = add_token(accounts, "ann")
    for name, token in (("bob", secret), ("ann", secret[:-1]), (None, ""), (None, PASSWORD)):
        with pytest.raises(LoginRefused):
            log_in(gate_of(accounts), name, token)


def test_recall__a_revoked_token_is_refused_at_once(accounts: SideFile) -> None:
    gate = gate_of(accounts)
    secret = add_token(accounts, "ann")
    log_in(gate, None, secret)
    with accounts.write() as tx:
        tokens.revoke_token(tx, "laptop")
    with pytest.raises(LoginRefused):
        log_in(gate, None, secret)


def test_recall__a_token_that_expires_is_not_remembered_longer(accounts: SideFile) -> None:
    gate = gate_of(accounts)
    secret = add_token(accounts, "ann", "short", TokenLimits(expires_at=time.time_ns() + 300_000_000))
    assert log_in(gate, None, secret).name == "ann"
    time.sleep(0.35)
    with pytest.raises(LoginRefused):
        log_in(gate, None, secret)
    with accounts.snapshot() as tx:
        assert [token.name for token in tokens.list_tokens(tx)] == ["short"]


def test_admit__notes_the_last_use_once_an_hour(accounts: SideFile) -> None:
    secret = add_token(accounts, "ann")
    gate = gate_of(accounts, AccountOptions(cache_s=0))

    def times() -> tuple[int | None, int | None]:
        with accounts.snapshot() as tx:
            return users.find_user(tx, "ann").last_login_at, tokens.list_tokens(tx)[0].last_used_at

    assert times() == (None, None)
    log_in(gate, "ann", PASSWORD)
    log_in(gate, None, secret)
    first = times()
    assert None not in first
    log_in(gate, "ann", PASSWORD)
    log_in(gate, None, secret)
    assert times() == first
    with accounts.write() as tx:
        tx.change("UPDATE users SET last_login_at = last_login_at - ?", (2 * HOUR_NS,))
        tx.change("UPDATE tokens SET last_used_at = last_used_at - ?", (2 * HOUR_NS,))
    log_in(gate, "ann", PASSWORD)
    log_in(gate, None, secret)
    assert all(now is not None and then is not None and now > then for now, then in zip(times(), first, strict=True))


def test_admit__a_cheap_hash_becomes_as_costly_as_new_ones(accounts: SideFile) -> None:
    costlier = Passwords(PasswordHasher(time_cost=2, memory_cost=16, parallelism=1))
    gate = gate_of(accounts, passwords=costlier)
    log_in(gate, "ann", PASSWORD)
    with accounts.snapshot() as tx:
        hashed = str(tx.value("SELECT password_hash FROM users WHERE key = 'ann'"))
    assert "m=16,t=2" in hashed
    assert log_in(gate, "ann", PASSWORD).name == "ann"


def test_vouched__knows_accounts_and_takes_others_without_groups(accounts: SideFile) -> None:
    gate = gate_of(accounts)
    assert gate.vouched("ANN") == Principal("ann", frozenset({"family"}))
    assert gate.vouched("carol@example.org") == Principal("carol@example.org")
    with accounts.write() as tx:
        users.disable_user(tx, "ann", is_disabled=True)
    for name in ("ann", "a b", "../x", ""):
        with pytest.raises(LoginRefused):
            gate.vouched(name)


def test_gate__a_file_that_cannot_be_read_lets_nobody_in(accounts: SideFile) -> None:
    gate = gate_of(accounts)
    log_in(gate, "ann", PASSWORD)
    with accounts.write() as tx:
        tx.change("DELETE FROM state")
    with pytest.raises(StoreError):
        log_in(gate, "ann", PASSWORD)


def test_admit__decides_when_nothing_can_be_written(accounts: SideFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("davsql.store.sidefile.BUSY_TIMEOUT_MS", 10)
    other = open_accounts(accounts.file)
    gate = gate_of(other)
    with accounts.write():  # somebody else writes, and takes long
        with pytest.raises(LoginRefused):
            log_in(gate, "ann", "wrong")
        assert log_in(gate, "ann", PASSWORD).name == "ann"
    other.close()


# --- brute force ---------------------------------------------------------------------------------------------------


def guess(accounts: SideFile, times: int, name: str | None = "ann", address: str = ELSEWHERE) -> None:
    """So many different wrong passwords; each gate is new, as in another process."""
    gate = gate_of(accounts)
    for number in range(times):
        with pytest.raises(LoginRefused):
            log_in(gate, name, f"guess {number}", address)


def test_backoff__is_shared_by_all_processes_and_grows(accounts: SideFile) -> None:
    guess(accounts, FREE)
    waits = []
    for number in range(4):
        with pytest.raises(LoginBlocked) as blocked:
            log_in(gate_of(accounts), "ann", f"another guess {number}", ELSEWHERE)
        waits.append(blocked.value.retry_after_s)
        with accounts.write() as tx:  # let the time pass
            tx.change("UPDATE failures SET blocked_until = blocked_until - ?", (waits[-1] * 10**9,))
        with pytest.raises(LoginRefused):
            log_in(gate_of(accounts), "ann", f"another guess {number}", ELSEWHERE)
    assert waits == [1, 2, 4, 8]


def test_backoff__even_the_right_password_waits_and_nothing_is_hashed(accounts: SideFile) -> None:
    guess(accounts, FREE)
    passwords = Counted()
    with pytest.raises(LoginBlocked):
        log_in(gate_of(accounts, passwords=passwords), "ann", PASSWORD, ELSEWHERE)
    assert passwords.of == []


def test_backoff__does_not_lock_out_the_owner(accounts: SideFile) -> None:
    remembered, token = gate_of(accounts), add_token(accounts, "ann")
    log_in(remembered, "ann", PASSWORD, ELSEWHERE)  # the same address as the attacker's
    guess(accounts, FREE)
    with pytest.raises(LoginBlocked):
        guess(accounts, 1)
    assert log_in(remembered, "ann", PASSWORD, ELSEWHERE).name == "ann"
    assert log_in(gate_of(accounts), "ann", PASSWORD, HOME).name == "ann"
    assert log_in(gate_of(accounts), "ann", token, ELSEWHERE).name == "ann"


def test_backoff__many_addresses_slow_unknown_ones_only(accounts: SideFile) -> None:
    log_in(gate_of(accounts), "ann", PASSWORD, HOME)
    for number in range(OF_NAME.free):
        guess(accounts, 1, address=f"198.51.100.{number}")
    with pytest.raises(LoginBlocked) as blocked:
        log_in(gate_of(accounts), "ann", PASSWORD, ELSEWHERE)
    assert blocked.value.retry_after_s <= 60
    assert log_in(gate_of(accounts), "ann", PASSWORD, HOME).name == "ann"
    assert log_in(gate_of(accounts), "bob", PASSWORD, ELSEWHERE).name == "bob"


def test_backoff__one_address_that_tries_many_names_is_slowed(accounts: SideFile) -> None:
    log_in(gate_of(accounts), "bob", PASSWORD, ELSEWHERE)
    for number in range(OF_ADDRESS.free):
        guess(accounts, 1, name=f"name{number}")
    with pytest.raises(LoginBlocked):
        log_in(gate_of(accounts), "ann", PASSWORD, ELSEWHERE)
    assert log_in(gate_of(accounts), "bob", PASSWORD, ELSEWHERE).name == "bob", "he was here before"


def test_backoff__tokens_that_are_none_slow_their_address(accounts: SideFile) -> None:
    guess(accounts, OF_ADDRESS.free, name=None)
    with pytest.raises(LoginBlocked):
        log_in(gate_of(accounts), None, "davsql_x", ELSEWHERE)


def test_backoff__an_ipv6_network_is_one_address(accounts: SideFile) -> None:
    for number in range(FREE):
        guess(accounts, 1, address=f"2001:db8::{number}")
    with pytest.raises(LoginBlocked):
        log_in(gate_of(accounts), "ann", PASSWORD, "2001:db8::ffff:1")


def test_backoff__a_success_forgives_typing_errors(accounts: SideFile) -> None:
    for _ in range(3):
        guess(accounts, FREE - 1)
        log_in(gate_of(accounts), "ann", PASSWORD, ELSEWHERE)


def test_backoff__leaves_out_networks_that_are_never_blocked(accounts: SideFile) -> None:
    gate = gate_of(accounts, AccountOptions(never_blocked=("203.0.113.0/24",)))
    for number in range(30):
        with pytest.raises(LoginRefused):
            log_in(gate, "ann", f"guess {number}", ELSEWHERE)
    assert accounts.row("SELECT count(*) FROM failures") == (0,)


def test_backoff__a_clock_set_back_shuts_nobody_out_for_long(accounts: SideFile) -> None:
    guess(accounts, FREE)
    with accounts.write() as tx:
        tx.change("UPDATE failures SET blocked_until = blocked_until + ?", (10 * 24 * HOUR_NS,))
    with pytest.raises(LoginBlocked) as blocked:
        log_in(gate_of(accounts), "ann", PASSWORD, ELSEWHERE)
    assert blocked.value.retry_after_s <= 900


def test_failures__are_forgotten_after_an_hour_and_bounded(accounts: SideFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("davsql.accounts.attempts.MAX_ROWS", 6)
    for number in range(5):
        guess(accounts, 1, name=f"name{number}", address=f"198.51.100.{number}")
    assert accounts.row("SELECT count(*) FROM failures") == (6,)
    with accounts.write() as tx:
        tx.change("UPDATE failures SET last_failed_at = last_failed_at - ?", (2 * HOUR_NS,))
    guess(accounts, 1)
    assert accounts.row("SELECT count(*), max(count) FROM failures") == (3, 1)


def test_log__has_a_line_for_each_failure_and_no_secret(accounts: SideFile, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "davsql"):
        guess(accounts, 1)
        guess(accounts, 1, name="my password is hunter2")
    assert [record.getMessage() for record in caplog.records] == [
        f"login failed: address={ELSEWHERE} user=ann",
        f"login failed: address={ELSEWHERE} user=-",
    ]
    assert b"hunter2" not in accounts.file.read_bytes()
    assert b"hunter2" not in accounts.file.with_name(accounts.file.name + "-wal").read_bytes()


def test_docs__tell_the_limits() -> None:
    text = (Path(__file__).parents[2] / "docs" / "accounts.md").read_text(encoding="utf-8")
    table = text.split("How often without consequence", 1)[1]
    told = [int(number) for number in re.findall(r"\| (\d+) times \|", table)]
    assert told == [limit.free - 1 for limit in (OF_NAME_AND_ADDRESS, OF_ADDRESS, OF_NAME)]
