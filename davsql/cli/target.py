"""Which store a command is about: the options --db, --config and --share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import click

from davsql.cli.printing import printable
from davsql.cli.unlocking import key_options, unlocked
from davsql.config import Config, ShareOptions, load
from davsql.dav.access import EVERYBODY
from davsql.errors import ConfigError
from davsql.keys.sources import KeySource
from davsql.maintenance.backup import BackupOptions
from davsql.maintenance.litestream import ReplicaOptions, Replicated
from davsql.maintenance.thread import MaintenanceOptions
from davsql.paths import lookup_key
from davsql.store.options import StoreOptions
from davsql.store.store import Store

DEFAULT_DB = Path("davsql.db")

_FILE = click.Path(path_type=Path)  # whether it is there is said by whoever opens it, with the remedy


@dataclass(frozen=True, slots=True)
class Target:
    """The one store that a command works on."""

    db: Path
    options: StoreOptions
    backup: BackupOptions = field(default_factory=BackupOptions)
    replica: Replicated = field(default_factory=lambda: Replicated(ReplicaOptions()))
    keys: KeySource = field(default_factory=KeySource)
    maintenance: MaintenanceOptions = field(default_factory=MaintenanceOptions)

    def open(self, *, create: bool = False, read_only: bool = False) -> Store:
        """Open the store; use it in a `with` statement."""
        options = replace(self.options, read_only=True) if read_only else self.options
        store = Store.open(self.db, options, create=create)
        tell_of_migration(store)
        return store


def tell_of_migration(store: Store) -> None:
    """Say on standard error where the old file is, when opening the store has migrated it."""
    if store.migration_backup is not None:
        kept = printable(store.migration_backup)
        click.echo(f"davsql: {printable(store.file)} was migrated; as it was it is kept as {kept}", err=True)


def file_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --db and --config, handed over as `db` and `config`, and where the key is, as `keys`."""
    config = click.option("--config", type=_FILE, metavar="FILE", help="Configuration file (TOML).")
    db = click.option("--db", type=_FILE, metavar="PATH", help=f"The store's file.  [default: {DEFAULT_DB}]")
    return db(config(key_options(command)))


def target_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --db, --config, --share and where the key is; the command gets all as one argument, `target`, unlocked."""

    @functools.wraps(command)
    def with_key(*args: Any, target: Target, **kwargs: Any) -> Any:
        options = unlocked(target.db, target.options, target.keys)
        return command(*args, target=replace(target, options=options), **kwargs)

    return locked_target_option(with_key)


def locked_target_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same for commands that have their own ways with keys."""

    @functools.wraps(command)
    def with_target(
        *args: Any, db: Path | None, config: Path | None, share: str | None, keys: KeySource, **kwargs: Any
    ) -> Any:
        return command(*args, target=_target(db, config, share, keys), **kwargs)

    share = click.option("--share", metavar="NAME", help="Which share, when the configuration has several.")
    return file_options(share(with_target))


def shares_of(
    db: Path | None, configuration: Config, config_file: Path | None, keys: KeySource
) -> tuple[ShareOptions, ...]:
    """The stores that options and configuration name: that of --db, those of the file, else the default.

    Args:
        keys: overrides what the file says of them.
    """
    if db is not None and configuration.shares:
        raise click.UsageError(f"--db cannot be used with {config_file}, which has shares of its own.")
    shares = configuration.shares or (ShareOptions("", db or DEFAULT_DB, users=(EVERYBODY,)),)
    if not keys.is_given:
        return shares
    place = {f"key_{each.name}": getattr(keys, each.name) for each in fields(keys)}
    return tuple(replace(share, **place) for share in shares)


def load_config(config_file: Path | None) -> Config:
    """The configuration, or the defaults when there is no file."""
    return load(config_file) if config_file is not None else Config()


def share_store_options(configuration: Config, share: ShareOptions) -> StoreOptions:
    """How to open the store of a share, with its key.

    Raises:
        KeyFailed: there is no key, or a wrong one.
    """
    return unlocked(share.db, replace(configuration.store, read_only=share.read_only), share.key_source)


def _target(db: Path | None, config_file: Path | None, name: str | None, keys: KeySource) -> Target:
    configuration = load_config(config_file)
    shares = shares_of(db, configuration, config_file, keys)
    share = _chosen(shares, name, config_file)
    replica = Replicated(configuration.replica, share.name)
    options = replace(configuration.store, read_only=share.read_only)
    return Target(share.db, options, configuration.backup, replica, share.key_source, configuration.maintenance)


def _chosen(shares: tuple[ShareOptions, ...], name: str | None, config_file: Path | None) -> ShareOptions:
    if name is None:
        if len(shares) > 1:
            names = ", ".join(share.name for share in shares)
            raise click.UsageError(f"{config_file} has several shares; choose one with --share: {names}")
        return shares[0]
    if config_file is None:
        raise click.UsageError("--share needs --config, whose shares it chooses from.")
    for share in shares:
        if lookup_key(share.name) == lookup_key(name.strip("/")):
            return share
    names = ", ".join(share.name or "/" for share in shares)
    raise ConfigError(f"{config_file}: no share is called {name!r}; there are: {names}")
