"""Accounts for tests, with hashes that cost next to nothing."""

from __future__ import annotations

import base64
from pathlib import Path

from argon2 import PasswordHasher

from davsql.accounts import tokens, users
from davsql.accounts.file import create_accounts, open_accounts
from davsql.accounts.gate import Credentials, Gate
from davsql.accounts.options import AccountOptions
from davsql.accounts.passwords import Passwords
from davsql.accounts.tokens import TokenLimits
from davsql.model import Principal
from davsql.store.sidefile import SideFile

HOME = "192.0.2.7"
ELSEWHERE = "203.0.113.9"
PASSWORD = "correct horse"  # noqa: S105  # of accounts that exist in tests only


def cheap_passwords() -> Passwords:
    """Argon2id at its least cost."""
    return Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


def new_accounts(folder: Path) -> SideFile:
    """An account file with ann, who is in family, and bob."""
    file = folder / "accounts.db"
    create_accounts(file)
    accounts = open_accounts(file)
    add_account(accounts, "ann", groups=("family",))
    add_account(accounts, "bob")
    return accounts


def add_account(accounts: SideFile, name: str, *, groups: tuple[str, ...] = ()) -> None:
    """An account with PASSWORD."""
    password_hash = cheap_passwords().hash(PASSWORD)
    with accounts.write() as tx:
        users.add_user(tx, name, password_hash, groups)


def add_token(accounts: SideFile, user: str, name: str = "laptop", limits: TokenLimits | None = None) -> str:
    """A new token."""
    with accounts.write() as tx:
        return tokens.create_token(tx, user, name, limits or TokenLimits())


def gate_of(accounts: SideFile, options: AccountOptions | None = None, passwords: Passwords | None = None) -> Gate:
    """A gate, as each process has one."""
    return Gate(accounts, options or AccountOptions(), passwords or cheap_passwords())


def log_in(gate: Gate, name: str | None, secret: str, address: str = HOME) -> Principal:
    """What the middleware does with credentials."""
    raw = f"{name}:{secret}"
    return gate.recall(raw) or gate.admit(Credentials(name, secret), raw, address)


def basic(name: str, secret: str) -> dict[str, str]:
    """The header of Basic (RFC 7617)."""
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()}


def bearer(secret: str) -> dict[str, str]:
    """The header of Bearer (RFC 6750)."""
    return {"Authorization": f"Bearer {secret}"}
