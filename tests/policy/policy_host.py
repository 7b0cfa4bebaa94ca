"""The host of a domain's MTA-STS policy."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.serialization import Encoding

from tests import certificates
from tests.servers import context, listening

DOMAIN = "example.test"


def trusted() -> ssl.SSLContext:
    """Return what trusts our root only."""
    made = ssl.create_default_context()
    pem = certificates.root().certificate.public_bytes(Encoding.PEM)
    made.load_verify_locations(cadata=pem.decode())
    return made


@contextmanager
def serving(
    answer: bytes | Callable[[ssl.SSLSocket], None],
    name: str = f"mta-sts.{DOMAIN}",
    age: timedelta = timedelta(days=1),
    port: int = 0,
) -> Iterator[int]:
    """Run a policy host that answers every request like this.

    Args:
        port: 0 = a free one.
    """
    start = datetime.now(UTC) - age
    issuers = [certificates.root(), certificates.intermediate()]
    leaf = certificates.leaf([name], start=start, lifetime=timedelta(days=30))
    chain = [leaf, issuers[1].certificate]
    settings = context(chain, certificates.key())

    def serve(connection: socket.socket) -> None:
        with settings.wrap_socket(connection, server_side=True) as tls:
            while b"\r\n\r\n" not in tls.recv(4096):
                pass
            if isinstance(answer, bytes):
                tls.sendall(answer)
            else:
                answer(tls)

    with listening(serve, port=port) as listens:
        yield listens


def ok(body: bytes, kind: bytes = b"text/plain", status: bytes = b"200 OK") -> bytes:
    """Return an answer."""
    return b"HTTP/1.1 %b\r\nContent-Type: %b\r\n\r\n%b" % (status, kind, body)
