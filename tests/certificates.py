"""Certificates for tests: a root, an intermediate and leaves, of whatever kind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from letsencrypt_mdaemon.pki.certificate import Certificate, PrivateKey

START = datetime(2026, 1, 1, tzinfo=UTC)
LIFETIME = timedelta(days=90)
NAME = "mail.example.test"

OPENSSL_PEM = b"""\
-----BEGIN CERTIFICATE-----
MIIBqTCCAU6gAwIBAgIKAI8AESIzRFVmqjAKBggqhkjOPQQDAjASMRAwDgYDVQQD
DAdFeGFtcGxlMB4XDTI2MTEyMzA5MjczMFoXDTI3MDIyMTA5MjczMFowEjEQMA4G
A1UEAwwHRXhhbXBsZTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABKu7i7BvFxLP
0M1nJlvvMLA7toG0ouwIw+0+xuHN7OYYq4NTs6ft9aP9Hp0cYYMdESlT2oEOgaSM
uuef/rA3VACjgYswgYgwHQYDVR0OBBYEFGnIQ89UGCQxkey0xyphMrTyUxB3MB8G
A1UdIwQYMBaAFGnIQ89UGCQxkey0xyphMrTyUxB3MA8GA1UdEwEB/wQFMAMBAf8w
NQYDVR0RBC4wLIIRTWFpbC5FeGFtcGxlLlRFU1SCEWltYXAuZXhhbXBsZS50ZXN0
hwTAAAIBMAoGCCqGSM49BAMCA0kAMEYCIQCeQC8lnftZstOK0g+3giyCpHRqdVjX
QxLpLdCcpfkx/AIhAJ675Mn72clBXdmR5gVdmFgfPxyWFHXvFWgexr8tNlTK
-----END CERTIFICATE-----
"""
"""Made by `openssl req -x509`; what OpenSSL says of it stands beside the tests."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A certificate with its private key, able to issue others."""

    certificate: x509.Certificate
    key: PrivateKey


@cache
def key(number: int = 0) -> ec.EllipticCurvePrivateKey:
    """Return a private key, for the same number always the same."""
    del number
    return ec.generate_private_key(ec.SECP256R1())


def sign(  # noqa: PLR0913 - what a certificate is made of
    subject: str,
    *,
    issuer: Signed | None = None,
    own_key: PrivateKey | None = None,
    start: datetime = START,
    lifetime: timedelta = LIFETIME,
    serial: int | None = None,
    extensions: Iterable[x509.ExtensionType] = (),
) -> Signed:
    """Return a certificate, self-signed if it has no issuer.

    Args:
        subject: The common name; empty for none.
    """
    own_key = own_key or key()
    name = _name(subject)
    builder = x509.CertificateBuilder(
        issuer_name=issuer.certificate.subject if issuer else name,
        subject_name=name,
        public_key=own_key.public_key(),
        serial_number=serial or x509.random_serial_number(),
        not_valid_before=start,
        not_valid_after=start + lifetime,
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    signer = issuer.key if issuer else own_key
    return Signed(builder.sign(signer, hashes.SHA256()), own_key)


def authority(
    subject: str, *, issuer: Signed | None = None, own_key: PrivateKey | None = None
) -> Signed:
    """Return a CA: a root, or an intermediate if it has an issuer."""
    return sign(
        subject,
        issuer=issuer,
        own_key=own_key,
        start=START - timedelta(days=365),
        lifetime=timedelta(days=3650),
        extensions=[x509.BasicConstraints(ca=True, path_length=None)],
    )


@cache
def root() -> Signed:
    """Return the root of all."""
    return authority("Example Root", own_key=key(1))


@cache
def intermediate() -> Signed:
    """Return the intermediate that issues the leaves."""
    return authority("Example R1", issuer=root(), own_key=key(2))


def leaf(  # noqa: PLR0913 - what may differ
    names: Iterable[str] = (NAME,),
    *,
    issuer: Signed | None = None,
    own_key: PrivateKey | None = None,
    start: datetime = START,
    lifetime: timedelta = LIFETIME,
    serial: int | None = None,
    others: Iterable[x509.GeneralName] = (),
    policies: Iterable[str] = (),
) -> x509.Certificate:
    """Return a certificate for some names, from the intermediate.

    Args:
        others: What subjectAltName holds beside them.
        policies: The object identifiers of its policies.
    """
    alternatives = [*map(x509.DNSName, names), *others]
    extensions: list[x509.ExtensionType] = []
    if alternatives:
        extensions.append(x509.SubjectAlternativeName(alternatives))
    if rows := [
        x509.PolicyInformation(x509.ObjectIdentifier(one), None) for one in policies
    ]:
        extensions.append(x509.CertificatePolicies(rows))
    signed = sign(
        "",
        issuer=issuer or intermediate(),
        own_key=own_key,
        start=start,
        lifetime=lifetime,
        serial=serial,
        extensions=extensions,
    )
    return signed.certificate


def certificate(
    names: Iterable[str] = (NAME,),
    *,
    own_key: PrivateKey | None = None,
    start: datetime = START,
    lifetime: timedelta = LIFETIME,
    serial: int | None = None,
) -> Certificate:
    """Return a leaf with its key, and the intermediate as its chain."""
    own_key = own_key or key()
    signed = leaf(names, own_key=own_key, start=start, lifetime=lifetime, serial=serial)
    return Certificate((signed, intermediate().certificate), own_key)


def with_bytes(signed: x509.Certificate, old: bytes, new: bytes) -> x509.Certificate:
    """Return a certificate with some of its bytes replaced by as many others."""
    der = signed.public_bytes(Encoding.DER)
    assert len(old) == len(new)
    assert old in der
    return x509.load_der_x509_certificate(der.replace(old, new))


def _name(common: str) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common)] if common else []
    return x509.Name(attributes)
