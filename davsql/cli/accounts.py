"""Which account file a command is about, the passwords that people type, and the gate of a server."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import click

from davsql.accounts.file import create_accounts, open_accounts
from davsql.accounts.gate import Gate
from davsql.accounts.options import AccountOptions
from davsql.accounts.users import list_users
from davsql.cli.printing import printable
from davsql.cli.secrecy import keep_memory_private
from davsql.cli.target import load_config
from davsql.config import Config
from davsql.errors import AccountError, ConfigError, NotFound
from davsql.server.addresses import is_loopback
from davsql.store.sidefile import SideFile

DEFAULT_FILE = Path("davsql-accounts.db")

accounts_option = click.option(
    "--accounts",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"The account file.  [default: {DEFAULT_FILE}, or that of the configuration]",
)


def accounts_target(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --accounts and --config; the command gets the path of the account file as `file`."""

    @functools.wraps(command)
    def with_file(*args: Any, accounts: Path | None, config: Path | None, **kwargs: Any) -> Any:
        file = accounts or load_config(config).accounts.file or (DEFAULT_FILE if config is None else None)
        if file is None:
            raise ConfigError(f'{config}: accounts.file is missing; set [accounts] file = "{DEFAULT_FILE}"')
        return command(*args, file=file, **kwargs)

    config = click.option(
        "--config", type=click.Path(path_type=Path), metavar="FILE", help="Configuration file (TOML)."
    )
    return accounts_option(config(with_file))


def open_file(file: Path, *, create: bool = False) -> closing[SideFile]:
    """Open an account file for a `with` statement.

    Args:
        create: make it if it is missing.
    """
    if create and not file.exists():
        create_accounts(file)
        click.echo(f"made an account file: {printable(file)}", err=True)
    try:
        return closing(open_accounts(file))
    except NotFound:
        raise NotFound(f"{file} does not exist; `davsql user add NAME --accounts {file}` makes it") from None


def asked_password(name: str, *, is_on_stdin: bool) -> str:
    """The new password of an account, typed twice at the terminal, or the first line of standard input.

    Raises:
        click.UsageError: there is no terminal.
    """
    if is_on_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise click.UsageError("There is no terminal to ask for the password at; use --password-stdin.")
    password: str = click.prompt(f"Password for {name}", hide_input=True, confirmation_prompt=True)
    return password


def served_file(accounts: Path | None, config: Path | None, options: AccountOptions) -> Path | None:
    """The account file of a server: what options and configuration name; without both the default if it is there."""
    if accounts is not None or options.file is not None:
        return accounts or options.file
    return DEFAULT_FILE if config is None and DEFAULT_FILE.exists() else None


def way_of_passwords(host: str, configuration: Config) -> str:
    """What people should know of passwords from other machines; "" when only this one reaches the server."""
    if is_loopback(host) or configuration.tls.tls != "off":
        return ""
    if configuration.accounts.allow_plain_http:
        return "warning: passwords are taken over plain HTTP; everybody on the way can read them"
    if configuration.proxy.trusted_proxies:
        return ""
    return (
        "Other machines cannot log in yet, because passwords are not taken over plain HTTP: say --tls auto, or put a "
        "proxy with TLS in front and name it in [server] trusted_proxies"
    )


def open_served(stack: ExitStack, file: Path, options: AccountOptions) -> SideFile:
    """The accounts of a server; `stack` closes them.

    Raises:
        AccountError: nobody could log in.
        DavsqlError: the file cannot be used.
    """
    accounts = stack.enter_context(open_file(file))
    with accounts.snapshot() as tx:
        is_empty = not list_users(tx)
    if is_empty and options.trusted_user_header is None:
        raise AccountError(f"there is no account in {file} yet; make one: davsql user add NAME --accounts {file}")
    return accounts


def open_gate(stack: ExitStack, file: Path, options: AccountOptions, on_failure: Callable[[str, str], object]) -> Gate:
    """The gate of one process of a server, which from now on holds passwords; raises as `open_served` does."""
    keep_memory_private()
    return Gate(open_served(stack, file, options), options, on_failure=on_failure)
