"""`davsql stats`: figures about a store."""

from __future__ import annotations

import json

import click

from davsql.cli.printing import human_size
from davsql.cli.target import Target, target_option


@click.command(short_help="Show figures about a store.")
@click.option("--json", "is_json", is_flag=True, help="As one JSON object; sizes in bytes.")
@target_option
def stats(target: Target, *, is_json: bool) -> None:
    """Show figures about the store: what it holds, and what its file consists of.

    \b
    Examples:
      davsql stats
      davsql stats --db /srv/photos.db --json
    """
    with target.open(read_only=True) as store:
        found = store.stats()._asdict()
    if is_json:
        click.echo(json.dumps(found))
        return
    width = max(map(len, found))
    for name, value in found.items():
        click.echo(f"{name.removesuffix('_bytes').replace('_', ' '):<{width}}  {_figure(name, value)}")


def _figure(name: str, value: object) -> str:
    if isinstance(value, int) and (name.endswith("_bytes") or name == "page_size"):
        return human_size(value)
    return f"{value:,}" if isinstance(value, int) else str(value)
