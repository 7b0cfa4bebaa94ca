"""Certificates and their chains: download, alternates, ARI, revocation."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from josepy.jwk import JWK, JWKEC, JWKRSA

if TYPE_CHECKING:
    from collections.abc import Sequence

    from letsencrypt_mdaemon.pki.certificate import PrivateKey


ALTERNATES = 10
"""Chains looked at; Let's Encrypt has two or three."""


def ari_id(certificate: x509.Certificate) -> str | None:
    """Return a certificate's identifier for ARI (RFC 9773, 4.1).

    None if it has no authority key identifier, as self-signed ones.
    """
    try:
        extension = certificate.extensions.get_extension_for_class(
            x509.AuthorityKeyIdentifier
        )
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return None
    identifier = extension.value.key_identifier
    if identifier is None:
        return None
    serial = certificate.serial_number
    # The INTEGER's content in DER: a leading zero byte keeps it positive.
    number = serial.to_bytes(serial.bit_length() // 8 + 1, "big", signed=True)
    return f"{b64(identifier)}.{b64(number)}"


def leads_to(chain: Sequence[x509.Certificate], authority: str) -> bool:
    """Whether an authority's common name is among the issuers of a chain."""
    wanted = x509.oid.NameOID.COMMON_NAME, authority.casefold()
    return any(
        (item.oid, str(item.value).casefold()) == wanted
        for certificate in chain
        for item in certificate.issuer
    )


def jwk_of(key: PrivateKey) -> JWK:
    """Return a private key as josepy's JWK."""
    return JWKRSA(key=key) if isinstance(key, rsa.RSAPrivateKey) else JWKEC(key=key)


def ari_moment(text: str) -> datetime:
    """Return a time of a suggested window; `ValueError` without a zone (RFC 3339)."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text} has no time zone (RFC 3339)")
    return moment.astimezone(UTC)


def b64(data: bytes) -> str:
    """Return base64url without padding (RFC 8555, 6.1)."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()
