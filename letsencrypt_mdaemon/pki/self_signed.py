"""Self-signed certificates, and what is too weak for a server."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from letsencrypt_mdaemon.pki.certificate import (
    MALFORMED,
    Certificate,
    new_key,
    public_key,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from letsencrypt_mdaemon.pki.certificate import KeyType

HASHES: dict[str, hashes.SHA256 | hashes.SHA384] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
}
MIN_RSA_BITS = 2048
WEAK_RSA = "its RSA key is shorter than 2048 bits: clients refuse it"
WEAK_HASH = "it is signed with SHA-1 or MD5: clients refuse it"
_USES = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]

MAX_COMMON_NAME = 64
"""In characters (RFC 5280, A.1: ub-common-name)."""


def self_signed(  # noqa: PLR0913 - what a certificate consists of
    names: Sequence[str],
    kind: KeyType,
    *,
    start: datetime,
    days: int,
    organisation: str = "",
    country: str = "",
    digest: str = "sha256",
) -> Certificate:
    """Return a new self-signed certificate of a server.

    Args:
        names: The first one is also its common name, if it is short enough.
        country: Two letters (ISO 3166).
        digest: One of `HASHES`.
    """
    key = new_key(kind)
    parts = {
        NameOID.COUNTRY_NAME: country,
        NameOID.ORGANIZATION_NAME: organisation,
        NameOID.COMMON_NAME: names[0] if len(names[0]) <= MAX_COMMON_NAME else "",
    }
    name = x509.Name(
        [x509.NameAttribute(oid, text) for oid, text in parts.items() if text]
    )
    usage = "1" + ("01" if isinstance(key, rsa.RSAPrivateKey) else "00") + "000000"
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.KeyUsage(*(bit == "1" for bit in usage)), True),
        # MDaemon also shows it to the servers that it sends mail to.
        (x509.ExtendedKeyUsage(_USES), False),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        # Critical without a subject (RFC 5280, 4.2.1.6).
        (x509.SubjectAlternativeName(map(x509.DNSName, names)), not list(name)),
    ]
    builder = x509.CertificateBuilder(
        issuer_name=name,
        subject_name=name,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=start,
        not_valid_after=start + timedelta(days=days),
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return Certificate((builder.sign(key, HASHES[digest]),), key)


def weakness(certificate: x509.Certificate) -> str:
    """Return why clients refuse a certificate's key or signature, or ""."""
    key = public_key(certificate)
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        return WEAK_RSA
    try:
        digest = certificate.signature_hash_algorithm
    except MALFORMED:
        return ""
    return WEAK_HASH if isinstance(digest, hashes.SHA1 | hashes.MD5) else ""
