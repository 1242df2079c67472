"""The clients, each in a folder of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from davsql.dav.request import DavOptions
from davsql.store.store import Store
from tests.clients.programs import Program, find_program
from tests.clients.rclones import PAIRS, RCLONES, find_rclone, remote
from tests.conftest import encrypted_store
from tests.live_server import LiveServer, serving_processes, serving_shares


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a client works: apart from the store."""
    path = tmp_path / "client"
    path.mkdir()
    return path


@pytest.fixture
def curl(folder: Path) -> Program:
    return find_program("curl", folder)


@pytest.fixture
def cadaver(folder: Path) -> Program:
    return find_program("cadaver", folder)


@pytest.fixture(
    params=["", "/drive", "4 workers", "encrypted"], ids=["at the root", "under a name", "4 workers", "encrypted"]
)
def share_url(request: pytest.FixtureRequest, store: Store) -> Iterator[str]:
    """The URL of a share, without a slash at the end: the whole server, one name on it, several processes, a store
    that is encrypted."""
    mount: str = request.param
    if mount == "encrypted":
        with encrypted_store(store.file.with_name("encrypted.db")) as other, serving_shares({"/": other}) as live:
            yield live.url
        return
    if mount == "4 workers":
        if sys.platform != "linux":
            pytest.skip("only Linux spreads connections over processes")
        with serving_processes(store.file, 4) as processes:
            yield processes.url
        return
    with serving_shares({mount or "/": store}) as live:
        yield live.url + mount


@pytest.fixture
def cloud(store: Store) -> Iterator[LiveServer]:
    """A server with Nextcloud's paths beside its own."""
    with serving_shares({"/": store}, dav=DavOptions(nextcloud_paths=True)) as live:
        yield live


@pytest.fixture(params=RCLONES)
def rclone(request: pytest.FixtureRequest, folder: Path, server: LiveServer) -> Program:
    """Each rclone, with the remote `drive:`."""
    return find_rclone(request.param, folder, remote(server.url))


@pytest.fixture(params=PAIRS, ids="-".join)
def rclone_of_cloud(request: pytest.FixtureRequest, folder: Path, cloud: LiveServer) -> Program:
    """rclone as several versions and vendors, with the remote `drive:` on `cloud`."""
    version, vendor = request.param
    return find_rclone(version, folder, remote(cloud.url, vendor))
