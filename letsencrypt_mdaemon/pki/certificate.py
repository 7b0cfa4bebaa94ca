"""Certificates as values: chain, key, names, thumbprint, friendly name."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs12

if TYPE_CHECKING:
    from collections.abc import Iterable

PrivateKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
KeyType = Literal["rsa2048", "rsa3072", "rsa4096", "p256", "p384"]

OURS = "letsencrypt-mdaemon"
"""The beginning of every friendly name that this program gives."""

_CURVES: dict[str, ec.EllipticCurve] = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1()}

_Extension = TypeVar("_Extension", bound=x509.ExtensionType)

# What cryptography raises for a malformed certificate, at any attribute.
MALFORMED = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.UnsupportedGeneralNameType,
)


class Certificate(NamedTuple):
    """An issued certificate with its private key.

    Args:
        chain: The issued certificates, leaf first, each signed by the next.
        key: The leaf's private key; never part of the `repr`.
    """

    chain: tuple[x509.Certificate, ...]
    key: PrivateKey

    def __repr__(self) -> str:
        """Hide the key."""
        return f"Certificate(chain={self.chain!r})"

    @property
    def leaf(self) -> x509.Certificate:
        """The certificate without its issuers."""
        return self.chain[0]

    @property
    def thumbprint(self) -> str:
        """The leaf's thumbprint."""
        return thumbprint(self.leaf)

    @property
    def names(self) -> tuple[str, ...]:
        """The leaf's DNS names."""
        return dns_names(self.leaf)

    @property
    def friendly_name(self) -> str:
        """The label in a store, which marks the certificate as this program's.

        Short enough for a file name; the serial number makes it unique.
        """
        first = self.names[0][:150] if self.names else "no name"
        first = first.replace("*", "_")
        date = self.leaf.not_valid_before_utc.date().isoformat()
        return f"{OURS} {first} {date} {self.leaf.serial_number:X}"

    @property
    def cert_pem(self) -> bytes:
        """The leaf as PEM."""
        return _pem(self.chain[:1])

    @property
    def chain_pem(self) -> bytes:
        """The issuers as PEM, without the leaf."""
        return _pem(self.chain[1:])

    @property
    def fullchain_pem(self) -> bytes:
        """The leaf and its issuers as PEM."""
        return _pem(self.chain)

    @property
    def key_pem(self) -> bytes:
        """The private key as unencrypted PKCS#8 PEM."""
        return key_pem(self.key)

    def pkcs12(self, password: bytes) -> bytes:
        """Return key and chain as a PKCS#12 file, encrypted by the password.

        With AES-256 and SHA-256; Windows Server 2019 and later can read it.
        """
        return pkcs12.serialize_key_and_certificates(
            self.friendly_name.encode(),
            self.key,
            self.leaf,
            self.chain[1:],
            serialization.BestAvailableEncryption(password),
        )

    @classmethod
    def from_pem(cls, chain: bytes, key: bytes) -> Certificate:
        """Read a chain and its key.

        Raises:
            ValueError: If either is not PEM, or the key is neither RSA nor ECDSA.
        """
        certificates = tuple(x509.load_pem_x509_certificates(chain))
        return cls(certificates, load_key(key))


def thumbprint(certificate: x509.Certificate) -> str:
    """Return the SHA-1 of the certificate's DER as Windows shows it: upper-case hex.

    It identifies and does not protect: Windows' stores and dialogs use it.
    """
    der = certificate.public_bytes(serialization.Encoding.DER)
    return hashlib.sha1(der, usedforsecurity=False).hexdigest().upper()


def public_key_hash(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of the public key (SubjectPublicKeyInfo) in hex.

    A TLSA record `3 1 1` pins this hash (RFC 6698, 2.1; RFC 7671, 5.1).
    """
    der = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(der).hexdigest()


def serial_der(certificate: x509.Certificate) -> bytes:
    """Return the serial number as DER encodes an INTEGER (X.690, 8.3): signed."""
    number = certificate.serial_number
    # Some certificates have a negative one, against RFC 5280, 4.1.2.2.
    return number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True)


def tlsa(certificate: x509.Certificate, name: str) -> str:
    """Return the TLSA record of a mail server that uses this key (RFC 7672, 3.1.1)."""
    return f"_25._tcp.{name}. IN TLSA 3 1 1 {public_key_hash(certificate)}"


def dns_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the DNS names of the subjectAltName in lower case, in their order.

    The common name does not count (RFC 9525, 2).
    """
    names = alternative_names(certificate)
    return tuple(name.value.lower() for name in names if isinstance(name, x509.DNSName))


def covers(certificate: x509.Certificate, name: str) -> bool:
    """Whether a certificate covers a name (RFC 9525, 6.3)."""
    held = dns_names(certificate)
    return name in held or f"*.{name.partition('.')[2]}" in held


def is_self_signed(certificate: x509.Certificate) -> bool:
    """Whether the certificate's issuer is its own subject."""
    try:
        return certificate.issuer == certificate.subject
    except (ValueError, TypeError):
        return False


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether the issuer's name and key match the certificate and its signature."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (*MALFORMED, TypeError, InvalidSignature):
        return False
    return True


def key_type(certificate: x509.Certificate) -> str:
    """Return the type of the certificate's public key, such as `rsa2048` or `p256`."""
    key = public_key(certificate)
    if isinstance(key, rsa.RSAPublicKey):
        return f"rsa{key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        names = {curve.name: name for name, curve in _CURVES.items()}
        return names.get(key.curve.name, key.curve.name)
    return "of another kind"


def new_key(kind: KeyType) -> PrivateKey:
    """Make a private key."""
    if kind in _CURVES:
        return ec.generate_private_key(_CURVES[kind])
    return rsa.generate_private_key(public_exponent=65537, key_size=int(kind[3:]))


def load_key(pem: bytes) -> PrivateKey:
    """Read an unencrypted private key.

    Raises:
        ValueError: If it is not a private key, or neither RSA nor ECDSA.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (TypeError, UnsupportedAlgorithm) as exc:
        raise ValueError(f"not a private key that can be read: {exc}") from exc
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        # TRY004: the data is wrong, not the caller.
        raise ValueError(f"{type(key).__name__} is neither RSA nor ECDSA")  # noqa: TRY004
    return key


def key_pem(key: PrivateKey) -> bytes:
    """Return a private key as unencrypted PKCS#8 PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def signing_request(key: PrivateKey, names: Iterable[str]) -> bytes:
    """Return a CSR in DER: names in subjectAltName, empty subject (RFC 8555, 7.4).

    Without key usages, as some CAs refuse a request for clientAuth.
    """
    alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    builder = x509.CertificateSigningRequestBuilder()
    builder = builder.subject_name(x509.Name([]))
    builder = builder.add_extension(alternatives, critical=False)
    request = builder.sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.DER)


def public_key(certificate: x509.Certificate) -> object:
    """Return the public key, or None if it is of an unknown type."""
    try:
        return certificate.public_key()
    except MALFORMED:
        return None


def alternative_names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    """Return the entries of the subjectAltName; none if it is missing or malformed."""
    return list(extension(certificate, x509.SubjectAlternativeName) or ())


def crl_urls(certificate: x509.Certificate) -> list[str]:
    """Return the HTTP URLs of the CRLs that it names (RFC 5280, 4.2.1.13)."""
    points = extension(certificate, x509.CRLDistributionPoints) or ()
    names = [name.value for point in points for name in point.full_name or ()]
    return [url for url in names if re.match("https?://", str(url), re.IGNORECASE)]


def claims_public_rules(certificate: x509.Certificate) -> bool:
    """Whether it names a policy of the CA/Browser Forum, as those of public CAs do.

    Baseline Requirements, 7.1.6.1; by 6.1.7, no root may have signed it.
    """
    policies = extension(certificate, x509.CertificatePolicies) or ()
    return any(
        policy.policy_identifier.dotted_string.startswith("2.23.140.1.")
        for policy in policies
    )


def extension(
    certificate: x509.Certificate, kind: type[_Extension]
) -> _Extension | None:
    """Return an extension's value; None if it is missing or malformed."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except MALFORMED:
        return None


def _pem(chain: Iterable[x509.Certificate]) -> bytes:
    return b"".join(
        certificate.public_bytes(serialization.Encoding.PEM) for certificate in chain
    )
