"""One conversation with one port, up to its certificate."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.system.disk import reason
from letsencrypt_mdaemon.system.parallel import is_lack
from letsencrypt_mdaemon.text import printable
from letsencrypt_mdaemon.verify import starttls
from letsencrypt_mdaemon.verify.served import Answer, Served
from letsencrypt_mdaemon.verify.starttls import (
    NoStarttlsError,
    ProtocolError,
    TurnedAwayError,
)

if TYPE_CHECKING:
    from cryptography import x509
    from OpenSSL import SSL

    from letsencrypt_mdaemon.verify.endpoints import Endpoint

TIMEOUT_SECONDS = 10.0
"""Seconds to connect to an endpoint, and then from its greeting to its certificate."""
GREETING_TIMEOUTS = 3.5
"""A greeting may take so many timeouts, 35 s: servers let strangers wait for it."""
FAREWELL_SECONDS = 0.5
"""Seconds for a server to hang up after our farewell."""
MAX_PLAIN_BYTES = 64 << 10
"""Bytes that a server may send before TLS."""

_FAREWELLS = {"smtp": b"QUIT\r\n", "imap": b"a3 LOGOUT\r\n", "pop3": b"QUIT\r\n"}
_OUTDATED = {"SSLv3": "SSL 3", "TLSv1": "TLS 1.0", "TLSv1.1": "TLS 1.1"}


def ask(endpoint: Endpoint, server_name: str, key: str, timeout: float) -> Served:
    """Ask an endpoint for its certificate; every failure is an answer, too.

    Args:
        key: The only kind of key to accept, `RSA` or `ECDSA`; empty for both.
        timeout: Seconds to connect, and again for the rest without the greeting.

    Raises:
        Exception: If this machine lacks what it needs; see `is_lack`.
    """
    start = time.monotonic()
    address = endpoint.host, endpoint.port
    detail = version = ""
    chain: tuple[x509.Certificate, ...] = ()
    seconds = None
    line = None
    try:
        with socket.create_connection(address, timeout) as connection:
            line = Line(connection, timeout)
            try:
                _talk(line, endpoint.scheme, server_name)
            except NoStarttlsError:
                seconds = time.monotonic() - start
                _part(None, line, endpoint.scheme)
                raise
            # Slow to import, and often nobody listens.
            from letsencrypt_mdaemon.verify import tls  # noqa: PLC0415

            session, detail = tls.handshake(line, server_name, key)
            version, chain = session.get_protocol_version_name(), tls.chain(session)
            seconds = time.monotonic() - start
            _part(session, line, endpoint.scheme)
        outcome = Answer.SERVED
        if version in _OUTDATED:
            outcome = Answer.HANDSHAKE_FAILED
            detail = f"offers only {_OUTDATED[version]}, which clients refuse"
    except Exception as exc:
        if is_lack(exc):
            raise  # It says nothing about the port.
        # Whatever it is: the answers of the others count.
        outcome, detail = _failure(exc, line, timeout)
        unheard = line is None or not line.received
        if unheard and outcome is Answer.HANDSHAKE_FAILED and "+" in endpoint.scheme:
            # Before the greeting, no certificate matters: a screening blocks us.
            outcome, detail = Answer.TURNED_AWAY, f"{detail} without a greeting"
    return Served(
        outcome=outcome,
        detail=detail,
        chain=chain,
        tls=_OUTDATED.get(version) or version.replace("TLSv", "TLS "),
        server_name=server_name,
        key=key,
        seconds=time.monotonic() - start if seconds is None else seconds,
    )


def _failure(exc: Exception, line: Line | None, timeout: float) -> tuple[Answer, str]:
    """Return how far a conversation came, and why it ended there."""
    outcome = Answer.HANDSHAKE_FAILED if line else Answer.NOT_LISTENING
    match exc:
        case NoStarttlsError():
            return Answer.NO_STARTTLS, str(exc)
        case TurnedAwayError():
            return Answer.TURNED_AWAY, str(exc)
        case ProtocolError():
            detail = str(exc)
        case TimeoutError():
            if line:
                return Answer.TIMED_OUT, line.late
            detail = f"no answer within {timeout:g} s"
        case ConnectionRefusedError():
            detail = "refuses the connection"
        case ConnectionError():
            # The server is there, even if it reset the connection at once.
            return Answer.HANDSHAKE_FAILED, "resets the connection"
        case UnicodeError():
            detail = "is not a valid DNS name"
        case OSError():
            detail = printable(reason(exc), 200)
        case _:
            detail = f"{type(exc).__name__}: {printable(exc, 200)}"
    return outcome, detail


class Line:
    """A connection with a deadline, and a limit to what is received from it.

    Args:
        timeout: Seconds for the conversation.

    Raises:
        TimeoutError: From every method, once the deadline has passed.
    """

    def __init__(self, connection: socket.socket, timeout: float) -> None:
        self.connection = connection
        self.allow(timeout)
        self.limit = MAX_PLAIN_BYTES
        self.received = 0
        self._waiting = b""

    def allow(self, seconds: float) -> None:
        """Set the deadline to so many seconds from now."""
        self.seconds = seconds
        self.deadline = time.monotonic() + seconds

    @property
    def late(self) -> str:
        """What the server did not do in time, as a phrase."""
        slow = "not finished" if self.received else "no answer"
        return f"{slow} within {self.seconds:g} s"

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


def _talk(line: Line, scheme: str, server_name: str) -> None:
    """Hold the conversation that comes before TLS, if there is one."""
    match scheme:
        case "smtp+starttls":
            own = line.connection.getsockname()[0]
            conversation = starttls.smtp(own, server_name)
        case "imap+starttls":
            conversation = starttls.imap()
        case "pop3+stls":
            conversation = starttls.pop3()
        case _:
            return
    try:
        command = next(conversation)
        timeout = line.seconds
        line.allow(timeout * GREETING_TIMEOUTS)
        greeting = line.read()
        line.allow(timeout)
        command = conversation.send(greeting)
        while True:
            if command:
                line.send(command)
            command = conversation.send(line.read())
    except StopIteration:
        line.end()


def _part(tls: SSL.Connection | None, line: Line, scheme: str) -> None:
    """Say goodbye: a server may count a missing goodbye as an attack."""
    farewell = _FAREWELLS.get(scheme[:4], b"")
    with suppress(OSError, ProtocolError):
        if tls is None:
            line.send(farewell)
        else:
            from letsencrypt_mdaemon.verify.tls import part  # noqa: PLC0415 - as above

            part(tls, line, farewell)
        if farewell:
            line.drain()
