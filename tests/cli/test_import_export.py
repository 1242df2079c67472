from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import apsw
import pytest

from davsql.cli import export
from davsql.cli.local_files import is_same_time, require_local_name
from davsql.errors import InvalidPath, StoreFull
from davsql.store.check import check
from davsql.store.store import Store
from davsql.store.upload import Upload
from tests.cli.conftest import RunDavsql
from tests.store_steps import at, put, read, tree

ODD_NAMES = [
    "a b",
    " leading",
    "trailing ",
    "50%",
    "%41",
    "#1",
    "what?",
    "a;b",
    "a&b=c",
    "caf\u00e9",
    "re\u0301sume\u0301",
    "\U0001f600",
    "-rf",
    "~",
    "quote'\"",
    "back\\slash",
    "...",
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629",
    "n" * 255,
]
OLD_NS = 978_307_200_123_456_789


@pytest.fixture(autouse=True)
def db(tmp_path: Path) -> Path:
    """An empty store under the name that commands take when none is given."""
    file = tmp_path / "davsql.db"
    Store.open(file, create=True).close()
    return file


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with odd names, an empty folder, and files of no, few and many bytes."""
    folder = tmp_path / "source"
    for name in ODD_NAMES:
        (folder / "odd" / name).mkdir(parents=True)
        (folder / "odd" / name / name).write_text(name, encoding="utf-8")
    (folder / "empty").mkdir()
    (folder / "nothing").touch()
    (folder / "large").write_bytes(os.urandom(6_000_001))
    set_times(folder)
    return folder


def set_times(folder: Path) -> None:
    """A different time for each path, from the leaves up, so that no folder's own changes after it was set."""
    paths = sorted([folder, *folder.rglob("*")], reverse=True)
    for number, path in enumerate(paths):
        os.utime(path, ns=(OLD_NS + number * 1_000_000_007,) * 2)


def state(folder: Path) -> dict[str, tuple[int, bytes | None]]:
    """Everything in a folder, and the folder: time, and content of files."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in [folder, *folder.rglob("*")]
    }


@pytest.mark.parametrize("to", ["/", "/there", "/deep/er"])
def test_round_trip__keeps_content_names_and_times(davsql: RunDavsql, tmp_path: Path, source: Path, to: str) -> None:
    before = state(source)
    imported = davsql("import", source, "--to", to)
    assert (imported.code, imported.err) == (0, "")
    assert imported.out.startswith(f"imported {len(ODD_NAMES) + 2} files (5.7 MiB)")
    exported = davsql("export", to, tmp_path / "target")
    assert (exported.code, exported.err) == (0, "")
    assert state(tmp_path / "target") == before
    assert state(source) == before
    assert davsql("check", "--deep").code == 0


def test_second_run__copies_nothing(davsql: RunDavsql, tmp_path: Path, db: Path, source: Path) -> None:
    nothing = f"nothing to copy, {len(ODD_NAMES) + 2} files unchanged\n"
    assert davsql("import", source).code == 0
    with Store.open(db) as store:
        nodes = tree(store)
    assert davsql("import", source) == (0, nothing, "")
    assert davsql("export", "/", tmp_path / "target").code == 0
    inodes = {path: path.stat().st_ino for path in (tmp_path / "target").rglob("*")}
    assert davsql("export", "/", tmp_path / "target") == (0, nothing, "")
    assert {path: path.stat().st_ino for path in (tmp_path / "target").rglob("*")} == inodes
    with Store.open(db) as store:
        assert tree(store) == nodes


def test_second_run__copies_what_changed(davsql: RunDavsql, tmp_path: Path, source: Path) -> None:
    davsql("import", source)
    davsql("export", "/", tmp_path / "target")
    (source / "nothing").write_bytes(b"something")
    (source / "empty" / "new").write_bytes(b"new")
    set_times(source)
    assert davsql("import", source).out.startswith("imported ")
    assert davsql("export", "/", tmp_path / "target").code == 0
    assert state(tmp_path / "target") == state(source)


def test_import__beside_a_server_leaves_no_long_wal(davsql: RunDavsql, tmp_path: Path, source: Path) -> None:
    with Store.open(tmp_path / "davsql.db", create=True):
        assert davsql("import", source).code == 0
        assert (tmp_path / "davsql.db-wal").stat().st_size < 100_000  # the closing mark


def test_import__leaves_out_links_and_special_files(davsql: RunDavsql, tmp_path: Path, db: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(b"x")
    (source / "link").symlink_to("file")
    (source / "folder-link").symlink_to(tmp_path)
    os.mkfifo(source / "pipe")
    outcome = davsql("import", source)
    assert (outcome.code, outcome.out) == (0, "imported 1 file (1 byte), 3 left out\n")
    assert sorted(outcome.err.splitlines()) == [
        f"left out: {source}/folder-link: a symbolic link",
        f"left out: {source}/link: a symbolic link",
        f"left out: {source}/pipe: a special file",
    ]
    with Store.open(db) as store:
        assert tree(store) == {"/file": b"x"}


def test_import__reports_names_that_no_store_has_and_goes_on(davsql: RunDavsql, tmp_path: Path, db: Path) -> None:
    source = tmp_path / "source"
    (source / "bad\nfolder").mkdir(parents=True)
    (source / "bad\nfolder" / "in it").touch()
    (source / "new\nline").touch()
    (source / "esc\x1b[31m").touch()
    (source / os.fsdecode(b"latin\xe9")).touch()
    (source / "cafe\u0301").write_text("NFD")
    (source / "caf\u00e9").write_text("NFC")
    (source / "good").write_text("good")
    outcome = davsql("import", source)
    assert (outcome.code, outcome.out) == (1, "imported 2 files (7 bytes), 5 failed\n")
    lines = outcome.err.splitlines()
    assert len(lines) == 5
    assert f"failed: {source}/new\\nline: a name cannot hold the character U+000A" in lines
    assert f"failed: {source}/esc\\x1b[31m: a name cannot hold the character U+001B" in lines
    assert [line for line in lines if "\u00e9: a store takes this name and another" in line]
    with Store.open(db) as store:
        assert tree(store) == {"/cafe\u0301": b"NFD", "/good": b"good"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_import__reports_an_unreadable_file_and_goes_on(davsql: RunDavsql, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "closed").mkdir(parents=True)
    (source / "closed").chmod(0)
    (source / "secret").touch(mode=0)
    (source / "open").touch()
    outcome = davsql("import", source)
    (source / "closed").chmod(0o700)
    assert (outcome.code, outcome.out) == (1, "imported 1 file (0 bytes), 2 failed\n")
    assert f"failed: {source}/secret: Permission denied\n" in outcome.err
    assert f"failed: {source}/closed: Permission denied\n" in outcome.err


def test_import__leaves_the_store_itself_out(davsql: RunDavsql, tmp_path: Path, db: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "hard-link").hardlink_to(tmp_path / "davsql.db")
    outcome = davsql("import", ".")
    assert outcome.code == 0
    assert outcome.err.count("belongs to the store itself") == len(outcome.err.splitlines()) >= 2
    with Store.open(db) as store:
        assert tree(store) == {"/file": b"x"}


def test_import__reports_files_and_collections_in_each_others_place(
    davsql: RunDavsql, tmp_path: Path, db: Path
) -> None:
    with Store.open(db) as store:
        put(store, "/was-file", b"old")
        store.make_collection(at("/was-folder"))
    source = tmp_path / "source"
    (source / "was-file").mkdir(parents=True)
    (source / "was-file" / "member").touch()
    (source / "was-folder").touch()
    (source / "other").touch()
    outcome = davsql("import", source)
    assert (outcome.code, outcome.out) == (1, "imported 1 file (0 bytes), 2 failed\n")
    with Store.open(db) as store:
        assert tree(store) == {"/was-file": b"old", "/was-folder": None, "/other": b""}
    assert davsql("import", source, "--to", "/was-file").code == 1


def test_import__a_file_that_changes_meanwhile_is_not_stored(
    davsql: RunDavsql, tmp_path: Path, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    growing = source / "growing"
    growing.write_bytes(b"x" * 10)
    os.utime(growing, ns=(OLD_NS, OLD_NS))
    write = Upload.write

    def write_and_grow(upload: Upload, data: bytes | memoryview) -> None:
        write(upload, data)
        if upload.size == 10:
            with growing.open("ab") as file:
                file.write(b"more")

    monkeypatch.setattr(Upload, "write", write_and_grow)
    outcome = davsql("import", source)
    assert (outcome.code, outcome.out) == (1, "imported 0 files (0 bytes), 1 failed\n")
    assert outcome.err == f"failed: {growing}: it changed while it was read; import again\n"
    with Store.open(db) as store:
        assert tree(store) == {}


@pytest.mark.parametrize("command", ["import", "export"])
def test_full_disk__ends_the_transfer(
    davsql: RunDavsql, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(100):
        (source / str(number)).write_text(str(number))
    if command == "export":
        davsql("import", source)

    def no_space(upload: Upload, data: bytes | memoryview) -> None:
        raise StoreFull("no space is left on the disk")

    def no_space_here(descriptor: int, mode: str) -> None:
        os.close(descriptor)
        raise OSError(errno.ENOSPC, "No space left on device")

    if command == "import":
        monkeypatch.setattr(Upload, "write", no_space)
        outcome = davsql("import", source)
    else:
        monkeypatch.setattr(os, "fdopen", no_space_here)
        outcome = davsql("export", "/", tmp_path / "target")
        assert list((tmp_path / "target").iterdir()) == []
    assert outcome.code == 1
    assert outcome.err.startswith("davsql: ")
    assert "o space" in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_import__stopped_with_ctrl_c_goes_on_the_next_time(tmp_path: Path, db: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(2000):
        (source / f"{number:04}").write_text(str(number))
    command = [sys.executable, "-m", "davsql", "import", str(source), "--db", str(db)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 30
        while not has_some(db):
            assert time.monotonic() < deadline
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert err.splitlines()[-1] == "davsql: stopped"
    first = int(out.split()[1].replace(",", ""))
    assert 0 < first < 2000
    again = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert again.stdout.split()[1].replace(",", "") == str(2000 - first)
    with Store.open(db) as store:
        assert tree(store) == {f"/{number:04}": str(number).encode() for number in range(2000)}
        assert check(store) == []


def has_some(db: Path) -> bool:
    """True when files have arrived in a store that another process fills."""
    connection = apsw.Connection(str(db), flags=apsw.SQLITE_OPEN_READONLY)
    connection.set_busy_timeout(1000)
    try:
        ((count,),) = connection.execute("SELECT count(*) FROM nodes")
    finally:
        connection.close()
    return bool(count > 20)


def test_export__one_file(davsql: RunDavsql, tmp_path: Path, db: Path) -> None:
    with Store.open(db) as store:
        store.make_collection(at("/a"))
        put(store, "/a/b.txt", b"content", modified_at=OLD_NS)
    outcome = davsql("export", "/a/b.txt", "target")
    assert (outcome.code, outcome.out) == (0, "exported 1 file (7 bytes)\n")
    assert (tmp_path / "target" / "b.txt").read_bytes() == b"content"
    assert (tmp_path / "target" / "b.txt").stat().st_mtime_ns == OLD_NS


def test_export__missing_path_is_named(davsql: RunDavsql, tmp_path: Path) -> None:
    outcome = davsql("export", "/no", "target")
    assert (outcome.code, outcome.err) == (1, "davsql: /no does not exist\n")
    assert not (tmp_path / "target").exists()


def test_export__replaces_files_whole_and_leaves_no_parts(davsql: RunDavsql, tmp_path: Path, db: Path) -> None:
    with Store.open(db) as store:
        put(store, "/a", b"new")
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "a").write_bytes(b"old, and longer")
    (tmp_path / "target" / "other").write_bytes(b"mine")
    assert davsql("export", "/", "target").code == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "target").iterdir()} == {"a": b"new", "other": b"mine"}


def test_export__gives_the_usual_permissions(davsql: RunDavsql, tmp_path: Path, db: Path) -> None:
    with Store.open(db) as store:
        put(store, "/a", b"new")
    (tmp_path / "usual").touch()
    davsql("export", "/", "target")
    assert (tmp_path / "target" / "a").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_export__never_writes_through_links(davsql: RunDavsql, tmp_path: Path, db: Path) -> None:
    with Store.open(db) as store:
        store.make_collection(at("/folder"))
        put(store, "/folder/a", b"new")
        put(store, "/file", b"new")
        put(store, "/dangling", b"new")
        put(store, "/good", b"good")
    outside, target = tmp_path / "outside", tmp_path / "target"
    outside.mkdir()
    target.mkdir()
    (outside / "file").write_bytes(b"mine")
    (target / "folder").symlink_to(outside)
    (target / "file").symlink_to(outside / "file")
    (target / "dangling").symlink_to(outside / "dangling")
    outcome = davsql("export", "/", target)
    assert (outcome.code, outcome.out) == (1, "exported 1 file (4 bytes), 3 failed\n")
    assert f"failed: /folder: {target}/folder is there and no folder\n" in outcome.err
    assert f"failed: /file: {target}/file is there and no regular file\n" in outcome.err
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == {"file": b"mine"}
    assert (target / "file").is_symlink()


def test_export__reports_files_and_folders_in_each_others_place(davsql: RunDavsql, tmp_path: Path, db: Path) -> None:
    with Store.open(db) as store:
        store.make_collection(at("/a"))
        put(store, "/a/member", b"x")
        put(store, "/b", b"x")
    target = tmp_path / "target"
    (target / "b").mkdir(parents=True)
    (target / "a").write_bytes(b"mine")
    outcome = davsql("export", "/", target)
    assert (outcome.code, len(outcome.err.splitlines())) == (1, 2)
    assert (target / "a").read_bytes() == b"mine"


def test_export__spares_the_store_itself(davsql: RunDavsql, tmp_path: Path, db: Path) -> None:
    with Store.open(db) as store:
        for name in ("davsql.db", "davsql.db-wal", "davsql.db-journal", "link", "other"):
            put(store, f"/{name}", b"would destroy it")
    (tmp_path / "link").hardlink_to(tmp_path / "davsql.db")
    outcome = davsql("export", "/", ".")
    assert (outcome.code, outcome.out) == (1, "exported 1 file (16 bytes), 4 failed\n")
    assert outcome.err.count("the store's own file is there") == 4
    with Store.open(db) as store:
        assert read(store, "/other") == b"would destroy it"
        assert check(store, deep=True) == []


def test_export__a_damaged_file_is_reported_and_the_old_one_stays(davsql: RunDavsql, tmp_path: Path, db: Path) -> None:
    with Store.open(db) as store:
        put(store, "/bad", b"bad" * 1000)
        put(store, "/good", b"good")
    database = apsw.Connection("davsql.db")
    database.execute("UPDATE chunk_data SET data = zeroblob(length(data)) WHERE length(data) = 3000")
    database.close()
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "bad").write_bytes(b"old")
    outcome = davsql("export", "/", "target")
    assert (outcome.code, outcome.out) == (1, "exported 1 file (4 bytes), 1 failed\n")
    assert outcome.err.startswith("failed: /bad: ")
    assert {path.name: path.read_bytes() for path in (tmp_path / "target").iterdir()} == {
        "bad": b"old",
        "good": b"good",
    }


def test_export__where_the_disk_ignores_case_one_of_two_names_is_reported(
    davsql: RunDavsql, tmp_path: Path, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(db) as store:
        put(store, "/Name", b"first")
        put(store, "/name", b"second")
    monkeypatch.setattr(export, "is_case_insensitive", lambda _folder: True)
    outcome = davsql("export", "/", "target")
    assert (outcome.code, outcome.out) == (1, "exported 1 file (5 bytes), 1 failed\n")
    assert [path.read_bytes() for path in (tmp_path / "target").iterdir()] == [b"first"]


@pytest.mark.parametrize("name", ["a\\b", "..\\b", "c:", "a:stream", "nul", "COM1.txt", "a.", "a ", "a?"])
def test_require_local_name__windows_refuses(name: str) -> None:
    assert require_local_name(name, is_windows=False) == name
    with pytest.raises(InvalidPath):
        require_local_name(name, is_windows=True)


@pytest.mark.parametrize("name", ["a", "a.b", ".a", "null", "com", "com10", "caf\u00e9", "a b"])
def test_require_local_name__windows_takes(name: str) -> None:
    assert require_local_name(name, is_windows=True) == name


@pytest.mark.parametrize(
    ("disk_ns", "is_same"),
    [(OLD_NS, True), (OLD_NS + 1, False), (OLD_NS - 89, True), (OLD_NS - 789, True), (OLD_NS - 123_456_789, True)],
)
def test_is_same_time__as_exactly_as_a_disk_keeps_it(disk_ns: int, *, is_same: bool) -> None:
    assert is_same_time(disk_ns, OLD_NS) == is_same
    assert not is_same_time(disk_ns, OLD_NS + 2_000_000_000)
