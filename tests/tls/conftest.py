from __future__ import annotations

from pathlib import Path

import pytest

from davsql.certificates.authority import Authority
from tests.tls.tls_steps import make_authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority with a certificate for this machine."""
    return make_authority(tmp_path / "tls")
