"""The account file: what makes a side file one of accounts."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from davsql.store.sidefile import Kind, SideFile

VERSION = 1
APPLICATION_ID = 0x44415641  # "DAVA"


def open_accounts(file: Path) -> SideFile:
    """Open an account file; raises as `SideFile` does."""
    return SideFile(file, _kind())


def create_accounts(file: Path) -> None:
    """Make one without accounts; raises as `SideFile.create` does."""
    SideFile.create(file, _kind())


def _kind() -> Kind:
    schema = files("davsql.accounts").joinpath("schema.sql").read_text(encoding="utf-8")
    return Kind("account file", APPLICATION_ID, VERSION, schema)
