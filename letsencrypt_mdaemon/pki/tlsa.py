"""TLSA records as values, and which certificates they match (RFC 6698, 7671, 7672)."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from letsencrypt_mdaemon.pki.certificate import MALFORMED, covers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography import x509

    from letsencrypt_mdaemon.pki.certificate import PrivateKey

SMTP = 25
"""Where mail servers deliver. Its clients use no PKIX usages (RFC 7672, 3.1.3)."""

_PKIX_TA, _PKIX_EE, _DANE_TA, _DANE_EE = range(4)
_CERTIFICATE, _KEY = range(2)
_FULL, _SHA256, _SHA512 = range(3)
_HASHES = {_FULL: hashlib.sha256, _SHA256: hashlib.sha256, _SHA512: hashlib.sha512}


class Tlsa(NamedTuple):
    """A TLSA record (RFC 6698, 2.1).

    Args:
        digest: The data in lower-case hex. If the record holds all of a certificate or
            a key (matching type 0), its SHA-256, as it may be long.
    """

    usage: int
    selector: int
    matching: int
    digest: str

    @classmethod
    def read(cls, usage: int, selector: int, matching: int, data: bytes) -> Tlsa:
        """Return a record of DNS."""
        held = hashlib.sha256(data).digest() if matching == _FULL else data
        return cls(usage, selector, matching, held.hex())

    def __str__(self) -> str:
        """Return the record as a zone file has it; long data is left out."""
        data = "(all of it)" if self.matching == _FULL else self.digest
        return f"{self.usage} {self.selector} {self.matching} {data}"

    def is_usable(self, port: int) -> bool:
        """Whether clients of a port compare it at all (RFC 6698, 4.1; RFC 7672, 3.1).

        Unknown parameters and data of a wrong length make it unusable.
        """
        kind = _HASHES.get(self.matching)
        return (
            self.usage in range(_DANE_TA if port == SMTP else _PKIX_TA, _DANE_EE + 1)
            and self.selector in (_CERTIFICATE, _KEY)
            and kind is not None
            and len(self.digest) == 2 * kind().digest_size
        )

    @property
    def pins_key(self) -> bool:
        """Whether it stays right with any certificate for the same key."""
        return self.usage in (_PKIX_EE, _DANE_EE) and self.selector == _KEY

    @property
    def is_of_issuer(self) -> bool:
        """Whether it is about a certificate above the server's own."""
        return self.usage in (_PKIX_TA, _DANE_TA)

    def matches(self, chain: Sequence[x509.Certificate], host: str) -> bool:
        """Whether a server at a host with this chain passes; the leaf is first.

        Clients compare usages 1 and 3 with the leaf, whatever its names and end
        (RFC 7671, 5.1). For 0 and 2 they compare the issuers that the server sends, or
        the leaf if it issued itself, and check the names (RFC 7671, 5.2).
        """
        if not chain:
            return False
        if not self.is_of_issuer:
            return self._is_of(chain[0])
        return covers(chain[0], host) and any(map(self._is_of, chain[1:] or chain))

    def matches_key(self, key: PrivateKey | x509.Certificate) -> bool:
        """Whether it pins a key; of a certificate, the key of that."""
        return self.pins_key and self._holds(_public(key))

    def _is_of(self, certificate: x509.Certificate) -> bool:
        if self.selector == _CERTIFICATE:
            return self._holds(certificate.public_bytes(Encoding.DER))
        try:
            return self._holds(_public(certificate))
        except MALFORMED:
            return False

    def _holds(self, data: bytes) -> bool:
        kind = _HASHES.get(self.matching)
        return kind is not None and kind(data).hexdigest() == self.digest


def of_key(key: PrivateKey | x509.Certificate) -> Tlsa:
    """Return the record `3 1 1` of a key: what a mail server should publish.

    RFC 7672, 3.1.1.
    """
    digest = hashlib.sha256(_public(key)).hexdigest()
    return Tlsa(_DANE_EE, _KEY, _SHA256, digest)


def _public(key: PrivateKey | x509.Certificate) -> bytes:
    return key.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
