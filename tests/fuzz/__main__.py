"""Attack a server of your own with random requests: `python -m tests.fuzz --help`."""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
from pathlib import Path

from tests.fuzz.rounds import attack


def main() -> int:
    """Run as long as asked for; 1 when a request was answered wrongly."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__.split(":")[0] + ".")
    parser.add_argument("--minutes", type=float, default=60.0, metavar="N", help="how long  [default: 60]")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32), help="repeats a run  [default: random]")
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", flush=True)  # noqa: T201  # a program for the terminal
    with tempfile.TemporaryDirectory() as folder:
        outcome = attack(Path(folder), chosen.minutes * 60, chosen.seed)
    print(f"{outcome.sent} requests, no fault; before {outcome.before}, after {outcome.after}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
