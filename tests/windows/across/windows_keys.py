r"""Show the certificates of LocalMachine\My and their keys as PEM; Windows runs this.

The sandbox speaks TLS on the Linux side, where nobody can use a key of the store. So
that the certificate it shows is really the one in the store, it gets both from there.
Wine does not export a key as a PFX: it is taken from its container, which Wine keeps in
the registry. Standard library only.
"""

from __future__ import annotations

import base64
import ctypes
import json
import ssl
import sys
from ctypes import POINTER, byref, c_size_t, create_string_buffer, wintypes

assert sys.platform == "win32"

import winreg  # noqa: E402 - Windows only

PROV_RSA_AES = 24
MACHINE_KEYSET_SILENT = 0x20 | 0x40
AT_KEYEXCHANGE = 1
PRIVATEKEYBLOB = 7

advapi32 = ctypes.WinDLL("advapi32", use_last_error=True)
handle = c_size_t
acquire = advapi32.CryptAcquireContextW
acquire.argtypes = (
    *(POINTER(handle), wintypes.LPCWSTR, wintypes.LPCWSTR),
    *(wintypes.DWORD, wintypes.DWORD),
)
user_key = advapi32.CryptGetUserKey
user_key.argtypes = (handle, wintypes.DWORD, POINTER(handle))
export = advapi32.CryptExportKey
export.argtypes = (
    *(handle, handle, wintypes.DWORD, wintypes.DWORD),
    *(ctypes.c_char_p, POINTER(wintypes.DWORD)),
)


def private_key_blob(container: str) -> bytes:
    """Return the key of a container as a PRIVATEKEYBLOB; empty if it cannot be had."""
    provider, key, size = handle(), handle(), wintypes.DWORD()
    if not acquire(
        byref(provider), container, None, PROV_RSA_AES, MACHINE_KEYSET_SILENT
    ):
        return b""
    if not user_key(provider, AT_KEYEXCHANGE, byref(key)):
        return b""
    if not export(key, 0, PRIVATEKEYBLOB, 0, None, byref(size)):
        return b""  # imported to stay
    buffer = create_string_buffer(size.value)
    if not export(key, 0, PRIVATEKEYBLOB, 0, buffer, byref(size)):
        raise ctypes.WinError(ctypes.get_last_error())
    return buffer.raw[: size.value]


def containers() -> list[str]:
    """Return the names of the machine's containers."""
    try:
        key = winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"Software\Wine\Crypto\RSA")
    except FileNotFoundError:
        return []
    with key:
        count, _, _ = winreg.QueryInfoKey(key)
        return [winreg.EnumKey(key, index) for index in range(count)]


if __name__ == "__main__":
    shown = {
        store: [
            base64.b64encode(der).decode() for der, _, _ in ssl.enum_certificates(store)
        ]
        for store in ("MY", "CA")
    }
    found = [base64.b64encode(private_key_blob(name)).decode() for name in containers()]
    sys.stdout.write(json.dumps({**shown, "keys": [blob for blob in found if blob]}))
