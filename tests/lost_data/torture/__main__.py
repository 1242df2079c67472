"""Kill a server again and again while clients write, and look whether anything acknowledged is lost."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.lost_data.torture.cycles import Options, Torture

EPILOG = """\
Six clients put, overwrite, copy, move, lock and delete while the server collects garbage and checkpoints all the time;
`davsql maintain` (vacuum, checks, scrub) and `davsql backup` run beside it without a pause. At a random moment the
server is killed (SIGKILL), mostly with all the others, and started again; then everything is read: each acknowledged
write must be there whole, or be superseded by a later one that was acknowledged or on its way. Now and then the server
is stopped with SIGTERM instead, and all chunks are rehashed.

examples:
  scripts/torture --kills 10
  scripts/torture --kills 1000 --seed 7 --durability normal --db /var/tmp/torture

exit codes: 0 nothing lost, 1 something lost (the folder is kept), 2 wrong usage
"""


def main() -> int:
    """The command."""
    defaults = Options()
    parser = argparse.ArgumentParser(
        prog="torture", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=defaults.kills, help="cycles that end with SIGKILL [%(default)s]")
    parser.add_argument("--terms", type=int, help="cycles more that end with SIGTERM [a tenth of the kills]")
    parser.add_argument("--clients", type=int, default=defaults.clients, help="[%(default)s]")
    parser.add_argument(
        "--workers", type=int, default=defaults.processes, metavar="N", help="processes of the server [%(default)s]"
    )
    parser.add_argument("--seed", type=int, help="of all that is random [by the clock]")
    parser.add_argument("--durability", choices=("full", "normal"), default=defaults.durability, help="[%(default)s]")
    parser.add_argument("--db", type=Path, metavar="DIR", help="an empty folder for the store [a temporary one]")
    parser.add_argument(
        "--check-every", type=int, default=defaults.check_every, metavar="N", help="deep check in cycles [%(default)s]"
    )
    parser.add_argument(
        "--large",
        type=int,
        default=defaults.large,
        metavar="N",
        help="resources of a tree that one more client copies, moves and deletes as a whole [%(default)s]",
    )
    parser.add_argument("--encrypted", action="store_true", help="an encrypted store")
    arguments = parser.parse_args()
    folder = arguments.db or Path(tempfile.mkdtemp(prefix="davsql-torture-"))
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        parser.error(f"{folder} is not empty")
    options = Options(
        kills=arguments.kills,
        clients=arguments.clients,
        seed=int(time.time()) if arguments.seed is None else arguments.seed,
        durability=arguments.durability,
        processes=arguments.workers,
        check_every=arguments.check_every,
        terms=arguments.kills // 10 if arguments.terms is None else arguments.terms,
        large=arguments.large,
        is_encrypted=arguments.encrypted,
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the server is ended as well
    result = Torture(folder.resolve(), options).run(lambda line: sys.stderr.write(f"so far: {line}\n"))
    for fault in result.faults:
        sys.stdout.write(f"FAULT {fault}\n")
    sys.stdout.write(result.summary(options) + "\n")
    if result.faults:
        sys.stdout.write(f"everything is kept in {folder}\n")
        return 1
    if arguments.db is None:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
