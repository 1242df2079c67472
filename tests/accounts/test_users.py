"""Accounts, groups and tokens: their rows, and that every change of them grows the generation."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from davsql.accounts import logins, tokens, users
from davsql.accounts.tokens import TOKEN_PREFIX, TokenLimits
from davsql.errors import AccountError
from davsql.paths import DavPath
from davsql.store.sidefile import SideFile
from davsql.store.transaction import WriteTx
from tests.accounts.account_steps import add_account, add_token


def generation(accounts: SideFile) -> int:
    row = accounts.row(logins.SELECT_GENERATION)
    assert row is not None
    return int(row[0])


def names(accounts: SideFile) -> list[str]:
    with accounts.snapshot() as tx:
        return [user.name for user in users.list_users(tx)]


def test_add_user__is_found_in_any_letter_case_and_unicode_form(accounts: SideFile) -> None:
    add_account(accounts, "Zo\u00e9", groups=("family", "admins"))
    with accounts.snapshot() as tx:
        found = users.find_user(tx, "ZOE\u0301")
    assert (found.name, found.groups, found.is_disabled) == ("Zo\u00e9", frozenset(("family", "admins")), False)
    assert names(accounts) == ["ann", "bob", "Zo\u00e9"]


@pytest.mark.parametrize("name", ["ann", "ANN"])
def test_add_user__a_name_is_taken_once(accounts: SideFile, name: str) -> None:
    with pytest.raises(AccountError, match="there is an account ann already"):
        add_account(accounts, name)
    assert names(accounts) == ["ann", "bob"]


@pytest.mark.parametrize("name", ["", "a:b", "..", "-x", "a/b", "a b", "a\nb", "@staff", "*", "x" * 65, "a\0"])
def test_add_user__refuses_what_is_no_name(accounts: SideFile, name: str) -> None:
    with pytest.raises(AccountError, match="is no name for an account"):
        add_account(accounts, name)
    with pytest.raises(AccountError, match="is no name for a group"):
        add_account(accounts, "eve", groups=(name,))
    assert names(accounts) == ["ann", "bob"]


def test_remove_user__takes_groups_and_tokens_along(accounts: SideFile) -> None:
    add_token(accounts, "ann")
    with accounts.write() as tx:
        users.remove_user(tx, "Ann")
    with accounts.snapshot() as tx:
        assert tokens.list_tokens(tx) == []
        assert tx.value("SELECT count(*) FROM memberships") == 0
    assert names(accounts) == ["bob"]


def test_change_groups__adds_and_removes(accounts: SideFile) -> None:
    with accounts.write() as tx:
        changed = users.change_groups(tx, "ann", add=("admins", "family"), remove=("family", "none"))
    assert changed.groups == {"admins"}
    with accounts.write() as tx:
        assert users.change_groups(tx, "ann", remove=("Admins",)).groups == set()


@pytest.mark.parametrize("act", [users.find_user, users.remove_user], ids=["find", "remove"])
def test_users__unknown_ones_are_named_with_the_remedy(accounts: SideFile, act: Callable[..., object]) -> None:
    with accounts.write() as tx, pytest.raises(AccountError, match="no account 'eve'; `davsql user list`"):
        act(tx, "eve")


def test_create_token__is_shown_once_and_stored_as_a_digest(accounts: SideFile) -> None:
    limits = TokenLimits(True, "photos", DavPath(("x", "y z")), time.time_ns() + 10**9)  # noqa: FBT003
    secret = add_token(accounts, "ann", "laptop", limits)
    assert secret.startswith(TOKEN_PREFIX)
    assert len(secret) == len(TOKEN_PREFIX) + 43
    with accounts.snapshot() as tx:
        [token] = tokens.list_tokens(tx, "ann")
        assert tokens.list_tokens(tx, "bob") == []
    assert (token.user, token.name, token.limits, token.last_used_at) == ("ann", "laptop", limits, None)
    assert secret.encode() not in accounts.file.read_bytes()


def test_create_token__one_of_a_name_for_each_account(accounts: SideFile) -> None:
    add_token(accounts, "ann")
    with pytest.raises(AccountError, match="ann has a token called laptop already"):
        add_token(accounts, "ann")
    add_token(accounts, "bob")


def test_revoke_token__by_number_or_by_a_name_that_is_clear(accounts: SideFile) -> None:
    for user in ("ann", "bob"):
        add_token(accounts, user)
        add_token(accounts, user, "2")
    with accounts.write() as tx:
        with pytest.raises(AccountError, match=r"several tokens .* 1 \(ann\), 3 \(bob\)"):
            tokens.revoke_token(tx, "laptop")
        assert tokens.revoke_token(tx, "laptop", "bob").user == "bob"
        assert tokens.revoke_token(tx, "laptop").user == "ann"
        assert tokens.revoke_token(tx, "2").token_id == 2
        with pytest.raises(AccountError, match="there is no token '77'"):
            tokens.revoke_token(tx, "77")


CHANGES: dict[str, Callable[[WriteTx], object]] = {
    "add": lambda tx: users.add_user(tx, "eve", "x"),
    "passwd": lambda tx: users.set_password(tx, "ann", "x"),
    "disable": lambda tx: users.disable_user(tx, "ann", is_disabled=True),
    "enable": lambda tx: users.disable_user(tx, "ann", is_disabled=False),
    "remove": lambda tx: users.remove_user(tx, "ann"),
    "group": lambda tx: users.change_groups(tx, "bob", add=("family",)),
    "ungroup": lambda tx: users.change_groups(tx, "ann", remove=("family",)),
    "token": lambda tx: tokens.create_token(tx, "bob", "x", TokenLimits()),
    "revoke": lambda tx: tokens.revoke_token(tx, "laptop"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_generation__grows_with_every_change_of_who_may_enter(accounts: SideFile, change: str) -> None:
    add_token(accounts, "ann")
    before = generation(accounts)
    with accounts.write() as tx:
        CHANGES[change](tx)
    assert generation(accounts) > before


def test_generation__does_not_grow_with_bookkeeping(accounts: SideFile) -> None:
    add_token(accounts, "ann")
    before = generation(accounts)
    with accounts.write() as tx:
        logins.note_login(tx, 1, "192.0.2.7")
        logins.note_token_use(tx, 1)
    assert generation(accounts) == before
