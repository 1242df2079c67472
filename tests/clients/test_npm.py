"""webdav of npm, the WebDAV client of JavaScript programs: what `npm/client.js` does with it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clients.programs import TIMEOUT_S, find_program

PACKAGE = Path(__file__).with_name("npm")
INSTALL_TIMEOUT_S = 240


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script with the packages it needs, as they are locked."""
    folder = tmp_path_factory.mktemp("npm") / "package"
    shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns("node_modules"))
    npm = find_program("npm", folder).path
    # With the settings of whoever runs the tests: they tell where packages come from.
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(
        command, cwd=folder, env=os.environ, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_client__finds_everything_as_expected(package: Path, share_url: str) -> None:
    finished = find_program("node", package).succeed("client.js", f"{share_url}/", timeout_s=TIMEOUT_S)
    assert finished.out == "all as expected\n"
