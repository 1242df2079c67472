"""Imports point down only, and each outside library has one place."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "davsql"

BASE = {"", "access", "errors", "model", "networks", "paths", "counters", "requestid"}
MAY_IMPORT = {
    "": set[str](),
    "__main__": {"cli"},
    "access": BASE,
    "errors": BASE,
    "model": BASE,
    "networks": BASE,
    "paths": BASE,
    "counters": BASE,
    "requestid": BASE,
    "keys": BASE,
    "store": BASE | {"keys"},
    "maintenance": BASE | {"store", "keys"},
    "accounts": BASE | {"store"},
    "audit": BASE | {"store"},
    "dav": BASE | {"store", "accounts", "audit"},
    "certificates": BASE,
    "server": BASE | {"maintenance", "metrics"},
    "metrics": BASE | {"store", "maintenance"},
    "doctor": BASE | {"certificates", "store", "keys", "accounts", "audit", "maintenance", "server"},
    "config": BASE | {"store", "keys", "accounts", "audit", "maintenance", "dav", "server"},
    "cli": BASE
    | {
        "store",
        "keys",
        "accounts",
        "audit",
        "maintenance",
        "dav",
        "certificates",
        "server",
        "metrics",
        "doctor",
        "config",
    },
}
ONE_PLACE = {
    "apsw": "store",
    "wsgidav": "dav",
    "lxml": "dav",
    "cheroot": "server",
    "httptools": "server",
    "argon2": "accounts",
}

# lxml reads foreign XML; the expat of an old Python has holes that were mended long since.
NOWHERE = {"xml", "pyexpat", "defusedxml", "pickle", "marshal", "shelve"}

FILES = sorted(PACKAGE.rglob("*.py"))


def part_of(file: Path) -> str:
    """The layer that a module belongs to; "" is the package itself."""
    first = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imports(file: Path) -> Iterator[str]:
    """The dotted names that a module imports, within functions and for types too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            assert node.level == 0
            yield node.module
            if node.module == "davsql":
                yield from (f"davsql.{alias.name}" for alias in node.names if not alias.name.startswith("__"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports__point_down_only(file: Path) -> None:
    part = part_of(file)
    for name in imports(file):
        first, _, rest = name.partition(".")
        if first == "davsql":
            other = rest.split(".")[0]
            assert other == part or other in MAY_IMPORT[part], f"{part} must not import {name}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports__libraries_have_one_place(file: Path) -> None:
    for name in imports(file):
        assert name.partition(".")[0] not in NOWHERE, name
        place = ONE_PLACE.get(name.partition(".")[0])
        assert place in (None, part_of(file)), f"{name} is for {place} only"
