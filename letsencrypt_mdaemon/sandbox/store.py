"""The sandbox's certificate store, as its TLS server reads it."""

from __future__ import annotations

import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class Identity:
    """A server's certificate chain, leaf first, and its private key as PEM."""

    chain: tuple[x509.Certificate, ...]
    key: bytes = field(repr=False)

    @property
    def thumbprint(self) -> str:
        """The leaf's thumbprint, as Windows shows it."""
        return self.chain[0].fingerprint(hashes.SHA1()).hex().upper()  # noqa: S303

    def context(self) -> ssl.SSLContext:
        """Return a TLS server's settings; OSError if the key is not usable."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with TemporaryDirectory(prefix="sandbox-") as folder:
            file = Path(folder) / "identity.pem"
            file.write_bytes(pem(self.chain) + self.key)
            # Without a password, even an empty one, OpenSSL prompts on the terminal.
            context.load_cert_chain(file, password="")
        return context


def pem(chain: Iterable[x509.Certificate]) -> bytes:
    """Return certificates as PEM."""
    encoded = [one.public_bytes(serialization.Encoding.PEM) for one in chain]
    return b"".join(encoded)


def self_signed(host_name: str, now: datetime) -> Identity:
    """Return a new certificate, valid for ten years, and its key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host_name)])
    names = x509.SubjectAlternativeName([x509.DNSName(host_name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=3652))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    encoded = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return Identity((certificate,), encoded)


def write(identity: Identity, place: Path) -> None:
    """Write a certificate with its key to a new folder of the store."""
    leaf, *others = identity.chain
    place.mkdir()
    (place / "cert.pem").write_bytes(pem([leaf]))
    (place / "chain.pem").write_bytes(pem(others))
    (place / "fullchain.pem").write_bytes(pem(identity.chain))
    (place / "privkey.pem").touch(mode=0o600)  # restrict it before writing the key
    (place / "privkey.pem").write_bytes(identity.key)


def find(store: Path, thumbprint: str) -> Identity | None:
    """Return the certificate with a thumbprint, if the store has it with a key."""
    for file in sorted(store.glob("*/cert.pem")):
        with suppress(OSError, ValueError, x509.InvalidVersion):  # not one of ours
            leaf = x509.load_pem_x509_certificate(file.read_bytes())
            others = file.with_name("chain.pem").read_bytes()
            chain = x509.load_pem_x509_certificates(others) if others else []
            key = file.with_name("privkey.pem").read_bytes()
            identity = Identity((leaf, *chain), key)
            if identity.thumbprint == thumbprint:
                return identity
    return None
