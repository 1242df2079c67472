"""`davsql user`: accounts and the groups they are in."""

from __future__ import annotations

from pathlib import Path

import click

from davsql.accounts import users
from davsql.accounts.names import checked_name, name_key
from davsql.accounts.passwords import checked_password, hash_password
from davsql.accounts.users import User
from davsql.cli.accounts import accounts_target, asked_password, open_file
from davsql.cli.auditing import record
from davsql.cli.printing import counted, iso_time, printable
from davsql.errors import AccountError

_stdin_option = click.option(
    "--password-stdin", "is_on_stdin", is_flag=True, help="Read the password from the first line of standard input."
)


@click.group(short_help="Add, change and remove accounts.")
def user() -> None:
    """Accounts: who may log in. A change counts at once, also for servers that are running.

    \b
    Examples:
      davsql user add ann --group family
      davsql user passwd ann
      davsql user disable ann
    """


@user.command()
@click.argument("name")
@click.option("--group", "groups", metavar="GROUP", multiple=True, help="Put it into this group; may be repeated.")
@_stdin_option
@accounts_target
def add(file: Path, name: str, groups: tuple[str, ...], *, is_on_stdin: bool) -> None:
    """Add an account. The account file is made if it is missing."""
    name = checked_name(name, "an account")
    if file.exists():  # say it before a password is asked for
        with open_file(file) as accounts, accounts.snapshot() as tx:
            taken = [each.name for each in users.list_users(tx) if name_key(each.name) == name_key(name)]
        if taken:
            raise AccountError(f"there is an account {taken[0]} already; `davsql user passwd` changes its password")
    password_hash = _new_hash(name, is_on_stdin=is_on_stdin)
    with open_file(file, create=True) as accounts, accounts.write() as tx:
        users.add_user(tx, name, password_hash, groups)
        record(file, name, "groups: " + " ".join(groups) if groups else None)
    click.echo(f"added {name}")


@user.command()
@click.argument("name")
@_stdin_option
@accounts_target
def passwd(file: Path, name: str, *, is_on_stdin: bool) -> None:
    """Change a password. Tokens stay as they are."""
    with open_file(file) as accounts:
        with accounts.snapshot() as tx:
            found = users.find_user(tx, name)
        password_hash = _new_hash(found.name, is_on_stdin=is_on_stdin)
        with accounts.write() as tx:
            users.set_password(tx, name, password_hash)
            record(file, found.name)
    click.echo(f"changed the password of {found.name}")


@user.command()
@click.argument("name")
@accounts_target
def remove(file: Path, name: str) -> None:
    """Remove an account and its tokens. What it has stored stays."""
    with open_file(file) as accounts, accounts.write() as tx:
        found = users.find_user(tx, name)
        users.remove_user(tx, name)
        record(file, found.name)
    click.echo(f"removed {found.name} and {counted(found.tokens, 'token')}")


@user.command()
@click.argument("name")
@accounts_target
def disable(file: Path, name: str) -> None:
    """Refuse an account, with its tokens, until it is enabled again."""
    with open_file(file) as accounts, accounts.write() as tx:
        found = users.disable_user(tx, name, is_disabled=True)
        record(file, found.name)
    click.echo(f"disabled {found.name}")


@user.command()
@click.argument("name")
@accounts_target
def enable(file: Path, name: str) -> None:
    """Let a disabled account in again."""
    with open_file(file) as accounts, accounts.write() as tx:
        found = users.disable_user(tx, name, is_disabled=False)
        record(file, found.name)
    click.echo(f"enabled {found.name}")


@user.command()
@click.argument("name")
@click.option("--add", metavar="GROUP", multiple=True, help="Put the account into this group; may be repeated.")
@click.option("--remove", metavar="GROUP", multiple=True, help="Take it out of this group; may be repeated.")
@accounts_target
def groups(file: Path, name: str, add: tuple[str, ...], remove: tuple[str, ...]) -> None:
    """Show the groups that an account is in, or change them. A group exists while somebody is in it."""
    with open_file(file) as accounts, accounts.write() as tx:
        found = users.change_groups(tx, name, add=add, remove=remove)
        if add or remove:
            record(file, found.name, " ".join([*(f"+{group}" for group in add), *(f"-{group}" for group in remove)]))
    click.echo(" ".join(sorted(found.groups)))


@user.command("list")
@accounts_target
def list_(file: Path) -> None:
    """List all accounts: groups, tokens, last login (to the hour)."""
    with open_file(file) as accounts, accounts.snapshot() as tx:
        found = users.list_users(tx)
    for each in found:
        click.echo(printable(_line(each)))


def _line(account: User) -> str:
    parts = [
        account.name,
        *(["disabled"] if account.is_disabled else []),
        *([f"groups: {' '.join(sorted(account.groups))}"] if account.groups else []),
        *([counted(account.tokens, "token")] if account.tokens else []),
        "never logged in" if account.last_login_at is None else f"last login {iso_time(account.last_login_at)}",
    ]
    return ", ".join(parts)


def _new_hash(name: str, *, is_on_stdin: bool) -> str:
    return hash_password(checked_password(asked_password(name, is_on_stdin=is_on_stdin), name))
