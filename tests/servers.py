"""Mail servers of a few lines, for ports that behave and ports that do not."""

from __future__ import annotations

import socket
import socketserver
import ssl
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from letsencrypt_mdaemon.pki.certificate import PrivateKey, key_pem
from letsencrypt_mdaemon.verify.endpoints import Endpoint

LOCALHOST = "127.0.0.1"


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


HAS_IPV6 = _has_ipv6()
OTHER_HOST = "::1" if HAS_IPV6 else "127.0.0.2"
"""Another address of this machine: that of a Linux without IPv6, as in containers."""
needs_ipv6 = pytest.mark.skipif(not HAS_IPV6, reason="this machine has no IPv6")
Serve: TypeAlias = Callable[[socket.socket], None]


class _Server(socketserver.ThreadingTCPServer):
    serve: Serve

    def __init__(self, host: str, serve: Serve, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), socketserver.BaseRequestHandler)
        self.serve = serve
        self.errors: list[BaseException] = []

    def finish_request(self, request: object, _: object) -> None:
        assert isinstance(request, socket.socket)
        try:
            # Clients that hang up are nobody's error.
            with suppress(OSError):
                self.serve(request)
        except BaseException as exc:  # noqa: BLE001 - raised by `listening`
            self.errors.append(exc)


@contextmanager
def listening(serve: Serve, host: str = LOCALHOST, port: int = 0) -> Iterator[int]:
    """Listen on a port; serve each connection in a thread, then hang up.

    Args:
        port: 0 = a free one.
    """
    with _Server(host, serve, port) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
    for error in server.errors:
        raise error


@contextmanager
def endpoint(scheme: str, serve: Serve, host: str = LOCALHOST) -> Iterator[Endpoint]:
    """Listen on a free port, and return the endpoint that it is."""
    with listening(serve, host) as port:
        yield Endpoint(scheme, host, port)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server((LOCALHOST, 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


# Who serves a certificate


def context(chain: Sequence[x509.Certificate], key: PrivateKey) -> ssl.SSLContext:
    """Return the settings of a server that sends these certificates in this order."""
    return context_of(b"".join(one.public_bytes(Encoding.PEM) for one in chain), key)


def context_of(chain: bytes, key: PrivateKey) -> ssl.SSLContext:
    """Return the settings of a server that sends these certificates, given as PEM."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.set_ciphers("DEFAULT:@SECLEVEL=0")
    _load(made, chain, key)
    return made


def load(
    made: ssl.SSLContext, chain: Sequence[x509.Certificate], key: PrivateKey
) -> None:
    """Let a server have one more certificate, with a key of another kind."""
    _load(made, b"".join(one.public_bytes(Encoding.PEM) for one in chain), key)


def _load(made: ssl.SSLContext, chain: bytes, key: PrivateKey) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "server.pem"
        file.write_bytes(key_pem(key) + chain)
        made.load_cert_chain(file)


def only(made: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    """Let a server speak no other version than this."""
    with warnings.catch_warnings(category=DeprecationWarning, action="ignore"):
        made.minimum_version = made.maximum_version = version
    return made


def honest(
    scheme: str, made: ssl.SSLContext, heard: list[bytes] | None = None
) -> Serve:
    """Speak one of the protocols, and TLS when it is time.

    Args:
        heard: Takes every line that was said, under TLS as well.
    """
    heard = [] if heard is None else heard

    def serve(connection: socket.socket) -> None:
        if "+" in scheme:
            talk(scheme, connection, heard)
        with made.wrap_socket(connection, server_side=True) as tls:
            for line in lines(tls):
                heard.append(line)
                if line.upper().endswith((b"QUIT", b"LOGOUT")):
                    break

    return serve


OFFERS = {
    "smtp": b"250-mail.example.test\r\n250-SIZE 1000\r\n250 STARTTLS\r\n",
    "imap": b"* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED\r\na1 OK Done\r\n",
    "pop3": b"+OK\r\nSTLS\r\nUSER\r\n.\r\n",
}
OFFERS_NONE = {
    "smtp": b"250-starttls.example.test\r\n250 SIZE 1000\r\n",
    "imap": b"* CAPABILITY IMAP4rev1 XSTARTTLS\r\na1 OK Done\r\n",
    "pop3": b"+OK\r\nUSER\r\n.\r\n",
}
GREETINGS = {
    "smtp": b"220-mail.example.test ESMTP\r\n220 Hello\r\n",
    "imap": b"* OK [CAPABILITY IMAP4rev1] Hello\r\n",
    "pop3": b"+OK Hello\r\n",
}
GOES = {
    "smtp": b"220 Go ahead\r\n",
    "imap": b"* 1 EXISTS\r\na2 OK Go ahead\r\n",
    "pop3": b"+OK Go ahead\r\n",
}


def talk(
    scheme: str,
    connection: socket.socket,
    heard: list[bytes],
    *,
    offers: bytes | None = None,
    goes: bytes | None = None,
) -> None:
    """Say what comes before TLS.

    Args:
        offers: The answer to the question for what is offered.
        goes: The answer to STARTTLS.
    """
    kind = scheme[:4]
    connection.sendall(GREETINGS[kind])
    said = lines(connection)
    for answer in (offers or OFFERS[kind], goes or GOES[kind]):
        heard.append(next(said, b""))
        connection.sendall(answer)


def lines(connection: socket.socket) -> Iterator[bytes]:
    """Yield each line that comes, byte by byte, so that nothing is read too early."""
    line = b""
    while byte := connection.recv(1):
        line += byte
        if byte == b"\n":
            yield line.strip()
            line = b""
    if line:
        yield line


def says(*pieces: bytes) -> Serve:
    """Say something, then listen until the other side hangs up."""

    def serve(connection: socket.socket) -> None:
        for piece in pieces:
            connection.sendall(piece)
        while connection.recv(1000):
            pass

    return serve


def endless(pieces: Iterable[bytes], sent: list[int]) -> Serve:
    """Say all of it, however long it takes; note how much was said."""

    def serve(connection: socket.socket) -> None:
        for piece in pieces:
            connection.sendall(piece)
            sent.append(len(piece))

    return serve
