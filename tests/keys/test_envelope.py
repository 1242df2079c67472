"""Wrapped data keys: who opens them, who does not, and what becomes of a file that was changed."""

from __future__ import annotations

import copy
import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from davsql.errors import BadKey, KeyMissing, WrongKey
from davsql.keys import envelope as envelope_module
from davsql.keys.envelope import Stretching, exchanged, new_data_key, opened_by, unlock, with_key, without_key
from davsql.keys.file import adopt, change, check_sum, keys_file, read_envelopes, settle, write_envelopes
from davsql.keys.secret import GivenKey, Secret, new_key_text

KEY = GivenKey(new_key_text())


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passphrases that cost little."""

    def stretching(salt: str) -> Stretching:
        return Stretching(salt, iterations=1, lanes=1, memory_kib=64)

    monkeypatch.setattr(envelope_module, "Stretching", stretching)


def test_unlock__by_each_of_its_keys() -> None:
    owners = [("file", KEY), ("ann", GivenKey("correct horse")), ("bob", GivenKey("battery staple"))]
    key = new_data_key(8192, owners)
    for name, given in owners:
        assert unlock(key.envelope, given).raw == key.raw
        assert opened_by(key.envelope, given).name == name


@pytest.mark.parametrize("given", [GivenKey(new_key_text()), GivenKey("incorrect horse")])
def test_unlock__refuses_other_keys(given: GivenKey) -> None:
    key = new_data_key(8192, [("file", KEY), ("ann", GivenKey("correct horse"))])
    with pytest.raises(WrongKey):
        unlock(key.envelope, given)


def test_unlock__passphrase_in_either_form_of_unicode() -> None:
    key = new_data_key(8192, [("ann", GivenKey("caf\u00e9 au lait"))])
    assert unlock(key.envelope, GivenKey("cafe\u0301 au lait")).raw == key.raw


def test_new_data_key__is_another_one_each_time() -> None:
    first, second = (new_data_key(8192, [("file", KEY)]) for _ in range(2))
    assert first.secret.reveal() != second.secret.reveal()
    assert first.envelope.store != second.envelope.store


def test_without_key__last_one_stays() -> None:
    key = with_key(new_data_key(8192, [("file", KEY)]), "ann", GivenKey("correct horse"))
    left = without_key(key.envelope, "file")
    with pytest.raises(WrongKey):
        unlock(left, KEY)
    assert unlock(left, GivenKey("correct horse")).raw == key.raw
    with pytest.raises(BadKey, match="the last key"):
        without_key(left, "ann")
    with pytest.raises(BadKey, match="no key is called carl"):
        without_key(left, "carl")


def test_with_key__name_and_key_are_there_once() -> None:
    key = new_data_key(8192, [("file", KEY)])
    with pytest.raises(BadKey, match="named file"):
        with_key(key, "file", GivenKey("correct horse"))
    with pytest.raises(BadKey, match="already: it is there as file"):
        with_key(key, "ann", KEY)


def test_exchanged__opens_with_the_new_key_only() -> None:
    key, new = new_data_key(8192, [("file", KEY)]), GivenKey(new_key_text())
    changed = exchanged(key, key.envelope.keys[0], new)
    assert unlock(changed.envelope, new).raw == key.raw
    assert [each.name for each in changed.envelope.keys] == ["file"]
    with pytest.raises(WrongKey):
        unlock(changed.envelope, KEY)


@pytest.mark.parametrize("changes", [{"page_size": 4096}, {"store": "00" * 16}, {"created_at": "2000-01-01"}])
def test_unlock__refuses_an_envelope_that_was_changed(changes: dict[str, Any]) -> None:
    key = new_data_key(8192, [("file", KEY)])
    with pytest.raises(BadKey, match="changed or damaged"):
        unlock(replace(key.envelope, **changes), KEY)


def test_unlock__refuses_a_wrapped_key_that_was_changed() -> None:
    key = new_data_key(8192, [("file", KEY)])
    wrapped = key.envelope.keys[0]
    other = replace(wrapped, wrapped=wrapped.wrapped[:-2] + f"{int(wrapped.wrapped[-2:], 16) ^ 1:02x}")
    with pytest.raises(BadKey, match="changed or damaged"):
        unlock(replace(key.envelope, keys=(other,)), KEY)


def test_key_text__is_refused_when_it_was_cut_or_mistyped() -> None:
    text = new_key_text()
    assert GivenKey(f" {text.lower()}\n").secret.reveal() == GivenKey(text).secret.reveal()
    for damaged in (text[:-1], text[:30], text[:12] + ("A" if text[12] != "A" else "B") + text[13:], text + "A"):
        with pytest.raises(BadKey, match="cut or mistyped"):
            GivenKey(damaged)
    with pytest.raises(BadKey, match="empty"):
        GivenKey(" \n")


def test_secret__is_not_shown_and_can_be_wiped() -> None:
    key = new_data_key(8192, [("file", KEY)])
    assert key.secret.reveal().hex() not in repr(key)
    secret = Secret(b"abc")
    secret.wipe()
    assert bytes(secret.reveal()) == bytes(3)


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    key = with_key(new_data_key(8192, [("file", KEY)]), "ann", GivenKey("correct horse"))
    file = keys_file(tmp_path / "store.db")
    write_envelopes(file, [key.envelope])
    return file


def test_write_envelopes__can_be_read_again_by_its_owner_only(file: Path) -> None:
    (envelope,) = read_envelopes(file)
    assert unlock(envelope, KEY).raw == unlock(envelope, GivenKey("correct horse")).raw
    assert os.name == "nt" or file.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in file.parent.iterdir()] == [file.name]


def test_read_envelopes__damage_is_found_wherever_it_is(file: Path) -> None:
    whole = file.read_bytes()
    damaged = [whole[:end] for end in range(0, len(whole) - 1, 37)]
    damaged += [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(3, len(whole) - 1, 41)]
    before = read_envelopes(file)
    for content in damaged:
        file.write_bytes(content)
        with suppress(BadKey):
            assert read_envelopes(file) == before  # a blank between two words


@pytest.mark.parametrize(
    "change",
    [{"memory_kib": 1 << 40}, {"iterations": 1 << 30}, {"memory_kib": "much"}, {"salt": None}, {"unknown": 1}],
)
def test_read_envelopes__hostile_cost_is_refused(file: Path, change: dict[str, Any]) -> None:
    document = json.loads(file.read_text(encoding="utf-8"))
    changed = copy.deepcopy(document["envelopes"])
    changed[0]["keys"][1]["stretching"] |= change
    document |= {"envelopes": changed, "check": check_sum(changed)}
    file.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(BadKey):
        unlock(read_envelopes(file)[0], GivenKey("correct horse"))


def test_read_envelopes__missing_and_newer(file: Path) -> None:
    document = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(document | {"version": 2}), encoding="utf-8")
    with pytest.raises(BadKey, match="newer davsql"):
        read_envelopes(file)
    file.unlink()
    with pytest.raises(KeyMissing, match="each backup has a copy"):
        read_envelopes(file)


def test_change__of_those_who_add_keys_at_one_time_nobody_is_lost(file: Path) -> None:
    key = new_data_key(8192, [("first", KEY)])
    write_envelopes(file, [key.envelope])

    def add(name: str) -> None:
        given = GivenKey(new_key_text())
        change(file, key.envelope.store, lambda now: with_key(replace(key, envelope=now), name, given).envelope)

    names = [f"key {number}" for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, names))
    (envelope,) = read_envelopes(file)
    assert {each.name for each in envelope.keys} == {"first", *names}
    assert unlock(envelope, KEY).raw == key.raw


def test_change__of_another_store_or_of_none_changes_nothing(file: Path) -> None:
    with pytest.raises(KeyMissing):
        change(file, "00" * 16, lambda now: now)
    write_envelopes(file, [new_data_key(8192, [("first", KEY)]).envelope])
    before = file.read_bytes()
    with pytest.raises(KeyMissing, match="another store"):
        change(file, "00" * 16, lambda now: now)
    assert file.read_bytes() == before


def test_adopt__others_stay_until_they_are_settled(file: Path) -> None:
    old, new = read_envelopes(file)[0], new_data_key(8192, [("file", KEY)]).envelope
    adopt(file, new)
    assert read_envelopes(file) == [old, new]
    settle(file, new)
    assert read_envelopes(file) == [new]
    settle(file, None)
    assert not file.exists()


def test_adopt__damaged_file_is_kept(file: Path) -> None:
    file.write_bytes(b"{")
    new = new_data_key(8192, [("file", KEY)]).envelope
    adopt(file, new)
    assert read_envelopes(file) == [new]
    (kept,) = (each for each in file.parent.iterdir() if "damaged" in each.name)
    assert kept.read_bytes() == b"{"
