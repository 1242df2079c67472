"""Accounts and the groups they are in: the rows and what changes them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from davsql.accounts.names import checked_name, name_key
from davsql.errors import AccountError
from davsql.store.transaction import ReadTx, WriteTx


class User(NamedTuple):
    """An account."""

    user_id: int
    name: str
    is_disabled: bool
    groups: frozenset[str]
    tokens: int
    created_at: int
    last_login_at: int | None


SELECT_USERS = """
SELECT
  u.user_id, u.name, u.is_disabled,
  (SELECT group_concat(group_name) FROM memberships AS m WHERE m.user_id = u.user_id),
  (SELECT count(*) FROM tokens AS t WHERE t.user_id = u.user_id),
  u.created_at, u.last_login_at
FROM users AS u WHERE :key IS NULL OR u.key = :key ORDER BY u.key
"""


def list_users(tx: ReadTx) -> list[User]:
    """All accounts by name."""
    return [_user(row) for row in tx.rows(SELECT_USERS, {"key": None})]


def find_user(tx: ReadTx, name: str) -> User:
    """The account of that name.

    Raises:
        AccountError: there is none.
    """
    row = tx.row(SELECT_USERS, {"key": name_key(name)})
    if row is None:
        raise AccountError(f"there is no account {name!r}; `davsql user list` shows all")
    return _user(row)


INSERT_USER = """
INSERT INTO users (name, key, password_hash, created_at) VALUES (:name, :key, :password_hash, :now)
ON CONFLICT (key) DO NOTHING
"""


def add_user(tx: WriteTx, name: str, password_hash: str, groups: Iterable[str] = ()) -> None:
    """Make an account.

    Raises:
        AccountError: a name is none, or an account has it already, perhaps in other letter case.
    """
    name = checked_name(name, "an account")
    row = {"name": name, "key": name_key(name), "password_hash": password_hash, "now": tx.now}
    if not tx.change(INSERT_USER, row):
        raise AccountError(f"there is an account {find_user(tx, name).name} already")
    change_groups(tx, name, add=groups)


SET_HASH = "UPDATE users SET password_hash = :password_hash WHERE user_id = :user_id"


def set_password(tx: WriteTx, name: str, password_hash: str) -> None:
    """Give an account another password; AccountError when there is none of that name."""
    tx.change(SET_HASH, {"password_hash": password_hash, "user_id": find_user(tx, name).user_id})


SET_DISABLED = "UPDATE users SET is_disabled = :is_disabled WHERE user_id = :user_id"


def disable_user(tx: WriteTx, name: str, *, is_disabled: bool) -> User:
    """Shut an account, tokens and all, or open it again; AccountError when there is none of that name."""
    tx.change(SET_DISABLED, {"is_disabled": is_disabled, "user_id": find_user(tx, name).user_id})
    return find_user(tx, name)


DELETE_USER = "DELETE FROM users WHERE user_id = ?"


def remove_user(tx: WriteTx, name: str) -> None:
    """Remove an account with its tokens; AccountError when there is none of that name."""
    tx.change(DELETE_USER, (find_user(tx, name).user_id,))


ADD_MEMBERSHIP = "INSERT INTO memberships (user_id, group_name) VALUES (?, ?) ON CONFLICT DO NOTHING"
REMOVE_MEMBERSHIP = "DELETE FROM memberships WHERE user_id = ? AND group_name = ?"


def change_groups(tx: WriteTx, name: str, *, add: Iterable[str] = (), remove: Iterable[str] = ()) -> User:
    """Put an account into groups and take it out of others; a group exists while somebody is in it.

    Raises:
        AccountError: there is no such account, or a name is none.
    """
    user_id = find_user(tx, name).user_id
    for group in add:
        tx.change(ADD_MEMBERSHIP, (user_id, checked_name(group, "a group")))
    gone = {name_key(checked_name(group, "a group")) for group in remove}
    for group in find_user(tx, name).groups:
        if name_key(group) in gone:  # in any letter case, as in rules
            tx.change(REMOVE_MEMBERSHIP, (user_id, group))
    return find_user(tx, name)


def groups_of(text: str | None) -> frozenset[str]:
    """Groups as group_concat gives them; their names hold no comma."""
    return frozenset(text.split(",")) if text else frozenset()


def _user(row: tuple[int, str, int, str | None, int, int, int | None]) -> User:
    user_id, name, is_disabled, groups, tokens, created_at, last_login_at = row
    return User(user_id, name, bool(is_disabled), groups_of(groups), tokens, created_at, last_login_at)
