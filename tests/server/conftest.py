"""One server for the tests that only ask it something."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.server.raw import Recorder, Served, served


@pytest.fixture(scope="module")
def live() -> Iterator[Served]:
    with served(Recorder()) as running:
        yield running


@pytest.fixture
def app(live: Served) -> Recorder:
    """The application behind `live`, with an empty record."""
    recorder = live.http.application
    assert isinstance(recorder, Recorder)
    recorder.clear()
    return recorder
