"""A TLS server by Schannel, as MDaemon is one: SSPI by ctypes.

Whatever Windows refuses raises `OSError`.
"""

from __future__ import annotations

import ctypes
import ssl
import sys
from contextlib import contextmanager
from ctypes import POINTER, byref, c_void_p
from typing import TYPE_CHECKING

assert sys.platform == "win32"  # noqa: S101 - tells the type checker

from ctypes.wintypes import DWORD, LONG, LPCWSTR  # noqa: E402 - with the rest of Windows

from letsencrypt_mdaemon.windows import crypt32  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

TLS_1_3_SINCE = 20348
"""The build of Windows Server 2022, the first one with TLS 1.3."""

_secur32 = ctypes.WinDLL("secur32")

# sspi.h, schannel.h, winerror.h
_INBOUND = 1  # SECPKG_CRED_INBOUND
_TOKEN, _EXTRA, _EMPTY = 2, 5, 0  # SECBUFFER_*
_FLAGS = 0x4 | 0x8 | 0x10 | 0x100 | 0x10000  # ASC_REQ_*: Schannel sends the records
_TLS_1_2, _TLS_1_3 = 0x400, 0x1000  # SP_PROT_*_SERVER
_NO_SYSTEM_MAPPER = 0x2  # SCH_CRED_*
_INCOMPLETE, _CONTINUE = 0x80090318, 0x90312


class _Handle(ctypes.Structure):
    _fields_ = (("lower", ctypes.c_size_t), ("upper", ctypes.c_size_t))


class _Buffer(ctypes.Structure):
    _fields_ = (("size", DWORD), ("kind", DWORD), ("data", c_void_p))


class _Buffers(ctypes.Structure):
    _fields_ = (("version", DWORD), ("count", DWORD), ("first", POINTER(_Buffer)))


class _Old(ctypes.Structure):  # SCHANNEL_CRED
    _fields_ = (
        ("version", DWORD),
        ("count", DWORD),
        ("certificates", c_void_p),
        ("roots", c_void_p),
        ("mapper_count", DWORD),
        ("mappers", c_void_p),
        ("algorithm_count", DWORD),
        ("algorithms", c_void_p),
        ("protocols", DWORD),
        ("minimum", DWORD),
        ("maximum", DWORD),
        ("lifespan", DWORD),
        ("flags", DWORD),
        ("form", DWORD),
    )


class _Parameters(ctypes.Structure):  # TLS_PARAMETERS
    _fields_ = (
        ("alpn_count", DWORD),
        ("alpn", c_void_p),
        ("disabled", DWORD),
        ("crypto_count", DWORD),
        ("crypto", c_void_p),
        ("flags", DWORD),
    )


class _New(ctypes.Structure):  # SCH_CREDENTIALS, the only way to TLS 1.3
    _fields_ = (
        ("version", DWORD),
        ("form", DWORD),
        ("count", DWORD),
        ("certificates", c_void_p),
        ("roots", c_void_p),
        ("mapper_count", DWORD),
        ("mappers", c_void_p),
        ("lifespan", DWORD),
        ("flags", DWORD),
        ("parameter_count", DWORD),
        ("parameters", c_void_p),
    )


_acquire = _secur32.AcquireCredentialsHandleW
_acquire.argtypes = (
    *(LPCWSTR, LPCWSTR, DWORD, c_void_p, c_void_p, c_void_p, c_void_p),
    *(POINTER(_Handle), POINTER(ctypes.c_int64)),
)
_accept = _secur32.AcceptSecurityContext
_accept.argtypes = (
    *(POINTER(_Handle), POINTER(_Handle), POINTER(_Buffers), DWORD, DWORD),
    *(POINTER(_Handle), POINTER(_Buffers), POINTER(DWORD), POINTER(ctypes.c_int64)),
)
_free = _secur32.FreeContextBuffer
_free.argtypes = (c_void_p,)
_free_credentials = _secur32.FreeCredentialsHandle
_free_credentials.argtypes = (POINTER(_Handle),)
_delete = _secur32.DeleteSecurityContext
_delete.argtypes = (POINTER(_Handle),)
for _function in (_acquire, _accept, _free, _free_credentials, _delete):
    _function.restype = LONG


class Server:
    """One connection of a TLS server, without a port; see `server`."""

    def __init__(self, credentials: _Handle) -> None:
        self._credentials = credentials
        self._context: _Handle | None = None
        self._pending = b""

    def answer(self, data: bytes) -> bytes:
        """Return what the server sends after what the client sent.

        Raises:
            OSError: If Schannel refuses to go on.
        """
        self._pending += data
        sent = b""
        while self._pending:
            before = len(self._pending)
            token = self._step()
            sent += token
            if not token and len(self._pending) == before:
                break  # it waits for more
        return sent

    def _step(self) -> bytes:
        """Give Schannel what is pending; it takes at least one message, or waits."""
        data = ctypes.create_string_buffer(self._pending, len(self._pending))
        given = (_Buffer * 2)(
            _Buffer(len(self._pending), _TOKEN, ctypes.cast(data, c_void_p)),
            _Buffer(0, _EMPTY, None),
        )
        made = (_Buffer * 1)(_Buffer(0, _TOKEN, None))
        context, flags, expires = _Handle(), DWORD(), ctypes.c_int64()
        status = _accept(
            byref(self._credentials),
            byref(self._context) if self._context is not None else None,
            byref(_Buffers(0, 2, given)),
            _FLAGS,
            0,
            byref(self._context if self._context is not None else context),
            byref(_Buffers(0, 1, made)),
            byref(flags),
            byref(expires),
        )
        if status & 0xFFFFFFFF == _INCOMPLETE:
            return b""
        if status not in {0, _CONTINUE}:
            raise _error(status, "AcceptSecurityContext")
        if self._context is None:
            self._context = context
        extra = given[1].size if given[1].kind == _EXTRA else 0
        self._pending = self._pending[len(self._pending) - extra :] if extra else b""
        token = ctypes.string_at(made[0].data, made[0].size) if made[0].data else b""
        if made[0].data:
            _free(made[0].data)
        return token

    def close(self) -> None:
        """Forget the connection."""
        if self._context is not None:
            _delete(byref(self._context))


def _error(status: int, function: str) -> OSError:
    text = ctypes.FormatError(status).strip()
    text = f"{text} ({function}, 0x{status & 0xFFFFFFFF:X})"
    return OSError(None, text, None, status)


@contextmanager
def server(certificate: crypt32.Context, version: ssl.TLSVersion) -> Iterator[Server]:
    """Make a server that speaks one version of TLS.

    Args:
        certificate: One of a store, whose private key this account can use.

    Raises:
        OSError: If Schannel does not take it, or does not speak this version.
    """
    certificates = (crypt32.Context * 1)(certificate)
    listed = ctypes.cast(certificates, c_void_p)
    how: ctypes.Structure
    if version == ssl.TLSVersion.TLSv1_3:
        only = _Parameters(disabled=0xFFFFFFFF & ~_TLS_1_3)
        parameters = ctypes.cast(ctypes.pointer(only), c_void_p)
        how = _New(version=5, count=1, certificates=listed, flags=_NO_SYSTEM_MAPPER)
        how.parameter_count, how.parameters = 1, parameters
    else:
        how = _Old(version=4, count=1, certificates=listed, flags=_NO_SYSTEM_MAPPER)
        how.protocols = _TLS_1_2
    credentials, expires = _Handle(), ctypes.c_int64()
    name = "Microsoft Unified Security Protocol Provider"
    status = _acquire(
        *(None, name, _INBOUND, None, byref(how), None, None),
        *(byref(credentials), byref(expires)),
    )
    if status:
        raise _error(status, "AcquireCredentialsHandle")
    made = Server(credentials)
    try:
        yield made
    finally:
        made.close()
        _free_credentials(byref(credentials))
