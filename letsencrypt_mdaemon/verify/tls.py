"""TLS with a port whose certificate is looked at, not relied on."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from OpenSSL import SSL
from OpenSSL._util import lib

from letsencrypt_mdaemon.text import printable
from letsencrypt_mdaemon.verify import starttls
from letsencrypt_mdaemon.verify.starttls import ProtocolError, TurnedAwayError

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
# RSA without PSS is no signature of TLS 1.3, only of a certificate's issuer.
_BY_RSA = b"RSA+SHA256:RSA+SHA384:RSA+SHA512:RSA+SHA1"
_SIGNATURES = {
    "RSA": b"RSA-PSS+SHA256:RSA-PSS+SHA384:RSA-PSS+SHA512:" + _BY_RSA,
    "ECDSA": b"ECDSA+SHA256:ECDSA+SHA384:ECDSA+SHA512:ECDSA+SHA1:" + _BY_RSA,
}

WANTS_CLIENT = "wants a client certificate"


def handshake(line: Line, server_name: str, key: str) -> tuple[SSL.Connection, str]:
    """Begin TLS.

    Args:
        key: The only kind of key to accept, `RSA` or `ECDSA`; empty for both.

    Returns:
        The session, and what is odd about the port. If the server refuses us because we
        have no certificate, it has shown its own before.

    Raises:
        ProtocolError: If the handshake fails.
        TurnedAwayError: If the server refuses to speak with us.
    """
    states: set[str] = set()
    context = _context(key)
    context.set_info_callback(lambda tls, *_: states.add(_state(tls)))
    tls = SSL.Connection(context, None)
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
            if any("certificate request" in state for state in states):
                return tls, WANTS_CLIENT
            if reason in _REFUSALS:
                raise ProtocolError(_REFUSALS[reason]) from exc
            _, is_alert, alert = reason.partition(" alert ")
            reason = f'sends the TLS alert "{alert}"' if is_alert else reason
            raise ProtocolError(printable(reason, 200)) from exc
        else:
            _flush(tls, line)
            wanted = any("certificate request" in state for state in states)
            return tls, WANTS_CLIENT if wanted else ""
        data = line.receive()
        if not begun and data[0] not in _FIRST_RECORDS:
            first = data.partition(b"\n")[0]
            error = TurnedAwayError if starttls.is_refusal(first) else ProtocolError
            raise error(f"sends {starttls.quoted(first)} instead of TLS")
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


def _state(tls: SSL.Connection) -> str:
    return tls.get_state_string().decode("ascii", "replace")


def _context(key: str) -> SSL.Context:
    """Return the settings that show us as many certificates as possible.

    The kind of key is said by the cipher suites up to TLS 1.2, and by the signatures in
    TLS 1.3 (RFC 8446, 4.2.3).
    """
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_verify(SSL.VERIFY_NONE)
    context.set_min_proto_version(0)
    # Old versions, and keys and hashes that are too weak to be trusted.
    without = {"RSA": b":!aECDSA", "ECDSA": b":!aRSA"}.get(key, b"")
    context.set_cipher_list(b"DEFAULT%s:@SECLEVEL=0" % without)
    if key:
        # pyOpenSSL has no method for it.
        lib.SSL_CTX_set1_sigalgs_list(context._context, _SIGNATURES[key])  # noqa: SLF001
    # Some old servers do not know RFC 5746.
    context.set_options(SSL.OP_LEGACY_SERVER_CONNECT)
    return context


def _flush(tls: SSL.Connection, line: Line) -> None:
    with suppress(SSL.WantReadError):
        while True:
            line.send(tls.bio_read(16 << 10))
