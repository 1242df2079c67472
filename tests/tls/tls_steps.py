"""Certificates for tests, and clients that speak TLS."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from davsql.certificates.authority import Authority
from davsql.server.tls import Tls, TlsFiles
from tests.server.raw import TIMEOUT_S, Served, read_to_end

NAMES = ["127.0.0.1", "localhost"]


class Clock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now

    def move(self, **span: int) -> None:
        self.now += timedelta(**span)


def make_authority(folder: Path, clock: Callable[[], datetime] | None = None) -> Authority:
    """An authority with a certificate for this machine."""
    authority = Authority(folder, lambda: NAMES, clock or Clock())
    authority.ensure()
    return authority


def tls_of(authority: Authority, client_ca: Path | None = None, *, requires_client: bool = True) -> Tls:
    """TLS with the authority's certificate."""
    return Tls(TlsFiles(authority.certificate, None, client_ca, requires_client), renew=authority.ensure)


def trusting(authority: Authority, certificate: Path | None = None) -> ssl.SSLContext:
    """A client that trusts the authority and nobody else, and shows a certificate if it has one."""
    context = ssl.create_default_context(cafile=authority.ca_certificate)
    if certificate is not None:
        context.load_cert_chain(certificate)
    return context


def connect(server: Served, context: ssl.SSLContext) -> ssl.SSLSocket:
    """A connection after the handshake."""
    return context.wrap_socket(server.connect(), server_hostname="localhost")


def exchange(server: Served, context: ssl.SSLContext, *parts: bytes) -> bytes:
    """Send, then read until the server closes."""
    with connect(server, context) as client:
        for part in parts:
            client.sendall(part)
        return read_to_end(client)


def plain_connection(address: tuple[str, int]) -> socket.socket:
    """A connection that says nothing of itself."""
    return socket.create_connection(address, timeout=TIMEOUT_S)


def serial_of(client: ssl.SSLSocket) -> int:
    """Which certificate the server has shown."""
    shown = client.getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown).serial_number


class ClientAuthority:
    """Makes certificates for clients."""

    def __init__(self, folder: Path, name: str = "people") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _common_name(name)
        self.certificate = folder / f"{name}.pem"
        made = self._begin(self._name, self._key).add_extension(x509.BasicConstraints(ca=True, path_length=0), True)  # noqa: FBT003  # critical
        self.certificate.write_bytes(self._signed(made))

    def client(self, name: str, emails: Sequence[str] = ()) -> Path:
        """A file with the key and the certificate of somebody."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._begin(_common_name(name), key)
        if emails:
            alternatives = x509.SubjectAlternativeName([x509.RFC822Name(email) for email in emails])
            made = made.add_extension(alternatives, critical=False)
        file = self._folder / f"client-{name}.pem"
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file.write_bytes(pem + self._signed(made))
        return file

    def _begin(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
        )

    def _signed(self, certificate: x509.CertificateBuilder) -> bytes:
        return certificate.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
