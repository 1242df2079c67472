"""A copy of a tree that is kept by the answers to sync-collection is that tree."""

from __future__ import annotations

import json
import random
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from davsql.access import FULL_ACCESS, Access, Right
from davsql.errors import DavsqlError, SyncTokenInvalid
from davsql.maintenance.gc import collect_garbage
from davsql.model import PropertyUpdate
from davsql.paths import DavPath
from davsql.store import journal, preorder, trees
from davsql.store.options import StoreOptions
from davsql.store.store import Store
from davsql.store.sync import SyncAnswer, SyncRequest
from davsql.store.sync_tokens import Position
from davsql.store.transaction import ReadTx
from tests.store_steps import at, mkcol, put

SEEDS = range(8)
STEPS = 150
NAMES = ("a", "b", "c", "caf\u00e9", "cafe\u0301")
Copy = dict[tuple[str, ...], bytes | None]  # digests by names as sent; None for collections


class Client:
    """Keeps a copy of a collection, and knows nothing of it but what it is told."""

    def __init__(self, store: Store, top: str = "/", access: Access = FULL_ACCESS, *, is_deep: bool = True) -> None:
        self.store, self.top, self.access, self.is_deep = store, at(top), access, is_deep
        self.token = ""
        self.copy: Copy = {}
        self.restarts = 0
        self.is_done = True

    def ask(self, limit: int | None = None) -> SyncAnswer:
        """One request."""
        with self.store.snapshot(self.access) as view:
            answer = view.changes_since(self.top, SyncRequest(self.token, self.is_deep, limit))
        assert limit is None or len(answer.nodes) + len(answer.removed) <= limit
        assert len({path.names for path in answer.paths}) == len(answer.paths)  # nothing is told twice
        for removed in answer.removed:
            self.drop(removed.path)
        for node, path in zip(answer.nodes, answer.paths, strict=True):
            if not node.is_collection or self.copy.get(path.names) is not None:
                self.drop(path)
            self.copy[path.names] = node.digest
        self.token, self.is_done = answer.token, not answer.is_truncated
        return answer

    def drop(self, path: DavPath) -> None:
        gone = [names for names in self.copy if names[: len(path.names)] == path.names]
        for names in gone:
            del self.copy[names]

    def catch_up(self, limit: int | None = None) -> None:
        """Ask until nothing is left; begin again where the server says so."""
        self.is_done = False
        while not self.is_done:
            try:
                self.ask(limit)
            except SyncTokenInvalid:
                assert self.token
                self.token, self.copy = "", {}
                self.restarts += 1

    def truth(self) -> Copy:
        """What the copy should be."""
        with self.store.snapshot(self.access) as view:
            top = view.node(self.top)
            assert top is not None
            nodes = view.descendants(top.inode, 100_000) if self.is_deep else view.members(top.inode)
            assert nodes is not None
            return {view.path_of(node.inode).names: node.digest for node in nodes}


def step(store: Store, rng: random.Random) -> None:
    """One operation somewhere; half of them fail."""

    def anywhere() -> DavPath:
        return DavPath(("top", *(rng.choice(NAMES) for _ in range(rng.randint(1, 3))))[rng.random() < 0.1 :])

    path, other = anywhere(), anywhere()
    with suppress(DavsqlError):
        match rng.randrange(9):
            case 0 | 1:
                store.make_collection(path)
            case 2 | 3:
                put(store, str(path), rng.randbytes(2))
            case 4:
                store.delete(path)
            case 5 | 6:
                store.move(path, other)
            case 7:
                store.copy(path, other, depth_infinity=rng.random() < 0.8)
            case _:
                collect_garbage(store, grace_s=0, upload_expiry_s=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_changes_since__keep_a_copy_true(store: Store, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some clients ask for a little at a time, with changes between their requests."""
    rng = random.Random(seed)  # noqa: S311
    monkeypatch.setattr(trees, "AT_ONCE_NODES", 3)  # most copies are made in steps
    monkeypatch.setattr(preorder, "FETCHED_MEMBERS", 2)
    mkcol(store, "/top")
    rules = Access({(): Right.NONE, ("top",): Right.ALL, ("top", "a", "b"): Right.NONE, ("top", "c"): Right.NONE})
    clients = [
        Client(store),
        Client(store, "/top"),
        Client(store, "/top", is_deep=False),
        Client(store, "/", rules),
        Client(store, "/", rules, is_deep=False),
        Client(store, "/top", rules, is_deep=False),
    ]
    for _ in range(STEPS):
        step(store, rng)
        for client in clients:
            if rng.random() < 0.3:
                with suppress(SyncTokenInvalid):
                    client.ask(rng.choice((1, 2, 5, None)))
            if rng.random() < 0.05:
                client.catch_up(rng.choice((1, 3, None)))
                assert client.copy == client.truth()
    for client in clients:
        client.catch_up(1)
        assert client.copy == client.truth()
        assert client.restarts == 0


def changed(answer: SyncAnswer) -> set[str]:
    return {str(path) for path in answer.paths}


def removed(answer: SyncAnswer) -> set[str]:
    return {str(each.path) for each in answer.removed}


@pytest.fixture
def client(store: Store) -> Client:
    """It knows /c/one, /c/d and /c/d/two."""
    mkcol(store, "/c")
    put(store, "/c/one", b"one")
    mkcol(store, "/c/d")
    put(store, "/c/d/two", b"two")
    found = Client(store, "/c")
    found.catch_up()
    return found


def test_changes_since__of_nothing_are_none(store: Store, client: Client) -> None:
    put(store, "/elsewhere", b"x")
    token = client.token
    answer = client.ask()
    assert (len(answer.nodes), answer.removed, answer.is_truncated) == (0, [], False)
    assert answer.token != token  # so that it is not looked at again what happened elsewhere


def test_changes_since__tell_a_moved_tree_node_by_node_and_its_old_place(store: Store, client: Client) -> None:
    store.move(at("/c/d"), at("/c/e"))
    answer = client.ask()
    assert changed(answer) == {"/c/e", "/c/e/two"}
    assert [(str(each.path), each.was_collection) for each in answer.removed] == [("/c/d", True)]
    store.move(at("/c/e"), at("/e"))
    answer = client.ask()
    assert (changed(answer), removed(answer)) == (set(), {"/c/e"})
    store.move(at("/e"), at("/c/e"))
    assert changed(client.ask()) == {"/c/e", "/c/e/two"}


def test_changes_since__tell_a_deleted_tree_by_its_top(store: Store, client: Client) -> None:
    store.delete(at("/c/d/two"))
    store.delete(at("/c/d"))
    collect_garbage(store, grace_s=0, upload_expiry_s=0)
    answer = client.ask()
    assert (changed(answer), removed(answer)) == (set(), {"/c/d"})


def test_changes_since__of_a_replaced_tree_come_in_two_answers(store: Store, client: Client) -> None:
    store.delete(at("/c/d"))
    mkcol(store, "/c/d")
    put(store, "/c/d/three", b"three")
    first = client.ask()
    assert (changed(first), removed(first), first.is_truncated) == (set(), {"/c/d"}, True)
    second = client.ask()
    assert (changed(second), removed(second), second.is_truncated) == ({"/c/d", "/c/d/three"}, set(), False)


def test_changes_since__of_members_leave_out_what_lies_deeper(store: Store, client: Client) -> None:
    client.is_deep, client.token = False, ""
    assert changed(client.ask()) == {"/c/one", "/c/d"}
    put(store, "/c/d/three", b"three")
    assert changed(client.ask()) == set()
    store.delete(at("/c/d"))
    mkcol(store, "/c/d")
    answer = client.ask()
    assert (changed(answer), removed(answer)) == ({"/c/d"}, set())  # RFC 6578 3.5.1


def test_changes_since__are_one_entry_for_each_operation(store: Store, client: Client) -> None:
    def entries() -> int:
        with store.read() as tx:
            return journal.newest(tx).change_id

    before = entries()
    store.move(at("/c/d"), at("/c/e"))
    put(store, "/c/one", b"other")
    put(store, "/c/new", b"new")
    store.delete(at("/c/e"))
    collect_garbage(store, grace_s=0, upload_expiry_s=0)
    store.set_properties(at("/c/new"), [PropertyUpdate("urn:x", "p", "<p xmlns='urn:x'/>")])
    assert entries() == before + 4
    assert changed(client.ask()) == {"/c/one", "/c/new"}


def test_changes_since__refuse_what_is_no_token_of_theirs(store: Store, client: Client) -> None:
    mkcol(store, "/b")
    of_b = Client(store, "/b")
    of_b.catch_up()
    head, _, state = client.token.rpartition("/")
    number, _, when = state.partition("-")
    wrong = [
        of_b.token,
        "x",
        "http://davsql/ns/sync/",
        f"{head}/{number}-{int(when) + 1}",
        f"{head}/{int(number) + 9}-{when}",
        f"{head}/0-0",
        f"{head}/{'9' * 30}-{when}",
        f"{head}/{'9' * 19}-{when}",  # more than SQLite's integers hold
        f"{head}/0-0_{state}_{'9' * 19}",
        f"{head}/{'9' * 5000}-{when}",
        f"{head}/0-0_{state}_{'9' * 5000}/a",
        f"{head}/0-0_{state}_{'9' * 30}",
        client.token.replace(head.split("/")[5], "00000000-0000-0000-0000-000000000000"),
        client.token.upper(),
    ]
    for token in wrong:
        client.token = token
        with pytest.raises(SyncTokenInvalid):
            client.ask()


def test_changes_since__refuse_a_token_of_other_rights(client: Client) -> None:
    client.access = Access({(): Right.ALL, ("c", "d"): Right.NONE})
    with pytest.raises(SyncTokenInvalid):
        client.ask()
    client.catch_up()
    assert set(client.copy) == {("c", "one")}


def test_changes_since__refuse_a_collection_that_took_the_place_of_another(store: Store, client: Client) -> None:
    mkcol(store, "/x")
    mkcol(store, "/x/c")
    deep = Client(store, "/x/c")
    deep.catch_up()
    store.move(at("/x"), at("/y"))
    store.move(at("/c"), at("/old"))
    mkcol(store, "/c")
    mkcol(store, "/x")
    store.move(at("/y/c"), at("/x/c"))
    for each in (client, deep):
        with pytest.raises(SyncTokenInvalid):
            each.ask()


def test_changes_since__know_a_store_that_went_back(tmp_path: Path) -> None:
    """A backup that is put back has the same numbers again, for other changes."""
    file, backup = tmp_path / "s.db", tmp_path / "b.db"
    with Store.open(file, create=True) as store:
        put(store, "/one", b"1")
    shutil.copyfile(file, backup)
    with Store.open(file) as store:
        put(store, "/two", b"2")
        client = Client(store)
        client.catch_up()
    shutil.copyfile(backup, file)
    with Store.open(file) as store:
        client.store = store
        with pytest.raises(SyncTokenInvalid):
            client.ask()
        put(store, "/three", b"3")
        put(store, "/four", b"4")
        with pytest.raises(SyncTokenInvalid):
            client.ask()
        client.catch_up()
        assert client.copy == client.truth()


@pytest.mark.parametrize("keys", [None, (), ("a",), ("100%", "%41", "_0-1", "a b", "caf\u00e9", ";?#+", "'\"<&")])
def test_position__is_read_as_it_was_written(keys: tuple[str, ...] | None) -> None:
    position = Position(7, keys)
    inode, slash, path = str(position).partition("/")
    assert Position.parse(inode, slash + path if slash else None) == position


def test_changes_since__of_odd_names_go_on_behind_them(store: Store) -> None:
    for name in ("100%", "%41", "_0-1", "a b", "caf\u00e9", "cafe\u0301x", ";?#+", "'\"<&"):
        mkcol(store, f"/{name}")
        put(store, f"/{name}/{name}", b"x")
    client = Client(store)
    client.catch_up(1)
    assert client.copy == client.truth()


def test_journal__is_pruned_from_its_beginning(store: Store, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        put(store, f"/c/{number}", b"x")
    collect_garbage(store, grace_s=0, upload_expiry_s=0, journal_days=1)
    assert len(client.ask().nodes) == 20
    put(store, "/c/last", b"x")
    late = Client(store, "/c")
    late.catch_up()
    monkeypatch.setattr(journal, "JOURNAL_ROWS", 5)
    collect_garbage(store, grace_s=0, upload_expiry_s=0, journal_days=1)
    with store.read() as tx:
        assert tx.value("SELECT count(*) FROM changes") == 5
    assert changed(client.ask()) == {"/c/last"}
    collect_garbage(store, grace_s=0, upload_expiry_s=0, journal_days=0)
    put(store, "/c/later", b"x")
    assert changed(late.ask()) == {"/c/later"}  # the newest entry stayed
    collect_garbage(store, grace_s=0, upload_expiry_s=0, journal_days=0)
    client.token = late.token
    put(store, "/c/more", b"x")
    collect_garbage(store, grace_s=0, upload_expiry_s=0, journal_days=0)
    with pytest.raises(SyncTokenInvalid):
        client.ask()


def test_journal__of_young_entries_before_old_ones_keeps_both(store: Store) -> None:
    """A clock that was set back: to take away what is old would leave a gap."""
    for number in range(5):
        put(store, f"/{number}", b"x")
    store.write(lambda tx: tx.change("UPDATE changes SET changed_at = 1 WHERE change_id > 3"))
    collect_garbage(store, grace_s=0, upload_expiry_s=0, journal_days=1)
    with store.read() as tx:
        assert tx.value("SELECT count(*) FROM changes") == 6


def test_changes_since__of_a_long_journal_are_told_in_parts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("davsql.store.sync.SCANNED_CHANGES", 4)
    monkeypatch.setattr("davsql.store.sync.PAGE_NODES", 3)
    monkeypatch.setattr(journal, "STEP_ROWS", 2)
    mkcol(store, "/c")
    client, asked = Client(store, "/c"), 0
    client.catch_up()
    for number in range(9):
        put(store, f"/{number}", b"x")
        put(store, f"/c/{number}", b"x")
    client.is_done = False
    while not client.is_done:
        assert len(client.ask().nodes) <= 3
        asked += 1
    assert asked >= 5
    assert client.copy == client.truth()


@pytest.fixture
def rows_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each query gave; one that gives columns of members has one for each."""
    found, rows, row = list[int](), ReadTx.rows, ReadTx.row

    def counted(tx: ReadTx, sql: str, *bindings: object) -> object:
        given = rows(tx, sql, *bindings)  # type: ignore[arg-type]
        found.append(len(given))
        return given

    def counted_one(tx: ReadTx, sql: str, *bindings: object) -> object:
        given = row(tx, sql, *bindings)  # type: ignore[arg-type]
        found.append(len(json.loads(given[0])) if given and sql == preorder.NEXT_MEMBERS else 1)
        return given

    monkeypatch.setattr(ReadTx, "rows", counted)
    monkeypatch.setattr(ReadTx, "row", counted_one)
    return found


def test_changes_since__of_few_among_many_read_few_rows(tmp_path: Path, rows_read: list[int]) -> None:
    with Store.open(tmp_path / "s.db", StoreOptions(durability="normal"), create=True) as store:
        mkcol(store, "/c")
        for number in range(300):
            put(store, f"/c/{number}", b"")
        client = Client(store)
        client.catch_up()
        for number in range(10):
            put(store, f"/c/{number}", b"new")
        rows_read.clear()
        assert len(client.ask().nodes) == 10
        assert sum(rows_read) < 60


def test_changes_since__read_the_same_for_each_page_of_a_large_tree(
    store: Store, rows_read: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preorder, "FETCHED_MEMBERS", 10)
    mkcol(store, "/c")
    client = Client(store)
    client.catch_up()
    for folder in range(30):
        mkcol(store, f"/new-{folder}")
        for number in range(20):
            put(store, f"/new-{folder}/{number}", b"")
    for folder in range(30):  # an upload of many folders is the same as one that arrives
        store.move(at(f"/new-{folder}"), at(f"/c/{folder}"))
    beginner = Client(store)
    for each in (client, beginner):
        pages = []
        each.is_done = False
        while not each.is_done:
            rows_read.clear()
            each.ask(20)
            pages.append(sum(rows_read))
        assert len(pages) > 30
        assert max(pages) < 200
        assert each.copy == each.truth()
