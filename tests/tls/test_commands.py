"""`davsql serve` over TLS with its workers, `davsql cert`, and what the doctor says of certificates."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from davsql.certificates.authority import Authority
from davsql.certificates.reading import read_certificate
from davsql.doctor.certificate import TlsPlace, check_certificate
from davsql.store.store import Store
from tests.cli.conftest import RunDavsql, davsql
from tests.server.raw import eventually, read_to_end, read_until, request, status_of
from tests.store_steps import read
from tests.tls.tls_steps import Clock, make_authority, plain_connection, serial_of

__all__ = ["davsql"]  # the fixture

posix = pytest.mark.skipif(os.name == "nt", reason="signals and modes of POSIX")
STOP_TIMEOUT_S = 30
CLOSE = "Connection: close"


class Running(NamedTuple):
    """`davsql serve --tls auto` that answers."""

    process: subprocess.Popen[str]
    address: tuple[str, int]
    said: str
    context: ssl.SSLContext

    def connect(self) -> ssl.SSLSocket:
        return self.context.wrap_socket(plain_connection(self.address), server_hostname="localhost")


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[Running]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        admin = free.getsockname()[1]
    (folder / "davsql.toml").write_text(f"[server]\ntls = 'auto'\nport = 0\n[admin]\nport = {admin}\n", "utf-8")
    command = [sys.executable, "-m", "davsql", "serve", "--config", "davsql.toml", *arguments]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            said = ""
            for line in process.stdout:
                said += line
                if "Ctrl-C" in line:
                    break
            found = re.search(r"serving .* on https://([\d.]+):(\d+)/", said)
            assert found, said
            context = ssl.create_default_context(cafile=folder / "davsql-tls" / "ca.pem")
            yield Running(process, (found[1], int(found[2])), said, context)
        finally:
            process.kill()


@posix
@pytest.mark.parametrize("workers", ["1", "2"])
def test_serve__auto_speaks_tls_renews_and_lets_uploads_end(tmp_path: Path, davsql: RunDavsql, workers: str) -> None:
    if workers != "1" and sys.platform != "linux":
        pytest.skip("only Linux spreads connections over processes")
    with serving(tmp_path, "--workers", workers) as running:
        assert running.said.count("made a certificate authority") == 1
        assert "davs://127.0.0.1:" in running.said
        with plain_connection(running.address) as plain:
            plain.sendall(request("GET /"))
            assert b"use https://" in read_to_end(plain)
        assert_admin_is_plain(running.said)
        uploading = running.connect()
        old = serial_of(uploading)
        head = request("PUT /a.txt", "Content-Length: 10", "Expect: 100-continue")
        uploading.sendall(head.replace(b"Host: test", b"Host: localhost"))
        read_until(uploading, b"100 Continue\r\n\r\n")
        uploading.sendall(b"12345")
        assert davsql("cert", "renew", "--config", "davsql.toml").code == 0
        eventually(lambda: next_serials(running) - {old})
        running.process.send_signal(signal.SIGTERM)
        uploading.sendall(b"67890")
        with uploading:
            assert status_of(read_to_end(uploading)) == 201
        out, _ = running.process.communicate(timeout=STOP_TIMEOUT_S)
    assert (running.process.returncode, out.splitlines()[-1]) == (0, "davsql stopped"), out
    with Store.open(tmp_path / "davsql.db") as store:
        assert read(store, "/a.txt") == b"1234567890"


def next_serials(running: Running) -> set[int]:
    with running.connect() as client:
        return {serial_of(client)}


def assert_admin_is_plain(said: str) -> None:
    found = re.search(r"http://([\d.]+):(\d+)/health/ready", said)
    assert found, said
    with plain_connection((found[1], int(found[2]))) as admin:
        admin.sendall(request("GET /health/live", CLOSE))
        assert status_of(read_to_end(admin)) == 200


# --- davsql cert --------------------------------------------------------------------------------------------------


def test_cert__show_renew_and_export(davsql: RunDavsql, tmp_path: Path) -> None:
    missing = davsql("cert", "show")
    assert (missing.code, missing.out) == (1, "")
    assert "davsql cert renew" in missing.err
    made = davsql("cert", "renew")
    assert made.code == 0
    assert "update-ca-certificates" in made.out
    shown = davsql("cert", "show").out
    fingerprint = read_certificate(tmp_path / "davsql-tls" / "davsql.pem").fingerprint
    assert fingerprint in shown
    assert "89 days left" in shown
    exported = davsql("cert", "export-ca", "to-trust.pem")
    assert "to-trust.pem" in exported.err
    ca = (tmp_path / "davsql-tls" / "ca.pem").read_text()
    assert (tmp_path / "to-trust.pem").read_text() == davsql("cert", "export-ca").out == ca
    assert davsql("cert", "renew").code == 0
    assert fingerprint not in davsql("cert", "show").out
    assert (tmp_path / "davsql-tls" / "ca.pem").read_text() == ca
    assert davsql("cert", "renew", "--new-ca").code == 0
    assert (tmp_path / "davsql-tls" / "ca.pem").read_text() != ca


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tls = 'files'", "server.tls_certificate: needed"),
        ("tls = 'files'\ntls_certificate = 'none.pem'", "none.pem: No such file"),
        ("tls = 'on'", "server.tls: expected one of 'off', 'auto', 'files', found 'on'"),
        ("tls = 'auto'\ntls_certificate = 'a.pem'", 'used with tls = "files" only'),
        ("tls_client_ca = 'a.pem'", "server.tls_client_ca: there is no TLS"),
        ("tls = 'auto'\ntls_client_ca = 'none.pem'", "none.pem: No such file"),
    ],
)
def test_serve__says_what_is_wrong_with_tls(davsql: RunDavsql, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "davsql.toml").write_text(f"[server]\n{text}\nworkers = 1\n[admin]\nport = 0\n")
    done = davsql("serve", "--config", "davsql.toml", "--port", "0")
    assert done.code == 1
    assert said in done.err
    assert "Traceback" not in done.err


def test_cert__of_files_is_shown_and_not_made(davsql: RunDavsql, tmp_path: Path, authority: Authority) -> None:
    (tmp_path / "davsql.toml").write_text(f"[server]\ntls = 'files'\ntls_certificate = '{authority.certificate}'\n")
    assert read_certificate(authority.certificate).fingerprint in davsql("cert", "show", "--config", "davsql.toml").out
    refused = davsql("cert", "renew", "--config", "davsql.toml")
    assert (refused.code, "only with [server] tls" in refused.err) == (1, True)


# --- davsql doctor ------------------------------------------------------------------------------------------------


def statuses(place: TlsPlace) -> dict[str, str]:
    return {each.check: each.status for each in check_certificate(place)}


def place_of(authority: Authority) -> TlsPlace:
    return TlsPlace(authority.certificate, authority.certificate, authority.ca_certificate)


@pytest.mark.parametrize(("days", "status"), [(0, "pass"), (-70, "pass"), (-80, "warn"), (-91, "fail"), (2, "fail")])
def test_doctor__sees_certificates_end(tmp_path: Path, days: int, status: str) -> None:
    clock = Clock()
    clock.now = datetime.now(UTC)
    clock.move(days=days)
    found = statuses(place_of(make_authority(tmp_path, clock)))
    assert found["certificate"] == status
    assert found["authority"] == ("fail" if days > 0 else "pass")


def test_doctor__sees_what_is_no_certificate_and_keys_that_are_public(authority: Authority, tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    assert statuses(TlsPlace(nonsense, tmp_path / "missing.pem")) == {"certificate": "fail", "key of TLS": "fail"}
    assert statuses(place_of(authority))["key of TLS"] == "pass"
    if os.name == "posix":
        authority.certificate.chmod(0o644)
        assert statuses(place_of(authority))["key of TLS"] == "fail"


def test_doctor__looks_at_the_configured_certificate(davsql: RunDavsql, tmp_path: Path) -> None:
    (tmp_path / "davsql.toml").write_text("[server]\ntls = 'auto'\n")
    davsql("init")
    assert "none yet: davsql serve makes one" in davsql("doctor", "--config", "davsql.toml").out
    davsql("cert", "renew", "--config", "davsql.toml")
    assert re.search(r"pass  certificate .* 89 days", davsql("doctor", "--config", "davsql.toml").out)
    assert "certificate" not in davsql("doctor").out
