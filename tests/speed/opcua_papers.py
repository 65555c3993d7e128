"""Certificates for an OPC UA session: a server's, a client's, a stranger's, and one signed by an authority."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import rsa

DAY = timedelta(days=1)
USES = (x509.ExtendedKeyUsageOID.CLIENT_AUTH, x509.ExtendedKeyUsageOID.SERVER_AUTH)


def write(folder: Path) -> None:
    """NAME.pem, NAME.der, NAME.key.pem of each; the server trusts what lies in trusted/."""
    for name in ("server", "client", "stranger", "nameless"):
        _pair(folder, name, uri=name != "nameless")
    (folder / "trusted").mkdir()
    (folder / "trusted" / "client.der").write_bytes((folder / "client.der").read_bytes())
    (folder / "both.pem").write_text((folder / "stranger.pem").read_text() + (folder / "server.pem").read_text())


def certificate(
    name: str, key: rsa.RSAPrivateKey, *, uri: bool = True, ca: bool = False, days: int = 30,
    by: tuple[x509.Certificate, rsa.RSAPrivateKey] | None = None,
) -> x509.Certificate:  # fmt: skip
    """One for `key`, signed by itself or `by` another's; `days` below 0: it has run out."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    others = [x509.UniformResourceIdentifier(f"urn:{name}")] if uri else []
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by[0].subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 100 * DAY)
        .not_valid_after(now + days * DAY)
        .add_extension(x509.SubjectAlternativeName([*others, x509.DNSName("localhost")]), False)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), True)
        .add_extension(x509.KeyUsage(True, True, True, True, False, ca, ca, False, False), False)
        .add_extension(x509.ExtendedKeyUsage(list(USES)), False)
    )  # fmt: skip
    return builder.sign(by[1] if by else key, hashes.SHA256())


def new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _pair(folder: Path, name: str, *, uri: bool) -> None:
    key = new_key()
    made = certificate(name, key, uri=uri)
    (folder / f"{name}.pem").write_bytes(made.public_bytes(form.Encoding.PEM))
    (folder / f"{name}.der").write_bytes(made.public_bytes(form.Encoding.DER))
    (folder / f"{name}.key.pem").write_bytes(
        key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    )
