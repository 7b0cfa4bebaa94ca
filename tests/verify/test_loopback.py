"""A handshake in memory, with OpenSSL as the server."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from letsencrypt_mdaemon.verify.loopback import handshake
from tests.certificates import NAME, certificate

OWN = certificate()
V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


class Server:
    """A server in memory."""

    def __init__(self, folder: Path, version: ssl.TLSVersion) -> None:
        file = folder / "own.pem"
        file.write_bytes(OWN.key_pem + OWN.fullchain_pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        context.minimum_version = context.maximum_version = version
        self.received, self.sent = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.received, self.sent, server_side=True)
        self.is_done = False

    def answer(self, data: bytes) -> bytes:
        """Return what it sends back."""
        self.received.write(data)
        try:
            self.tls.do_handshake()
            self.is_done = True
        except ssl.SSLWantReadError:
            pass
        return self.sent.read()


@pytest.mark.parametrize("version", [V12, V13])
def test_a_handshake_returns_the_certificate_and_leaves_the_server_done(
    tmp_path: Path, version: ssl.TLSVersion
) -> None:
    server = Server(tmp_path, version)
    found = handshake(server.answer, version, NAME)
    assert found == OWN.leaf.public_bytes(Encoding.DER)
    assert server.is_done
    assert server.tls.version() == {V12: "TLSv1.2", V13: "TLSv1.3"}[version]


def test_a_server_of_another_version_fails(tmp_path: Path) -> None:
    server = Server(tmp_path, V13)
    with pytest.raises(ssl.SSLError):
        handshake(server.answer, V12, NAME)


def test_a_server_that_falls_silent_fails() -> None:
    with pytest.raises(ssl.SSLError, match="does not go on"):
        handshake(lambda _: b"", V13, NAME)


def test_a_server_without_the_key_of_its_certificate_fails(tmp_path: Path) -> None:
    """Its signature is wrong: one byte of each flight is changed."""
    server = Server(tmp_path, V12)

    def spoiled(data: bytes) -> bytes:
        sent = bytearray(server.answer(data))
        # ServerHelloDone is last in the first flight; the signature is before it.
        if len(sent) > len(OWN.leaf.public_bytes(Encoding.DER)):
            sent[-20] ^= 1
        return bytes(sent)

    with pytest.raises(ssl.SSLError):
        handshake(spoiled, V12, NAME)
