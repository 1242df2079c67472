"""All checks of one store, in the order in which they are shown."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from davsql.doctor.database import RESTORE, check_database
from davsql.doctor.encryption import check_encryption
from davsql.doctor.finding import Finding, failed, passed
from davsql.doctor.host import check_host
from davsql.doctor.settings import check_settings
from davsql.errors import InsecureFile, NotFound, StoreError
from davsql.maintenance.backup import BackupOptions
from davsql.maintenance.thread import MaintenanceOptions
from davsql.server.options import AdminOptions, ServerOptions
from davsql.store.facts import look_into
from davsql.store.options import StoreOptions


@dataclass(frozen=True, slots=True)
class Settings:
    """What the configuration says, as far as the doctor looks at it."""

    maintenance: MaintenanceOptions = field(default_factory=MaintenanceOptions)
    backup: BackupOptions = field(default_factory=BackupOptions)
    server: ServerOptions = field(default_factory=ServerOptions)
    admin: AdminOptions = field(default_factory=AdminOptions)
    replica_url: str | None = None


def examine(file: Path, options: StoreOptions, settings: Settings) -> Iterator[Finding]:
    """Look at a store without changing it; it may be served meanwhile."""
    is_replicated = settings.replica_url is not None
    try:
        facts = look_into(file, options)
    except NotFound as error:
        yield failed("store", str(error), f"davsql init --db {file}")
    except InsecureFile as error:
        yield failed("store", str(error), f"davsql doctor --db {file.resolve()}, or store.follow_symlinks = true")
    except StoreError as error:
        yield failed("store", str(error), RESTORE)
    else:
        is_replicated = is_replicated or facts.leaves_checkpoints
        yield passed("store", f"schema {facts.schema_version}, {facts.pages.page_count:,} pages")
        yield from check_encryption(file, options)
        yield from check_database(facts, settings.maintenance, settings.backup, settings.replica_url, time.time_ns())
    yield from check_host(file, is_replicated=is_replicated)
    yield from check_settings(options, settings.server, settings.admin)
