"""`davsql doctor`: what an operator ought to look at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from davsql.cli.accounts import served_file
from davsql.cli.auditing import audit_place
from davsql.cli.printing import counted, printable
from davsql.cli.target import file_options, load_config, share_store_options, shares_of
from davsql.cli.tls import tls_place_of, with_tls
from davsql.doctor.certificate import check_certificate
from davsql.doctor.examination import Settings, examine
from davsql.doctor.finding import Finding
from davsql.doctor.private import check_accounts, check_audit
from davsql.keys.sources import KeySource


@click.command(short_help="Look for what endangers a store, and say what to do.")
@click.option("--json", "is_json", is_flag=True, help="As one JSON list.")
@file_options
@click.pass_context
def doctor(context: click.Context, db: Path | None, config: Path | None, keys: KeySource, *, is_json: bool) -> None:
    """Look at the store, its file, its disk and the configuration; of several shares, at all. With accounts, look at
    their file and at the audit log too, with TLS at the certificate.

    Nothing is changed, and the store may be served meanwhile. Each line ends as pass, warn or fail; what is to be done
    stands below. Exit code 1 when something fails.

    \b
    Examples:
      davsql doctor
      davsql doctor --config /etc/davsql.toml --json
    """
    configuration = load_config(config)
    settings = Settings(
        configuration.maintenance,
        configuration.backup,
        configuration.server,
        configuration.admin,
        configuration.replica.url,
    )
    reports = {
        share.db: list(examine(share.db, share_store_options(configuration, share), settings))
        for share in shares_of(db, configuration, config, keys)
    }
    accounts = served_file(None, config, configuration.accounts)
    if accounts is not None:
        reports[accounts] = list(check_accounts(accounts))
    audit = audit_place(configuration.audit, accounts, config)
    if audit.level != "off" and audit.file.exists():  # the first start makes it
        reports[audit.file] = list(check_audit(audit.file, audit.key_file))
    tls = tls_place_of(with_tls(configuration, config))
    if tls is not None:
        reports[tls.certificate] = list(check_certificate(tls))
    if is_json:
        found = [{"db": str(file), **asdict(each)} for file, findings in reports.items() for each in findings]
        click.echo(json.dumps(found, indent=2))
    else:
        for file, findings in reports.items():
            _show(file, findings)
    if any(each.status == "fail" for findings in reports.values() for each in findings):
        context.exit(1)


def _show(file: Path, findings: Sequence[Finding]) -> None:
    click.echo(printable(file))
    width = max(len(each.check) for each in findings)
    for each in findings:
        click.echo(f"  {each.status}  {each.check:<{width}}  {printable(each.found)}")
        if each.remedy:
            click.echo(f"        {'':<{width}}  -> {printable(each.remedy)}")
    counts = {status: sum(each.status == status for each in findings) for status in ("pass", "warn", "fail")}
    click.echo(
        f"{counted(len(findings), 'check')}: {counts['pass']} passed, {counted(counts['warn'], 'warning')}, "
        f"{counts['fail']} failed"
    )
