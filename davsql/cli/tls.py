"""How a server speaks TLS, from its configuration, and what people are told about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import click

from davsql.certificates.authority import Authority
from davsql.certificates.names import checked, names_of_machine
from davsql.cli.printing import printable
from davsql.config import Config
from davsql.doctor.certificate import TlsPlace
from davsql.errors import ConfigError
from davsql.server.options import TlsMode, TlsOptions
from davsql.server.tls import DAY_S, Tls, TlsFiles

DEFAULT_FOLDER = "davsql-tls"

HOW_TO_TRUST = """\
So that a device trusts this server, give it the file {ca} (not its neighbours) and there:
  Windows        certutil -addstore Root ca.pem         (as administrator)
  macOS          sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain ca.pem
  Debian, Ubuntu sudo cp ca.pem /usr/local/share/ca-certificates/davsql.crt && sudo update-ca-certificates
  Fedora, RHEL   sudo cp ca.pem /etc/pki/ca-trust/source/anchors/davsql.pem && sudo update-ca-trust
  Firefox        Settings, Privacy & Security, View Certificates, Authorities, Import
  iPhone, iPad   open it, Settings, General, VPN & Device Management, install; then General, About,
                 Certificate Trust Settings, switch it on
  Android        Settings, Security, Encryption & credentials, Install a certificate, CA certificate
  curl, rclone   curl --cacert ca.pem ..., rclone --ca-cert ca.pem ...
"""


def with_tls(configuration: Config, config_file: Path | None, mode: TlsMode | None = None) -> Config:
    """The configuration with what it leaves open about TLS.

    Args:
        config_file: where it is from; the folder of "auto" is beside it.
        mode: of --tls; None: as configured.

    Raises:
        click.UsageError: the mode does not fit the configuration.
    """
    tls = configuration.tls
    folder = tls.tls_folder or (config_file.parent if config_file else Path()) / DEFAULT_FOLDER
    try:
        tls = replace(tls, tls_folder=folder, tls=mode or tls.tls)
    except ValueError as error:
        raise click.UsageError(f"--tls {mode}: server.{error}") from error
    return replace(configuration, tls=tls)


def authority_of(configuration: Config, more: Sequence[str] = ()) -> Authority:
    """The authority of `tls = "auto"`.

    Args:
        configuration: from `with_tls`.
        more: what the server is called besides.
    """
    folder = configuration.tls.tls_folder or Path(DEFAULT_FOLDER)
    proxy = configuration.proxy
    public = urlsplit(proxy.public_url or "").hostname
    told = checked([*proxy.hosts, *([public] if public else []), *more])
    return Authority(folder, lambda: [*told, *names_of_machine()])


def tls_place_of(configuration: Config) -> TlsPlace | None:
    """Where the server's certificate is; None without TLS."""
    options = configuration.tls
    if options.tls == "auto":
        authority = authority_of(configuration)
        return TlsPlace(authority.certificate, authority.certificate, authority.ca_certificate)
    if options.tls == "off" or options.tls_certificate is None:
        return None
    return TlsPlace(options.tls_certificate, options.tls_key or options.tls_certificate)


def open_tls(configuration: Config) -> Tls | None:
    """What a server needs to speak TLS; None when it is off. What "auto" lacks is made.

    Raises:
        TlsError: the files cannot be used.
        ConfigError: what is configured would not be used.
    """
    options = configuration.tls
    hsts_s = options.hsts_days * DAY_S
    _refuse_misunderstanding(options)
    if options.tls == "files" and options.tls_certificate is not None:
        return Tls(_files(options, options.tls_certificate, options.tls_key), hsts_s=hsts_s)
    if options.tls == "off":
        return None
    authority = authority_of(configuration, [configuration.listen.host])
    if authority.ensure():
        click.echo(f"made a certificate authority: {printable(authority.folder)}\n")
        click.echo(HOW_TO_TRUST.format(ca=printable(authority.ca_certificate)))
    return Tls(_files(options, authority.certificate, None), renew=authority.ensure, hsts_s=hsts_s)


def _refuse_misunderstanding(options: TlsOptions) -> None:
    if options.tls == "auto" and (options.tls_certificate or options.tls_key):
        raise ConfigError('server.tls_certificate and server.tls_key are used with tls = "files" only')
    if options.tls == "off" and options.tls_client_ca:
        raise ConfigError("server.tls_client_ca: there is no TLS, so no client shows a certificate; set server.tls")


def _files(options: TlsOptions, certificate: Path, key: Path | None) -> TlsFiles:
    return TlsFiles(certificate, key, options.tls_client_ca, options.tls_client_certificates == "required")
