"""`davsql stats`: figures about a store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from davsql.cli.printing import human_size, printable
from davsql.cli.target import Target, target_option
from davsql.doctor.finding import human_age
from davsql.store.stats import Check, Holder, Large, Stats

_LISTS = ("checks", "most_members", "most_bytes", "holders")


@click.command(short_help="Show figures about a store.")
@click.option("--json", "is_json", is_flag=True, help="As one JSON object; sizes in bytes.")
@target_option
def stats(target: Target, *, is_json: bool) -> None:
    """Show figures about the store: what it holds, and what its file consists of.

    Queue, readers and cache are those of this command; /metrics has those of a server that runs.

    \b
    Examples:
      davsql stats
      davsql stats --db /srv/photos.db --json
    """
    with target.open(read_only=True) as store:
        found = store.stats()
    if is_json:
        large = {name: [each._asdict() for each in getattr(found, name)] for name in _LISTS}
        click.echo(json.dumps(found._asdict() | large))
        return
    lines = list(_figures(found))
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        click.echo(f"{name:<{width}}  {value}" if value else f"\n{name}")


def _figures(found: Stats) -> Iterator[tuple[str, str]]:
    """Names and values; a heading has none."""
    for name, value in found._asdict().items():
        match name, value:
            case _, tuple():
                yield from _list(name, value)
            case (("queue_size" | "readers_in_use"), _):
                pass  # beside the figure that it belongs to
            case "queue_depth", _:
                yield "queue", f"{value:,} of {found.queue_size:,}"
            case "readers", _:
                yield "readers in use", f"{found.readers_in_use:,} of {value:,}"
            case "page_size", _:
                yield "page size", human_size(value)
            case "freelist_count", _:
                yield "free pages", f"{value:,} ({human_size(value * found.page_size)})"
            case _, float():
                yield name.replace("_", " "), f"{value:,.2f}"
            case _ if name.endswith("_bytes"):
                yield name.removesuffix("_bytes").replace("_", " "), human_size(value)
            case _:
                yield name.replace("_", " "), f"{value:,}"


def _list(name: str, rows: tuple[Any, ...]) -> Iterator[tuple[str, str]]:
    match name:
        case "checks":
            yield from map(_last, rows)
        case "holders":
            yield from _holders(rows)
        case _:
            yield from _largest(name, rows)


def _last(check: Check) -> tuple[str, str]:
    age = "" if check.age_s is None else f", {human_age(max(0, check.age_s))} ago"
    return check.name.replace("_", " "), check.outcome + age


def _holders(holders: tuple[Holder, ...]) -> Iterator[tuple[str, str]]:
    """Nobody alone is not worth telling: there are no accounts."""
    if any(each.owner for each in holders):
        yield "users who hold the most", ""
        for owner, nodes, size_bytes in holders:
            yield "  " + human_size(size_bytes), f"{printable(owner) or '(nobody)'}, {nodes:,} files and folders"


def _largest(name: str, collections: tuple[Large, ...]) -> Iterator[tuple[str, str]]:
    if collections:
        yield "collections with the " + name.replace("_", " "), ""
    for path, figure in collections:
        yield "  " + (human_size(figure) if name == "most_bytes" else f"{figure:,}"), printable(path)
