"""Certificates of an OPC UA session: ours, and those that the server's own is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from asyncua.crypto import uacrypto
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization as form

from penstock.errors import SourceError
from penstock.speed.source import Access

PEM = b"-----BEGIN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """What an encrypted session needs."""

    certificate: bytes
    """Ours, DER."""
    key: bytes
    """Its private key, DER."""
    uri: str
    """What our certificate calls us: servers compare it with what we call ourselves."""
    trusted: tuple[x509.Certificate, ...]
    """The server's own certificate, or those of who may sign it."""


def security(name: str, access: Access) -> Security | None:
    """None where no certificate is given: the session is not encrypted.

    Raises SourceError, naming source `name`, for files that are missing or are none.
    """
    if access.cert_file is None and access.key_file is None and access.ca_file is None:
        return None
    if access.cert_file is None or access.key_file is None or access.ca_file is None:
        raise SourceError(
            f"source {name}: an encrypted session needs cert_file and key_file (ours) and ca_file "
            "(the server's certificate, or of who signed it) in site.toml; none of them: it is not encrypted"
        )
    ours = _certificates(name, access.cert_file)[0]
    return Security(
        certificate=ours.public_bytes(form.Encoding.DER), key=_key(name, access.key_file),
        uri=_uri(name, access.cert_file, ours), trusted=tuple(_certificates(name, access.ca_file)),
    )  # fmt: skip


def distrust(shown: bytes, trusted: Sequence[x509.Certificate], now: datetime) -> str | None:
    """Why a server's certificate (DER, perhaps with its chain) is not trusted; None: it is.

    One that is in `trusted` itself is trusted for as long as it stands there; one signed by one of them, in its time.
    """
    own = uacrypto.x509_from_der(shown)
    if own in trusted:
        return None
    if not any(_signed(own, by) for by in trusted):
        return f"is not trusted ({own.subject.rfc4514_string()})"
    if not own.not_valid_before_utc <= now <= own.not_valid_after_utc:
        return f"is valid from {own.not_valid_before_utc:%Y-%m-%d} to {own.not_valid_after_utc:%Y-%m-%d} only"
    return None


def _signed(own: x509.Certificate, by: x509.Certificate) -> bool:
    """Only a certificate that may sign others counts."""
    try:
        may = by.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        own.verify_directly_issued_by(by)
    except (x509.ExtensionNotFound, ValueError, TypeError, InvalidSignature):
        return False
    return may


def _certificates(name: str, file: Path) -> list[x509.Certificate]:
    raw = _read(name, file)
    try:
        return x509.load_pem_x509_certificates(raw) if PEM in raw else [x509.load_der_x509_certificate(raw)]
    except ValueError as error:
        raise SourceError(f"source {name}: {file} is no certificate, PEM or DER ({error})") from error


def _key(name: str, file: Path) -> bytes:
    raw = _read(name, file)
    try:
        key = (form.load_pem_private_key if PEM in raw else form.load_der_private_key)(raw, None)
    except (ValueError, TypeError) as error:
        raise SourceError(f"source {name}: {file} is no private key without a password ({error})") from error
    return key.private_bytes(form.Encoding.DER, form.PrivateFormat.PKCS8, form.NoEncryption())


def _uri(name: str, file: Path, ours: x509.Certificate) -> str:
    try:
        others = ours.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = others.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        uris = []
    if not uris:
        raise SourceError(
            f"source {name}: {file} names no application: it needs a URI as a subject alternative name, "
            "such as URI:urn:penstock; docs/operations.md says how to make one"
        )
    return str(uris[0])


def _read(name: str, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SourceError(f"source {name}: {file}: cannot be read ({error.strerror or error})") from error
