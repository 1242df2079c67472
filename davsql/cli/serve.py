"""`davsql serve`: serve stores over WebDAV until told to stop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import click

from davsql.cli.accounts import accounts_option, served_file, way_of_passwords
from davsql.cli.auditing import AuditPlace, audit_place
from davsql.cli.logging_setup import set_up_logging
from davsql.cli.monitoring import announcement, require_local, start_admin
from davsql.cli.printing import printable
from davsql.cli.rules import rules_of
from davsql.cli.site import Site
from davsql.cli.target import file_options, load_config, shares_of
from davsql.cli.tls import with_tls
from davsql.config import Config, ListenOptions, ShareOptions
from davsql.dav.peer import href_of_base
from davsql.errors import ListenError
from davsql.keys.sources import KeySource
from davsql.paths import encoded_name
from davsql.server.addresses import is_loopback, reason_of, url_of
from davsql.server.admin import OneProcess
from davsql.server.listening import IS_SPREAD, bind
from davsql.server.memory import share_one_heap
from davsql.server.options import TlsMode
from davsql.server.run import run
from davsql.server.workers import Supervisor

_log = logging.getLogger(__name__)

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
@click.option(
    "--workers", type=click.IntRange(1, 256), metavar="N", help="Processes that serve.  [default: the cores, at most 4]"
)
@click.option("--tls", type=click.Choice(get_args(TlsMode)), help='TLS; "auto" makes a certificate.  [default: off]')
@click.option("--read-only", "is_read_only", is_flag=True, help="Refuse every change.")
def serve(
    db: Path | None,
    config: Path | None,
    accounts: Path | None,
    keys: KeySource,
    *,
    is_read_only: bool,
    tls: TlsMode | None,
    **listening: str | int | None,
) -> None:
    """Serve stores as network drives (WebDAV) until Ctrl-C or SIGTERM.

    Without --config the one store of --db is served at /; it is made if it is missing. Options here override the
    configuration file. Without accounts (`davsql user add`) everybody may do everything, so davsql listens on loopback
    addresses only. With several workers, SIGHUP makes it read the configuration again.

    \b
    Examples:
      davsql serve
      davsql serve --db /srv/photos.db --port 8090 --read-only
      davsql serve --config /etc/davsql.toml --workers 1
      davsql serve --host 0.0.0.0 --tls auto
    """

    def read() -> Site:
        configuration = with_tls(load_config(config), config, tls)
        shares = shares_of(db, configuration, config, keys)
        shares = tuple(replace(share, read_only=share.read_only or is_read_only) for share in shares)
        account_file = served_file(accounts, config, configuration.accounts)
        audit = audit_place(configuration.audit, account_file, config)
        return _site(configuration, shares, account_file, audit, listening)

    share_one_heap()
    site = read()
    set_up_logging(site.configuration.log)
    if site.workers == 1:
        _serve_alone(site)
    else:
        _serve_together(site, read)
    click.echo("davsql stopped")


def _site(
    configuration: Config,
    shares: tuple[ShareOptions, ...],
    account_file: Path | None,
    audit: AuditPlace,
    listening: Mapping[str, Any],
) -> Site:
    """What to serve; `listening` overrides the configuration where it is not None."""
    listen = replace(configuration.listen, **{key: value for key, value in listening.items() if value is not None})
    if listen.workers > 1 and not IS_SPREAD:
        click.echo("davsql: this system does not spread connections over processes: one serves them all", err=True)
        listen = replace(listen, workers=1)
    if account_file is None:
        _require_loopback(listen.host)
    require_local(configuration.admin)
    configuration = replace(configuration, listen=listen)
    rules = rules_of(shares, configuration, has_accounts=account_file is not None)
    return Site(configuration, shares, rules, account_file, audit)


def _serve_alone(site: Site) -> None:
    listen = site.configuration.listen
    with ExitStack() as stack:
        watched = site.open(stack)
        application = site.application(stack, watched.shares)
        server = site.server((listen.host, listen.port), application)
        try:
            server.prepare()
        except OSError as error:
            raise _listen_error(listen, error) from error
        stack.callback(server.stop)  # where the next line fails; `run` stops it otherwise
        admin = start_admin(site.configuration.admin, OneProcess(watched, server))
        if admin is not None:
            stack.callback(admin.stop)
        monitoring = "" if admin is None else announcement(admin)
        run(server, on_stop=stack.close, announce=lambda: _announce(server.bind_addr, site, monitoring))


def _serve_together(site: Site, read: Callable[[], Site]) -> None:
    listen = site.configuration.listen
    try:
        first = bind(listen.host, listen.port)
    except OSError as error:
        raise _listen_error(listen, error) from error

    def reread() -> Site:
        new = read()
        if new.configuration.listen.host != listen.host or new.configuration.listen.port != listen.port:
            _log.warning("another address to listen on needs a restart; the old one stays")
        new = new.prepared()
        set_up_logging(new.configuration.log)
        return new

    with first:
        Supervisor(first, site.prepared(), reread).run(lambda said: _announce(first.getsockname(), site, said))


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


def _listen_error(listen: ListenOptions, error: OSError) -> ListenError:
    return ListenError(
        f"cannot listen on {listen.host}:{listen.port}: {reason_of(error)}; stop the program that "
        "uses the port, or choose another one with --port"
    )


def _announce(address: tuple[str, int], site: Site, monitoring: str) -> None:
    shares = site.shares
    suffix = "" if site.configuration.tls.tls == "off" else "s"
    origin = url_of(str(address[0]), int(address[1])).removeprefix("http:")
    origin = f"{origin.rstrip('/')}{href_of_base(site.configuration.proxy.base)}/"
    urls = [origin + (encoded_name(share.name) + "/" if share.name else "") for share in shares]
    for share, url in zip(shares, urls, strict=True):
        note = " (read-only)" if share.read_only else ""
        click.echo(f"serving {printable(share.db)} on http{suffix}:{url}{note}")
    if monitoring:
        click.echo(monitoring)
    if site.accounts is None:
        click.echo("There are no accounts: only this machine can reach it, and everybody here may do everything.\n")
    else:
        click.echo(f"accounts: {printable(site.accounts)}")
        if way := way_of_passwords(site.configuration.listen.host, site.configuration):
            click.echo(way)
        click.echo()
    login = "" if site.accounts is None else "-u NAME "
    click.echo(HOW_TO_MOUNT.format(url=f"http{suffix}:{urls[0]}", dav_url=f"dav{suffix}:{urls[0]}", login=login))
    if site.configuration.tls.tls == "auto":
        click.echo("Devices that do not trust its certificate yet: davsql cert export-ca says what to do.\n")
    click.echo("Ctrl-C stops it.")
