"""The forms in which Windows takes a private key. They never leave this process."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import pkcs12

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import rsa

    from letsencrypt_mdaemon.pki.certificate import Certificate

# wincrypt.h
_PRIVATEKEYBLOB, _VERSION, _CALG_RSA_KEYX = 7, 2, 0xA400


def rsa_blob(key: rsa.RSAPrivateKey) -> bytes:
    """Return an RSA key as a PRIVATEKEYBLOB, for CryptoAPI.

    A header, then numbers in little-endian; see "Base Provider Key BLOBs" in the
    Windows SDK.

    Raises:
        OSError: If its primes are not of the same size.
    """
    numbers = key.private_numbers()
    public = numbers.public_numbers
    size = (key.key_size + 7) // 8
    half = (size + 1) // 2
    header = struct.pack("<BBHI", _PRIVATEKEYBLOB, _VERSION, 0, _CALG_RSA_KEYX)
    header += struct.pack("<4sII", b"RSA2", key.key_size, public.e)
    parts = (
        (public.n, size),
        (numbers.p, half),
        (numbers.q, half),
        (numbers.dmp1, half),
        (numbers.dmq1, half),
        (numbers.iqmp, half),
        (numbers.d, size),
    )
    try:
        return header + b"".join(part.to_bytes(n, "little") for part, n in parts)
    except OverflowError as exc:
        raise OSError("CryptoAPI takes only primes of the same size") from exc


def pfx(certificate: Certificate, password: str) -> bytes:
    """Return leaf and key as PKCS#12.

    With the old encryption, as Windows Server 2016 and older mistake AES for a wrong
    password. It need not protect: the password is beside it in memory.
    """
    encryption = (
        serialization.PrivateFormat.PKCS12.encryption_builder()
        .kdf_rounds(2000)
        .key_cert_algorithm(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC)
        .hmac_hash(hashes.SHA1())  # noqa: S303 - as above
        .build(password.encode())
    )
    return pkcs12.serialize_key_and_certificates(
        None, certificate.key, certificate.leaf, None, encryption
    )
