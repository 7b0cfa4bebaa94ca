"""Windows' certificate stores, as far as we need them: crypt32 by ctypes.

What Windows refuses to open or to change raises `OSError`. Everything opened here is
closed here. A store is written when it closes, and it closes only when all of its
contexts are freed: a leaked context could lose a certificate.
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import contextmanager, nullcontext
from ctypes import POINTER, byref, c_void_p
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

assert sys.platform == "win32"  # noqa: S101 - tells the type checker

from ctypes import wintypes  # noqa: E402 - with the rest of Windows
from ctypes.wintypes import BOOL, DWORD, LPWSTR  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

_crypt32 = ctypes.WinDLL("crypt32", use_last_error=True)
advapi32 = ctypes.WinDLL("advapi32", use_last_error=True)
ncrypt = ctypes.WinDLL("ncrypt")

# wincrypt.h
ENCODING = 0x10001  # X509_ASN_ENCODING | PKCS_7_ASN_ENCODING
IN_MEMORY, LOGICAL, PHYSICAL = 2, 10, 13  # CERT_STORE_PROV_*
LOCAL_MACHINE = 0x20000
READ_ONLY, OPEN_EXISTING = 0x8000, 0x4000
ADD_NEW, REPLACE_EXISTING = 1, 3  # CERT_STORE_ADD_*
FIND_SHA1 = 0x10000
KEY_PROVIDER_INFO, FRIENDLY_NAME = 2, 11  # CERT_*_PROP_ID
EXPORTABLE, MACHINE_KEYS, ALWAYS_CNG = 0x1, 0x20, 0x200  # of PFXImportCertStore
NO_KEY, NO_EXPORT, WITH_KEYS = 0x1, 0x2, 0x4  # of PFXExportCertStoreEx
SILENT, ALLOW_CNG = 0x40, 0x10000  # CRYPT_ACQUIRE_*
_MISSING, _EXISTS = 2, 0x80092005  # ERROR_FILE_NOT_FOUND, CRYPT_E_EXISTS
CNG = 0xFFFFFFFF  # CERT_NCRYPT_KEY_SPEC


class _Blob(ctypes.Structure):
    _fields_ = (("size", DWORD), ("data", c_void_p))


class _Context(ctypes.Structure):
    _fields_ = (
        ("encoding", DWORD),
        ("encoded", c_void_p),
        ("size", DWORD),
        ("info", c_void_p),
        ("store", c_void_p),
    )


class _KeyProviderInfo(ctypes.Structure):
    _fields_ = (
        ("container", LPWSTR),
        ("provider", LPWSTR),
        ("kind", DWORD),
        ("flags", DWORD),
        ("parameter_count", DWORD),
        ("parameters", c_void_p),
        ("key_spec", DWORD),
    )


if TYPE_CHECKING:
    Context: TypeAlias = ctypes._Pointer[_Context]  # noqa: SLF001 - has no other name
else:
    Context = POINTER(_Context)

Store: TypeAlias = int


class KeyPlace(NamedTuple):
    """Where Windows keeps a private key.

    Args:
        container: The key's name at its provider.
        provider: A cryptographic service provider (CSP), or one of CNG.
        kind: The CSP's type; 0 = CNG.
        key_spec: Which key of a CSP's container it is.
        flags: `MACHINE_KEYS` if it is the machine's, and not an account's.
    """

    container: str
    provider: str
    kind: int
    key_spec: int = 0
    flags: int = 0

    def __str__(self) -> str:
        """Return the provider, and the kind of the key at a CSP."""
        kinds = {1: "AT_KEYEXCHANGE", 2: "AT_SIGNATURE"}
        spec = kinds.get(self.key_spec, f"key {self.key_spec}")
        return f"{self.provider}, {spec}" if self.kind else self.provider


_LETTERS = {"P": c_void_p, "D": DWORD, "W": wintypes.LPCWSTR}


def declare(function: Any, result: Any, arguments: str) -> Any:  # noqa: ANN401 - ctypes' types
    """Return a function of a library with its types.

    Args:
        arguments: A letter for each: a pointer or handle, a DWORD, a wide text.
    """
    function.restype = result
    function.argtypes = [_LETTERS[letter] for letter in arguments]
    return function


_open = declare(_crypt32.CertOpenStore, c_void_p, "PDPDW")
_close = declare(_crypt32.CertCloseStore, BOOL, "PD")
_next = declare(_crypt32.CertEnumCertificatesInStore, POINTER(_Context), "PP")
_find = declare(_crypt32.CertFindCertificateInStore, POINTER(_Context), "PDDDPP")
_free = declare(_crypt32.CertFreeCertificateContext, BOOL, "P")
_duplicate = declare(_crypt32.CertDuplicateCertificateContext, POINTER(_Context), "P")
_add = declare(_crypt32.CertAddCertificateContextToStore, BOOL, "PPDP")
_add_encoded = declare(_crypt32.CertAddEncodedCertificateToStore, BOOL, "PDPDDP")
_delete = declare(_crypt32.CertDeleteCertificateFromStore, BOOL, "P")
_get = declare(_crypt32.CertGetCertificateContextProperty, BOOL, "PDPP")
_set = declare(_crypt32.CertSetCertificateContextProperty, BOOL, "PDDP")
_create = declare(_crypt32.CertCreateCertificateContext, POINTER(_Context), "DPD")
_import = declare(_crypt32.PFXImportCertStore, c_void_p, "PWD")
_export = declare(_crypt32.PFXExportCertStoreEx, BOOL, "PPWPD")
_acquire = declare(_crypt32.CryptAcquireCertificatePrivateKey, BOOL, "PDPPPP")
release_csp = declare(advapi32.CryptReleaseContext, BOOL, "PD")
free_cng = declare(ncrypt.NCryptFreeObject, wintypes.LONG, "P")


def call(function: Any, *arguments: Any) -> Any:  # noqa: ANN401 - as ctypes has it
    """Call a function that returns zero or NULL if it fails.

    Raises:
        OSError: With Windows' code and message, also if there is no code.
    """
    ctypes.set_last_error(0)
    result = function(*arguments)
    if not result:
        code = ctypes.get_last_error()
        text = ctypes.FormatError(code).strip() if code else "Windows gives no reason"
        text = f"{text} ({function.__name__}, 0x{code & 0xFFFFFFFF:X})"
        raise OSError(None, text, None, code)
    return result


def _blob(data: bytes) -> _Blob:
    return _Blob(len(data), ctypes.cast(ctypes.c_char_p(data), c_void_p))


def opened(
    name: str, *, provider: int = LOGICAL, flags: int = 0
) -> AbstractContextManager[Store]:
    """Open one of the local machine's stores.

    Args:
        name: Such as `MY`; a missing store is created.
        provider: `LOGICAL`, or `PHYSICAL` for the registry alone.
    """
    return _closing(call(_open, provider, 0, None, LOCAL_MACHINE | flags, name))


def existing(name: str) -> AbstractContextManager[Store | None]:
    """Open one of the local machine's stores to read it; None if it is missing."""
    flags = LOCAL_MACHINE | READ_ONLY | OPEN_EXISTING
    try:
        return _closing(call(_open, LOGICAL, 0, None, flags, name))
    except OSError as exc:
        if exc.winerror != _MISSING:
            raise
        return nullcontext()


def imported(pfx: bytes, password: str, flags: int) -> AbstractContextManager[Store]:
    """Import a PKCS#12 file into a store in memory; Windows keeps the keys.

    Raises:
        OSError: If it cannot be read, or its key cannot be kept.
    """
    return _closing(call(_import, byref(_blob(pfx)), password, flags))


@contextmanager
def _closing(store: Store) -> Iterator[Store]:
    try:
        yield store
    finally:
        _close(store, 0)


def contexts(store: Store | None) -> Iterator[Context]:
    """Yield each certificate, and free it before the next one."""
    if store is None:
        return
    context = None
    try:
        while context := _next(store, context):
            yield context
    finally:
        if context:
            _free(context)


@contextmanager
def found(store: Store, thumbprint: str) -> Iterator[Context | None]:
    """Find a certificate by its thumbprint."""
    try:
        digest = bytes.fromhex(thumbprint)
    except ValueError:
        digest = b""
    context = None
    if digest:
        context = _find(store, ENCODING, 0, FIND_SHA1, byref(_blob(digest)), None)
    try:
        yield context or None
    finally:
        if context:
            _free(context)


@contextmanager
def created(data: bytes) -> Iterator[Context]:
    """Make a certificate of DER that is in no store."""
    context = call(_create, ENCODING, data, len(data))
    try:
        yield context
    finally:
        _free(context)


def der(context: Context) -> bytes:
    """Return the certificate as DER."""
    return ctypes.string_at(context.contents.encoded, context.contents.size)


def add(store: Store, context: Context) -> None:
    """Add a certificate with its properties; replace the one that is there."""
    call(_add, store, context, REPLACE_EXISTING, None)


def add_encoded(store: Store, data: bytes) -> bool:
    """Add a certificate in DER; return False if it is there already."""
    try:
        call(_add_encoded, store, ENCODING, data, len(data), ADD_NEW, None)
    except OSError as exc:
        if (exc.winerror or 0) & 0xFFFFFFFF != _EXISTS:
            raise
        return False
    return True


def delete(context: Context) -> None:
    """Delete a certificate from its store; the caller still frees the context."""
    # Windows frees the context it gets, also when it fails.
    call(_delete, _duplicate(context))


def friendly_name(context: Context) -> str:
    """Return the friendly name; empty if there is none."""
    data = _property(context, FRIENDLY_NAME)
    return data.raw.decode("utf-16-le", "replace").rstrip("\0") if data else ""


def set_friendly_name(context: Context, name: str) -> None:
    """Set the friendly name."""
    blob = _blob(f"{name}\0".encode("utf-16-le"))
    call(_set, context, FRIENDLY_NAME, 0, byref(blob))


def key_place(context: Context) -> KeyPlace | None:
    """Return where the private key is kept; None if there is none."""
    data = _property(context, KEY_PROVIDER_INFO)
    if data is None:
        return None
    info = ctypes.cast(data, POINTER(_KeyProviderInfo)).contents
    return KeyPlace(
        info.container or "",
        info.provider or "",
        info.kind,
        info.key_spec,
        info.flags,
    )


def set_key_place(context: Context, place: KeyPlace) -> None:
    """Set where the private key is kept."""
    container, provider, kind, key_spec, flags = place
    info = _KeyProviderInfo(container, provider, kind, flags, 0, None, key_spec)
    call(_set, context, KEY_PROVIDER_INFO, 0, byref(info))


def _property(context: Context, number: int) -> ctypes.Array[ctypes.c_char] | None:
    size = DWORD()
    if not _get(context, number, None, byref(size)):
        return None
    data = ctypes.create_string_buffer(size.value)
    return data if _get(context, number, data, byref(size)) else None


def is_key_usable(context: Context) -> bool:
    """Whether this account can use the private key without a dialog."""
    key, spec, ours = c_void_p(), DWORD(), BOOL()
    flags, where = SILENT | ALLOW_CNG, (byref(key), byref(spec), byref(ours))
    if not _acquire(context, flags, None, *where):
        return False
    if ours.value:
        if spec.value == CNG:
            free_cng(key)
        else:
            release_csp(key, 0)
    return True


def exported(context: Context, password: str) -> bytes:
    """Return the certificate and its private key as PKCS#12.

    Raises:
        OSError: If there is no key, or it cannot be exported.
    """
    flags, blob = NO_KEY | NO_EXPORT | WITH_KEYS, _Blob()
    with _closing(call(_open, IN_MEMORY, 0, None, 0, None)) as store:
        add(store, context)
        call(_export, store, byref(blob), password, None, flags)
        data = ctypes.create_string_buffer(blob.size)
        blob.data = ctypes.cast(data, c_void_p)
        call(_export, store, byref(blob), password, None, flags)
        return data.raw[: blob.size]
