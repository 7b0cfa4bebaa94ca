"""One conversation with one port, up to its certificate."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from OpenSSL import SSL

from letsencrypt_mdaemon.system.disk import reason
from letsencrypt_mdaemon.text import printable
from letsencrypt_mdaemon.verify import starttls
from letsencrypt_mdaemon.verify.served import Answer, Served
from letsencrypt_mdaemon.verify.starttls import NoStarttlsError, ProtocolError

if TYPE_CHECKING:
    from cryptography import x509

    from letsencrypt_mdaemon.verify.endpoints import Endpoint

TIMEOUT_SECONDS = 10.0
"""Seconds for a conversation with an endpoint, from its address to its certificate."""
FAREWELL_SECONDS = 0.5
"""Seconds for a server to hang up after our farewell."""
MAX_PLAIN_BYTES = 64 << 10
"""Bytes that a server may send before TLS."""
MAX_HANDSHAKE_BYTES = 256 << 10
"""Bytes of its part of the handshake; OpenSSL accepts chains of up to 100 KB."""

_FAREWELLS = {"smtp": b"QUIT\r\n", "imap": b"a3 LOGOUT\r\n", "pop3": b"QUIT\r\n"}
_FIRST_RECORDS = {21, 22}  # alert and handshake: how the TLS of a server begins
_OUTDATED = {"SSLv3": "SSL 3", "TLSv1": "TLS 1.0", "TLSv1.1": "TLS 1.1"}
# What OpenSSL calls it, in plain words.
_REFUSALS = {
    "tlsv1 alert protocol version": "refuses TLS 1.0 to 1.3",
    "unsupported protocol": "offers none of TLS 1.0 to 1.3",
    "unexpected eof while reading": "closes the connection during the handshake",
}


def ask(endpoint: Endpoint, server_name: str, timeout: float) -> Served:
    """Ask an endpoint for its certificate; every failure is an answer, too."""
    start = time.monotonic()
    address = endpoint.host, endpoint.port
    outcome = Answer.NOT_LISTENING
    detail = version = ""
    chain: tuple[x509.Certificate, ...] = ()
    seconds = None
    line = None
    try:
        with socket.create_connection(address, timeout) as connection:
            outcome = Answer.HANDSHAKE_FAILED
            line = _Line(connection, start + timeout)
            try:
                _talk(line, endpoint.scheme)
            except NoStarttlsError:
                outcome = Answer.NO_STARTTLS
                seconds = time.monotonic() - start
                _part(None, line, endpoint.scheme)
                raise
            tls = _handshake(line, server_name)
            version, chain = tls.get_protocol_version_name(), _chain(tls)
            seconds = time.monotonic() - start
            _part(tls, line, endpoint.scheme)
        if version in _OUTDATED:
            detail = f"offers only {_OUTDATED[version]}, which clients refuse"
        else:
            outcome = Answer.SERVED
    except (NoStarttlsError, ProtocolError) as exc:
        detail = str(exc)
    except TimeoutError:
        slow = "not finished" if line and line.received else "no answer"
        detail = f"{slow} within {timeout:g} s"
    except ConnectionRefusedError:
        detail = "refuses the connection"
    except ConnectionError:
        # The server is there, even if it reset the connection at once.
        outcome, detail = Answer.HANDSHAKE_FAILED, "resets the connection"
    except UnicodeError:
        detail = "is not a valid DNS name"
    except OSError as exc:
        detail = printable(reason(exc), 200)
    except Exception as exc:  # noqa: BLE001 - the answers of the others count
        detail = f"{type(exc).__name__}: {printable(exc, 200)}"
    return Served(
        outcome=outcome,
        detail=detail,
        chain=chain,
        tls=_OUTDATED.get(version) or version.replace("TLSv", "TLS "),
        server_name=server_name,
        seconds=time.monotonic() - start if seconds is None else seconds,
    )


class _Line:
    """A connection with a deadline, and a limit to what is received from it.

    Raises:
        TimeoutError: From every method, once the deadline has passed.
    """

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self.connection = connection
        self.deadline = deadline
        self.limit = MAX_PLAIN_BYTES
        self.received = 0
        self._waiting = b""

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self._set_timeout()
        self.connection.sendall(data)

    def receive(self) -> bytes:
        """Return what comes next.

        Raises:
            ProtocolError: If the connection is closed, or the limit is passed.
        """
        self._set_timeout()
        data = self.connection.recv(16 << 10)
        if not data:
            raise ProtocolError("closes the connection")
        self.received += len(data)
        if self.received > self.limit:
            raise ProtocolError(f"sends more than {self.limit >> 10} KB")
        return data

    def read(self) -> bytes:
        """Return the next line, without its end."""
        while b"\n" not in self._waiting:
            self._waiting += self.receive()
        line, _, self._waiting = self._waiting.partition(b"\n")
        return line.removesuffix(b"\r")

    def end(self) -> None:
        """Make sure that no plain text is left unread.

        Raises:
            ProtocolError: If any is. Somebody between us and the server may have sent
                it, to have it taken for text under TLS (RFC 3207, 4.2).
        """
        if count := len(self._waiting):
            raise ProtocolError(
                f"sends {count} bytes between its answer to STARTTLS and TLS, which "
                "somebody may have injected"
            )

    def drain(self) -> None:
        """Wait a moment for the server to hang up, so that it receives our farewell."""
        self.deadline = min(self.deadline, time.monotonic() + FAREWELL_SECONDS)
        while True:
            self.receive()

    def _set_timeout(self) -> None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.connection.settimeout(left)


def _talk(line: _Line, scheme: str) -> None:
    """Hold the conversation that comes before TLS, if there is one."""
    match scheme:
        case "smtp+starttls":
            conversation = starttls.smtp(line.connection.getsockname()[0])
        case "imap+starttls":
            conversation = starttls.imap()
        case "pop3+stls":
            conversation = starttls.pop3()
        case _:
            return
    try:
        command = next(conversation)
        while True:
            if command:
                line.send(command)
            command = conversation.send(line.read())
    except StopIteration:
        line.end()


def _handshake(line: _Line, server_name: str) -> SSL.Connection:
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


def _part(tls: SSL.Connection | None, line: _Line, scheme: str) -> None:
    """Say goodbye: a server may count a missing goodbye as an attack."""
    farewell = _FAREWELLS.get(scheme[:4], b"")
    with suppress(OSError, SSL.Error, ProtocolError):
        if tls is None:
            line.send(farewell)
        else:
            if farewell:
                tls.send(farewell)
            tls.shutdown()
            _flush(tls, line)
        if farewell:
            line.drain()


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


def _flush(tls: SSL.Connection, line: _Line) -> None:
    with suppress(SSL.WantReadError):
        while True:
            line.send(tls.bio_read(16 << 10))


def _chain(tls: SSL.Connection) -> tuple[x509.Certificate, ...]:
    sent = tls.get_peer_cert_chain() or []
    if not sent:
        raise ProtocolError("sends no certificate")
    try:
        return tuple(certificate.to_cryptography() for certificate in sent)
    except Exception as exc:
        # ValueError, InvalidVersion: certificates can be malformed in many ways.
        raise ProtocolError("sends a certificate that cannot be read") from exc
