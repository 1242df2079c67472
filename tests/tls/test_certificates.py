"""Certificates of one's own: made once, private, renewed in time; new ones are used without closing a connection."""

from __future__ import annotations

import os
import ssl
import stat
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path

import pytest

from davsql.certificates.authority import RENEW_DAYS, SERVER_DAYS, Authority
from davsql.certificates.names import checked, names_of_machine
from davsql.certificates.reading import read_certificate
from davsql.errors import InsecureFile, TlsError
from davsql.server.tls import Tls, TlsFiles
from tests.server.raw import Recorder, Served, read_until, request, served
from tests.tls.tls_steps import NAMES, Clock, connect, make_authority, serial_of, tls_of, trusting

posix = pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")


def contents(authority: Authority) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in authority.folder.iterdir()}


@posix
def test_authority__keeps_keys_to_itself(authority: Authority) -> None:
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in authority.folder.iterdir()}
    assert modes == {"ca.pem": 0o644, "ca-key.pem": 0o600, "davsql.pem": 0o600, "lock": 0o600}
    assert stat.S_IMODE(authority.folder.stat().st_mode) == 0o700
    assert b"PRIVATE" not in authority.ca_certificate.read_bytes()


@posix
@pytest.mark.parametrize("name", ["ca-key.pem", "davsql.pem"])
def test_authority__refuses_keys_that_others_can_read(authority: Authority, name: str) -> None:
    (authority.folder / name).chmod(0o640)
    with pytest.raises(InsecureFile, match="chmod 600"):
        authority.ensure()


def test_authority__makes_nothing_twice(authority: Authority) -> None:
    before = contents(authority)
    assert authority.ensure() is False
    assert contents(authority) == before


def test_authority__certificate_is_for_the_names_and_short_enough_for_all_clients(authority: Authority) -> None:
    found = read_certificate(authority.certificate)
    assert set(found.names) == set(NAMES)
    assert found.ends_at - found.begins_at < timedelta(days=398)
    assert read_certificate(authority.ca_certificate).subject == found.issuer


def test_authority__renews_before_the_end(tmp_path: Path) -> None:
    clock = Clock()
    authority = make_authority(tmp_path, clock)
    first = contents(authority)
    clock.move(days=SERVER_DAYS - RENEW_DAYS, seconds=-1)
    authority.ensure()
    assert contents(authority) == first
    clock.move(seconds=2)
    authority.ensure()
    assert contents(authority)["davsql.pem"] != first["davsql.pem"]
    assert contents(authority)["ca.pem"] == first["ca.pem"]
    assert read_certificate(authority.certificate).left(clock.now) > timedelta(days=SERVER_DAYS - 1)


def test_authority__renews_when_the_machine_has_another_name(tmp_path: Path) -> None:
    names = ["localhost"]
    authority = Authority(tmp_path, lambda: names)
    authority.ensure()
    names.append("10.1.2.3")
    authority.ensure()
    assert set(read_certificate(authority.certificate).names) == {"localhost", "10.1.2.3"}


def test_authority__of_which_the_time_is_over_says_what_to_do(tmp_path: Path) -> None:
    clock = Clock()
    authority = make_authority(tmp_path, clock)
    clock.move(days=3651)
    with pytest.raises(TlsError, match="davsql cert renew --new-ca"):
        authority.ensure()
    assert authority.ensure(new_ca=True) is True
    assert read_certificate(authority.certificate).left(clock.now) > timedelta(0)


@pytest.mark.parametrize("content", [b"", b"nonsense"])
def test_authority__mends_a_certificate_but_no_authority(authority: Authority, content: bytes) -> None:
    authority.certificate.write_bytes(content)
    authority.ensure()
    assert read_certificate(authority.certificate).names
    (authority.folder / "ca-key.pem").write_bytes(content)
    with pytest.raises(TlsError, match="--new-ca"):
        authority.ensure()


def make(folder: Path) -> None:
    make_authority(folder)


@posix
def test_authority__is_made_by_one_of_several_processes(tmp_path: Path) -> None:
    spawning = get_context("spawn")
    processes = [spawning.Process(target=make, args=(tmp_path / "tls",)) for _ in range(4)]
    for each in processes:
        each.start()
    for each in processes:
        each.join()
    assert [each.exitcode for each in processes] == [0, 0, 0, 0]
    authority = make_authority(tmp_path / "tls")
    assert sorted(contents(authority)) == ["ca-key.pem", "ca.pem", "davsql.pem", "lock"]
    ssl.create_default_context(cafile=authority.ca_certificate)
    assert read_certificate(authority.certificate).issuer == read_certificate(authority.ca_certificate).subject


def test_names__of_the_machine_can_stand_in_a_certificate(tmp_path: Path) -> None:
    assert {"localhost", "127.0.0.1", "::1"} <= set(names_of_machine())
    Authority(tmp_path, names_of_machine).ensure()


def test_names__those_that_are_none_are_left_out() -> None:
    assert checked(["NAS", "0.0.0.0", "::", "a b", "", "[2001:db8::7]", "1.0.0.127.in-addr.arpa", "nas."]) == [  # noqa: S104  # that is the point
        "2001:db8::7",
        "nas",
    ]


# --- in use -------------------------------------------------------------------------------------------------------


def test_new_certificate__is_for_new_connections_and_open_ones_stay(authority: Authority) -> None:
    tls = tls_of(authority)
    with served(Recorder(), tls=tls) as server, connect(server, trusting(authority)) as before:
        authority.ensure(anew=True)
        tls.look()
        with connect(server, trusting(authority)) as after:
            assert serial_of(after) != serial_of(before)
            for client in (before, after):
                client.sendall(request("GET /"))
                read_until(client, b"hello")


def next_serial(server: Served, authority: Authority, old: int) -> int:
    """The serial number of the certificate that the server shows once it is another one."""
    for _ in range(1000):
        with connect(server, trusting(authority)) as client:
            if serial_of(client) != old:
                return serial_of(client)
    raise AssertionError("it did not come")


def test_new_certificate__is_noticed_while_serving(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("davsql.server.tls.LOOK_S", 0.01)
    with served(Recorder(), tls=tls_of(authority)) as server:
        with connect(server, trusting(authority)) as client:
            old = serial_of(client)
        authority.ensure(anew=True)
        assert next_serial(server, authority, old)


def test_certificate__that_is_due_is_renewed_while_serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("davsql.server.tls.LOOK_S", 0.01)
    monkeypatch.setattr("davsql.server.tls.RENEW_LOOK_S", 0.01)
    clock = Clock()
    now = clock.now
    clock.move(days=RENEW_DAYS - SERVER_DAYS - 1)
    authority = make_authority(tmp_path, clock)
    with served(Recorder(), tls=tls_of(authority)) as server, connect(server, trusting(authority)) as before:
        clock.now = now
        assert next_serial(server, authority, serial_of(before))
        before.sendall(request("GET /"))
        read_until(before, b"hello")
    assert read_certificate(authority.certificate).left(now) > timedelta(days=SERVER_DAYS - 1)


def test_new_certificate__that_is_broken_is_not_used(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    tls = tls_of(authority)
    with served(Recorder(), tls=tls) as server:
        authority.certificate.write_bytes(b"half a certif")
        tls.look()
        tls.look()
        with connect(server, trusting(authority)) as client:
            assert serial_of(client)
    assert sum("the old one stays" in each for each in caplog.messages) == 1


def test_files__certificate_and_key_apart_are_read_again_together(tmp_path: Path) -> None:
    first, second = make_authority(tmp_path / "1"), make_authority(tmp_path / "2")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.write_bytes(first.certificate.read_bytes())
    key.write_bytes(first.certificate.read_bytes())
    tls = Tls(TlsFiles(certificate, key))
    with served(Recorder(), tls=tls) as server:
        certificate.write_bytes(second.certificate.read_bytes())
        tls.look()  # the key does not fit yet
        with connect(server, trusting(first)):
            pass
        key.write_bytes(second.certificate.read_bytes())
        tls.look()
        with connect(server, trusting(second)):
            pass


@pytest.mark.parametrize("broken", ["missing", "no PEM", "other key", "no authority"])
def test_files__that_cannot_be_used_are_named(tmp_path: Path, broken: str) -> None:
    first, second = make_authority(tmp_path / "1"), make_authority(tmp_path / "2")
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    files = {
        "missing": TlsFiles(tmp_path / "nonsense.pm"),
        "no PEM": TlsFiles(nonsense),
        "other key": TlsFiles(first.certificate, second.certificate),
        "no authority": TlsFiles(first.certificate, None, nonsense),
    }[broken]
    with pytest.raises(TlsError) as caught:
        Tls(files)
    assert str(files.client_ca or files.certificate) in str(caught.value)
