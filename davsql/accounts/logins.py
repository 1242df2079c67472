"""What a login reads and writes: one account or token by its credentials, and the bookkeeping of its use."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Any, NamedTuple

from davsql.accounts.names import name_key
from davsql.accounts.tokens import TokenLimits, limits_of, token_digest
from davsql.accounts.users import groups_of
from davsql.model import Principal
from davsql.store.transaction import ReadTx, WriteTx

NS_PER_HOUR = 3600 * 1_000_000_000
KNOWN_ADDRESS_HOURS = 90 * 24


class Account(NamedTuple):
    """What there is to know of whoever wants to enter."""

    user_id: int
    name: str
    password_hash: str
    is_disabled: bool
    groups: frozenset[str]
    last_login_at: int | None


class TokenUse(NamedTuple):
    """A token and its owner."""

    token_id: int
    account: Account
    limits: TokenLimits
    last_used_at: int | None

    @property
    def principal(self) -> Principal:
        """Who uses it, with its limits."""
        limits = self.limits
        return Principal(
            self.account.name, self.account.groups, limits.is_read_only, share=limits.share, path=limits.path
        )

    def left_s(self, now: int) -> float:
        """Seconds until it expires; never for many."""
        return inf if self.limits.expires_at is None else (self.limits.expires_at - now) / 1_000_000_000


SELECT_GENERATION = "SELECT generation FROM state WHERE id = 1"

SELECT_ACCOUNT = """
SELECT
  u.user_id, u.name, u.password_hash, u.is_disabled,
  (SELECT group_concat(group_name) FROM memberships AS m WHERE m.user_id = u.user_id),
  u.last_login_at
FROM users AS u WHERE u.key = ?
"""


def account_of(tx: ReadTx, name: str) -> Account | None:
    """The account of a name, in any letter case."""
    row = tx.row(SELECT_ACCOUNT, (name_key(name),))
    return None if row is None else _account(row)


SELECT_USE = """
SELECT
  t.token_id, t.is_read_only, t.share, t.path, t.expires_at, t.last_used_at,
  u.user_id, u.name, u.password_hash, u.is_disabled,
  (SELECT group_concat(group_name) FROM memberships AS m WHERE m.user_id = u.user_id),
  u.last_login_at
FROM tokens AS t JOIN users AS u USING (user_id) WHERE t.digest = ?
"""


def token_use_of(tx: ReadTx, secret: str) -> TokenUse | None:
    """The token that `secret` is, whether it has expired or not."""
    row = tx.row(SELECT_USE, (token_digest(secret),))
    if row is None:
        return None
    token_id, is_read_only, share, path, expires_at, last_used_at, *account = row
    return TokenUse(token_id, _account(account), limits_of(is_read_only, share, path, expires_at), last_used_at)


SELECT_KNOWN_ADDRESS = "SELECT last_login_at FROM known_addresses WHERE user_id = ? AND address = ?"


def known_since(tx: ReadTx, account: Account | None, address: str) -> int | None:
    """When the account was last used from an address; None: never."""
    if account is None:
        return None
    row = tx.row(SELECT_KNOWN_ADDRESS, (account.user_id, address))
    return None if row is None else int(row[0])


def is_stale(time_ns: int | None, now: int) -> bool:
    """Whether a time of last use should be written again: once an hour is enough, and does not cost a write a login."""
    return time_ns is None or not now - NS_PER_HOUR < time_ns <= now


TOUCH_USE = "UPDATE tokens SET last_used_at = ? WHERE token_id = ?"
TOUCH_USER = "UPDATE users SET last_login_at = ? WHERE user_id = ?"
TOUCH_ADDRESS = """
INSERT INTO known_addresses (user_id, address, last_login_at) SELECT ?1, ?2, ?3 FROM users WHERE user_id = ?1
ON CONFLICT DO UPDATE SET last_login_at = excluded.last_login_at
"""
FORGET_ADDRESSES = "DELETE FROM known_addresses WHERE user_id = ? AND last_login_at < ?"


def note_token_use(tx: WriteTx, token_id: int) -> None:
    """A token was used."""
    tx.change(TOUCH_USE, (tx.now, token_id))


def note_login(tx: WriteTx, user_id: int, address: str) -> None:
    """A password was right."""
    tx.change(TOUCH_USER, (tx.now, user_id))
    tx.change(TOUCH_ADDRESS, (user_id, address, tx.now))
    tx.change(FORGET_ADDRESSES, (user_id, tx.now - KNOWN_ADDRESS_HOURS * NS_PER_HOUR))


REPLACE_HASH = "UPDATE users SET password_hash = :new WHERE user_id = :user_id AND password_hash = :old"


def replace_hash(tx: WriteTx, account: Account, password_hash: str) -> None:
    """Keep a costlier hash of the same password, unless that was changed meanwhile."""
    tx.change(REPLACE_HASH, {"new": password_hash, "user_id": account.user_id, "old": account.password_hash})


def _account(row: Iterable[Any]) -> Account:
    user_id, name, password_hash, is_disabled, groups, last_login_at = row
    return Account(user_id, name, password_hash, bool(is_disabled), groups_of(groups), last_login_at)
