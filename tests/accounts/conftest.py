from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from davsql.store.sidefile import SideFile
from tests.accounts.account_steps import new_accounts


@pytest.fixture
def accounts(tmp_path: Path) -> Iterator[SideFile]:
    """An account file with ann and bob."""
    file = new_accounts(tmp_path)
    yield file
    file.close()
