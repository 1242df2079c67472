"""The commands about keys: what they make, what they say, and that nothing is touched when a key is wrong."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import click
import pytest

from davsql.cli import unlocking
from davsql.cli.main import COMMANDS as PROGRAM
from davsql.cli.main import davsql as program
from davsql.doctor.encryption import check_encryption
from davsql.keys.envelope import unlock
from davsql.keys.file import keys_file, read_envelopes, write_envelopes
from davsql.keys.secret import GivenKey
from davsql.store.cipher import PLAIN_HEADER, first_bytes
from davsql.store.convert import part_of
from davsql.store.options import StoreOptions
from tests.cli.conftest import Outcome, RunDavsql
from tests.live_server import ROOT, serving_processes

KEY = ("--key-file", "a.key")
SECRET = b"nobody may read this"


@pytest.fixture(autouse=True)
def forgetting() -> Iterator[None]:
    """Each command line as if in a process of its own."""
    unlocking._known.clear()  # noqa: SLF001
    yield
    unlocking._known.clear()  # noqa: SLF001


def forget() -> None:
    unlocking._known.clear()  # noqa: SLF001


@pytest.fixture
def db(davsql: RunDavsql, tmp_path: Path) -> Path:
    """An encrypted store with one file, the key that opens it (a.key), and one that does not (b.key)."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "f").write_bytes(SECRET)
    for command in (
        ("key", "new", "a.key"),
        ("key", "new", "b.key"),
        ("init", "--encrypt", *KEY),
        ("import", "in", *KEY),
    ):
        assert davsql(*command).code == 0
    forget()
    return tmp_path / "davsql.db"


def recovery_in(text: str) -> str:
    found = re.search(r"DAVSQL-KEY-[A-Z2-7-]+", text)
    assert found is not None, text
    return found[0]


def opens(davsql: RunDavsql, *keys: object) -> bool:
    forget()
    return davsql("ls", *keys).out == "f\n"


def test_init__says_what_to_keep_and_the_recovery_key_opens_it(davsql: RunDavsql, tmp_path: Path) -> None:
    davsql("key", "new", "a.key")
    made = davsql("init", "--encrypt", *KEY)
    assert made.code == 0
    for told in ("made an empty encrypted store: davsql.db", "a.key opens the store", "davsql.db.keys is needed"):
        assert told in made.out
    (tmp_path / "r.key").write_text(recovery_in(made.out), encoding="ascii")
    (tmp_path / "r.key").chmod(0o600)
    assert davsql("key", "verify", "--key-file", "r.key").out == "davsql.db is opened by the key recovery\n"
    assert first_bytes(tmp_path / "davsql.db") != PLAIN_HEADER


def test_init__needs_to_be_told_to_encrypt(davsql: RunDavsql, tmp_path: Path) -> None:
    davsql("key", "new", "a.key")
    assert davsql("init", *KEY).code == 2
    assert "There is no terminal" in davsql("init", "--encrypt").err
    assert [each.name for each in tmp_path.iterdir()] == ["a.key"]


def test_key_new__never_overwrites(davsql: RunDavsql, tmp_path: Path) -> None:
    assert davsql("key", "new", "a.key").code == 0
    text = (tmp_path / "a.key").read_text(encoding="ascii")
    assert (tmp_path / "a.key").stat().st_mode & 0o077 == 0
    again = davsql("key", "new", "a.key")
    assert (again.code, "never overwritten" in again.err) == (1, True)
    assert (tmp_path / "a.key").read_text(encoding="ascii") == text


COMMANDS = [
    ("ls",),
    ("stats",),
    ("check",),
    ("export", "/", "out"),
    ("import", "in"),
    ("backup", "b.davsql"),
    ("migrate",),
    ("maintain", "gc"),
    ("doctor",),
    ("decrypt",),
    ("key", "verify"),
    ("key", "export", "--yes"),
    ("key", "add", "--name", "ann", "--recovery"),
    ("key", "revoke", "recovery"),
    ("key", "rotate", "--data-key"),
    ("serve", "--port", "0", "--workers", "1"),
]


def test_commands__that_open_a_store_take_a_key() -> None:
    taking = set()
    for name in PROGRAM:
        command = program.get_command(click.Context(program), name)
        for each in command.commands.values() if isinstance(command, click.Group) else [command]:
            assert each is not None
            options = {option for parameter in each.params for option in parameter.opts}
            if "--db" in options:
                taking.add(name)
                assert {"--key-file", "--key-command"} <= options, (name, each.name)
    assert taking >= {command[0] for command in COMMANDS} | {"init", "encrypt", "restore"}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ((), "--key-file FILE or --key-command CMD"),
        (("--key-file", "none"), "there is no key file none"),
        (("--key-file", "b.key"), "is none of those that open the store"),
    ],
    ids=["none", "missing", "wrong"],
)
def test_encrypted__without_its_key(
    davsql: RunDavsql, db: Path, command: tuple[str, ...], keys: tuple[str, ...], message: str
) -> None:
    before = {each.name: each.read_bytes() for each in db.parent.iterdir() if each.is_file()}
    outcome = davsql(*command, *keys)
    assert outcome.code == 1
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert {each.name: each.read_bytes() for each in db.parent.iterdir() if each.is_file()} == before


def test_encrypted__damaged_missing_and_swapped_files_of_keys(davsql: RunDavsql, db: Path) -> None:
    beside = keys_file(db)
    whole = beside.read_bytes()
    davsql("init", "--encrypt", "--db", "other.db", *KEY)

    def refused(*more: str) -> Outcome:
        forget()
        outcome = davsql("ls", *KEY, *more)
        assert outcome.code == 1
        return outcome

    beside.write_bytes(whole[: len(whole) // 2])
    assert "davsql.db.keys is damaged: put a copy" in refused().err
    beside.write_bytes(keys_file(db.with_name("other.db")).read_bytes())
    assert "davsql.db.keys belongs to another store" in refused().err
    beside.unlink()
    assert "davsql.db.keys is missing" in refused().err
    beside.write_bytes(whole)
    assert opens(davsql, *KEY)


def test_plain_store__with_a_key(davsql: RunDavsql, tmp_path: Path) -> None:
    davsql("init")
    davsql("key", "new", "a.key")
    before = (tmp_path / "davsql.db").read_bytes()
    outcome = davsql("ls", *KEY)
    assert (outcome.code, "is not encrypted, and a key was given" in outcome.err) == (1, True)
    assert "is not encrypted" in davsql("decrypt").err
    assert (tmp_path / "davsql.db").read_bytes() == before


def test_keys__are_added_exchanged_and_revoked(davsql: RunDavsql, db: Path) -> None:
    before = db.read_bytes()
    assert davsql("key", "add", "--name", "bob", "--new-key-file", "b.key", *KEY).out == "added bob\n"
    assert opens(davsql, "--key-file", "b.key")
    told = davsql("key", "info").out
    assert re.findall(r"^  (\w+): key", told, re.MULTILINE) == ["key", "recovery", "bob"]
    assert davsql("key", "revoke", "key", "--key-file", "b.key").code == 0
    assert not opens(davsql, *KEY)
    davsql("key", "new", "c.key")
    assert davsql("key", "rotate", "--new-key-file", "c.key", "--key-file", "b.key").code == 0
    assert db.read_bytes() == before  # whatever its size: only the file of keys is written
    assert not opens(davsql, "--key-file", "b.key")
    assert opens(davsql, "--key-file", "c.key")
    assert davsql("key", "revoke", "recovery", "--key-file", "c.key").code == 0
    last = davsql("key", "revoke", "bob", "--key-file", "c.key")
    assert (last.code, "the last key" in last.err) == (1, True)


def test_rotate_data_key__shuts_out_all_others(davsql: RunDavsql, db: Path) -> None:
    davsql("key", "add", "--name", "bob", "--new-key-file", "b.key", *KEY)
    old = read_envelopes(keys_file(db))[0].store
    done = davsql("key", "rotate", "--data-key", *KEY)
    assert done.code == 0
    assert "bob does not open it any more" in done.out
    assert recovery_in(done.out)
    assert opens(davsql, *KEY)
    assert not opens(davsql, "--key-file", "b.key")
    assert [each.store == old for each in read_envelopes(keys_file(db))] == [False]


def test_rotate_data_key__says_that_the_recovery_key_is_gone(davsql: RunDavsql, db: Path) -> None:
    assert [each.name for each in read_envelopes(keys_file(db))[0].keys] == ["key", "recovery"]
    assert "recovery does not open it any more" in davsql("key", "rotate", "--data-key", "--no-recovery", *KEY).out
    assert "any more" not in davsql("key", "rotate", "--data-key", *KEY).out
    assert "recovery of before does not open it any more" in davsql("key", "rotate", "--data-key", *KEY).out


@pytest.mark.parametrize("command", [("key", "add", "--name", "x"), ("key", "rotate")], ids=" ".join)
@pytest.mark.parametrize("new", ["davsql.db.keys", "short.key"])
def test_new_key__that_is_the_first_line_of_a_wrong_file_is_refused(
    davsql: RunDavsql, db: Path, tmp_path: Path, command: tuple[str, ...], new: str
) -> None:
    (tmp_path / "short.key").write_text("seven77\n")
    (tmp_path / "short.key").chmod(0o600)
    before = keys_file(db).read_bytes()
    refused = davsql(*command, "--new-key-file", new, *KEY)
    assert (refused.code, "at least 8 characters" in refused.err) == (1, True)
    assert keys_file(db).read_bytes() == before


def test_encrypt__with_the_key_where_the_wrapped_keys_come_is_refused(davsql: RunDavsql, tmp_path: Path) -> None:
    davsql("init")
    davsql("key", "new", "davsql.db.keys")
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    refused = davsql("encrypt", "--key-file", "davsql.db.keys")
    assert (refused.code, "another name or place" in refused.err) == (1, True)
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == before


def test_encrypt_and_decrypt__there_and_back(davsql: RunDavsql, db: Path) -> None:
    assert davsql("decrypt", *KEY).code == 0
    assert SECRET in db.read_bytes()
    assert opens(davsql)
    assert davsql("encrypt", *KEY).code == 0
    assert SECRET not in db.read_bytes()
    assert opens(davsql, *KEY)
    again = davsql("encrypt", *KEY)
    assert (again.code, "is encrypted already" in again.err) == (1, True)
    assert davsql("check", "--deep", *KEY).code == 0


def test_encrypt__stopped_with_ctrl_c_says_that_it_goes_on(davsql: RunDavsql, monkeypatch: pytest.MonkeyPatch) -> None:
    davsql("key", "new", "a.key")
    davsql("init")

    def stop(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("davsql.store.convert.rewrite", stop)
        stopped = davsql("encrypt", *KEY)
    assert (stopped.code, "goes on with what was copied" in stopped.err) == (130, True)
    assert davsql("ls").code == 0
    assert davsql("encrypt", *KEY).code == 0


def test_backup__encrypted_as_the_store_otherwise_or_not(davsql: RunDavsql, db: Path) -> None:
    assert davsql("backup", "same.davsql", *KEY).code == 0
    assert davsql("backup", "other.davsql", "--backup-key-file", "b.key", *KEY).code == 0
    plain = davsql("backup", "plain.davsql", "--plaintext", *KEY)
    assert (plain.code, "the backup is not encrypted" in plain.err) == (0, True)
    for name, keys in (("same", KEY), ("other", ("--key-file", "b.key")), ("plain", ())):
        forget()
        restored = davsql("restore", f"{name}.davsql", "--db", f"{name}.db", "--deep", *keys)
        assert restored.code == 0, restored.err
        assert davsql("ls", "--db", f"{name}.db", *keys).out == "f\n"
        assert (SECRET in (db.parent / f"{name}.davsql").read_bytes()) == (name == "plain")
    forget()
    assert davsql("restore", "same.davsql", "--db", "no.db", "--key-file", "b.key").code == 1
    assert not (db.parent / "no.db").exists()


def test_restore__plain_backup_over_an_encrypted_store_warns(davsql: RunDavsql, db: Path) -> None:
    davsql("backup", "plain.davsql", "--plaintext", *KEY)
    done = davsql("restore", "plain.davsql", "--force")
    assert (done.code, "was encrypted, and its backup is not" in done.err) == (0, True)
    assert opens(davsql)


def test_export__of_data_and_of_the_key_warn(davsql: RunDavsql, db: Path) -> None:
    assert "what is exported is not encrypted" in davsql("export", "/", "out", *KEY).err
    shown = davsql("key", "export", "--yes", *KEY)
    assert "opens the store for everybody" in shown.err
    assert re.fullmatch(r'PRAGMA key = "x\'[0-9a-f]{96}\'";\nPRAGMA cipher_page_size = 8192;\n', shown.out)
    assert davsql("key", "export", *KEY).code == 2


def test_doctor__tells_how_it_is_encrypted(davsql: RunDavsql, db: Path) -> None:
    assert "sqlcipher 4" in davsql("doctor", *KEY).out
    davsql("key", "revoke", "recovery", *KEY)
    told = davsql("doctor", *KEY)
    assert "only key opens it" in told.out
    assert "davsql key add --name recovery --recovery" in told.out


def test_doctor__advises_a_new_data_key(davsql: RunDavsql, db: Path) -> None:
    (envelope,) = read_envelopes(keys_file(db))
    old = datetime.fromisoformat(envelope.created_at) - timedelta(days=731)
    options = StoreOptions(key=unlock(envelope, GivenKey((db.parent / "a.key").read_text(encoding="ascii"))))
    assert [each.status for each in check_encryption(db, options)] == ["pass", "pass"]
    write_envelopes(keys_file(db), [replace(envelope, created_at=old.isoformat())])
    found = next(check_encryption(db, options))
    assert (found.status, found.remedy) == ("warn", "davsql key rotate --data-key")
    assert "under a data key made 731 days ago" in found.found


def test_doctor__tells_of_an_unfinished_copy(davsql: RunDavsql, db: Path) -> None:
    part_of(db).write_bytes(PLAIN_HEADER)
    assert "is an unfinished plain copy" in davsql("doctor", *KEY).out
    part_of(db).write_bytes(bytes(16))
    assert "is an unfinished copy under another key" in davsql("doctor", *KEY).out


def test_audit_log__has_every_change_of_keys_and_no_key(davsql: RunDavsql, db: Path) -> None:
    share = f"[[share]]\nname = 'drive'\ndb = {str(db)!r}\nkey_file = 'a.key'\n[audit]\nlevel = 'writes'\n"
    (db.parent / "c.toml").write_text(share, encoding="utf-8")
    at = ("--config", "c.toml")
    davsql("key", "new", "c.key")
    for command in (
        ("key", "add", "--name", "bob", "--new-key-file", "b.key"),
        ("key", "revoke", "bob"),
        ("key", "export", "--yes"),
        ("key", "rotate", "--new-key-file", "c.key"),
        ("key", "rotate", "--data-key", "--key-file", "c.key"),
        ("decrypt", "--key-file", "c.key"),
        ("encrypt", *KEY),
    ):
        assert davsql(*command, *at).code == 0
    told = davsql("audit", *at).out
    assert re.findall(r"key add|key revoke|key export|key rotate|decrypt|encrypt", told) == [
        "key add",
        "key revoke",
        "key export",
        "key rotate",
        "key rotate",
        "decrypt",
        "encrypt",
    ]
    assert "bob" in told
    for name in ("a.key", "b.key", "c.key"):
        assert (db.parent / name).read_text(encoding="ascii").strip() not in told


def test_configuration__says_where_the_key_is(davsql: RunDavsql, db: Path) -> None:
    share = f"[[share]]\nname = 'drive'\ndb = {str(db)!r}\n"
    (db.parent / "c.toml").write_text(share + "key_file = 'a.key'\n", encoding="utf-8")
    assert opens(davsql, "--config", "c.toml")
    program = f"'{sys.executable}' -c \"print(open('a.key').read())\""
    (db.parent / "c.toml").write_text(share + f"key_command = '''{program}'''\n", encoding="utf-8")
    assert opens(davsql, "--config", "c.toml")
    assert not opens(davsql, "--config", "c.toml", "--key-file", "b.key")
    (db.parent / "c.toml").write_text(share + "key_file = 'a.key'\nkey_keyring = 'me'\n", encoding="utf-8")
    refused = davsql("ls", "--config", "c.toml")
    assert (refused.code, "key_file and key_keyring say both" in refused.err) == (1, True)


def test_serve__makes_no_plain_store_where_a_key_is_named(davsql: RunDavsql, tmp_path: Path) -> None:
    davsql("key", "new", "a.key")
    outcome = davsql("serve", "--port", "0", "--workers", "1", *KEY)
    assert (outcome.code, "davsql init --encrypt" in outcome.err) == (1, True)
    assert [each.name for each in tmp_path.iterdir()] == ["a.key"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux spreads connections over processes")
def test_serve__workers_have_the_key_and_nobody_sees_it(davsql: RunDavsql, db: Path) -> None:
    key_file = db.parent / "a.key"
    with serving_processes(db, 2, f"key_file = {str(key_file)!r}\n") as served:
        assert served.request("PUT", "/g", b"new").status == 201
        assert [served.request("GET", "/f").body for _ in range(4)] == [SECRET] * 4
        for pid in (served.supervisor.pid, *served.pids("worker")):
            seen = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
            assert b"DAVSQL-KEY" not in seen
            assert "Max core file size        0 " in Path(f"/proc/{pid}/limits").read_text(encoding="ascii")
        key_file.unlink()  # a worker that is started again asks nobody
        first, second = served.pids("worker")
        for pid in (first, second):
            os.kill(pid, signal.SIGKILL)
        while len(set(served.pids("worker")) - {first, second}) < 2:
            time.sleep(0.05)
        assert served.request("GET", "/g").body == b"new"
    assert SECRET not in db.read_bytes()
    assert b"DAVSQL-KEY" not in served.log.read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="terminals of POSIX")
def test_passphrase__is_asked_for_and_not_shown(tmp_path: Path) -> None:
    phrase = "correct horse battery staple"
    made = typed(
        tmp_path, ["init", "--encrypt", "--no-recovery"], {b"New passphrase: ": phrase, b"confirmation: ": phrase}
    )
    assert b"the passphrase opens the store" in made
    assert b"opened by the key passphrase" in typed(tmp_path, ["key", "verify"], {b"davsql.db: ": phrase})
    assert b"the passphrase is wrong" in typed(tmp_path, ["key", "verify"], {b"davsql.db: ": "incorrect horse"})
    assert b"horse" not in made


@pytest.mark.skipif(os.name == "nt", reason="terminals of POSIX")
@pytest.mark.usefixtures("db")
def test_rotate_data_key__shows_how_far_it_is(tmp_path: Path) -> None:
    shown = typed(tmp_path, ["key", "rotate", "--data-key", *KEY], {})
    assert re.search(rb"\d+%\|.*\[\d\d:\d\d<|B/s", shown)


def typed(folder: Path, command: list[str], answers: dict[bytes, str]) -> bytes:
    """What a command shows on a terminal at which somebody types the answers."""
    import termios  # noqa: PLC0415  # not on Windows

    ours, theirs = os.openpty()
    termios.tcsetwinsize(ours, (24, 100))
    with subprocess.Popen(
        [sys.executable, "-m", "davsql", *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        shown = b""
        for prompt, answer in answers.items():
            while prompt not in shown:
                shown += os.read(ours, 1000)
            os.write(ours, answer.encode() + b"\n")
        with suppress(OSError):  # how Linux says that nobody writes there any more
            while more := os.read(ours, 1000):
                shown += more
        process.wait(timeout=60)
    os.close(ours)
    return shown
