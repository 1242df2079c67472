"""The rules and quotas of the shares that are served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from davsql.cli.printing import printable
from davsql.config import Config, ShareOptions
from davsql.dav.access import ShareRules
from davsql.dav.quotas import ShareQuotas, limit_of
from davsql.errors import ConfigError


def rules_of(
    shares: Sequence[ShareOptions], configuration: Config, *, has_accounts: bool
) -> Mapping[str, ShareRules] | None:
    """The rules by mount path; None without accounts. Says which shares nobody can use.

    Raises:
        ConfigError: there are rules, and nobody they could be about.
    """
    if not has_accounts:
        for share in configuration.shares:
            if share.rules or share.quota:
                raise ConfigError(
                    f"the share {share.mount} has rules (users, groups, [[share.rule]] or [[share.quota]]), but there "
                    "are no accounts, so everybody could do everything: name a file for accounts ([accounts] file), or "
                    "take the rules out"
                )
        return None
    for share in shares:
        if not share.rules:
            click.echo(
                f"warning: the share {printable(share.mount)} has no rules, so nobody can use it: say users = [...] in "
                "its [[share]]",
                err=True,
            )
    return {share.mount: ShareRules(share.name, share.rules) for share in shares}


def quotas_of(shares: Sequence[ShareOptions]) -> Mapping[str, ShareQuotas]:
    """The quotas by mount path."""
    return {share.mount: ShareQuotas(limit_of(share.quota_mb, share.quota_nodes), share.quota) for share in shares}
