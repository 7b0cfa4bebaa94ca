"""Which certificate each port serves: TLS at once, or after STARTTLS."""

from __future__ import annotations

import imaplib
import logging
import poplib
import smtplib
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cryptography import x509

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_log = logging.getLogger(__name__)

PORTS = {
    "smtp+starttls": 25,
    "smtps": 465,
    "imap+starttls": 143,
    "imaps": 993,
    "pop3+stls": 110,
    "pop3s": 995,
    "https": 443,
}
DEFAULTS = (
    "smtp+starttls://127.0.0.1:25",
    "smtp+starttls://127.0.0.1:587",
    "smtps://127.0.0.1:465",
    "imap+starttls://127.0.0.1:143",
    "imaps://127.0.0.1:993",
    "pop3+stls://127.0.0.1:110",
    "pop3s://127.0.0.1:995",
    "https://127.0.0.1:443",
    "https://127.0.0.1:444",
)
"""This machine's mail ports, webmail, and Remote Administration."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A port and how TLS starts there."""

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """Read `scheme://host[:port]`.

        Raises:
            ValueError: If it is something else.
        """
        parts = urlsplit(url)
        if parts.scheme not in PORTS or not parts.hostname or parts.path.strip("/"):
            message = f"{url!r} is no endpoint such as {', '.join(DEFAULTS[:3])}"
            raise ValueError(message)
        port = parts.port or PORTS[parts.scheme]
        return cls(parts.scheme, parts.hostname, port)

    def __str__(self) -> str:
        """Return it as it is written."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def served(
    endpoints: Sequence[Endpoint], server_name: str, *, timeout: float = 5.0
) -> dict[Endpoint, x509.Certificate]:
    """Return the certificate of each port that serves one; all are asked at once.

    Nothing is verified: what is served is looked at, not relied on.

    Args:
        server_name: Sent as SNI (RFC 6066, 3).
        timeout: Seconds for each step of a conversation.
    """
    with ThreadPoolExecutor(max(len(endpoints), 1)) as pool:
        found: Iterable[bytes | None] = pool.map(
            lambda endpoint: _leaf(endpoint, server_name, timeout), endpoints
        )
        leaves = {}
        for endpoint, der in zip(endpoints, found, strict=True):
            if der is not None:
                try:
                    leaves[endpoint] = x509.load_der_x509_certificate(der)
                except ValueError as exc:
                    _log.debug("%s serves no readable certificate: %s", endpoint, exc)
    return leaves


def _leaf(endpoint: Endpoint, server_name: str, timeout: float) -> bytes | None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        connection = _handshake(endpoint, context, server_name, timeout)
    except (
        OSError,
        smtplib.SMTPException,
        imaplib.IMAP4.error,
        poplib.error_proto,
    ) as e:
        _log.debug("%s: %s", endpoint, e)
        return None
    with connection:
        return connection.getpeercert(binary_form=True)


def _handshake(
    endpoint: Endpoint, context: ssl.SSLContext, server_name: str, timeout: float
) -> ssl.SSLSocket:
    host, port = endpoint.host, endpoint.port
    sock: object
    match endpoint.scheme:
        case "smtp+starttls":
            smtp = smtplib.SMTP(host, port, timeout=timeout)
            smtp.starttls(context=context)
            sock = smtp.sock
        case "imap+starttls":
            imap = imaplib.IMAP4(host, port, timeout=timeout)
            imap.starttls(context)
            sock = imap.sock
        case "pop3+stls":
            pop3 = poplib.POP3(host, port, timeout=timeout)
            pop3.stls(context)
            sock = pop3.sock
        case _:
            plain = socket.create_connection((host, port), timeout)
            sock = context.wrap_socket(plain, server_hostname=server_name or None)
    if not isinstance(sock, ssl.SSLSocket):
        message = "no TLS after STARTTLS"
        raise ssl.SSLError(message)
    return sock
