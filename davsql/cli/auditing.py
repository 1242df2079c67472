"""Which audit log a server or a command writes to."""

from __future__ import annotations

import getpass
import os
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import click

from davsql.audit.chain import Entry
from davsql.audit.log import AuditLog
from davsql.audit.options import DEFAULT_NAME, AuditOptions, Level
from davsql.cli.target import load_config

if os.name == "posix":
    import pwd

BY_COMMAND = "local"  # the address of whoever gives a command


@dataclass(frozen=True, slots=True)
class AuditPlace:
    """An audit log, whether it is there or not, and what goes into it."""

    level: Level
    file: Path
    key_file: Path
    options: AuditOptions

    def open(self, stack: ExitStack) -> AuditLog:
        """Open it, made if it is missing; `stack` closes it. Raises as AuditLog does."""
        options = self.options
        opened = AuditLog(self.file, self.key_file, rotate_mb=options.rotate_mb, keep=options.keep)
        return stack.enter_context(closing(opened))


def audit_place(options: AuditOptions, accounts: Path | None, config: Path | None) -> AuditPlace:
    """The audit log that goes with an account file, if there are accounts, and a configuration, if there is one."""
    beside = accounts or config
    file = options.file or (Path() if beside is None else beside.parent) / DEFAULT_NAME
    level: Level = options.level or ("off" if accounts is None else "writes")
    return AuditPlace(level, file, options.key_file or file.with_suffix(".key"), options)


def record_keys(store: Path, detail: str | None = None) -> None:
    """Record a command about the keys of a store, just before it is done, where its configuration has an audit log.

    Raises:
        StoreError, InsecureFile: the audit log cannot be written, so nothing may be done.
    """
    config: Path | None = click.get_current_context().params["config"]
    record(load_config(config).accounts.file, str(store), detail)


def record(accounts: Path | None, subject: str, detail: str | None = None) -> None:
    """Record the command that is being run, inside the transaction that does it: undone when this fails.

    Args:
        accounts: the account file that it changes, or that of the configuration.
        subject: whom it is about.
        detail: what else there is to say.

    Raises:
        StoreError, InsecureFile: the audit log cannot be written, so nothing may be done.
    """
    context = click.get_current_context()
    config: Path | None = context.params["config"]
    place = audit_place(load_config(config).audit, accounts, config)
    if place.level == "off":
        return
    command = context.command_path.partition(" ")[2]
    entry = Entry(time.time_ns(), _who(), BY_COMMAND, command, subject, detail, None, None, "")
    with ExitStack() as stack:
        log = place.open(stack)
        log.append(entry)
        log.require()


def _who() -> str:
    """The user of the operating system; not by the environment, which says what one likes."""
    if os.name != "posix":
        return getpass.getuser()
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # as in many a container
        return f"uid {os.getuid()}"
