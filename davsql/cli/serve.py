"""`davsql serve`: serve stores over WebDAV until told to stop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from davsql.cli.accounts import accounts_option, open_gate, served_file
from davsql.cli.logging_setup import set_up_logging
from davsql.cli.monitoring import announcement, require_local, start_admin
from davsql.cli.printing import printable
from davsql.cli.replicas import open_share
from davsql.cli.rules import rules_of
from davsql.cli.target import file_options, load_config, shares_of, tell_of_migration
from davsql.config import Config, ListenOptions, ShareOptions
from davsql.dav.application import make_application
from davsql.errors import ListenError, NotFound
from davsql.maintenance.backup import backups_in
from davsql.maintenance.health import Watched
from davsql.maintenance.thread import Maintenance
from davsql.paths import encoded_name
from davsql.server.addresses import is_loopback, reason_of, url_of
from davsql.server.admin import AdminServer
from davsql.server.http import HttpServer
from davsql.server.run import run
from davsql.store.store import Store

if TYPE_CHECKING:
    from davsql.maintenance.replica_progress import ReplicaStatus

HOW_TO_MOUNT = """\
How to use it as a drive:
  Windows        net use Z: {url}
  macOS          Finder, Cmd-K, {url}
  GNOME          {dav_url} in the address bar of Files
  KDE            web{dav_url} in the address bar of Dolphin
  Linux          mount -t davfs {url} /mnt/drive
  rclone         rclone ls ":webdav,url='{url}':"
  curl           curl {login}-T FILE {url}
"""


@click.command(short_help="Serve stores as network drives (WebDAV).")
@file_options
@accounts_option
@click.option("--host", metavar="ADDRESS", help="Where to listen.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), metavar="N", help="TCP port, 0 for a free one.  [default: 8080]")
@click.option("--read-only", "is_read_only", is_flag=True, help="Refuse every change.")
def serve(
    db: Path | None,
    config: Path | None,
    accounts: Path | None,
    host: str | None,
    port: int | None,
    *,
    is_read_only: bool,
) -> None:
    """Serve stores as network drives (WebDAV) until Ctrl-C or SIGTERM.

    Without --config the one store of --db is served at /; it is made if it is missing. Options here override the
    configuration file. Without accounts (`davsql user add`) everybody may do everything, so davsql listens on loopback
    addresses only.

    \b
    Examples:
      davsql serve
      davsql serve --db /srv/photos.db --port 8090 --read-only
      davsql serve --config /etc/davsql.toml
    """
    configuration = _with_flags(load_config(config), host, port)
    shares = tuple(
        replace(share, read_only=share.read_only or is_read_only) for share in shares_of(db, configuration, config)
    )
    account_file = served_file(accounts, config, configuration.accounts)
    if account_file is None:
        _require_loopback(configuration.listen.host)
    require_local(configuration.admin)
    set_up_logging(configuration.log)
    with ExitStack() as stack:
        watched = _running_stores(stack, shares, configuration)
        gate = None if account_file is None else open_gate(stack, account_file, configuration.accounts)
        rules = rules_of(shares, configuration, has_accounts=gate is not None)
        application = make_application(
            watched.shares, configuration.dav, rules=rules, gate=gate, proxy=configuration.proxy
        )
        listen = configuration.listen
        server = HttpServer((listen.host, listen.port), application, configuration.server)
        try:
            server.prepare()
        except OSError as error:
            raise _listen_error(listen, error) from error
        stack.callback(server.stop)  # where the next line fails; `run` stops it otherwise
        admin = start_admin(configuration.admin, watched, server)
        if admin is not None:
            stack.callback(admin.stop)
        _announce(server, shares, admin, account_file)
        run(server, on_stop=stack.close)
    click.echo("davsql stopped")


def _with_flags(configuration: Config, host: str | None, port: int | None) -> Config:
    listen = configuration.listen
    chosen = replace(listen, host=listen.host if host is None else host, port=listen.port if port is None else port)
    return replace(configuration, listen=chosen)


def _require_loopback(host: str) -> None:
    """Refuse an address that others reach: without accounts everybody there could read and change everything."""
    try:
        is_local = is_loopback(host)
    except (OSError, UnicodeError) as error:
        raise ListenError(f"{host!r} is no address of this machine ({error}); use --host 127.0.0.1") from error
    if not is_local:
        raise ListenError(
            f"refusing to listen on {host!r}: there are no accounts, so everybody who reaches it could read and change "
            "everything; use --host 127.0.0.1, or make an account: davsql user add NAME"
        )


def _running_stores(stack: ExitStack, shares: tuple[ShareOptions, ...], configuration: Config) -> Watched:
    """All stores, open and looked after; `stack` ends maintenance, then the stores, then replicas."""
    stores: dict[str, Store] = {}
    replicas: dict[str, Callable[[], ReplicaStatus]] = {}
    for share in shares:
        if not share.db.exists() and not share.read_only:
            _require_no_backups(share, configuration)
            click.echo(f"making a new store: {printable(share.db)}")
        stores[share.mount], replica = open_share(stack, share, configuration)
        tell_of_migration(stores[share.mount])
        if replica is not None:
            replicas[share.mount] = replica.status
    for store in stores.values():
        maintenance = Maintenance(store, configuration.maintenance, configuration.backup.make_tasks())
        maintenance.start()
        stack.callback(maintenance.stop)
    return Watched(stores, replicas)


def _require_no_backups(share: ShareOptions, configuration: Config) -> None:
    """Where there are backups there was a store; an empty one in its place would look like a cleared drive."""
    folder = configuration.backup.folder
    backups = backups_in(folder, share.db) if folder is not None and folder.is_dir() else {}
    if backups:
        newest = backups[max(backups)]
        raise NotFound(
            f"{share.db} does not exist, but there are backups of it: is its disk mounted? To go on from the newest: "
            f"davsql restore {newest} --db {share.db}; to begin anew: davsql init --db {share.db}"
        )


def _listen_error(listen: ListenOptions, error: OSError) -> ListenError:
    return ListenError(
        f"cannot listen on {listen.host}:{listen.port}: {reason_of(error)}; stop the program that "
        "uses the port, or choose another one with --port"
    )


def _announce(
    server: HttpServer, shares: tuple[ShareOptions, ...], admin: AdminServer | None, account_file: Path | None
) -> None:
    host, port = server.bind_addr[:2]
    origin = url_of(str(host), int(port)).removeprefix("http:")
    urls = [origin + (encoded_name(share.name) + "/" if share.name else "") for share in shares]
    for share, url in zip(shares, urls, strict=True):
        note = " (read-only)" if share.read_only else ""
        click.echo(f"serving {printable(share.db)} on http:{url}{note}")
    if admin is not None:
        click.echo(announcement(admin))
    if account_file is None:
        click.echo("There are no accounts: only this machine can reach it, and everybody here may do everything.\n")
    else:
        click.echo(f"accounts: {printable(account_file)}\n")
    login = "" if account_file is None else "-u NAME "
    click.echo(HOW_TO_MOUNT.format(url=f"http:{urls[0]}", dav_url=f"dav:{urls[0]}", login=login))
    click.echo("Ctrl-C stops it.")
