"""Homes: collections that rules with {user} speak of, made when their user comes."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from davsql.errors import StoreError

if TYPE_CHECKING:
    from davsql.dav.request import Request
    from davsql.store.store import Store

LOOK_EVERY_S = 60.0


class Homes:
    """The homes of one share. Threads: any."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._look_at: dict[str, float] = {}  # user -> when (monotonic)

    def make(self, request: Request) -> None:
        """Make what is missing of the homes of whoever asks, unless that was looked at a moment ago."""
        name, now = request.principal.name or "", time.monotonic()
        if now < self._look_at.get(name, 0.0) or self._store.options.read_only:
            return
        with suppress(StoreError):  # busy or full: the request may do without, and the next one tries again
            for home in request.access.homes:
                self._store.make_home(home, name)
            self._look_at[name] = now + LOOK_EVERY_S
