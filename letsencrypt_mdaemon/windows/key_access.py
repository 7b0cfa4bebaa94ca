"""Access lists of the private keys that Windows keeps for the machine.

Whatever Windows refuses raises `OSError`.
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import ExitStack, contextmanager
from ctypes import byref, c_void_p
from typing import TYPE_CHECKING

assert sys.platform == "win32"  # noqa: S101 - tells the type checker

from ctypes.wintypes import BOOL, DWORD, LONG  # noqa: E402 - with the rest of Windows

from letsencrypt_mdaemon.windows import security  # noqa: E402
from letsencrypt_mdaemon.windows.crypt32 import (  # noqa: E402
    advapi32,
    call,
    declare,
    free_cng,
    ncrypt,
    release_csp,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from letsencrypt_mdaemon.windows.crypt32 import KeyPlace

# wincrypt.h, ncrypt.h, winnt.h
MACHINE, SILENT = 0x20, 0x40
PP_KEYSET_SEC_DESCR = 8
DACL = 0x4
PROPERTY = "Security Descr"

acquire = declare(advapi32.CryptAcquireContextW, BOOL, "PWWDD")
_get_csp = declare(advapi32.CryptGetProvParam, BOOL, "PDPPD")
_set_csp = declare(advapi32.CryptSetProvParam, BOOL, "PDPD")
_open_provider = declare(ncrypt.NCryptOpenStorageProvider, LONG, "PWD")
_open_key = declare(ncrypt.NCryptOpenKey, LONG, "PPWDD")
_get_cng = declare(ncrypt.NCryptGetProperty, LONG, "PWPDPD")
_set_cng = declare(ncrypt.NCryptSetProperty, LONG, "PWPDD")


class Key:
    """The access list of a key at a CSP, or at one of CNG: `access.Guarded`."""

    def __init__(self, place: KeyPlace) -> None:
        self.place = place

    def access_list(self) -> str:
        """Return the access list as SDDL."""
        size = DWORD()
        with opened(self.place) as key:
            self._get(key, None, size)
            data = ctypes.create_string_buffer(size.value)
            self._get(key, data, size)
        return security.as_text(data.raw[: size.value])

    def _get(
        self, key: c_void_p, data: ctypes.Array[ctypes.c_char] | None, size: DWORD
    ) -> None:
        if self.place.kind:
            call(_get_csp, key, PP_KEYSET_SEC_DESCR, data, byref(size), DACL)
        else:
            succeed(_get_cng(key, PROPERTY, data, size, byref(size), DACL))

    def set_access_list(self, text: str) -> None:
        """Replace the access list."""
        data = security.as_bytes(text)
        with opened(self.place) as key:
            if self.place.kind:
                call(_set_csp, key, PP_KEYSET_SEC_DESCR, data, DACL)
            else:
                succeed(_set_cng(key, PROPERTY, data, len(data), DACL))


@contextmanager
def opened(place: KeyPlace) -> Iterator[c_void_p]:
    """Open a key: at a CSP its container, at CNG the key itself."""
    container, name, kind = place[:3]
    provider, key = c_void_p(), c_void_p()
    flags = MACHINE | SILENT
    with ExitStack() as exits:
        if kind:
            call(acquire, byref(key), container, name or None, kind, flags)
            exits.callback(release_csp, key, 0)
        else:
            succeed(_open_provider(byref(provider), name, 0))
            exits.callback(free_cng, provider)
            succeed(_open_key(provider, byref(key), container, 0, flags))
            exits.callback(lambda: free_cng(key) if key.value else None)
        yield key


def succeed(status: int) -> None:
    """Raise the error of a function that returns zero if it succeeds."""
    if status:
        raise ctypes.WinError(status)
