"""Private keys that Windows keeps for the machine: keep, try and delete them.

Whatever Windows refuses raises `OSError`.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import secrets
import sys
import uuid
from contextlib import ExitStack, contextmanager
from ctypes import byref, c_void_p
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

assert sys.platform == "win32"  # noqa: S101 - tells the type checker

from ctypes.wintypes import BOOL, DWORD, LONG, LPCWSTR  # noqa: E402 - as the others

from letsencrypt_mdaemon.windows import crypt32, key_forms  # noqa: E402
from letsencrypt_mdaemon.windows.crypt32 import (  # noqa: E402
    KeyPlace,
    advapi32,
    call,
    declare,
    ncrypt,
    release_csp,
)
from letsencrypt_mdaemon.windows.key_access import (  # noqa: E402
    MACHINE,
    SILENT,
    acquire,
    opened,
    succeed,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from letsencrypt_mdaemon.pki.certificate import Certificate
    from letsencrypt_mdaemon.windows.crypt32 import Context

_log = logging.getLogger(__name__)

STORES = ("My", "WebHosting", "Remote Desktop")
"""The stores of the machine whose certificates have keys."""

CSP = "Microsoft RSA SChannel Cryptographic Provider"
KSP = "Microsoft Software Key Storage Provider"
OF_SOFTWARE = {
    CSP,
    KSP,
    "Microsoft Base Cryptographic Provider v1.0",
    "Microsoft Strong Cryptographic Provider",
    "Microsoft Enhanced Cryptographic Provider v1.0",
    "Microsoft Enhanced RSA and AES Cryptographic Provider",
}
"""The providers that keep keys on the disk, and not on a card or in a device."""
EXCHANGE = 1  # AT_KEYEXCHANGE
PREFIX = "letsencrypt-mdaemon-"
"""How the names of our containers begin."""

# wincrypt.h, ncrypt.h, bcrypt.h
_RSA_SCHANNEL, _RSA_AES = 12, 24  # PROV_*
_NEW, _DELETE = 0x8, 0x10  # CRYPT_NEWKEYSET, CRYPT_DELETEKEYSET
_EXPORTABLE = 0x1
_SHA256 = 0x800C
_PKCS1 = 0x2  # BCRYPT_PAD_PKCS1

_import = declare(advapi32.CryptImportKey, BOOL, "PPDPDP")
_destroy = declare(advapi32.CryptDestroyKey, BOOL, "P")
_create_hash = declare(advapi32.CryptCreateHash, BOOL, "PDPDP")
_hash = declare(advapi32.CryptHashData, BOOL, "PPDD")
_destroy_hash = declare(advapi32.CryptDestroyHash, BOOL, "P")
_sign_csp = declare(advapi32.CryptSignHashW, BOOL, "PDWDPP")
_sign_cng = declare(ncrypt.NCryptSignHash, LONG, "PPPDPDPD")
_delete_cng = declare(ncrypt.NCryptDeleteKey, LONG, "PD")


class _Padding(ctypes.Structure):
    _fields_ = (("algorithm", LPCWSTR),)


@contextmanager
def kept(
    certificate: Certificate, *, storage: str, exportable: bool
) -> Iterator[Context]:
    """Let a provider keep a certificate's key; delete it again if anything fails.

    Args:
        storage: `csp` or `cng`, for RSA keys; others are always CNG's.

    Returns:
        The certificate, which is in no store yet and knows its key.
    """
    leaf = certificate.leaf.public_bytes(Encoding.DER)
    with ExitStack() as exits:
        if storage == "csp" and isinstance(certificate.key, rsa.RSAPrivateKey):
            place = keep(certificate.key, exportable=exportable)
            exits.enter_context(_deleted_if_it_fails(place))
            context = exits.enter_context(crypt32.created(leaf))
            crypt32.set_key_place(context, place)
        else:
            flags = crypt32.EXPORTABLE if exportable else 0
            flags |= crypt32.MACHINE_KEYS | crypt32.ALWAYS_CNG
            password = secrets.token_hex(24)
            pfx = key_forms.pfx(certificate, password)
            source = exits.enter_context(crypt32.imported(pfx, password, flags))
            found = crypt32.found(source, certificate.thumbprint)
            if (there := exits.enter_context(found)) is None:
                raise OSError("the import lost the certificate")
            context = there
            if (imported := crypt32.key_place(context)) is not None:
                exits.enter_context(_deleted_if_it_fails(imported))
        yield context


@contextmanager
def _deleted_if_it_fails(place: KeyPlace) -> Iterator[None]:
    try:
        yield
    except BaseException:
        # A store may have the certificate already.
        delete_unused(place)
        raise


def delete_unused(place: KeyPlace) -> None:
    """Delete a key, unless a certificate uses it, or it is not on this disk.

    A failure is only a warning.
    """
    if place.provider not in OF_SOFTWARE or not place.flags & MACHINE:
        _log.debug("Keeping the private key %s (%s)", place.container, place)
        return
    try:
        for name in STORES:
            with crypt32.existing(name) as store:
                listed = map(crypt32.key_place, crypt32.contexts(store))
                if any(one and one.container == place.container for one in listed):
                    return
        delete(place)
    except OSError as exc:
        _log.warning(
            "Could not delete the private key %s, which no certificate uses (%s): %s",
            place.container,
            place,
            exc,
        )


def keep(key: rsa.RSAPrivateKey, *, exportable: bool) -> KeyPlace:
    """Keep an RSA key at the CSP of Schannel, in a container of its own."""
    blob = key_forms.rsa_blob(key)
    place = KeyPlace(f"{PREFIX}{uuid.uuid4()}", CSP, _RSA_SCHANNEL, EXCHANGE, MACHINE)
    provider, handle = c_void_p(), c_void_p()
    flags = _NEW | MACHINE | SILENT
    call(acquire, byref(provider), place.container, CSP, _RSA_SCHANNEL, flags)
    try:
        how = _EXPORTABLE if exportable else 0
        call(_import, provider, blob, len(blob), None, how, byref(handle))
        _destroy(handle)
    except BaseException:
        release_csp(provider, 0)
        delete(place)
        raise
    release_csp(provider, 0)
    return place


def delete(place: KeyPlace) -> None:
    """Delete a key with its container."""
    if place.kind:
        # Windows returns no handle to what is deleted.
        flags = _DELETE | MACHINE | SILENT
        call(
            acquire,
            byref(c_void_p()),
            place.container,
            place.provider,
            place.kind,
            flags,
        )
        return
    with opened(place) as key:
        succeed(_delete_cng(key, 0))
        # Windows freed the handle together with the key.
        key.value = None


def sign(place: KeyPlace, data: bytes, public: object) -> bytes:
    """Sign data by SHA-256, as X.509 has it: PKCS#1 v1.5, or ECDSA.

    Args:
        public: The key's public key.
    """
    if place.kind:
        return _signed_by_csp(place, data)
    digest, size = hashlib.sha256(data).digest(), DWORD()
    is_ec = isinstance(public, ec.EllipticCurvePublicKey)
    padding = None if is_ec else byref(_Padding("SHA256"))
    flags = 0 if is_ec else _PKCS1
    with opened(place) as key:
        given = (key, padding, digest, len(digest))
        succeed(_sign_cng(*given, None, 0, byref(size), flags))
        signature = ctypes.create_string_buffer(size.value)
        succeed(_sign_cng(*given, signature, size, byref(size), flags))
    raw = signature.raw[: size.value]
    if not is_ec:
        return raw
    half = len(raw) // 2
    numbers = (int.from_bytes(part, "big") for part in (raw[:half], raw[half:]))
    return encode_dss_signature(*numbers)


def _signed_by_csp(place: KeyPlace, data: bytes) -> bytes:
    # Only this type of CSP signs SHA-256; all of Microsoft's share their containers.
    place = place._replace(provider="", kind=_RSA_AES)
    digest, size = c_void_p(), DWORD()
    with opened(place) as provider:
        call(_create_hash, provider, _SHA256, None, 0, byref(digest))
        try:
            call(_hash, digest, data, len(data), 0)
            given = (digest, place.key_spec or EXCHANGE, None, 0)
            call(_sign_csp, *given, None, byref(size))
            signature = ctypes.create_string_buffer(size.value)
            call(_sign_csp, *given, signature, byref(size))
        finally:
            _destroy_hash(digest)
    # CryptoAPI writes little-endian.
    return signature.raw[: size.value][::-1]
