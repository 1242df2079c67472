"""`davsql audit`: who did what, and whether the log is what was written."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from davsql.accounts.names import name_key
from davsql.audit import verify as verification
from davsql.audit.chain import Record
from davsql.audit.key import KeyFile
from davsql.audit.rotation import fields_of
from davsql.cli.accounts import accounts_option, served_file
from davsql.cli.auditing import AuditPlace, audit_place
from davsql.cli.printing import counted, printable
from davsql.cli.target import load_config

_NS = 1_000_000_000
_SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}

_config_option = click.option(
    "--config", type=click.Path(path_type=Path), metavar="FILE", help="Configuration file (TOML)."
)


class _Moment(click.ParamType[int]):
    """`90m`, `12h`, `7d`, `8w` ago, or a time; local where it names no zone. In nanoseconds since the epoch."""

    name = "time"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        span = re.fullmatch(r"(\d{1,6})([mhdw])", value)
        if span is not None:
            return time.time_ns() - int(span[1]) * _SECONDS[span[2]] * _NS
        try:
            return int(datetime.fromisoformat(value).astimezone().timestamp() * _NS)
        except (ValueError, OverflowError):
            self.fail("expected something like 12h, 7d, 2026-11-23 or '2026-11-23 11:59'", param, ctx)


@click.group(short_help="Show or verify the audit log.", invoke_without_command=True)
@click.option(
    "--since", type=_Moment(), metavar="WHEN", help="From then on: 12h, 7d (ago), or a date with or without time."
)
@click.option("--until", type=_Moment(), metavar="WHEN", help="Up to then.")
@click.option("--user", metavar="NAME", help="What this user did, or what failed in the name.")
@click.option("--path", metavar="PATH", help="What was done to this path or below it, with the share's name in front.")
@click.option("--json", "is_json", is_flag=True, help="As JSON, one object a line.")
@accounts_option
@_config_option
@click.pass_context
def audit(
    context: click.Context, /, accounts: Path | None, config: Path | None, *, is_json: bool, **wanted: Any
) -> None:
    """Show the audit log: who did what, when and from where.

    Compressed files that rotations have made are read too. The store may be served meanwhile.

    \b
    Examples:
      davsql audit --since 7d --user ann
      davsql audit --path /drive/contracts --json --config davsql.toml
      davsql audit verify --config davsql.toml
    """
    if context.invoked_subcommand is not None:
        return
    place = _place(accounts, config)
    for record in _chosen(verification.read(place.file), **wanted):
        click.echo(json.dumps(fields_of(record)) if is_json else _line(record))


@audit.command()
@accounts_option
@_config_option
@click.pass_context
def verify(context: click.Context, accounts: Path | None, config: Path | None) -> None:
    """Say whether rows were changed, moved, added or taken away. Exit code 1 when so."""
    place = _place(accounts, config)
    verdict = verification.verify(place.file, KeyFile(place.key_file))
    for fault in verdict.faults:
        click.echo(printable(fault))
    if verdict.faults:
        click.echo(
            f"{printable(place.file)} is not what was written: {counted(len(verdict.faults), 'fault')}", err=True
        )
        context.exit(1)
    click.echo(f"{counted(verdict.rows, 'row')}, the last one is {verdict.last}: all as they were written")


def _place(accounts: Path | None, config: Path | None) -> AuditPlace:
    configuration = load_config(config)
    return audit_place(configuration.audit, served_file(accounts, config, configuration.accounts), config)


def _chosen(
    records: Iterator[Record], since: int | None, until: int | None, user: str | None, path: str | None
) -> Iterator[Record]:
    key = None if user is None else name_key(user)
    for record in records:
        entry = record.entry
        if (since is not None and entry.at < since) or (until is not None and entry.at > until):
            continue
        if key is not None and (entry.user is None or name_key(entry.user) != key):
            continue
        if path is None or _is_within(entry.path, path) or _is_within(entry.destination or "", path):
            yield record


def _is_within(path: str, folder: str) -> bool:
    return (path.rstrip("/") + "/").startswith(folder.rstrip("/") + "/")


def _line(record: Record) -> str:
    at, user, address, method, path, destination, status, size, _ = record.entry
    moment = datetime.fromtimestamp(at / _NS, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    parts = [moment, user or "-", address, "-" if status is None else str(status), method, path]
    if destination is not None:
        parts += ["->" if status is not None else "", destination]
    if size:
        parts.append(f"({counted(size, 'byte')})")
    return printable(" ".join(each for each in parts if each))
