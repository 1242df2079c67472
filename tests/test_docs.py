"""README, CHANGELOG and docs are true: commands, options, keys, links, files, limits and statuses exist as written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest

from davsql import config, paths
from davsql.cli.main import COMMANDS
from davsql.cli.main import davsql as program
from davsql.cli.maintain import WORK
from davsql.dav import conditions, safexml, xmlbody
from davsql.dav.errors import RULES
from davsql.maintenance import thread
from davsql.store import blobs, checkpointer, sizes, trees, wal, writer
from davsql.store.options import StoreOptions

PROJECT = Path(__file__).parent.parent
PAGES = [PROJECT / "README.md", PROJECT / "CHANGELOG.md", *sorted((PROJECT / "docs").glob("*.md"))]
PROTOCOL = PROJECT / "docs" / "protocol.md"
SECURITY = PROJECT / "docs" / "security.md"
OPERATIONS = PROJECT / "docs" / "operations.md"

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^    \S.*$", re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
CALL = re.compile(r"\bdavsql ([a-z]+)\b([^#|;`\n]*)")
OPTION = re.compile(r"(?<!\S)-{1,2}[A-Za-z][A-Za-z-]*")
LINK = re.compile(r"\]\(([^)\s]+)\)")

# Rows of the table of limits whose value is not that of a key.
FIXED_LIMITS = {
    "Bytes of a name, UTF-8": paths.MAX_NAME_BYTES,
    "Bytes of a path, decoded": paths.MAX_PATH_BYTES,
    "Bytes of the owner of a lock": xmlbody.MAX_OWNER_BYTES,
    "Files and folders counted for sizes of collections": sizes.COUNTED_NODES,
    "Properties in a request": xmlbody.MAX_PROPERTIES,
    "Nesting of XML": safexml.MAX_DEPTH,
    "Tags in an XML body": safexml.MAX_TAGS,
    "Attributes in an XML body": safexml.MAX_ATTRIBUTES,
    "Namespace declarations in an XML body": safexml.MAX_NAMESPACES,
    "Entity tags in a header": conditions.MAX_ENTITY_TAGS,
    "Lists in an `If` header": conditions.MAX_STATE_LISTS,
    "Conditions in an `If` header": conditions.MAX_STATE_CONDITIONS,
}

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def code_of(page: Path) -> Iterator[str]:
    """Every piece of code on a page: fenced and indented lines, and what stands in backticks."""
    text = page.read_text(encoding="utf-8")
    for _, block in FENCED.findall(text):
        yield from block.splitlines()
    text = FENCED.sub("", text)
    yield from (line.strip() for line in INDENTED.findall(text))
    yield from INLINE.findall(text)


def defaults() -> dict[str, Any]:
    """Every key of the configuration as `table.key`, with its default."""
    classes = config.option_classes()
    found: dict[str, Any] = {}
    for table, parts in config.TABLES.items():
        for options in (classes[part]() for part in parts):
            found |= {f"{table}.{each.name}": getattr(options, each.name) for each in fields(options)}
    share = {f"{config.SHARE}.{each.name}": None for each in fields(config.ShareOptions)}
    return {key: value for key, value in found.items() if key not in config.PER_SHARE} | share


def options_of(command: str) -> set[str]:
    found = program.get_command(click.Context(program), command)
    assert found is not None
    below = found.commands.values() if isinstance(found, click.Group) else ()
    return {name for each in (found, *below) for option in each.params for name in option.opts} | {"--help", "-h"}


def rows_below(heading: str, page: Path) -> list[list[str]]:
    """The cells of the first table after a heading, without its head."""
    text = page.read_text(encoding="utf-8").split(f"\n## {heading}\n", 1)[1]
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert table is not None
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.group().splitlines()[2:]]


def anchors_of(page: Path) -> set[str]:
    """The anchors that headings get from GitHub and others."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@each_page
def test_docs__commands_and_their_options_exist(page: Path) -> None:
    calls = [call for code in code_of(page) for call in CALL.findall(code)]
    assert {command for command, _ in calls} <= COMMANDS.keys()
    for command, arguments in calls:
        assert set(OPTION.findall(arguments)) <= options_of(command), f"davsql {command}{arguments}"


@each_page
def test_docs__options_named_alone_exist(page: Path) -> None:
    known = {option for command in COMMANDS for option in options_of(command)}
    known |= {"--ignore-times", "--download", "--vfs-write-back"}  # of rclone
    named = {code for code in code_of(page) if re.fullmatch(r"-{1,2}[A-Za-z-]+", code)}
    assert named <= known


@each_page
def test_docs__keys_of_the_configuration_exist(page: Path) -> None:
    tables = "|".join([*config.TABLES, config.SHARE])
    named = {code for code in code_of(page) if re.fullmatch(rf"(?:{tables})\.(?!py$)\w+", code)}
    assert named <= defaults().keys()


@each_page
def test_docs__defaults_with_units_are_those_of_the_code(page: Path) -> None:
    known = defaults()
    told = re.findall(r"`(\w+\.\w+)` \(([0-9]+) (s|days|MB|MiB|MiB/s)\)", page.read_text(encoding="utf-8"))
    units = {"s": "_s", "days": "_days", "MB": "_mb", "MiB": "_mb", "MiB/s": "_mb_per_s"}
    for key, value, unit in told:
        assert key.endswith(units[unit]), key
        assert known[key] == int(value), key


@each_page
def test_docs__examples_of_the_configuration_load(page: Path, tmp_path: Path) -> None:
    for language, block in FENCED.findall(page.read_text(encoding="utf-8")):
        if language == "toml":
            file = tmp_path / "davsql.toml"
            file.write_text(block, encoding="utf-8")
            config.load(file)


@each_page
def test_docs__links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors_of(target), link


@each_page
def test_docs__files_that_are_named_exist(page: Path) -> None:
    named = {
        code.rstrip("/") for code in code_of(page) if re.fullmatch(r"(?:davsql|scripts|config|docs)/[\w./-]*", code)
    }
    assert [name for name in named if not (PROJECT / name).exists()] == []


def test_readme__lists_every_command() -> None:
    rows = rows_below("Commands", PROJECT / "README.md")
    assert {row[0].split()[1].strip("`") for row in rows} == COMMANDS.keys()


def test_protocol__limits_are_those_of_the_code() -> None:
    known = defaults()
    fixed: dict[str, int] = {}
    for name, value, key, _ in rows_below("Limits", PROTOCOL):
        if key:
            assert int(value) == known[key.strip("`")], name
        else:
            fixed[name] = int(value)
    assert fixed == FIXED_LIMITS


def test_security__limits_are_those_of_the_code() -> None:
    known = defaults()
    for name, bound, keys, _ in rows_below("Limits", SECURITY):
        for key in re.findall(r"`([a-z_]+\.[a-z_]+)`", keys):
            value = known[key]
            forms = {f"{value:,}", f"{value:g} s", f"{value:g} bytes/s", "none" if value is None or value == 0 else ""}
            if isinstance(value, int):
                forms |= {f"{value >> 10} KiB", f"{value >> 20} MiB", "an hour" if value == 3600 else ""}
            assert any(form and form in bound for form in forms), (name, key, value)


def test_protocol__tells_every_status_and_condition_of_an_error() -> None:
    rows = rows_below("Errors", PROTOCOL)
    told = {status.strip() for row in rows for status in row[0].split(",")}
    assert {str(rule.status) for rule in RULES.values()} <= told
    for rule in RULES.values():
        if rule.condition is not None:
            assert any(str(rule.status) in row[0] and f"`{rule.condition}`" in row[1] for row in rows), rule


def test_operations__tells_when_each_work_of_maintain_is_done_by_itself() -> None:
    assert {row[0].strip("`") for row in rows_below("Maintenance", OPERATIONS)} == WORK.keys()


def test_operations__retention_and_reach_of_a_replica_are_those_of_the_code() -> None:
    text, known = " ".join(OPERATIONS.read_text(encoding="utf-8").split()), defaults()
    hourly, daily, weekly, monthly = (known[f"backup.keep_{each}"] for each in ("hourly", "daily", "weekly", "monthly"))
    assert f"last {hourly} hours that have one" in text
    assert f"of the last {daily} days, {weekly} weeks and {monthly} months" in text
    assert known["replica.exact_s"] == 3600
    assert "any second of the last hour (`replica.exact_s`)" in text
    assert known["replica.retention_s"] == 7 * 24 * 3600
    assert "within a week steps of 30 seconds (`replica.retention_s`)" in text


def test_docs__sizes_in_sentences_are_those_of_the_code() -> None:
    architecture = (PROJECT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tuning = (PROJECT / "docs" / "tuning.md").read_text(encoding="utf-8")
    page_size, chunk = f"{StoreOptions().page_size // 1024} KiB", f"{blobs.CHUNK_BYTES // 1024} KiB"
    assert f"({page_size} and {chunk})" in architecture
    assert f"pages of {page_size} and chunks of {chunk}" in tuning
    assert f"Chunks of {blobs.SHARED_CHUNK_BYTES // 1024} KiB and more are shared" in architecture
    assert f"up to {writer.BATCH_COMMANDS} commands or {writer.BATCH_BYTES >> 20} MiB" in architecture
    flowing = " ".join(architecture.split())
    assert f"A tree of up to {trees.AT_ONCE_NODES:,} nodes is copied in one command" in flowing
    assert f"in commands of {trees.STEP_NODES:,} nodes" in flowing
    checkpoint, limit = checkpointer.CHECKPOINT_BYTES >> 20, wal.BYTES_LIMIT >> 20
    assert f"empties the WAL after {thread.QUIET_S:.0f} quiet seconds" in flowing
    assert f"for each {checkpoint} MiB that the WAL grows by. At {limit} MiB the writer waits" in flowing
