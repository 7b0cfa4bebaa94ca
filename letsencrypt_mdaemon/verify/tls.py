"""TLS with a port whose certificate is looked at, not relied on."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from OpenSSL import SSL

from letsencrypt_mdaemon.text import printable
from letsencrypt_mdaemon.verify import starttls
from letsencrypt_mdaemon.verify.starttls import ProtocolError

if TYPE_CHECKING:
    from cryptography import x509

    from letsencrypt_mdaemon.verify.handshake import Line

MAX_HANDSHAKE_BYTES = 256 << 10
"""Bytes of its part of the handshake; OpenSSL accepts chains of up to 100 KB."""

_FIRST_RECORDS = {21, 22}  # alert and handshake: how the TLS of a server begins
# What OpenSSL calls it, in plain words.
_REFUSALS = {
    "tlsv1 alert protocol version": "refuses TLS 1.0 to 1.3",
    "unsupported protocol": "offers none of TLS 1.0 to 1.3",
    "unexpected eof while reading": "closes the connection during the handshake",
}


def handshake(line: Line, server_name: str) -> SSL.Connection:
    """Begin TLS.

    Raises:
        ProtocolError: If the handshake fails.
    """
    tls = SSL.Connection(_context(), None)
    if server_name:
        tls.set_tlsext_host_name(server_name.encode("ascii"))
    tls.set_connect_state()
    line.limit = line.received + MAX_HANDSHAKE_BYTES
    begun = False
    while True:
        try:
            tls.do_handshake()
        except SSL.WantReadError:
            _flush(tls, line)
        except SSL.Error as exc:
            with suppress(OSError):
                _flush(tls, line)
            rows = exc.args[0] if exc.args else []
            reason = str(rows[-1][-1]) if rows else "unknown reason"
            raise ProtocolError(
                _REFUSALS.get(reason) or printable(reason, 200)
            ) from exc
        else:
            _flush(tls, line)
            return tls
        data = line.receive()
        if not begun and data[0] not in _FIRST_RECORDS:
            first = starttls.quoted(data.partition(b"\n")[0])
            raise ProtocolError(f"sends {first} instead of TLS")
        begun = True
        tls.bio_write(data)


def part(tls: SSL.Connection, line: Line, farewell: bytes) -> None:
    """Say goodbye within TLS, and end it."""
    with suppress(SSL.Error):
        if farewell:
            tls.send(farewell)
        tls.shutdown()
        _flush(tls, line)


def chain(tls: SSL.Connection) -> tuple[x509.Certificate, ...]:
    """Return the certificates that the server sent.

    Raises:
        ProtocolError: If it sent none, or one that cannot be read.
    """
    sent = tls.get_peer_cert_chain() or []
    if not sent:
        raise ProtocolError("sends no certificate")
    try:
        return tuple(certificate.to_cryptography() for certificate in sent)
    except Exception as exc:
        # ValueError, InvalidVersion: certificates can be malformed in many ways.
        raise ProtocolError("sends a certificate that cannot be read") from exc


def _context() -> SSL.Context:
    """Return the settings that show us as many certificates as possible."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_verify(SSL.VERIFY_NONE)
    context.set_min_proto_version(0)
    # Old versions, and keys and hashes that are too weak to be trusted.
    context.set_cipher_list(b"DEFAULT:@SECLEVEL=0")
    # Some old servers do not know RFC 5746.
    context.set_options(SSL.OP_LEGACY_SERVER_CONNECT)
    return context


def _flush(tls: SSL.Connection, line: Line) -> None:
    with suppress(SSL.WantReadError):
        while True:
            line.send(tls.bio_read(16 << 10))
