"""Hashes of passwords, and what may be one."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest
from argon2 import PasswordHasher

from davsql.accounts import passwords
from davsql.accounts.passwords import AT_ONCE, MAX_BYTES, WAITING, Passwords, checked_password
from davsql.errors import AccountError, LoginBusy
from tests.accounts.account_steps import cheap_passwords


def test_hash__is_argon2id_with_a_salt_and_verifies() -> None:
    ours = Passwords()
    hashed = ours.hash("correct horse")
    assert hashed.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert ours.verify(hashed, "correct horse")
    assert not ours.verify(hashed, "correct hors")
    assert not ours.is_outdated(hashed)


def test_hash__same_letters_in_another_form_are_the_same_password() -> None:
    ours = cheap_passwords()
    assert ours.verify(ours.hash("caf\u00e9 \u00fcber"), "cafe\u0301 u\u0308ber")
    assert ours.hash("x" * 9) != ours.hash("x" * 9)


def test_verify__an_unknown_account_costs_a_hash_too() -> None:
    class Counting(PasswordHasher):
        verified: list[str | bytes]

        def verify(self, hash: str | bytes, password: str | bytes) -> bool:  # type: ignore[override]  # noqa: A002
            self.verified.append(hash)
            return super().verify(hash, password)

    hasher = Counting(time_cost=1, memory_cost=8, parallelism=1)
    hasher.verified = []
    ours = Passwords(hasher)
    assert not ours.verify(None, "correct horse")
    [nobodys] = hasher.verified
    assert str(nobodys).startswith("$argon2id$v=19$m=8,t=1,p=1$")


def test_verify__what_is_no_hash_opens_nothing() -> None:
    assert not cheap_passwords().verify("plain", "plain")


def test_is_outdated__cheaper_hashes_are() -> None:
    assert Passwords().is_outdated(cheap_passwords().hash("correct horse"))


def test_turn__few_hash_few_wait_the_others_are_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "WAIT_TIMEOUT_S", 60)
    ours = cheap_passwords()
    done, sent_away, let_in = threading.Event(), threading.Semaphore(0), threading.Semaphore(0)

    def log_in(*, is_known: bool) -> None:
        try:
            with ours.turn(is_known=is_known):
                done.wait(60)
                let_in.release()
        except LoginBusy:
            sent_away.release()

    def start(count: int, *, is_known: bool) -> list[threading.Thread]:
        threads = [threading.Thread(target=log_in, kwargs={"is_known": is_known}) for _ in range(count)]
        for thread in threads:
            thread.start()
        return threads

    threads = start(AT_ONCE + WAITING + 5, is_known=False)
    assert all(sent_away.acquire(timeout=30) for _ in range(5))
    threads += start(1, is_known=True)  # who was here before may still wait
    done.set()
    for thread in threads:
        thread.join(30)
    assert not sent_away.acquire(blocking=False)
    assert all(let_in.acquire(blocking=False) for _ in range(AT_ONCE + WAITING + 1))


def test_turn__nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "WAIT_TIMEOUT_S", 0.01)
    ours = cheap_passwords()
    with ExitStack() as running:
        for _ in range(AT_ONCE):
            running.enter_context(ours.turn())
        with pytest.raises(LoginBusy), ours.turn():
            pytest.fail("too many at one time")
    with ours.turn():  # the places are free again
        pass


@pytest.mark.parametrize("password", ["correct horse", "\u5bc6\u7801\u5bc6\u7801\u6b63\u786e\u7684\u9a6c", "        x"])
def test_checked_password__takes_what_is_long_enough(password: str) -> None:
    assert checked_password(password, "ann") == password


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("", "at least 8"),
        ("1234567", "at least 8"),
        ("x" * (MAX_BYTES + 1), "at most"),
        ("aaaaaaaa", "easy to guess"),
        ("ANN.SMITH", "easy to guess"),
        ("abc\tdefgh", "control"),
        ("davsql_abcdefgh", "tokens do"),
    ],
)
def test_checked_password__says_what_is_wrong(password: str, reason: str) -> None:
    with pytest.raises(AccountError, match=reason):
        checked_password(password, "ann.smith")
