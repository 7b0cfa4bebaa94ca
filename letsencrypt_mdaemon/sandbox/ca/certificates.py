"""Certificates that the sandbox CA issues."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Any, cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as ser
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from josepy import errors, jwk
from josepy.json_util import encode_b64jose

from letsencrypt_mdaemon.sandbox.ca.messages import CURVES, Problem

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
CSR_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A certificate about to be signed; only a root has no issuer."""

    common_name: str | None
    names: tuple[str, ...] = ()
    key: PublicKey
    issuer: x509.Certificate | None = None
    signer: ec.EllipticCurvePrivateKey
    not_before: datetime
    not_after: datetime
    is_ca: bool = False
    crl: str = ""  # the URL of a CRL that it names

    def sign(self) -> x509.Certificate:
        """Return the certificate."""
        common_name = x509.NameAttribute(NameOID.COMMON_NAME, self.common_name or "-")
        subject = x509.Name([common_name] if self.common_name else [])
        above = cast("PublicKey", self.issuer.public_key()) if self.issuer else self.key
        usage = "000001100" if self.is_ca else "100000000"  # RFC 5280, 4.2.1.3
        names: list[x509.GeneralName] = [
            x509.IPAddress(ip_address(name))
            if name[-1:].isdigit()
            else x509.DNSName(name)
            for name in self.names
        ]
        extensions: list[tuple[x509.ExtensionType, bool]] = [
            (x509.BasicConstraints(self.is_ca, None), True),
            (x509.KeyUsage(*(bit == "1" for bit in usage)), True),
            (x509.SubjectKeyIdentifier.from_public_key(self.key), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(above), False),
        ]
        if not self.is_ca:
            server = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
            extensions.append((server, False))
        if self.crl:
            url = [x509.UniformResourceIdentifier(self.crl)]
            point = x509.DistributionPoint(url, None, None, None)
            extensions.append((x509.CRLDistributionPoints([point]), False))
        if names:  # critical without a subject: RFC 5280, 4.2.1.6
            san = x509.SubjectAlternativeName(names)
            extensions.append((san, not self.common_name))
        builder = x509.CertificateBuilder(
            issuer_name=self.issuer.subject if self.issuer else subject,
            subject_name=subject,
            public_key=self.key,
            serial_number=int.from_bytes(secrets.token_bytes(16)) or 1,
        )
        builder = builder.not_valid_before(self.not_before)
        builder = builder.not_valid_after(self.not_after)
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.signer, hashes.SHA256())


def authority(
    name: str,
    now: datetime,
    signer: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None = None,
    key: PublicKey | None = None,
) -> x509.Certificate:
    """Return a CA certificate, valid from ten years ago for twenty years.

    Without an issuer, it is a root, and its key the signer's.
    """
    decade = timedelta(days=3650)
    return Draft(
        common_name=name,
        key=key or signer.public_key(),
        issuer=issuer,
        signer=signer,
        not_before=now - decade,
        not_after=now + decade,
        is_ca=True,
    ).sign()


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a new P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def spki(key: Any) -> bytes:  # noqa: ANN401 - josepy's keys have no type
    """Return a public key as DER, for comparisons."""
    form = ser.PublicFormat.SubjectPublicKeyInfo
    return cast("bytes", key.public_bytes(ser.Encoding.DER, form))


def ari_name(certificate: x509.Certificate) -> str:
    """Return a certificate's identifier for ARI (RFC 9773, 4.1)."""
    kind, serial = x509.AuthorityKeyIdentifier, certificate.serial_number
    key = certificate.extensions.get_extension_for_class(kind).value.key_identifier
    number = serial.to_bytes(serial.bit_length() // 8 + 1)
    return f"{encode_b64jose(key or b'')}.{encode_b64jose(number)}"


def is_strong(key: object) -> bool:
    """Whether the CA accepts a key's type and size."""
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size in range(2048, 4097)
    curves = CURVES.values()
    return isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in curves


def public_key(value: object) -> jwk.JWK:
    """Return the public key in a client's `jwk`."""
    shown = value if isinstance(value, dict) else {}
    try:
        key = cast("jwk.JWK", jwk.JWK.from_json(shown))
        strong = is_strong(ser.load_der_public_key(spki(key.key)))
    except (errors.Error, AttributeError, KeyError, TypeError, ValueError) as exc:
        raise Problem("badPublicKey", "jwk is not a public key") from exc
    if not strong:
        raise Problem("badPublicKey", "The key is too weak, or of an unsupported type")
    return key


def csr_key(der: bytes, names: list[str]) -> PublicKey:
    """Return the key of a CSR; its names must be these (RFC 8555, 7.4)."""
    try:
        csr = x509.load_der_x509_csr(der)
        key, subject = csr.public_key(), csr.subject
        sans = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        signed = csr.is_signature_valid
        signed = signed and isinstance(csr.signature_hash_algorithm, CSR_HASHES)
    except (ValueError, UnsupportedAlgorithm, x509.ExtensionNotFound) as exc:
        raise Problem("badCSR", f"Could not read the CSR: {exc}") from exc
    if not signed or not is_strong(key):
        raise Problem("badCSR", "The CSR's signature or key is not acceptable")
    common = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    asked = {str(name.value).lower() for name in sans}
    strange = [name for name in sans if not isinstance(name, x509.DNSName)]
    strange += [name for name in common if str(name.value).lower() not in asked]
    if strange or asked != set(names):
        raise Problem("badCSR", "The CSR's names differ from the order's")
    return cast("PublicKey", key)
