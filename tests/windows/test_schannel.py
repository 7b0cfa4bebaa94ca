"""What the self-test tries of a key by Schannel, and what reaches Schannel."""

from __future__ import annotations

import ctypes
import ssl
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from letsencrypt_mdaemon.app import selftest
from letsencrypt_mdaemon.pki.certificate import KeyType
from letsencrypt_mdaemon.verify import loopback
from tests.certificates import NAME
from tests.verify.test_loopback import OWN, V12, V13
from tests.verify.test_loopback import Server as OpenSsl
from tests.wine import wine_differs

assert sys.platform == "win32"

from letsencrypt_mdaemon.stores.windows import WindowsStore  # noqa: E402 - Windows only
from letsencrypt_mdaemon.windows import schannel  # noqa: E402


@pytest.mark.parametrize(
    ("storage", "kind"), [("csp", "rsa2048"), ("cng", "rsa2048"), ("cng", "p256")]
)
@wine_differs("Wine's Schannel is no server, and its crypt32 knows no CNG")
def test_schannel_serves_what_is_installed(storage: str, kind: KeyType) -> None:
    store = WindowsStore(storage=storage)

    said = selftest.store(store, kind, lambda digest: selftest.serves(store, digest))

    assert "Schannel serves it by TLS 1.2" in said


class Sspi:
    """AcceptSecurityContext as Windows has it: one record at a time, the rest extra."""

    def __init__(self, server: OpenSsl) -> None:
        self.server = server
        self.kept: list[Any] = []
        self.freed: list[int | None] = []
        self.calls = 0

    def accept(self, *arguments: Any) -> int:  # noqa: ANN401 - as ctypes gives them
        """Take one record of what the client sent, and answer."""
        _, context, given, _, _, new, made, _, _ = arguments
        self.calls += 1
        assert (context is None) == (self.calls == 1)
        given, made = given._obj, made._obj  # noqa: SLF001 - of byref
        data = ctypes.string_at(given.first[0].data, given.first[0].size)
        size = 5 + int.from_bytes(data[3:5], "big")
        if len(data) < size:
            self.calls -= not context
            return ctypes.c_int32(0x80090318).value
        if data[size:]:
            given.first[1].kind, given.first[1].size = 5, len(data) - size
        if context is None:
            new._obj.lower = 7  # noqa: SLF001 - as above
        token = self.server.answer(data[:size])
        if token:
            self.kept.append(ctypes.create_string_buffer(token, len(token)))
            made.first[0].data = ctypes.addressof(self.kept[-1])
            made.first[0].size = len(token)
        return 0 if self.server.is_done else 0x90312

    def free(self, place: int) -> int:
        """Take back what was answered."""
        self.freed.append(place)
        return 0


@pytest.mark.parametrize("version", [V12, V13])
def test_every_record_reaches_schannel_whole_and_once(
    tmp_path: Path, version: ssl.TLSVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    sspi = Sspi(OpenSsl(tmp_path, version))
    monkeypatch.setattr(schannel, "_accept", sspi.accept)
    monkeypatch.setattr(schannel, "_free", sspi.free)
    server = schannel.Server(schannel._Handle())  # noqa: SLF001 - Windows makes it

    def in_pieces(data: bytes) -> bytes:
        return server.answer(data[:3]) + server.answer(data[3:])

    found = loopback.handshake(in_pieces, version, NAME)

    assert found == OWN.leaf.public_bytes(Encoding.DER)
    assert sspi.server.is_done
    assert len(sspi.freed) == len(sspi.kept)


def test_what_schannel_refuses_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        schannel, "_accept", lambda *_: ctypes.c_int32(0x80090331).value
    )
    server = schannel.Server(schannel._Handle())  # noqa: SLF001 - as above
    with pytest.raises(OSError, match="0x80090331"):
        server.answer(b"hello")
