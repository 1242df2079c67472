"""`davsql token`: passwords for programs, with limits of their own."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from davsql.accounts import tokens
from davsql.accounts.tokens import Token, TokenLimits
from davsql.cli.accounts import accounts_target, open_file
from davsql.cli.auditing import record
from davsql.cli.printing import iso_time, printable
from davsql.paths import DavPath

_HOURS = {"h": 1, "d": 24, "w": 7 * 24}
_NS_PER_HOUR = 3600 * 1_000_000_000


@click.group(short_help="Make and revoke tokens: passwords for programs.")
def token() -> None:
    """Tokens: passwords for programs. Each can be limited, and revoked without changing anything else.

    A program uses one in the place of the account's password, or as a Bearer token.

    \b
    Examples:
      davsql token create ann --name laptop
      davsql token create ann --name backup --share photos --read-only --expires 90d
      davsql token revoke laptop
    """


def _expiry(ctx: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    """When `90d`, `12h`, `8w` or `2027-01-31` is, in nanoseconds since the epoch."""
    del ctx, parameter
    if text is None:
        return None
    span = re.fullmatch(r"(\d{1,5})([hdw])", text)
    if span is not None:
        return time.time_ns() + int(span[1]) * _HOURS[span[2]] * _NS_PER_HOUR
    try:
        return int(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()) * 1_000_000_000
    except ValueError:
        raise click.BadParameter("expected something like 12h, 90d, 8w or 2027-01-31") from None


def _share(ctx: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    del ctx, parameter
    return None if text is None else text.strip("/")  # "/" is the share without a name


def _path(ctx: click.Context, parameter: click.Parameter, text: str | None) -> DavPath | None:
    del ctx, parameter
    return None if text is None else DavPath.from_text(text)


@token.command()
@click.argument("user")
@click.option("--name", required=True, help="What it is for; one of a name for each account.")
@click.option("--read-only", "is_read_only", is_flag=True, help="It can read, and change nothing.")
@click.option("--share", metavar="NAME", callback=_share, help="It opens this share only.")
@click.option("--path", metavar="PATH", callback=_path, help="It opens this collection, with all below, only.")
@click.option(
    "--expires", "expires_at", metavar="WHEN", callback=_expiry, help="12h, 90d, 8w or a date.  [default: never]"
)
@accounts_target
def create(file: Path, user: str, name: str, **limits: Any) -> None:
    """Make a token and show it, once."""
    with open_file(file) as accounts, accounts.write() as tx:
        secret = tokens.create_token(tx, user, name, TokenLimits(**limits))
        [made] = [each for each in tokens.list_tokens(tx, user) if each.name == name]
        record(file, made.user, _line(made))
    click.echo("This token is shown once. Use it in the place of the password:", err=True)
    click.echo(secret)


@token.command("list")
@click.argument("user", required=False)
@accounts_target
def list_(file: Path, user: str | None) -> None:
    """List tokens, of one account or of all: number, limits, last use (to the hour)."""
    with open_file(file) as accounts, accounts.snapshot() as tx:
        found = tokens.list_tokens(tx, user)
    for each in found:
        click.echo(printable(_line(each)))


@token.command()
@click.argument("token")
@click.option("--user", metavar="NAME", help="Whose, when several accounts have a token of that name.")
@accounts_target
def revoke(file: Path, token: str, user: str | None) -> None:
    """Take a token away, by its number or its name."""
    with open_file(file) as accounts, accounts.write() as tx:
        found = tokens.revoke_token(tx, token, user)
        record(file, found.user, _line(found))
    click.echo(f"revoked {found.name} of {found.user}")


def _line(token: Token) -> str:
    limits = token.limits
    parts = [
        f"{token.token_id}: {token.user}, {token.name}",
        *(["read-only"] if limits.is_read_only else []),
        *([f"share {limits.share or '/'}"] if limits.share is not None else []),
        *([f"path {limits.path}"] if limits.path is not None else []),
        *([_when(limits.expires_at)] if limits.expires_at is not None else []),
        "never used" if token.last_used_at is None else f"last used {iso_time(token.last_used_at)}",
    ]
    return ", ".join(parts)


def _when(expires_at: int) -> str:
    return f"{'expired' if expires_at <= time.time_ns() else 'expires'} {iso_time(expires_at)}"
