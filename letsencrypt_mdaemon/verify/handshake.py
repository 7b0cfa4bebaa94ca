"""One conversation with one port, up to its certificate."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from OpenSSL import SSL

from letsencrypt_mdaemon.text import printable
from letsencrypt_mdaemon.verify import starttls
from letsencrypt_mdaemon.verify.served import Outcome, Served

if TYPE_CHECKING:
    from cryptography import x509

    from letsencrypt_mdaemon.verify.endpoints import Endpoint


PATIENCE = 10.0
"""Seconds for a conversation with an endpoint, from its address to its certificate."""


LINGER = 0.5
"""Seconds for a server to hang up after our farewell."""


LIMIT = 64 << 10
"""Bytes that a server may say before TLS."""


TLS_LIMIT = 256 << 10
"""Bytes of its part of the handshake; OpenSSL takes chains of up to 100 KB."""


_FAREWELLS = {"smtp": b"QUIT\r\n", "imap": b"a3 LOGOUT\r\n", "pop3": b"QUIT\r\n"}


_FIRST_RECORDS = {21, 22}  # alert and handshake: how the TLS of a server begins


_OUTDATED = {"SSLv3": "SSL 3", "TLSv1": "TLS 1.0", "TLSv1.1": "TLS 1.1"}


_BROKEN_OFF = "breaks off the connection"


_REFUSALS = {
    "tlsv1 alert protocol version": "refuses TLS 1.0 to 1.3",
    "unsupported protocol": "offers none of TLS 1.0 to 1.3",
    "unexpected eof while reading": "closes the connection during the handshake",
}
"""What OpenSSL calls it, in plain words."""


# One conversation


class _Ended(Exception):  # noqa: N818 - an answer, not an error of ours
    """The conversation ended without a certificate."""


def ask(endpoint: Endpoint, server_name: str, patience: float) -> Served:
    """Ask an endpoint for its certificate, whatever it does."""
    start = time.monotonic()
    address = endpoint.host, endpoint.port
    outcome = Outcome.NOT_LISTENING
    detail = version = ""
    chain: tuple[x509.Certificate, ...] = ()
    seconds = None
    line = None
    try:
        with socket.create_connection(address, patience) as connection:
            outcome = Outcome.HANDSHAKE_FAILED
            line = _Line(connection, start + patience)
            try:
                _talk(line, endpoint.scheme)
            except starttls.Unoffered:
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
            outcome = Outcome.SERVED
    except starttls.Unoffered as exc:
        outcome, detail = Outcome.NO_STARTTLS, str(exc)
    except (_Ended, starttls.Unspoken) as exc:
        detail = str(exc)
    except TimeoutError:
        slow = "is not done" if line and line.heard else "no answer"
        detail = f"{slow} in {patience:g} s"
    except Exception as exc:  # noqa: BLE001
        # Whatever a server makes of us, the answers of the others are worth having.
        detail = _why(exc)
        if detail == _BROKEN_OFF:
            # Somebody is there, even if that was before we had said a word.
            outcome = Outcome.HANDSHAKE_FAILED
    return Served(
        outcome=outcome,
        detail=detail,
        chain=chain,
        tls=_OUTDATED.get(version) or version.replace("TLSv", "TLS "),
        server_name=server_name,
        seconds=time.monotonic() - start if seconds is None else seconds,
    )


def _why(error: Exception) -> str:
    """Return in words why there was no conversation, or no more of it."""
    match error:
        case ConnectionRefusedError():
            return "refuses the connection"
        case ConnectionError():
            return _BROKEN_OFF
        case UnicodeError():
            return "has a name that cannot be in DNS"
        case OSError():
            return printable(error.strerror or error, 200)
        case _:
            return f"{type(error).__name__}: {printable(error, 200)}"


class _Line:
    """A connection with a deadline, and a limit to what is heard of it.

    Raises:
        TimeoutError: From every method, once the deadline has passed.
    """

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self.connection = connection
        self.deadline = deadline
        self.limit = LIMIT
        self.heard = 0
        self._waiting = b""

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self._hurry()
        self.connection.sendall(data)

    def receive(self) -> bytes:
        """Return what comes next.

        Raises:
            _Ended: If that is nothing, or if it becomes too much.
        """
        self._hurry()
        data = self.connection.recv(16 << 10)
        if not data:
            raise _Ended("closes the connection")
        self.heard += len(data)
        if self.heard > self.limit:
            raise _Ended(f"says more than {self.limit >> 10} KB")
        return data

    def read(self) -> bytes:
        """Return the next line, without its end."""
        while b"\n" not in self._waiting:
            self._waiting += self.receive()
        line, _, self._waiting = self._waiting.partition(b"\n")
        return line.removesuffix(b"\r")

    def end(self) -> None:
        """Make sure that nothing is left of what was said.

        Raises:
            _Ended: If anything is. Whoever is between us and the server may have said
                it, to have it taken as said under TLS (RFC 3207, 4.2).
        """
        if self._waiting:
            raise _Ended(
                f"says {len(self._waiting)} bytes after its answer to STARTTLS and "
                "before TLS: somebody may have put them there"
            )

    def drain(self) -> None:
        """Wait a moment for the other side to hang up, so that it hears all we said."""
        self.deadline = min(self.deadline, time.monotonic() + LINGER)
        while True:
            self.receive()

    def _hurry(self) -> None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.connection.settimeout(left)


def _talk(line: _Line, scheme: str) -> None:
    """Say what has to be said before TLS."""
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
        _Ended: If the other side does not.
    """
    tls = SSL.Connection(_context(), None)
    if server_name:
        tls.set_tlsext_host_name(server_name.encode("ascii"))
    tls.set_connect_state()
    line.limit = line.heard + TLS_LIMIT
    begun = False
    while True:
        try:
            tls.do_handshake()
        except SSL.WantReadError:
            _flush(tls, line)
        except SSL.Error as exc:
            with suppress(OSError):
                _flush(tls, line)
            raise _Ended(_reason(exc)) from exc
        else:
            _flush(tls, line)
            return tls
        data = line.receive()
        if not begun and data[0] not in _FIRST_RECORDS:
            first = data.partition(b"\n")[0].decode("utf-8", "backslashreplace").strip()
            raise _Ended(f'does not speak TLS, but says "{printable(first, 100)}"')
        begun = True
        tls.bio_write(data)


def _part(tls: SSL.Connection | None, line: _Line, scheme: str) -> None:
    """Say goodbye: a server may count it as an attack when nobody does."""
    farewell = _FAREWELLS.get(scheme[:4], b"")
    with suppress(OSError, SSL.Error, _Ended):
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
    """Return the settings that let us see as many certificates as possible."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_verify(SSL.VERIFY_NONE)
    context.set_min_proto_version(0)
    # Old versions, and keys and hashes that are too weak to be trusted.
    context.set_cipher_list(b"DEFAULT:@SECLEVEL=0")
    # RFC 5746 is unknown to some old servers.
    context.set_options(SSL.OP_LEGACY_SERVER_CONNECT)
    return context


def _flush(tls: SSL.Connection, line: _Line) -> None:
    with suppress(SSL.WantReadError):
        while True:
            line.send(tls.bio_read(16 << 10))


def _chain(tls: SSL.Connection) -> tuple[x509.Certificate, ...]:
    sent = tls.get_peer_cert_chain() or []
    if not sent:
        raise _Ended("shows no certificate")
    try:
        return tuple(certificate.to_cryptography() for certificate in sent)
    except Exception as exc:
        # ValueError, InvalidVersion: there are many ways to write nonsense.
        raise _Ended("sends a certificate that cannot be read") from exc


def _reason(error: SSL.Error) -> str:
    """Return in words why a handshake failed."""
    rows = error.args[0] if error.args else []
    reason = str(rows[-1][-1]) if rows else "unknown reason"
    return _REFUSALS.get(reason) or printable(reason, 200)
