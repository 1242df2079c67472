"""Several workers and a replica: it has the last commit of each of them."""

from __future__ import annotations

import hashlib
import sys
import threading
from pathlib import Path

import pytest

from davsql.store.store import Store
from tests.replica.load import Client
from tests.replica.site import Site
from tests.store_steps import tree

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux spreads connections over processes")


def test_stop__litestream_sees_the_last_commit_of_every_worker(tmp_path: Path) -> None:
    site = Site(tmp_path, workers=4)
    try:
        address = site.start()
        clients = [Client(f"/{number}", number) for number in range(8)]
        stopping = threading.Event()
        threads = [threading.Thread(target=client.run, args=(address, stopping)) for client in clients]
        for thread in threads:
            thread.start()
        stopping.wait(1.0)
        site.stop()
        for thread in threads:
            thread.join()
        restored = site.restore(tmp_path / "restored.db")
    finally:
        site.close()
    with Store.open(site.db) as store:
        contents = tree(store).items()
    assert restored == {path: None if each is None else hashlib.sha256(each).digest() for path, each in contents}
    assert sum(write.acknowledged_at is not None for client in clients for write in client.writes) > len(clients)
