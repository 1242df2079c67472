"""Tokens: passwords for programs, made by us, each with limits of its own and revocable alone.

A token is 256 random bits, so its plain SHA-256 gives nothing away and verifying it costs nothing.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import NamedTuple

from davsql.accounts.names import checked_name
from davsql.accounts.users import find_user
from davsql.errors import AccountError
from davsql.paths import DavPath
from davsql.store.transaction import ReadTx, WriteTx

TOKEN_PREFIX = "davsql_"  # noqa: S105  # tells a token from a password, and scanners for leaked secrets what they see


class TokenLimits(NamedTuple):
    """What a token may do, and until when."""

    is_read_only: bool = False
    share: str | None = None  # the only share that it opens
    path: DavPath | None = None  # the tree that it opens
    expires_at: int | None = None


class Token(NamedTuple):
    """A row of the table, without the digest."""

    token_id: int
    user: str
    name: str
    limits: TokenLimits
    created_at: int
    last_used_at: int | None


ISSUE = """
INSERT INTO tokens (user_id, name, digest, is_read_only, share, path, created_at, expires_at)
VALUES (:user_id, :name, :digest, :is_read_only, :share, :path, :now, :expires_at)
ON CONFLICT (user_id, name) DO NOTHING
"""


def create_token(tx: WriteTx, user: str, name: str, limits: TokenLimits) -> str:
    """Make a token and return it: the only moment when it can be read.

    Raises:
        AccountError: there is no such account, the name is none, or the account has a token of that name.
    """
    owner = find_user(tx, user)
    name = checked_name(name, "a token")
    secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
    row = {
        "user_id": owner.user_id,
        "name": name,
        "digest": token_digest(secret),
        "is_read_only": limits.is_read_only,
        "share": limits.share,
        "path": None if limits.path is None else str(limits.path),
        "now": tx.now,
        "expires_at": limits.expires_at,
    }
    if not tx.change(ISSUE, row):
        raise AccountError(f"{owner.name} has a token called {name} already; revoke that, or choose another name")
    return secret


def token_digest(secret: str) -> bytes:
    """What is stored of a token."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


LIST_TOKENS = """
SELECT t.token_id, u.name, t.name, t.is_read_only, t.share, t.path, t.expires_at, t.created_at, t.last_used_at
FROM tokens AS t JOIN users AS u USING (user_id) ORDER BY u.key, t.token_id
"""


def list_tokens(tx: ReadTx, user: str | None = None) -> list[Token]:
    """All tokens, or those of one account.

    Raises:
        AccountError: there is no such account.
    """
    owner = None if user is None else find_user(tx, user).name
    return [token for token in map(_token, tx.rows(LIST_TOKENS)) if owner in (None, token.user)]


REVOKE = "DELETE FROM tokens WHERE token_id = ?"


def revoke_token(tx: WriteTx, id_or_name: str, user: str | None = None) -> Token:
    """Take a token away by its id, or by its name when only one account (or `user`) has one of that name.

    Raises:
        AccountError: there is none, or there are several.
    """
    tokens = list_tokens(tx, user)
    found = [token for token in tokens if id_or_name == str(token.token_id)]
    found = found or [token for token in tokens if id_or_name == token.name]
    if not found:
        raise AccountError(f"there is no token {id_or_name!r}; `davsql token list` shows all")
    if len(found) > 1:
        listed = ", ".join(f"{token.token_id} ({token.user})" for token in found)
        raise AccountError(f"several tokens are called {id_or_name!r}; revoke one by its number: {listed}")
    tx.change(REVOKE, (found[0].token_id,))
    return found[0]


def _token(row: tuple[int, str, str, int, str | None, str | None, int | None, int, int | None]) -> Token:
    token_id, user, name, is_read_only, share, path, expires_at, created_at, last_used_at = row
    return Token(token_id, user, name, limits_of(is_read_only, share, path, expires_at), created_at, last_used_at)


def limits_of(is_read_only: int, share: str | None, path: str | None, expires_at: int | None) -> TokenLimits:
    """Limits as the columns of a row have them."""
    return TokenLimits(bool(is_read_only), share, None if path is None else DavPath.from_text(path), expires_at)
