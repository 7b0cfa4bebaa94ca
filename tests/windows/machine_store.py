r"""Puts certificates into LocalMachine\My as other programs do: by pywin32."""

from __future__ import annotations

import sys

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

assert sys.platform == "win32"

import win32crypt  # noqa: E402 - Windows only
import win32cryptcon  # noqa: E402

PHYSICAL = 13  # CERT_STORE_PROV_SYSTEM_REGISTRY_W


def put_into_my(leaf: x509.Certificate, name: str) -> None:
    """Add a certificate without a key, under a friendly name."""
    store = win32crypt.CertOpenStore(
        PHYSICAL, 0, None, win32cryptcon.CERT_SYSTEM_STORE_LOCAL_MACHINE, "MY"
    )
    assert store is not None
    context = store.CertAddEncodedCertificateToStore(
        win32cryptcon.X509_ASN_ENCODING,
        leaf.public_bytes(Encoding.DER),
        win32cryptcon.CERT_STORE_ADD_REPLACE_EXISTING,
    )
    # pywin32 stores what it is given, without the NUL that ends a text.
    context.CertSetCertificateContextProperty(
        win32cryptcon.CERT_FRIENDLY_NAME_PROP_ID, name + "\0"
    )
    del context
    store.CertCloseStore()
