"""Who has a store open to write: what a kill leaves, and what nobody may take for one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from davsql.errors import NotFound
from davsql.store import presence
from davsql.store.options import StoreOptions
from davsql.store.store import Store
from tests.store_steps import at, leave_mark, put

KILLED = """\
import os, sys
from pathlib import Path
from davsql.paths import DavPath
from davsql.store import presence
from davsql.store.store import Store
if "NO_PROC" in os.environ:
    presence.PROC = Path("/none")
store = Store.open(Path(sys.argv[1]))
store.make_collection(DavPath.from_text("/c"))
os._exit(1)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    Store.open(tmp_path / "store.db", create=True).close()
    return tmp_path / "store.db"


@pytest.fixture(params=["processes are seen", "they are not"], autouse=True)
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if request.param == "they are not":
        monkeypatch.setattr(presence, "PROC", tmp_path)
        monkeypatch.setenv("NO_PROC", "1")  # for the process that is killed
    elif not presence.PROC.is_dir():
        pytest.skip("the system does not tell")


def marks(store: Store) -> list[str]:
    with store.read() as tx:
        return [key for key, _ in tx.rows(presence.MARKS)]


def was_clean(file: Path) -> bool:
    with Store.open(file) as store:
        return store.was_clean


def test_mark__is_there_from_the_first_change_to_the_close(file: Path) -> None:
    with Store.open(file) as store:
        assert marks(store) == []
        with pytest.raises(NotFound):
            store.delete(at("/none"))
        put(store, "/a", b"1")
        put(store, "/b", b"2")
        assert len(marks(store)) == 1
    with Store.open(file) as store:
        assert marks(store) == []
        assert store.was_clean


@pytest.mark.parametrize("options", [StoreOptions(), StoreOptions(leaves_checkpoints=True)], ids=["own", "replicated"])
def test_was_clean__tells_a_kill_from_a_close(file: Path, options: StoreOptions) -> None:
    with Store.open(file, options) as store:  # with a replica the WAL stays
        put(store, "/a", b"1")
    assert was_clean(file)
    subprocess.run([sys.executable, "-c", KILLED, file], check=False)
    assert not was_clean(file)


def test_was_clean__takes_nobody_who_goes_on_for_one_who_was_killed(file: Path) -> None:
    with Store.open(file) as first:
        put(first, "/a", b"1")
        with Store.open(file) as second:
            assert second.was_clean
            put(second, "/b", b"2")
            assert len(marks(first)) == 2
        assert len(marks(first)) == 1  # that one went, this one goes on
        with Store.open(file) as third:
            assert third.was_clean
    assert was_clean(file)


def test_was_clean__is_told_of_one_of_several_while_others_go_on(file: Path) -> None:
    with Store.open(file) as first:
        put(first, "/a", b"1")
        subprocess.run([sys.executable, "-c", KILLED, file], check=False)
        is_seen = presence.process_name(os.getpid()) != ""
        assert was_clean(file) is not is_seen
    assert not was_clean(file)  # at the latest when all are gone


def test_was_clean__is_not_kept_back_by_one_who_only_reads(file: Path) -> None:
    with Store.open(file, StoreOptions(read_only=True)):
        subprocess.run([sys.executable, "-c", KILLED, file], check=False)
        is_seen = presence.process_name(os.getpid()) != ""
        assert was_clean(file) is not is_seen


def test_process_name__is_of_one_that_runs() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    name = presence.process_name(process.pid)
    assert (name == "") == (presence.process_name(os.getpid()) == "")
    assert name == presence.process_name(process.pid)
    assert not name or name != presence.process_name(os.getpid())
    process.kill()
    while name and presence.process_name(process.pid):  # a zombie from now on, which writes nothing
        time.sleep(0.01)
    process.communicate()
    assert presence.process_name(process.pid) == ""


def test_was_clean__of_a_reader_leaves_the_mark_to_those_who_write(file: Path) -> None:
    with Store.open(file) as store:
        leave_mark(store)
    Store.open(file, StoreOptions(read_only=True)).close()
    assert not was_clean(file)


def test_is_in_use__sees_connections_of_this_process(file: Path, tmp_path: Path) -> None:
    assert not presence.is_in_use(file)
    with Store.open(file):
        assert presence.is_in_use(file)
    assert not presence.is_in_use(file)
    assert not presence.is_in_use(tmp_path / "none.db")
