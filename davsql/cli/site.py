"""What `davsql serve` serves, from one reading of the configuration, in one process or as the service of several."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from davsql.audit.log import AuditLog
from davsql.cli.accounts import open_gate, open_served
from davsql.cli.auditing import AuditPlace
from davsql.cli.monitoring import announcement, start_admin
from davsql.cli.printing import printable
from davsql.cli.replicas import open_share, open_share_of_worker
from davsql.cli.rules import quotas_of
from davsql.cli.target import tell_of_migration
from davsql.cli.tls import open_tls
from davsql.config import Config, ShareOptions
from davsql.dav.access import ShareRules
from davsql.dav.application import make_application
from davsql.dav.audit import Audited
from davsql.errors import ConfigError, KeyMissing, NotFound
from davsql.maintenance.backup import backups_in
from davsql.maintenance.health import Watched
from davsql.maintenance.thread import Maintenance
from davsql.server.access_log import AccessLog
from davsql.server.admin import OneProcess
from davsql.server.http import HttpServer
from davsql.server.memory import releasing_memory
from davsql.server.run import run_worker
from davsql.server.team import Team, answer_for
from davsql.server.tls import Tls
from davsql.store.caches import release_caches
from davsql.store.pins import GRACE_S_MIN
from davsql.store.store import Store

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from wsgiref.types import WSGIApplication

    from davsql.maintenance.replica_progress import ReplicaStatus
    from davsql.server.children import Link


@dataclass(frozen=True)
class Site:
    """Stores, and how they are served."""

    configuration: Config
    shares: tuple[ShareOptions, ...]
    rules: Mapping[str, ShareRules] | None  # None: there are no accounts
    accounts: Path | None
    audit: AuditPlace
    unclosed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # see `prepared`

    def __post_init__(self) -> None:
        """Raise ConfigError where options do not fit each other."""
        grace_s = self.configuration.maintenance.gc_grace_s
        if self.workers > 1 and grace_s < GRACE_S_MIN:
            raise ConfigError(
                f"maintenance.gc_grace_s = {grace_s:g} is too short for {self.workers} workers: a download in one of "
                f"them is known to the others after a minute; set it to {GRACE_S_MIN:g} or more, or server.workers = 1"
            )

    @property
    def workers(self) -> int:
        """How many processes serve requests."""
        return self.configuration.listen.workers

    @property
    def shutdown_timeout_s(self) -> float:
        """What requests get when a worker stops."""
        return self.configuration.server.shutdown_timeout_s

    def tls(self) -> Tls | None:
        """What a server needs to speak TLS; None: it does not.

        Raises:
            TlsError: certificate or key cannot be used.
        """
        return open_tls(self.configuration)

    def prepared(self) -> Site:
        """Make and migrate all stores, once, before the workers open them.

        Returns:
            The same, with the marks of those who did not close a store: only who opens it first can tell.

        Raises:
            StoreError, ReplicaError: one of them cannot be used.
            AccountError: nobody could log in.
            TlsError: certificate or key cannot be used.
        """
        self.tls()
        if self.accounts is not None:
            with ExitStack() as stack:
                open_served(stack, self.accounts, self.configuration.accounts)
        if self.audit.level != "off":
            with ExitStack() as stack:
                self.audit.open(stack)
        unclosed: dict[str, tuple[str, ...]] = {}
        for share in self.shares:
            self._tell_of_new_store(share)
            with ExitStack() as stack:
                store, _ = open_share(stack, share, self.configuration, is_replicated=False)
                tell_of_migration(store)
                unclosed[share.mount] = store.unclosed
        return replace(self, unclosed=unclosed)

    def open(self, stack: ExitStack) -> Watched:
        """All stores, looked after by this process; `stack` ends maintenance, then the stores, then replicas."""
        stack.enter_context(releasing_memory(release_caches))
        stores: dict[str, Store] = {}
        replicas: dict[str, Callable[[], ReplicaStatus]] = {}
        for share in self.shares:
            self._tell_of_new_store(share)
            store, replica = open_share(stack, share, self.configuration)
            tell_of_migration(store)
            store.unclosed = store.unclosed or self.unclosed.get(share.mount, ())
            stores[share.mount] = store
            if replica is not None:
                replicas[share.mount] = replica.status
        for store in stores.values():
            maintenance = Maintenance(store, self.configuration.maintenance, self.configuration.backup.make_tasks())
            maintenance.start()
            stack.callback(maintenance.stop)
        return Watched(stores, replicas)

    def application(self, stack: ExitStack, stores: Mapping[str, Store]) -> WSGIApplication:
        """What answers requests, over the stores by their mount paths; `stack` closes the accounts."""
        options = self.configuration
        audit = self._open_audit(stack)
        note = (lambda _name, _address: None) if audit is None else audit.append_failed_login
        gate = None if self.accounts is None else open_gate(stack, self.accounts, options.accounts, note)
        quotas = quotas_of(self.shares)
        application = make_application(
            stores, options.dav, rules=self.rules, quotas=quotas, gate=gate, proxy=options.proxy
        )
        return application if audit is None else Audited(application, audit, with_reads=self.audit.level == "all")

    def server(self, bind: tuple[str, int] | socket.socket, application: WSGIApplication) -> HttpServer:
        """The HTTP server of this process.

        Raises:
            OSError: the access log cannot be opened.
            TlsError: certificate or key cannot be used.
        """
        log = self.configuration.log
        access_log = None if log.access == "off" else AccessLog(log.access, log.access_file)
        return HttpServer(bind, application, self.configuration.server, access_log, self.tls())

    def _open_audit(self, stack: ExitStack) -> AuditLog | None:
        if self.audit.level == "off":
            return None
        audit = self.audit.open(stack)
        audit.start()
        return audit

    def work(self, listener: socket.socket, link: Link) -> None:
        """Serve requests until the link says stop."""
        with ExitStack() as stack:
            stack.enter_context(releasing_memory(release_caches))
            stores = {
                share.mount: stack.enter_context(open_share_of_worker(share, self.configuration))
                for share in self.shares
            }
            server = self.server(listener, self.application(stack, stores))
            server.prepare()
            process = OneProcess(Watched(stores), server)
            run_worker(server, link, stack.close, lambda question: answer_for(process, question))

    def keep(self, link: Link) -> None:
        """Look after the stores and answer monitoring until the link says stop."""
        with ExitStack() as stack:
            team = Team(OneProcess(self.open(stack), None), self.workers)
            admin = start_admin(self.configuration.admin, team)
            if admin is not None:
                stack.callback(admin.stop)
            link.ready("" if admin is None else announcement(admin))
            link.follow(_Keeper(team))

    def _tell_of_new_store(self, share: ShareOptions) -> None:
        if not share.db.exists() and not share.read_only:
            if share.key_source.is_given:  # what is made here is plain
                raise KeyMissing(
                    f"{share.db} does not exist, and a key was given: is its disk mounted? `davsql init --encrypt --db "
                    f"{share.db}` makes an encrypted store"
                )
            _require_no_backups(share, self.configuration)
            click.echo(f"making a new store: {printable(share.db)}")


class _Keeper:
    """What the keeper does when it is told to: it ends when `Link.follow` returns."""

    def __init__(self, team: Team) -> None:
        self._team = team

    def stop(self) -> bool:
        """Follow the link no longer."""
        return True

    def cut(self) -> None:
        """Nobody waits for a client here."""

    def meet(self, pid: int, connection: Connection) -> None:
        """A worker that can be asked."""
        self._team.meet(pid, connection)

    def answer(self, question: str) -> object:
        """Nobody asks the keeper."""


def _require_no_backups(share: ShareOptions, configuration: Config) -> None:
    """Where there are backups there was a store; an empty one in its place would look like a cleared drive."""
    folder = configuration.backup.folder
    backups = backups_in(folder, share.db) if folder is not None and folder.is_dir() else {}
    if backups:
        newest = backups[max(backups)]
        raise NotFound(
            f"{share.db} does not exist, but there are backups of it: is its disk mounted? To go on from the newest: "
            f"davsql restore {newest} --db {share.db}; to begin anew: davsql init --db {share.db}"
        )
