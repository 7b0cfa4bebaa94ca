"""The mail about a failed run: into the server's RAW queue, or by SMTP."""

from __future__ import annotations

import os
import re
import secrets
import smtplib
import socket
import ssl
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import formatdate
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from letsencrypt_mdaemon.errors import Error, words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail of plain ASCII: whatever else a host or a CA said is shown as escapes."""

    sender: str
    recipients: tuple[str, ...]
    subject: str
    body: str

    @classmethod
    def compose(
        cls, sender: str, recipients: Sequence[str], subject: str, lines: Iterable[str]
    ) -> Mail:
        """Make a mail of lines that may hold anything."""
        body = "\r\n".join(_ascii(words(line, 1000)) for line in lines)
        return cls(sender, tuple(recipients), _ascii(words(subject, 200)), body + "\r\n")


class Transport(Protocol):
    """A way to send a mail."""

    def send(self, mail: Mail) -> str:
        """Send it and say where it went."""
        ...


class RawQueue:
    """The server's queue of RAW messages, which needs no login.

    The format is the vendor's: `Name <value>` lines, a blank line, the body. A file whose
    name begins with P would pass by the content filter, so none of ours does.

    Args:
        find: Returns the queue's folder; called when there is a mail to send.
    """

    def __init__(self, find: Callable[[], Path]) -> None:
        self._find = find

    def send(self, mail: Mail) -> str:
        """Put the mail into the queue: written under another name, then renamed.

        Raises:
            Error: If it cannot be written there.
        """
        folder = self._find()
        headers = {
            "From": mail.sender,
            "To": ",".join(mail.recipients),
            "Subject": mail.subject,
            "Header": f"Date: {formatdate(localtime=True)}",
        }
        # A header's value ends at the bracket, so it may hold none.
        head = "".join(
            f"{name} <{re.sub(r'[<>]', ' ', value)}>\r\n" for name, value in headers.items()
        )
        unfinished = folder / f"letsencrypt-{secrets.token_hex(8)}.tmp"
        final = unfinished.with_suffix(".raw")
        try:
            unfinished.write_bytes(f"{head}\r\n{mail.body}".encode("ascii"))
            unfinished.rename(final)
        except OSError as exc:
            unfinished.unlink(missing_ok=True)
            message = f"The RAW message {final} cannot be written: {exc.strerror}."
            raise Error(message, hint="Let this account write there.") from exc
        return f"into {final}"


@dataclass(frozen=True, slots=True)
class Smtp:
    """A mail server, asked by SMTP.

    With a login, TLS is needed and its certificate verified. Without one TLS is used as
    mail servers use it among themselves: when offered, whatever the certificate. The
    mail may be about this very certificate.

    Args:
        url: `smtp://HOST[:25]`, or `smtps://HOST[:465]` for TLS at once.
        timeout: Seconds for each step.
    """

    url: str
    user: str = ""
    password: str = field(default="", repr=False)
    timeout: float = 20.0

    def send(self, mail: Mail) -> str:
        """Send the mail.

        Raises:
            Error: If no recipient could be reached, or not all of them.
        """
        message = EmailMessage()
        message["From"] = mail.sender
        message["To"] = ", ".join(mail.recipients)
        message["Subject"] = mail.subject
        message["Date"] = formatdate(localtime=True)
        message.set_content(mail.body, cte="7bit")
        try:
            with self._connect() as client:
                refused = client.send_message(message, mail.sender, mail.recipients)
        except (OSError, smtplib.SMTPException, ValueError) as exc:
            said = words(exc, 300)
            text = f"{self.url} did not take the mail: {said}."
            raise Error(text, hint="Check mail-server, mail-user and its password.") from exc
        if refused:
            text = f"{self.url} refused the recipients {', '.join(refused)}."
            raise Error(text, hint="Check the addresses in to.")
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
            client.ehlo()
            if not isinstance(client, smtplib.SMTP_SSL) and (
                self.user or client.has_extn("starttls")
            ):
                client.starttls(context=context)
                client.ehlo()
            if self.user:
                client.login(self.user, self.password)
        except BaseException:
            client.close()
            raise
        return client


def failure(
    error: Error, *, names: Sequence[str], in_use: str, lines: Iterable[str]
) -> tuple[str, list[str]]:
    """Return subject and lines of the mail about a failed run.

    Args:
        names: The names that the certificate should have, as far as known.
        in_use: What is in use now, and until when; empty if unknown.
        lines: This run's log.
    """
    about = names[0] if names else "the certificate"
    subject = f"letsencrypt-mdaemon: renewing {about} failed (exit {error.exit_code})"
    text = [f"On {socket.gethostname()} the renewal of the certificate failed.", ""]
    text += ["What failed:", *(f"  {line}" for line in error.message.splitlines()), ""]
    if error.hint:
        text += ["What to do:", f"  {error.hint}", ""]
    if in_use:
        text += ["In use now:", f"  {in_use}", ""]
    text += ["The next scheduled run tries again. The log of this run:", ""]
    return subject, [*text, *(f"  {line}" for line in lines)]


def trial() -> tuple[str, list[str]]:
    """Return subject and lines of the mail that `notify-test` sends."""
    subject = "letsencrypt-mdaemon: a test of the error mail"
    lines = [
        f"This is a test from {socket.gethostname()} (process {os.getpid()}).",
        "When a renewal fails, a mail like this one says what failed and what to do.",
    ]
    return subject, lines


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode("ascii")
