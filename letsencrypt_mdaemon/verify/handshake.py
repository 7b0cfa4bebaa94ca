"""One conversation with one port, up to its certificate."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.system.disk import reason
from letsencrypt_mdaemon.text import printable
from letsencrypt_mdaemon.verify import starttls
from letsencrypt_mdaemon.verify.served import Answer, Served
from letsencrypt_mdaemon.verify.starttls import NoStarttlsError, ProtocolError

if TYPE_CHECKING:
    from cryptography import x509
    from OpenSSL import SSL

    from letsencrypt_mdaemon.verify.endpoints import Endpoint

TIMEOUT_SECONDS = 10.0
"""Seconds for a conversation with an endpoint, from its address to its certificate."""
FAREWELL_SECONDS = 0.5
"""Seconds for a server to hang up after our farewell."""
MAX_PLAIN_BYTES = 64 << 10
"""Bytes that a server may send before TLS."""

_FAREWELLS = {"smtp": b"QUIT\r\n", "imap": b"a3 LOGOUT\r\n", "pop3": b"QUIT\r\n"}
_OUTDATED = {"SSLv3": "SSL 3", "TLSv1": "TLS 1.0", "TLSv1.1": "TLS 1.1"}


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
            line = Line(connection, start + timeout)
            try:
                _talk(line, endpoint.scheme)
            except NoStarttlsError:
                outcome = Answer.NO_STARTTLS
                seconds = time.monotonic() - start
                _part(None, line, endpoint.scheme)
                raise
            # Slow to import, and often nobody listens.
            from letsencrypt_mdaemon.verify import tls  # noqa: PLC0415

            session = tls.handshake(line, server_name)
            version, chain = session.get_protocol_version_name(), tls.chain(session)
            seconds = time.monotonic() - start
            _part(session, line, endpoint.scheme)
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


class Line:
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


def _talk(line: Line, scheme: str) -> None:
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
