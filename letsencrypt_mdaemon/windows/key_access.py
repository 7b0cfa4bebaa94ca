"""Access lists of the private keys that Windows keeps for the machine."""

from __future__ import annotations

import ctypes
import sys
from contextlib import contextmanager
from ctypes import POINTER, byref, c_size_t
from typing import TYPE_CHECKING

assert sys.platform == "win32"  # noqa: S101 - tells the type checker

from ctypes import wintypes  # noqa: E402 - with the rest of Windows

from letsencrypt_mdaemon.windows import security  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from letsencrypt_mdaemon.windows.crypt32 import KeyPlace

# wincrypt.h, ncrypt.h, winnt.h
MACHINE, SILENT = 0x20, 0x40
PP_KEYSET_SEC_DESCR = 8
DACL = 0x4
PROPERTY = "Security Descr"

_DWORD, _BOOL, _TEXT, _LONG = (
    wintypes.DWORD,
    wintypes.BOOL,
    wintypes.LPCWSTR,
    wintypes.LONG,
)
_advapi32 = ctypes.WinDLL("advapi32", use_last_error=True)
_ncrypt = ctypes.WinDLL("ncrypt")
_acquire = _advapi32.CryptAcquireContextW
_acquire.argtypes = (POINTER(c_size_t), _TEXT, _TEXT, _DWORD, _DWORD)
_acquire.restype = _BOOL
_release = _advapi32.CryptReleaseContext
_release.argtypes, _release.restype = (c_size_t, _DWORD), _BOOL
_get = _advapi32.CryptGetProvParam
_get.argtypes = (c_size_t, _DWORD, ctypes.c_void_p, POINTER(_DWORD), _DWORD)
_get.restype = _BOOL
_set = _advapi32.CryptSetProvParam
_set.argtypes, _set.restype = (c_size_t, _DWORD, ctypes.c_char_p, _DWORD), _BOOL
_open_provider = _ncrypt.NCryptOpenStorageProvider
_open_provider.argtypes = (POINTER(c_size_t), _TEXT, _DWORD)
_open_provider.restype = _LONG
_open_key = _ncrypt.NCryptOpenKey
_open_key.argtypes = (c_size_t, POINTER(c_size_t), _TEXT, _DWORD, _DWORD)
_open_key.restype = _LONG
_get_property = _ncrypt.NCryptGetProperty
_get_property.argtypes = (
    *(c_size_t, _TEXT, ctypes.c_void_p, _DWORD, POINTER(_DWORD), _DWORD),
)
_get_property.restype = _LONG
_set_property = _ncrypt.NCryptSetProperty
_set_property.argtypes = (c_size_t, _TEXT, ctypes.c_char_p, _DWORD, _DWORD)
_set_property.restype = _LONG
_free = _ncrypt.NCryptFreeObject
_free.argtypes, _free.restype = (c_size_t,), _LONG


class CspKey:
    """A key at a cryptographic service provider (CSP)."""

    def __init__(self, place: KeyPlace) -> None:
        self.place = place

    def access_list(self) -> str:
        """Return the access list as SDDL.

        Raises:
            OSError: If Windows refuses.
        """
        with self._opened() as key:
            size = _DWORD()
            _require(_get(key, PP_KEYSET_SEC_DESCR, None, byref(size), DACL))
            data = ctypes.create_string_buffer(size.value)
            _require(_get(key, PP_KEYSET_SEC_DESCR, data, byref(size), DACL))
        return security.as_text(security.from_bytes(data.raw[: size.value]))

    def set_access_list(self, text: str) -> None:
        """Replace the access list.

        Raises:
            OSError: If Windows refuses.
        """
        with self._opened() as key:
            data = security.as_bytes(text)
            _require(_set(key, PP_KEYSET_SEC_DESCR, data, DACL))

    @contextmanager
    def _opened(self) -> Iterator[c_size_t]:
        key, place = c_size_t(), self.place
        _require(
            _acquire(
                byref(key),
                place.container,
                place.provider,
                place.kind,
                MACHINE | SILENT,
            )
        )
        try:
            yield key
        finally:
            _release(key, 0)


class CngKey:
    """A key at a key storage provider of CNG."""

    def __init__(self, place: KeyPlace) -> None:
        self.place = place

    def access_list(self) -> str:
        """Return the access list as SDDL.

        Raises:
            OSError: If Windows refuses.
        """
        with self._opened() as key:
            size = _DWORD()
            _succeed(_get_property(key, PROPERTY, None, 0, byref(size), DACL))
            data = ctypes.create_string_buffer(size.value)
            _succeed(_get_property(key, PROPERTY, data, size, byref(size), DACL))
        return security.as_text(security.from_bytes(data.raw[: size.value]))

    def set_access_list(self, text: str) -> None:
        """Replace the access list.

        Raises:
            OSError: If Windows refuses.
        """
        with self._opened() as key:
            data = security.as_bytes(text)
            _succeed(_set_property(key, PROPERTY, data, len(data), DACL))

    @contextmanager
    def _opened(self) -> Iterator[c_size_t]:
        provider, key = c_size_t(), c_size_t()
        _succeed(_open_provider(byref(provider), self.place.provider, 0))
        try:
            _succeed(
                _open_key(
                    provider, byref(key), self.place.container, 0, MACHINE | SILENT
                )
            )
            try:
                yield key
            finally:
                _free(key)
        finally:
            _free(provider)


def key_at(place: KeyPlace) -> CspKey | CngKey:
    """Return the key at a place."""
    return CspKey(place) if place.kind else CngKey(place)


def _require(succeeded: int) -> None:
    if not succeeded:
        raise ctypes.WinError(ctypes.get_last_error())


def _succeed(status: int) -> None:
    if status:
        raise ctypes.WinError(status)
