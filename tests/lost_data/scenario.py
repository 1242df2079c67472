"""The register of scenarios: what a client does that must not lose data, nor get a wrong answer.

A scenario raises AssertionError when the server fails it. Each is run against davsql, where it must pass, and against
WsgiDAV with its FilesystemProvider on cheroot, both as they come, where it must fail: that proves that it can.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.lost_data.site import Site

Play = Callable[[Site], None]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One scenario.

    Attributes:
        stock: a part of what the AssertionError says of the stock server, the same each time; "" when there is none.
    """

    name: str
    play: Play
    stock: str


SCENARIOS: list[Scenario] = []


def scenario(*, stock: str = "") -> Callable[[Play], Play]:
    """Put a function into the register; `stock` as in Scenario."""

    def register(play: Play) -> Play:
        SCENARIOS.append(Scenario(play.__name__, play, stock))
        return play

    return register
