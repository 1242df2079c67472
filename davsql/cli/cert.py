"""`davsql cert`: the server's certificate, and the authority that davsql makes for it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from davsql.certificates.authority import Authority
from davsql.certificates.reading import read_certificate
from davsql.cli.printing import counted, printable
from davsql.cli.target import load_config
from davsql.cli.tls import HOW_TO_TRUST, authority_of, tls_place_of, with_tls
from davsql.config import Config
from davsql.errors import ConfigError, NotFound


def _config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --config; the command gets the configuration and its file."""

    @functools.wraps(command)
    def with_config(*args: Any, config: Path | None, **kwargs: Any) -> Any:
        # without a file it is about `davsql serve --tls auto`
        configuration = with_tls(load_config(config), config, "auto" if config is None else None)
        return command(*args, configuration=configuration, config_file=config, **kwargs)

    return click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="Configuration file (TOML).")(
        with_config
    )


@click.group(short_help="Show and renew the certificate of TLS, and export its authority.")
def cert() -> None:
    """The certificate with which `davsql serve` speaks TLS.

    Without --config it is that of `davsql serve --tls auto` in the current folder. A server that runs uses a new one
    within seconds, and keeps its connections.

    \b
    Examples:
      davsql cert show --config /etc/davsql.toml
      davsql cert export-ca ca.pem
      davsql cert renew
    """


@cert.command()
@_config_option
def show(configuration: Config, config_file: Path | None) -> None:
    """Show for whom the certificate is, from whom, and until when."""
    place = tls_place_of(configuration)
    if place is None:
        raise ConfigError(f'{config_file}: there is no TLS; set [server] tls = "auto" or "files"')
    if place.authority is not None:
        _require_made(place.certificate)
    _show(place.certificate)


@cert.command()
@click.option("--new-ca", is_flag=True, help="Make a new authority too: every device has to be told of it.")
@_config_option
def renew(configuration: Config, config_file: Path | None, *, new_ca: bool) -> None:
    """Make a new certificate now, as `tls = "auto"` does by itself a month before the old one ends."""
    authority = _authority(configuration, config_file)
    if authority.ensure(anew=True, new_ca=new_ca):
        click.echo(HOW_TO_TRUST.format(ca=printable(authority.ca_certificate)))
    _show(authority.certificate)


@cert.command("export-ca")
@click.argument("target", type=click.Path(path_type=Path), metavar="[FILE]", required=False)
@_config_option
def export_ca(configuration: Config, config_file: Path | None, target: Path | None) -> None:
    """Write the certificate of the authority, which devices have to trust, to FILE or to standard output.

    There is no secret in it. How to make devices trust it is told on standard error.
    """
    authority = _authority(configuration, config_file)
    _require_made(authority.ca_certificate)
    text = authority.ca_certificate.read_text(encoding="ascii")
    if target is None:
        click.echo(text, nl=False)
    else:
        target.write_text(text, encoding="ascii")
    click.echo(HOW_TO_TRUST.format(ca=printable(target or "ca.pem")), err=True)


def _authority(configuration: Config, config_file: Path | None) -> Authority:
    if configuration.tls.tls != "auto":
        raise ConfigError(
            f'{config_file}: only with [server] tls = "auto" certificates are made here; others come from where you '
            "got them"
        )
    listen = configuration.listen.host
    return authority_of(configuration, [listen])


def _require_made(file: Path) -> None:
    if not file.exists():
        raise NotFound(f"{file} does not exist; `davsql serve` makes it at its start, `davsql cert renew` at once")


def _show(file: Path) -> None:
    found = read_certificate(file)
    left = found.left(datetime.now(UTC)).days
    click.echo(f"file         {printable(file)}")
    click.echo(f"subject      {printable(found.subject)}")
    click.echo(f"issuer       {printable(found.issuer)}")
    click.echo(f"names        {printable(' '.join(found.names))}")
    click.echo(f"valid from   {found.begins_at:%Y-%m-%d %H:%M} UTC")
    state = counted(left, "day") + " left" if left >= 0 else "it has ended"
    click.echo(f"valid until  {found.ends_at:%Y-%m-%d %H:%M} UTC, {state}")
    click.echo(f"SHA-256      {found.fingerprint}")
