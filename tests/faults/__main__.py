"""The long runs, one command each; tests do the same in short."""

from __future__ import annotations

import sys

import click

from tests.faults import bit_flips, fault_sweep, full_disk, power_cuts, soak, torn_wals


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def faults() -> None:
    """Do to davsql what disks, power cuts and time do; exit 1 when a promise did not hold."""


@faults.result_callback()
def end(is_good: bool) -> None:
    sys.exit(not is_good)


for module in (bit_flips, fault_sweep, full_disk, power_cuts, soak, torn_wals):
    faults.add_command(module.command)

if __name__ == "__main__":
    faults(prog_name="scripts/faults")
