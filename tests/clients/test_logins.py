"""Clients that log in: with the password, with a token, as Bearer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from davsql.dav.application import make_application
from davsql.dav.request import DavOptions
from davsql.store.store import Store
from tests.accounts.account_steps import PASSWORD, add_token, gate_of, new_accounts
from tests.clients.programs import Program, find_program
from tests.clients.rclones import remote
from tests.live_server import LiveServer, serving


@pytest.fixture
def token_and_server(store: Store, tmp_path: Path) -> Iterator[tuple[str, LiveServer]]:
    """A server with accounts, and a token of ann."""
    accounts = new_accounts(tmp_path)
    with serving(make_application({"/": store}, DavOptions(), gate=gate_of(accounts))) as server:
        yield add_token(accounts, "ann"), server
    accounts.close()


def test_curl__asks_first_and_then_sends_the_password(
    curl: Program, folder: Path, token_and_server: tuple[str, LiveServer]
) -> None:
    token, server = token_and_server
    (folder / "a.txt").write_bytes(b"content")
    for login in (["--anyauth", "-u", f"ann:{PASSWORD}"], ["-u", f"ann:{token}"], ["--oauth2-bearer", token]):
        curl.run("-sSf", *login, "-T", "a.txt", server.url + "/")
        assert curl.run("-sSf", *login, server.url + "/a.txt").out == "content"
    assert curl.run("-sf", "-u", "ann:wrong", server.url + "/").code == 22


def test_rclone__copies_with_a_token(folder: Path, token_and_server: tuple[str, LiveServer]) -> None:
    token, server = token_and_server
    settings = remote(server.url)
    obscured = find_program("rclone", folder, settings).run("obscure", token).out.strip()
    as_user = {"RCLONE_CONFIG_DRIVE_USER": "ann", "RCLONE_CONFIG_DRIVE_PASS": obscured}
    (folder / "source").mkdir()
    for number in range(10):
        (folder / "source" / f"{number}.txt").write_bytes(b"content")
    rclone = find_program("rclone", folder, settings | as_user)
    assert rclone.run("copy", "source", "drive:copy").code == 0
    assert rclone.run("check", "--download", "source", "drive:copy").code == 0
    bearing = find_program("rclone", folder, settings | {"RCLONE_CONFIG_DRIVE_BEARER_TOKEN": token})
    assert len(bearing.run("lsf", "drive:copy").out.split()) == 10
    assert find_program("rclone", folder, settings).run("lsf", "drive:copy").code != 0
