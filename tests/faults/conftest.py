"""A place in memory: only the simulated disks are to be slow."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.disk import MEMORY


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder, in memory where there is such a file system."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        yield Path(name)
