"""Encrypted stores: nothing in the clear, the keys they need, SQLCipher, copies, and a change of key cut short."""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

import apsw
import pytest

from davsql.errors import BadKey, Cancelled, NotAStore, StoreBusy, StoreDamaged, StoreError, StoreUnavailable
from davsql.keys.envelope import DataKey, new_data_key, unlock
from davsql.keys.file import adopt, keys_file, read_envelopes, write_envelopes, write_private
from davsql.keys.secret import GivenKey, new_key_text
from davsql.maintenance.backup import remove_superseded
from davsql.maintenance.gc import collect_garbage
from davsql.maintenance.retention import Retention
from davsql.store import backup, rewrite
from davsql.store.backup import CopyOptions, Rekey, back_up
from davsql.store.check import check
from davsql.store.cipher import PLAIN_HEADER, first_bytes, uri_of
from davsql.store.connection import APPLICATION_ID, Role, open_connection
from davsql.store.convert import begun_key, convert, part_of
from davsql.store.options import StoreOptions
from davsql.store.restore import restore
from davsql.store.store import Store
from tests.store_steps import mkcol, put, read, tree

GIVEN = GivenKey(new_key_text())
CANARY = b"canary-in-the-clear-"
KILLS = int(os.environ.get("DAVSQL_TEST_KILLS", "3"))  # of each kind of change
ROOT = Path(__file__).parents[2]


def new_key(page_size: int = 8192) -> DataKey:
    return new_data_key(page_size, [("file", GIVEN)])


@pytest.fixture
def options() -> StoreOptions:
    return StoreOptions(key=new_key())


@pytest.fixture
def file(tmp_path: Path, options: StoreOptions) -> Path:
    """A closed encrypted store."""
    file = tmp_path / "store.db"
    with Store.open(file, options, create=True) as store:
        fill(store)
    return file


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """The same, not encrypted."""
    file = tmp_path / "plain.db"
    with Store.open(file, create=True) as store:
        fill(store)
    return file


def fill(store: Store) -> None:
    mkcol(store, f"/{CANARY.decode()}")
    put(store, f"/{CANARY.decode()}/small", CANARY)
    put(store, "/large", CANARY * 100_000)


def contents(file: Path, options: StoreOptions) -> dict[str, bytes | None]:
    with Store.open(file, options) as store:
        assert check(store, deep=True) == []
        return tree(store)


def names_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def files_with_canary(folder: Path) -> list[str]:
    """Looked for by another process: one of ours would drop SQLite's locks when it closes a store's file."""
    found = subprocess.run(["grep", "-rlaF", CANARY, folder], capture_output=True, text=True, check=False)
    assert found.returncode < 2, found.stderr
    return sorted(Path(each).name for each in found.stdout.splitlines())


# --- nothing in the clear ---------------------------------------------------------------------------------------------


def test_encrypted__no_file_holds_plaintext(tmp_path: Path, file: Path, options: StoreOptions) -> None:
    with Store.open(file, options) as store:
        put(store, f"/{CANARY.decode()}/again", CANARY * 1000)
        with store.upload() as upload:
            upload.write(CANARY * 600_000)  # staged
            assert set(names_in(tmp_path)) >= {"store.db", "store.db-wal", "store.db-shm", "store.db.keys"}
            assert files_with_canary(tmp_path) == []
            back_up(file, tmp_path / "copy.davsql", options)
        store.write_alone(lambda connection: connection.execute("VACUUM").fetchall())
        assert files_with_canary(tmp_path) == []
        put(store, "/large", b"other")
    assert files_with_canary(tmp_path) == []
    assert first_bytes(file) == bytes.fromhex(options.key.envelope.store) if options.key else False


def test_encrypted__pages_look_random(file: Path) -> None:
    content = file.read_bytes()
    counts = [content.count(bytes([value])) for value in range(256)]
    assert max(counts) < 1.2 * len(content) / 256
    assert PLAIN_HEADER not in content


def test_plain__the_scan_would_find_it(tmp_path: Path, plain: Path) -> None:
    assert plain.name in files_with_canary(tmp_path)


# --- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", Role)
def test_open_connection__wrong_keys_say_what_they_are(file: Path, plain: Path, role: Role) -> None:
    before = file.read_bytes(), plain.read_bytes()
    for name, key, message in (
        (file, None, "is encrypted: say where its key is"),
        (file, new_key(), "is not the file that .*store.db.keys belongs to"),
        (plain, new_key(), "is not encrypted, and a key was given"),
    ):
        with pytest.raises(NotAStore, match=message):
            open_connection(name, role, StoreOptions(key=key))
    assert (file.read_bytes(), plain.read_bytes()) == before


def test_open_connection__damaged_first_page(file: Path, options: StoreOptions) -> None:
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    with pytest.raises(NotAStore, match="damaged in its first page"):
        open_connection(file, Role.READER, options)


def test_open_connection__encrypted_without_its_keys(file: Path) -> None:
    keys_file(file).unlink()
    with pytest.raises(NotAStore, match=r"or it is encrypted and store\.db\.keys"):
        open_connection(file, Role.READER, StoreOptions())


def test_create__page_size_and_cipher_are_those_on_record_whatever_is_configured(tmp_path: Path) -> None:
    file, key = tmp_path / "store.db", new_key(4096)
    for configured in (16384, 8192):
        with Store.open(file, StoreOptions(key=key, page_size=configured), create=not file.exists()) as store:
            assert store.write_alone(lambda connection: connection.pragma("page_size")) == 4096
    (envelope,) = read_envelopes(keys_file(file))
    assert (envelope.page_size, envelope.cipher) == (4096, "sqlcipher")


def test_create__keys_that_are_there_are_not_overwritten(tmp_path: Path, options: StoreOptions) -> None:
    beside = keys_file(tmp_path / "new.db")
    beside.write_bytes(b"precious")
    with pytest.raises(StoreUnavailable, match="never overwritten"):
        Store.open(tmp_path / "new.db", options, create=True)
    assert [each.name for each in tmp_path.iterdir()] == [beside.name]
    assert beside.read_bytes() == b"precious"


def test_create__no_plain_store_where_an_encrypted_one_was(tmp_path: Path, file: Path) -> None:
    file.unlink()
    with pytest.raises(StoreUnavailable, match="was an encrypted store"):
        Store.open(file, create=True)
    assert names_in(tmp_path) == ["store.db.keys"]


def test_damage__is_found_by_the_cipher(file: Path, options: StoreOptions) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with Store.open(file, options) as store, pytest.raises(StoreError):
        assert check(store, deep=True) != []
        raise StoreDamaged("found")


# --- SQLCipher --------------------------------------------------------------------------------------------------------


ROWS = "SELECT * FROM {0} ORDER BY 1, 2"
KEPT = ("nodes", "blobs", "chunks", "chunk_data", "blob_chunks", "properties", "changes", "usage")


@pytest.mark.parametrize("page_size", [4096, 8192])
def test_sqlcipher__opens_our_store_and_we_open_its_copy(tmp_path: Path, page_size: int) -> None:
    sqlcipher = pytest.importorskip("sqlcipher3.dbapi2", reason="SQLCipher has no wheel for this system")
    key = new_key(page_size)
    file, copy = tmp_path / "ours.db", tmp_path / "theirs.db"
    with Store.open(file, StoreOptions(key=key), create=True) as store:
        fill(store)
        expected = tree(store)
        with store.read() as tx:
            rows = {table: tx.rows(ROWS.format(table)) for table in KEPT}
    other = new_key(page_size)
    theirs = sqlcipher.connect(str(file))
    theirs.execute(f'PRAGMA key = "{key.raw}"')
    theirs.execute(f"PRAGMA cipher_page_size = {page_size}")
    assert theirs.execute("PRAGMA cipher_integrity_check").fetchall() == []
    assert CANARY in {data for _, data in rows["chunk_data"]}
    assert {table: theirs.execute(ROWS.format(table)).fetchall() for table in KEPT} == rows
    theirs.execute(f"ATTACH DATABASE '{copy}' AS copy KEY \"{other.raw}\"")
    theirs.execute(f"PRAGMA copy.cipher_page_size = {page_size}")
    theirs.execute("PRAGMA copy.auto_vacuum = 2")
    theirs.execute("SELECT sqlcipher_export('copy')")
    theirs.execute(f"PRAGMA copy.application_id = {APPLICATION_ID}")
    theirs.close()
    write_envelopes(keys_file(copy), [other.envelope])
    assert contents(copy, StoreOptions(key=other)) == expected


# --- copies -----------------------------------------------------------------------------------------------------------


def test_back_up__brings_the_keys_of_now(tmp_path: Path, file: Path, options: StoreOptions) -> None:
    (envelope,) = read_envelopes(keys_file(file))
    later = new_data_key(8192, [("file", GIVEN), ("ann", GivenKey(new_key_text()))]).envelope
    with Store.open(file, options):
        # somebody was added while the store is served
        now = type(envelope)(envelope.store, "sqlcipher", 8192, envelope.created_at, later.keys)
        write_envelopes(keys_file(file), [now])
        made = back_up(file, tmp_path / "copy.davsql", options)
    assert read_envelopes(keys_file(made.file)) == [now]
    assert contents(made.file, options) == contents(file, options)


def test_back_up__under_another_key_or_none(tmp_path: Path, file: Path, options: StoreOptions) -> None:
    expected = contents(file, options)
    for name, key in (("other.davsql", new_key()), ("plain.davsql", None)):
        with Store.open(file, options) as store:
            put(store, "/large", CANARY * 100_000)
            made = back_up(file, tmp_path / name, options, CopyOptions(is_deep=True, rekey=Rekey(key)))
        assert contents(made.file, StoreOptions(key=key)) == expected
        assert keys_file(made.file).exists() == (key is not None)
    assert files_with_canary(tmp_path) == ["plain.davsql"]


def test_back_up__cancelled_leaves_nothing(tmp_path: Path, file: Path, options: StoreOptions) -> None:
    before = names_in(tmp_path)
    for rekey in (None, Rekey(None), Rekey(new_key())):
        with pytest.raises(Cancelled):
            back_up(file, tmp_path / "copy.davsql", options, CopyOptions(rekey=rekey, is_cancelled=lambda: True))
        assert names_in(tmp_path) == before


def test_restore__keeps_what_was_there_with_its_keys(tmp_path: Path, file: Path, options: StoreOptions) -> None:
    other, old = StoreOptions(key=new_key()), contents(file, options)
    with Store.open(tmp_path / "other.db", other, create=True) as store:
        put(store, "/other", b"other")
    made = back_up(tmp_path / "other.db", tmp_path / "copy.davsql", other)
    restored = restore(made.file, file, other, CopyOptions(may_replace=True))
    assert contents(file, other) == {"/other": b"other"}
    assert [each.store for each in read_envelopes(keys_file(file))] == [first_bytes(file).hex()]
    assert restored.replaced is not None
    assert contents(restored.replaced, options) == old


def test_restore__over_a_store_whose_keys_are_damaged(tmp_path: Path, file: Path, options: StoreOptions) -> None:
    expected = contents(file, options)
    made = back_up(file, tmp_path / "copy.davsql", options)
    keys_file(file).write_bytes(b"damaged")
    replaced = restore(made.file, file, options, CopyOptions(may_replace=True)).replaced
    assert contents(file, options) == expected
    assert replaced is not None
    assert keys_file(replaced).read_bytes() == b"damaged"


def test_remove_superseded__takes_the_keys_along(tmp_path: Path, file: Path, options: StoreOptions) -> None:
    made = [back_up(file, tmp_path / f"store-2026010{day}T000000Z.davsql", options).file for day in (1, 2, 3)]
    assert remove_superseded(made[-1], file, Retention(0, 1, 0, 0)) == 2
    left = {made[-1].name, keys_file(made[-1]).name}
    assert {name for name in names_in(tmp_path) if "davsql" in name} == left


# --- another key ------------------------------------------------------------------------------------------------------


def test_convert__encrypts_rotates_and_decrypts(tmp_path: Path, plain: Path) -> None:
    expected, key = contents(plain, StoreOptions()), None
    for next_key in (new_key(), new_key(), None):
        convert(plain, StoreOptions(key=key), next_key)
        assert contents(plain, StoreOptions(key=next_key)) == expected
        if next_key is not None:
            assert files_with_canary(tmp_path) == []
            assert read_envelopes(keys_file(plain)) == [next_key.envelope]
        assert names_in(tmp_path) == [plain.name, *([] if next_key is None else [f"{plain.name}.keys"])]
        key = next_key


def test_convert__takes_in_what_a_kill_has_left_in_the_wal(plain: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from davsql.store.store import Store\n"
        "from tests.store_steps import put; store = Store.open(Path(sys.argv[1]))\n"
        "put(store, '/last', b'confirmed'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", script, plain], cwd=ROOT, check=False)
    assert plain.with_name("plain.db-wal").stat().st_size
    key = new_key()
    convert(plain, StoreOptions(), key)
    assert contents(plain, StoreOptions(key=key))["/last"] == b"confirmed"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root gives files away")
def test_convert__by_root_leaves_the_store_to_its_owner(plain: Path) -> None:
    os.chown(plain, 1234, 1234)
    convert(plain, StoreOptions(), new_key())
    assert {(each.stat().st_uid, each.stat().st_gid) for each in (plain, keys_file(plain))} == {(1234, 1234)}


def test_convert__store_in_use_is_refused(plain: Path) -> None:
    with Store.open(plain) as store, pytest.raises(StoreBusy):
        convert(plain, StoreOptions(), new_key())
    with Store.open(plain) as store:
        assert read(store, f"/{CANARY.decode()}/small") == CANARY
    assert not keys_file(plain).exists()


def test_convert__nobody_writes_meanwhile(plain: Path) -> None:
    tried: list[str] = []
    script = (
        "import apsw, sys; connection = apsw.Connection(sys.argv[1])\n"
        "try: print(connection.pragma('user_version', 5), connection.pragma('user_version'))\n"
        "except apsw.BusyError: print('busy')"
    )

    def look(_done: int, _total: int) -> None:
        if not tried:
            told = subprocess.run([sys.executable, "-c", script, plain], capture_output=True, text=True, check=False)
            tried.append(told.stdout.strip() + told.stderr)

    convert(plain, StoreOptions(), new_key(), CopyOptions(progress=look))
    assert tried == ["busy"]


def test_convert__damaged_store_stays_as_it_is(tmp_path: Path, plain: Path) -> None:
    connection = apsw.Connection(str(plain))
    connection.execute("UPDATE chunk_data SET data = zeroblob(length(data)) WHERE rowid = 1")
    connection.close()
    with pytest.raises(StoreDamaged):
        convert(plain, StoreOptions(), new_key())
    with apsw.Connection(str(plain)) as connection:
        assert connection.pragma("journal_mode") == "wal"
        assert connection.execute("SELECT total(length(data)) FROM chunk_data").get > len(CANARY) * 100_000 / 2
    connection.close()
    assert names_in(tmp_path) == [plain.name]


CHANGES = {
    "encrypt": ["encrypt", "--no-recovery"],
    "rotate": ["key", "rotate", "--data-key", "--no-recovery"],
    "decrypt": ["decrypt"],
    "backup": ["backup", "--force", "copy.davsql"],
}


def changing(file: Path, change: str) -> subprocess.Popen[str]:
    """A process that makes a change of a store, with the key in `a.key` beside it."""
    command = [sys.executable, "-m", "davsql", *CHANGES[change], "--db", str(file), "--key-file", "a.key"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=file.parent, env=environment, stdout=subprocess.PIPE, text=True)


def unlocked_by(given: GivenKey, file: Path) -> DataKey | None:
    """The key of a store, from what lies beside it now."""
    if (header := first_bytes(file)) == PLAIN_HEADER:
        return None
    (envelope,) = (each for each in read_envelopes(keys_file(file)) if each.store == header.hex())
    return unlock(envelope, given)


def test_convert__takes_away_what_a_kill_has_left(tmp_path: Path, plain: Path) -> None:
    other = tmp_path / ".other.db.0123456789abcdef.davsql-part"  # of a backup that may be under way
    for each in (other, tmp_path / f".{plain.name}.0123456789abcdef.davsql-part"):
        each.write_bytes(b"part")
    convert(plain, StoreOptions(), new_key())
    assert names_in(tmp_path) == [other.name, plain.name, keys_file(plain).name]


# --- going on ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transactions of a copy that a small store has some of."""
    monkeypatch.setattr("davsql.store.rewrite.STEP_BYTES", 1)


def stopped(file: Path, options: StoreOptions, key: DataKey | None, share: float) -> int:
    """Begin a conversion, stop it when this share of the content is copied, and return how many bytes that are."""
    copied = 0

    def stop(done: int, total: int) -> None:
        nonlocal copied
        copied = done
        if done >= share * total:
            raise KeyboardInterrupt

    before = file.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        convert(file, options, key, CopyOptions(progress=stop))
    assert len(before) == file.stat().st_size
    return copied


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("is_encrypted", [False, True], ids=["decrypt", "encrypt"])
def test_convert__goes_on_where_it_was_stopped(tmp_path: Path, plain: Path, *, is_encrypted: bool) -> None:
    expected, old, key = contents(plain, StoreOptions()), None, None
    if is_encrypted:
        key = new_key()
    else:
        convert(plain, StoreOptions(), old := new_key())
    options = StoreOptions(key=old)
    copied = [stopped(plain, options, key, share) for share in (0.2, 0.6, 0.6)]
    assert 0 < copied[0] < copied[1] == copied[2]
    assert contents(plain, options) == expected
    begun = begun_key(plain, GIVEN)
    assert (begun and begun.raw) == (key and key.raw)
    done = convert(plain, options, begun)
    assert done.reused_bytes == copied[2]
    assert contents(plain, StoreOptions(key=begun)) == expected
    assert names_in(tmp_path) == [plain.name, *([f"{plain.name}.keys"] if is_encrypted else [])]


@pytest.mark.usefixtures("small_steps")
def test_convert__goes_on_with_what_the_store_still_holds(file: Path, options: StoreOptions) -> None:
    key = new_key()
    stopped(file, options, key, 1.0)  # complete, and not verified
    with Store.open(file, options) as store:
        put(store, "/large", CANARY * 50_000)
        collect_garbage(store, grace_s=0, upload_expiry_s=0)
        mkcol(store, "/later")
        put(store, "/later/file", b"later" * 100_000)  # under ids that were those of other chunks
        expected = tree(store)
    begun = begun_key(file, GIVEN)
    done = convert(file, options, begun)
    assert 0 < done.reused_bytes < len(CANARY) * 50_000
    assert contents(file, StoreOptions(key=begun)) == expected


def test_convert__goes_on_with_one_that_was_complete(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And in WAL mode: stopped just before the exchange."""
    expected, key = contents(plain, StoreOptions()), new_key()

    def stop(_part: Path, _model: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("davsql.store.convert.own_as", stop)
        convert(plain, StoreOptions(), key)
    assert convert(plain, StoreOptions(), begun_key(plain, GIVEN)).reused_bytes > 0
    assert contents(plain, StoreOptions(key=key)) == expected


@pytest.mark.usefixtures("small_steps")
def test_convert__begins_anew_with_another_key_or_another_schema(plain: Path) -> None:
    stopped(plain, StoreOptions(), new_key(), 0.5)
    assert begun_key(plain, GivenKey(new_key_text())) is None
    key = new_key()
    stopped(plain, StoreOptions(), key, 0.5)
    assert convert(plain, StoreOptions(), key).reused_bytes > 0
    options = StoreOptions(key=key)
    stopped(plain, options, None, 0.5)
    with Store.open(plain, options) as store:
        store.write_alone(lambda connection: connection.execute("CREATE INDEX more ON nodes (owner)").fetchall())
    assert convert(plain, options, None).reused_bytes == 0


@pytest.mark.usefixtures("small_steps")
def test_convert__part_that_was_damaged_never_becomes_the_store(tmp_path: Path, plain: Path) -> None:
    expected, key = contents(plain, StoreOptions()), new_key()
    stopped(plain, StoreOptions(), key, 0.9)
    part = part_of(plain)
    content = bytearray(part.read_bytes())
    content[-100] ^= 1
    part.write_bytes(content)
    assert convert(plain, StoreOptions(), begun_key(plain, GIVEN)).reused_bytes == 0
    assert contents(plain, StoreOptions(key=key)) == expected
    assert names_in(tmp_path) == [plain.name, keys_file(plain).name]


def test_convert__cancelled_leaves_nothing(tmp_path: Path, plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("davsql.store.rewrite._PROGRESS_STEPS", 1)
    expected = contents(plain, StoreOptions())
    for calls in (1, 2, 50, 500):
        moments = itertools.count(1)
        with pytest.raises(Cancelled):
            convert(plain, StoreOptions(), new_key(), CopyOptions(is_cancelled=lambda: next(moments) >= calls))  # noqa: B023
        assert names_in(tmp_path) == [plain.name]
        assert contents(plain, StoreOptions()) == expected


TABLES = "SELECT name, sql FROM sqlite_schema ORDER BY name"


def test_convert__every_row_of_every_table_is_the_same(plain: Path) -> None:
    with Store.open(plain) as store:
        store.write(lambda tx: tx.rows("INSERT INTO properties VALUES (7, 2, 'u:', 'x', '<x xmlns=\"u:\"/>')"))
        store.write_alone(lambda connection: connection.execute("ANALYZE").fetchall())

    def rows() -> dict[str, list[tuple[object, ...]]]:
        with apsw.Connection(str(plain)) as connection:
            tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
            found = {name: connection.execute(f'SELECT * FROM "{name}"').fetchall() for (name,) in tables}  # noqa: S608
            found["definitions"] = connection.execute(TABLES).fetchall()
        connection.close()
        return found  # type: ignore[return-value]

    before = rows()
    assert {"sqlite_stat1", "sqlite_stat4", "sqlite_sequence", "properties"} <= before.keys()
    key = new_key()
    convert(plain, StoreOptions(), key)
    convert(plain, StoreOptions(key=key), None)
    assert rows() == before


@pytest.mark.skipif(os.name == "nt", reason="links")
def test_convert__writes_through_no_link(tmp_path: Path, plain: Path) -> None:
    victim = tmp_path / "victim.db"
    for link in (part_of(plain).symlink_to, part_of(plain).hardlink_to):
        with Store.open(victim, create=True):
            pass
        before = victim.read_bytes()
        link(victim)
        convert(plain, StoreOptions(), None)
        assert victim.read_bytes() == before
        victim.unlink()


@pytest.mark.skipif(os.name == "nt", reason="owners")
def test_convert__writes_to_nobody_elses_file(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(part_of(plain), create=True):
        pass
    another = os.geteuid() + 1
    with part_of(plain).open("rb") as opened:
        monkeypatch.setattr(os, "geteuid", lambda: another)
        convert(plain, StoreOptions(), None)
        assert not os.path.samestat(os.fstat(opened.fileno()), plain.stat())


def test_convert__store_of_an_older_davsql(tmp_path: Path) -> None:
    old, migrated = tmp_path / "old.db", tmp_path / "migrated.db"
    for each in (old, migrated):
        shutil.copyfile(ROOT / "tests/data/store-v1.db", each)
    expected, key = contents(migrated, StoreOptions()), new_key(4096)
    convert(old, StoreOptions(), key)
    assert contents(old, StoreOptions(key=key)) == expected


@pytest.mark.parametrize("change", ["decrypt", "backup"])
def test_errors__do_not_tell_a_key_that_was_in_the_name_of_a_file(
    file: Path, options: StoreOptions, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(rewrite, "uri_of", lambda each, key: uri_of(each / "nowhere", key))
    monkeypatch.setattr(backup, "uri_of", lambda each, key: uri_of(each / "nowhere", key))
    key = options.key
    assert key is not None
    with pytest.raises(StoreUnavailable) as failure:
        if change == "decrypt":
            convert(file, options, None)
        else:
            back_up(file, file.with_name("b"), options, CopyOptions(rekey=Rekey(key)))
    told = "".join(traceback.format_exception(failure.value))
    assert key.secret.reveal().hex() not in told
    assert "cannot be opened" in str(failure.value)


def test_write_private__without_hard_links_never_replaces_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    write_private(tmp_path / "a.key", b"first", may_replace=False)
    with pytest.raises(BadKey, match="exists already"):
        write_private(tmp_path / "a.key", b"second", may_replace=False)
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {"a.key": b"first"}


@pytest.mark.skipif(os.name == "nt", reason="kill -9")
@pytest.mark.parametrize("change", CHANGES)
def test_convert__killed_at_any_moment_leaves_the_old_or_the_new(tmp_path: Path, plain: Path, change: str) -> None:
    given = GivenKey(text := new_key_text())
    write_private(tmp_path / "a.key", text.encode(), may_replace=False)
    expected = contents(plain, StoreOptions())
    if change != "encrypt":
        convert(plain, StoreOptions(), new_data_key(8192, [("file", given)]))
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    chance = random.Random(os.urandom(8))  # noqa: S311  # moments
    ends, is_over, limit_s = Counter[str](), False, 0.8
    for _ in range(KILLS):
        if is_over or change == "backup":  # else the next one goes on with what is left
            for each in tmp_path.iterdir():
                each.unlink()
            for name, content in before.items():
                write_private(tmp_path / name, content, may_replace=False)
        process = changing(plain, change)
        time.sleep(chance.uniform(0.5, 1) * limit_s)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode in (0, -signal.SIGKILL)
        limit_s *= (
            1.1 if process.returncode else 0.9
        )  # about half of them end by themselves, however fast this machine is
        left = [each for each in (plain, tmp_path / "copy.davsql") if each.exists()]
        is_over = first_bytes(plain) != before[plain.name][:16]
        has_part = any("davsql-part" in name for name in names_in(tmp_path))
        ends[f"exit {process.returncode}, {'part, ' * has_part}{'exchanged, ' * is_over}{len(left)} stores"] += 1
        for each in left:
            assert contents(each, StoreOptions(key=unlocked_by(given, each))) == expected
    print(sorted(ends.items()))  # noqa: T201  # who asks for many kills wants to know what they hit


@pytest.mark.skipif(os.name == "nt", reason="kill -9")
def test_rotate__killed_again_and_again_goes_on(tmp_path: Path) -> None:
    given = GivenKey(text := new_key_text())
    write_private(tmp_path / "a.key", text.encode(), may_replace=False)
    file, old = tmp_path / "store.db", new_data_key(8192, [("file", given)])
    mebibytes = 60
    with Store.open(file, StoreOptions(key=old), create=True) as store:
        for number in range(mebibytes // 4):
            noise = random.Random(number).randbytes(1 << 20)  # noqa: S311  # content
            put(store, f"/{number}", (noise + CANARY) * 4)
        expected = tree(store)
    for step in range(1, 3):
        process = changing(file, "rotate")
        while not part_of(file).exists() or part_of(file).stat().st_size < (step * 16 + 1) << 20:
            assert process.poll() is None
            time.sleep(0.002)
        process.kill()
        process.communicate()
        assert {part_of(file).name, keys_file(part_of(file)).name} <= set(names_in(tmp_path))
        assert files_with_canary(tmp_path) == []
        assert first_bytes(file).hex() == old.envelope.store
    with changing(file, "rotate") as process:
        assert process.stdout is not None
        told = re.search(r"anew: .* an earlier run had copied (\d+)\.\d MiB", process.stdout.read())
    assert process.returncode == 0
    assert told is not None
    assert 32 <= int(told[1]) < mebibytes
    assert first_bytes(file).hex() != old.envelope.store
    assert contents(file, StoreOptions(key=unlocked_by(given, file))) == expected
    assert names_in(tmp_path) == ["a.key", "store.db", "store.db.keys"]


def test_keys_file__both_envelopes_are_there_while_a_store_is_exchanged(file: Path, options: StoreOptions) -> None:
    other = new_key()
    adopt(keys_file(file), other.envelope)  # killed before the exchange
    assert len(read_envelopes(keys_file(file))) == 2
    convert(file, options, other)
    assert [each.store for each in read_envelopes(keys_file(file))] == [first_bytes(file).hex()]
