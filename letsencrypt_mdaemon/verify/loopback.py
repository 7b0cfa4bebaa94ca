"""A TLS handshake with a server in this process: no port and no network."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_FLIGHTS = 10
"""A handshake takes two or three."""


def handshake(
    answer: Callable[[bytes], bytes], version: ssl.TLSVersion, name: str
) -> bytes:
    """Make a handshake as a client that accepts any certificate.

    Args:
        answer: Gives what the client sends to the server; returns what that sends back.
        version: The only version of TLS that the client speaks.
        name: The server's name.

    Returns:
        The server's certificate in DER. The handshake proves that it has the key.

    Raises:
        ssl.SSLError: If they do not agree, or the server's signature is wrong.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # Self-signed; what matters is which one it is.
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(received, sent, server_hostname=name)
    for _ in range(MAX_FLIGHTS):
        try:
            client.do_handshake()
            is_done = True
        except ssl.SSLWantReadError:
            is_done = False
        # The client's last flight, too: without it, the server is not done.
        if data := sent.read():
            received.write(answer(data))
        elif not is_done:
            break
        if is_done:
            return client.getpeercert(binary_form=True) or b""
    raise ssl.SSLError("the server does not go on with the handshake")
