"""A certificate authority of one's own, and the server's certificate from it.

Rule 1: a key and its certificate are one file, which is replaced whole: nobody reads a key that does not fit.
Rule 2: files with keys are made with mode 0600, and refused where others can read them.
Rule 3: one process at a time makes files; who waited for it looks again before making others.

In the folder: `ca.pem`, what people give to their devices; `ca-key.pem`, the authority with its key; `davsql.pem`.
Threads: any.
"""

from __future__ import annotations

import os
import secrets
import socket
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from davsql.certificates.reading import names_in
from davsql.errors import InsecureFile, TlsError
from davsql.networks import plain_address

if os.name == "posix":
    import fcntl

CA_DAYS = 3650
SERVER_DAYS = 90  # below what any client accepts at most; Apple's take 825
RENEW_DAYS = 30  # before the end
CLOCK_SKEW = timedelta(hours=1)  # a device whose clock is behind

_Issuer = tuple[ec.EllipticCurvePrivateKey, x509.Certificate]


class Authority:
    """A folder with an authority and a server's certificate."""

    def __init__(
        self,
        folder: Path,
        names: Callable[[], Iterable[str]],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Nothing is read.

        Args:
            names: what the server is called; asked again whenever it is looked whether a new certificate is due.
        """
        self.folder = folder
        self.ca_certificate = folder / "ca.pem"
        self.certificate = folder / "davsql.pem"
        self._ca = folder / "ca-key.pem"
        self._names = names
        self._clock = clock

    def ensure(self, *, anew: bool = False, new_ca: bool = False) -> bool:
        """Make what is missing, and a new server's certificate when it is due.

        Due: it ends within RENEW_DAYS, lacks one of the server's names, or is of another authority.

        Args:
            anew: even if it is not due.
            new_ca: a new authority too, which every device has to be told of.

        Returns:
            Whether a new authority was made.

        Raises:
            TlsError: a file cannot be read or written.
            InsecureFile: others can read a key.
        """
        names = sorted(set(self._names()))  # a network may be asked, so others need not wait
        try:
            with self._locked():
                is_new = new_ca or not self._ca.exists()
                issuer = self._make_ca() if is_new else self._load_ca()
                if is_new or not self.ca_certificate.exists():
                    _write(self.ca_certificate, _pem(issuer[1]), 0o644)
                if is_new or anew or self._is_due(issuer[1], names):
                    self._issue(issuer, names)
                return is_new
        except OSError as error:
            raise TlsError(
                f"{error.filename or self.folder}: {error.strerror}; certificates need a folder of their own that the "
                "user of davsql can write to: server.tls_folder"
            ) from error

    def _is_due(self, ca: x509.Certificate, names: Sequence[str]) -> bool:
        if not self.certificate.exists():
            return True
        _require_private(self.certificate)
        try:
            found = x509.load_pem_x509_certificate(self.certificate.read_bytes())
            found.verify_directly_issued_by(ca)
        except (ValueError, TypeError, InvalidSignature):  # not whole, or of another authority: a new one mends it
            return True
        is_old = found.not_valid_after_utc - self._clock() < timedelta(days=RENEW_DAYS)
        return is_old or not set(names) <= set(names_in(found))

    def _issue(self, issuer: _Issuer, names: Sequence[str]) -> None:
        """Make the server's certificate."""
        ca_key, ca = issuer
        now = self._clock()
        key = ec.generate_private_key(ec.SECP256R1())
        ends_at = min(now + timedelta(days=SERVER_DAYS), ca.not_valid_after_utc)
        if ends_at <= now:
            raise TlsError(f"the authority in {self._ca} has ended; make a new one: davsql cert renew --new-ca")
        made = (
            _builder("davsql", ca.subject, key, (now - CLOCK_SKEW, ends_at))
            .add_extension(x509.SubjectAlternativeName(_general_names(names)), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(_key_usage(is_ca=False), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        _write(self.certificate, _pem_key(key) + _pem(made) + _pem(ca), 0o600)

    def _make_ca(self) -> _Issuer:
        now = self._clock()
        key = ec.generate_private_key(ec.SECP256R1())
        # devices list authorities by name: two must not look the same
        title = f"davsql {socket.gethostname()[:30]} {now:%Y-%m-%d} {secrets.token_hex(2)}"
        span = (now - CLOCK_SKEW, now + timedelta(days=CA_DAYS))
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title)])
        made = (
            _builder(title, name, key, span)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(is_ca=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        _write(self._ca, _pem_key(key) + _pem(made), 0o600)
        return key, made

    def _load_ca(self) -> _Issuer:
        _require_private(self._ca)
        data = self._ca.read_bytes()
        try:
            key = serialization.load_pem_private_key(data, None)
            certificate = x509.load_pem_x509_certificate(data)
        except (ValueError, TypeError) as error:
            raise self._unusable(str(error)) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise self._unusable("key and certificate do not belong together")
        return key, certificate

    def _unusable(self, reason: str) -> TlsError:
        return TlsError(
            f"{self._ca} cannot be used: {reason}; bring it back from a copy, or make a new authority, which every "
            "device has to be told of: davsql cert renew --new-ca"
        )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from making files; Windows has no such lock, and one process that serves."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.name != "posix":
            yield
            return
        descriptor = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _builder(
    title: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, span: tuple[datetime, datetime]
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(span[0])
        .not_valid_after(span[1])
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_names(names: Sequence[str]) -> list[x509.GeneralName]:
    return [x509.DNSName(name) if plain_address(name) is None else x509.IPAddress(ip_address(name)) for name in names]


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _require_private(file: Path) -> None:
    if os.name == "posix" and stat.S_IMODE(file.stat().st_mode) & 0o077:
        raise InsecureFile(f"{file} holds a key, and others can read it; chmod 600 {file}")


def _write(file: Path, data: bytes, mode: int) -> None:
    """Replace a file whole: who reads it meanwhile gets the old one or the new one, also after a power cut."""
    temporary = file.with_name(f".{file.name}-{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
    try:
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(data)
            opened.flush()
            os.fsync(opened.fileno())
        temporary.replace(file)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
