"""Clients of other makers over TLS, with a certificate of an authority of one's own."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from davsql.certificates.authority import Authority
from davsql.store.store import Store
from tests.clients.programs import Program, find_program
from tests.clients.test_litmus import SUITES, read_report
from tests.clients.trees import brief, make_odd_tree, tree_in_store, tree_on_disk
from tests.live_server import LiveServer, serving_shares
from tests.store_steps import read
from tests.tls.tls_steps import make_authority, tls_of

BIG = random.Random(3).randbytes(3_000_000)  # noqa: S311  # content, no secret


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_authority(tmp_path / "tls")


@pytest.fixture
def tls_server(store: Store, authority: Authority) -> Iterator[LiveServer]:
    with serving_shares({"/": store}, tls=tls_of(authority)) as live:
        yield live


# litmus 0.13 leaves the one test of `http` out over TLS
@pytest.mark.parametrize("suite", [suite for suite in SUITES if suite != "http"])
def test_litmus__passes_over_tls(suite: str, tls_server: LiveServer, folder: Path, store: Store) -> None:
    litmus = find_program("litmus", folder, {"TESTS": suite})
    finished = litmus.run(f"{tls_server.url}/")
    assert len(read_report(suite, finished.out)) >= SUITES[suite]
    assert (finished.code, finished.err) == (0, "")
    assert store.stats().locks == 0


def test_curl__verifies_the_certificate_and_moves_bytes(
    curl: Program, tls_server: LiveServer, store: Store, authority: Authority, folder: Path
) -> None:
    (folder / "big.bin").write_bytes(BIG)
    (folder / "back.bin").write_bytes(BIG[:1_000_000])
    assert curl.run("-sS", f"{tls_server.url}/").code == 60  # an authority that nobody told it of
    trusting = ("-sS", "--fail", "--cacert", authority.ca_certificate)
    curl.succeed(*trusting, "-T", "big.bin", f"{tls_server.url}/")
    assert brief(read(store, "/big.bin")) == brief(BIG)
    curl.succeed(*trusting, "-C", "-", "-o", "back.bin", f"{tls_server.url}/big.bin")
    assert brief((folder / "back.bin").read_bytes()) == brief(BIG)
    move = ("-X", "MOVE", "-H", f"Destination: {tls_server.url}/moved.bin")
    curl.succeed(*trusting, *move, f"{tls_server.url}/big.bin")
    assert brief(read(store, "/moved.bin")) == brief(BIG)


def test_rclone__copies_a_tree_over_tls(
    rclone: Program, tls_server: LiveServer, store: Store, authority: Authority, folder: Path
) -> None:
    settings = {"RCLONE_CONFIG_DRIVE_URL": tls_server.url, "RCLONE_CA_CERT": str(authority.ca_certificate)}
    over_tls = replace(rclone, settings={**rclone.settings, **settings})
    make_odd_tree(folder / "source")
    over_tls.succeed("copy", "source", "drive:", "--create-empty-src-dirs", timeout_s=120)
    over_tls.succeed("check", "source", "drive:", "--download", timeout_s=120)
    assert tree_in_store(store) == tree_on_disk(folder / "source")
