"""What a certificate says, for people and for those who look whether it is time for a new one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from davsql.errors import TlsError


@dataclass(frozen=True, slots=True)
class Certificate:
    """The first certificate of a file."""

    subject: str
    issuer: str
    names: tuple[str, ...]  # SAN: names and addresses
    begins_at: datetime
    ends_at: datetime
    fingerprint: str  # SHA-256, as browsers show it

    def left(self, now: datetime) -> timedelta:
        """The time until it ends; negative when it has."""
        return self.ends_at - now


def read_certificate(file: Path) -> Certificate:
    """The first certificate of a PEM file.

    Raises:
        TlsError: there is none.
    """
    try:
        return describe(x509.load_pem_x509_certificates(file.read_bytes())[0])
    except OSError as error:
        raise TlsError(f"{file}: {error.strerror}") from error
    except ValueError as error:
        raise TlsError(f"{file} holds no certificate (PEM): {error}") from error


def describe(certificate: x509.Certificate) -> Certificate:
    """What a certificate says."""
    return Certificate(
        certificate.subject.rfc4514_string(),
        certificate.issuer.rfc4514_string(),
        names_in(certificate),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
        certificate.fingerprint(hashes.SHA256()).hex(":").upper(),
    )


def names_in(certificate: x509.Certificate) -> tuple[str, ...]:
    """Names and addresses that it is for."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return (
        *found.get_values_for_type(x509.DNSName),
        *(str(address) for address in found.get_values_for_type(x509.IPAddress)),
    )
