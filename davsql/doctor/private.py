"""Checks of the files beside the stores: accounts, and the audit log with its key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from davsql.accounts.file import open_accounts
from davsql.accounts.users import list_users
from davsql.audit.key import KeyFile
from davsql.audit.verify import glance
from davsql.doctor.finding import Finding, failed, passed
from davsql.errors import DavsqlError, NotFound


def check_accounts(file: Path) -> Iterator[Finding]:
    """Whether it can be used, and by nobody else."""
    try:
        with closing(open_accounts(file)) as accounts, accounts.snapshot() as tx:
            users = list_users(tx)
    except NotFound as error:
        yield failed("account file", str(error), "davsql user add NAME")
    except DavsqlError as error:
        yield failed("account file", str(error), "see docs/accounts.md; davsql serve refuses it")
    else:
        enabled = sum(not user.is_disabled for user in users)
        yield passed("account file", f"private; {enabled} of {len(users)} accounts enabled")


def check_audit(file: Path, key_file: Path) -> Iterator[Finding]:
    """Whether log and key can be used, and the end of the log is the one that the head names."""
    try:
        key = KeyFile(key_file)
    except DavsqlError as error:
        yield failed(
            "audit key", str(error), "bring it back or make it private; davsql serve refuses the log without it"
        )
        return
    yield passed("audit key", "private")
    try:
        fault = glance(file, key)
    except DavsqlError as error:
        yield failed("audit log", str(error), "davsql audit verify")
        return
    if fault is None:
        yield passed("audit log", "its end is the one that the head names")
    else:
        yield failed("audit log", fault, "find out who did that: davsql audit verify")
