"""Stores that are served, with or without a replica."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from davsql.cli.target import share_store_options
from davsql.config import Config, ShareOptions
from davsql.maintenance.litestream import Replicated
from davsql.store.replication import take_back_checkpoints
from davsql.store.store import Store

if TYPE_CHECKING:
    from davsql.maintenance.replica import Replica


def open_share_of_worker(share: ShareOptions, configuration: Config) -> Store:
    """Open the store of a share, which is there and up to date, where another process looks after it.

    Raises:
        StoreError: as `Store.open`.
    """
    is_replicated = configuration.replica.url is not None and not share.read_only
    options = share_store_options(configuration, share)
    return Store.open(share.db, replace(options, leaves_checkpoints=is_replicated))


def open_share(
    stack: ExitStack, share: ShareOptions, configuration: Config, *, is_replicated: bool = True
) -> tuple[Store, Replica | None]:
    """Open the store of a share and have it replicated if the configuration says so; `stack` ends both.

    Args:
        is_replicated: False: only look whether it can be replicated.

    Raises:
        ReplicaError: it is to be replicated and cannot be.
        StoreError: as `Store.open`.
    """
    options = share_store_options(configuration, share)
    if configuration.replica.url is None or share.read_only:
        return stack.enter_context(_open_unreplicated(share, configuration)), None
    # Imported when it is needed: it does not run on Windows.
    from davsql.maintenance.replica import Replica  # noqa: PLC0415

    replica = Replica(share.db, Replicated(configuration.replica, share.name))
    stack.callback(replica.stop)  # before the store is opened, so that it stops after the store's last commit
    store = stack.enter_context(Store.open(share.db, replace(options, leaves_checkpoints=True), create=True))
    if is_replicated:
        replica.start(store)
    return store, replica


def _open_unreplicated(share: ShareOptions, configuration: Config) -> Store:
    options = share_store_options(configuration, share)
    store = Store.open(share.db, options, create=not share.read_only)
    if not store.options.leaves_checkpoints or share.read_only:
        return store
    with store:  # it was replicated, and is not any more
        store.write(take_back_checkpoints)
    return Store.open(share.db, options)
