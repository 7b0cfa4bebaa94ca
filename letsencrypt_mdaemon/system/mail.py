"""Send mail: into the server's RAW queue, or by SMTP."""

from __future__ import annotations

import re
import secrets
import smtplib
import socket
import ssl
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from letsencrypt_mdaemon.errors import Error
from letsencrypt_mdaemon.system.disk import create, explained, remove, rename
from letsencrypt_mdaemon.system.handles import PUBLIC
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

MAX_LINE_LENGTH = 900
"""In characters; SMTP allows 998 (RFC 5321, 4.5.3.1.6)."""


class Mail(NamedTuple):
    """A mail in ASCII; other characters of a host or a CA appear as escapes."""

    sender: str
    recipients: tuple[str, ...]
    subject: str
    body: str

    @classmethod
    def compose(
        cls, sender: str, recipients: Sequence[str], subject: str, lines: Iterable[str]
    ) -> Mail:
        """Make a mail of lines with any content."""
        texts = [_ascii(line, 4000) for line in lines]
        pieces = [
            text[start : start + MAX_LINE_LENGTH]
            for text in texts
            for start in range(0, max(len(text), 1), MAX_LINE_LENGTH)
        ]
        addresses = tuple(_ascii(address, 320) for address in recipients)
        body = "".join(f"{piece}\r\n" for piece in pieces)
        return cls(_ascii(sender, 320), addresses, _ascii(subject, 200), body)


class RawQueue:
    """The server's queue of RAW messages, which needs no login.

    The format is the vendor's: `Name <value>` lines, a blank line, the body. A file
    name that begins with P would bypass the content filter, so none of ours does.

    Args:
        find: Returns the queue's folder; called only when a mail is sent.
    """

    def __init__(self, find: Callable[[], Path]) -> None:
        self._find = find

    def send(self, mail: Mail) -> str:
        """Write the mail under another name, rename it into the queue, return where.

        Raises:
            Error: If the queue cannot be written.
        """
        folder = self._find()
        headers = {
            "From": mail.sender,
            "To": ",".join(mail.recipients),
            "Subject": mail.subject,
            "Header": f"Date: {formatdate(localtime=True)}",
        }
        # A header's value ends at the first bracket, so it must not contain one.
        head = "".join(
            f"{name} <{re.sub('[<>]', ' ', value)}>\r\n"
            for name, value in headers.items()
        )
        unfinished = folder / f"letsencrypt-{secrets.token_hex(8)}.tmp"
        final = unfinished.with_suffix(".raw")
        with explained(f"write the RAW message {final}"):
            try:
                # The server may use another account.
                data = f"{head}\r\n{mail.body}".encode("ascii")
                create(unfinished, data, mode=PUBLIC)
                rename(unfinished, final)
            except OSError:
                remove(unfinished)
                raise
        return f"through the RAW queue ({final})"


@dataclass(frozen=True, slots=True)
class Smtp:
    """A mail server that accepts mail by SMTP.

    With a login, TLS and a valid certificate are required. Without one, TLS is used as
    between mail servers: when offered, with any certificate. After all, the mail may
    report a problem of this very certificate.

    Args:
        url: `smtp://HOST[:25]`, or `smtps://HOST[:465]` for TLS at once.
        timeout: Seconds for each step.
    """

    url: str
    user: str = ""
    password: str = field(default="", repr=False)
    timeout: float = 20.0

    def send(self, mail: Mail) -> str:
        """Send the mail; return where it went.

        Raises:
            Error: If the server does not accept the mail for every recipient.
        """
        headers = {
            "From": mail.sender,
            "To": ",\r\n ".join(mail.recipients),
            "Subject": mail.subject,
            "Date": formatdate(localtime=True),
            "MIME-Version": "1.0",
            "Content-Type": "text/plain; charset=us-ascii",
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        data = f"{head}\r\n{mail.body}".encode("ascii")
        hint = "Check mail-server, mail-user and its password."
        try:
            with self._connect() as client:
                refused = client.sendmail(mail.sender, mail.recipients, data)
        except (OSError, smtplib.SMTPException, ValueError) as exc:
            message = f"{self.url} did not accept the mail: {printable(exc, 300)}."
            raise Error(message, hint=hint) from exc
        if refused:
            message = f"{self.url} refused the recipients {', '.join(refused)}."
            raise Error(message, hint="Check the addresses in the setting to.")
        return f"by {self.url}"

    def _connect(self) -> smtplib.SMTP:
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        context = ssl.create_default_context()
        if not self.user:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if parts.scheme.lower() == "smtps":
            port = parts.port or 465
            client: smtplib.SMTP = smtplib.SMTP_SSL(
                host, port, timeout=self.timeout, context=context
            )
        else:
            client = smtplib.SMTP(host, parts.port or 25, timeout=self.timeout)
        try:
            client.ehlo_or_helo_if_needed()
            if not isinstance(client, smtplib.SMTP_SSL) and (
                self.user or client.has_extn("starttls")
            ):
                client.starttls(context=context)
            if self.user:
                self._log_in(client)
        except BaseException:
            client.close()
            raise
        return client

    def _log_in(self, client: smtplib.SMTP) -> None:
        hint = "Check mail-user and its password."
        # Both errors contain the password, one in the server's reply.
        try:
            client.login(self.user, self.password)
        except smtplib.SMTPAuthenticationError as exc:
            message = f"{self.url} did not accept the login of {self.user}"
            raise Error(f"{message} (code {exc.smtp_code}).", hint=hint) from None
        except UnicodeEncodeError:
            message = "mail-user or its password is not ASCII, as a login requires."
            raise Error(message, hint=hint) from None


def trial() -> tuple[str, list[str]]:
    """Return subject and lines of the mail that `notify-test` sends."""
    return "letsencrypt-mdaemon: a test of the mail", [
        f"This is a test from {socket.gethostname()}.",
        "When a renewal fails, a mail shows the cause and what to do.",
    ]


def _ascii(text: str, limit: int) -> str:
    """Return a text on one line, with escapes for anything but ASCII."""
    return printable(text, limit).encode("ascii", "backslashreplace").decode()[:limit]
