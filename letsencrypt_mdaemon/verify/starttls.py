"""SMTP, IMAP and POP3 up to STARTTLS, without I/O.

Each conversation is a generator: it yields the bytes to send, and is sent each line
that comes back. When it ends, the next byte in either direction belongs to TLS.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import TypeAlias

from letsencrypt_mdaemon.text import printable

Conversation: TypeAlias = Generator[bytes, bytes, None]

MAX_SHOWN_CHARACTERS = 100
"""Characters of a server's line that are shown."""

_SMTP = re.compile(rb"(\d{3})(?:([ -])(.*))?")
_REFUSAL = re.compile(rb"(421|554|\* BYE|-ERR)\b")
_UNKNOWN_COMMAND = {b"500", b"502"}


class NoStarttlsError(Exception):
    """The server speaks the protocol, but does not offer TLS."""


class TurnedAwayError(Exception):
    """The server refuses to speak with us, whatever its certificate."""


class ProtocolError(Exception):
    """The server does not speak the protocol, or not with us."""


def smtp(address: str, server_name: str = "") -> Conversation:
    """Speak SMTP up to STARTTLS (RFC 3207, 4).

    Args:
        address: Our own, for EHLO.
        server_name: The server's, for a second EHLO if it refuses the address: some
            servers want a name, and this one exists.
    """
    # RFC 5321, 4.1.3: an address literal, without the zone, which is local to us.
    host = address.partition("%")[0]
    client = f"[IPv6:{host}]" if ":" in host else f"[{host}]"
    code, text = yield from _smtp(b"")
    if code != b"220":
        raise TurnedAwayError(f"greets with {quoted(code + b' ' + text[-1])}")
    for name in filter(None, (client, server_name)):
        code, text = yield from _smtp(f"EHLO {name}\r\n".encode("ascii"))
        if code in {b"250", b"421", *_UNKNOWN_COMMAND}:
            break
    if code != b"250":
        unknown = code in _UNKNOWN_COMMAND
        error = NoStarttlsError if unknown else TurnedAwayError
        raise error(f"answers EHLO with {quoted(code + b' ' + text[-1])}")
    # The first line is the server's greeting, not an extension (4.1.1.1).
    if b"STARTTLS" not in {line.strip().upper() for line in text[1:]}:
        raise NoStarttlsError
    code, text = yield from _smtp(b"STARTTLS\r\n")
    if code != b"220":
        raise NoStarttlsError(f"answers STARTTLS with {quoted(code + b' ' + text[-1])}")


def imap() -> Conversation:
    """Speak IMAP up to STARTTLS (RFC 9051, 6.2.1)."""
    greeting = yield b""
    status = greeting.upper().split()[:2]
    if status == [b"*", b"PREAUTH"]:
        raise NoStarttlsError("greets with PREAUTH, which rules out STARTTLS")
    if status != [b"*", b"OK"]:
        raise _refused(greeting)
    status, lines = yield from _imap(b"a1", b"CAPABILITY")
    offered = {word for line in lines for word in line.upper().split()[2:]}
    if b"STARTTLS" not in offered:
        raise NoStarttlsError
    status, lines = yield from _imap(b"a2", b"STARTTLS")
    if status != [b"A2", b"OK"]:
        raise NoStarttlsError(f"answers STARTTLS with {quoted(lines[-1])}")


def pop3() -> Conversation:
    """Speak POP3 up to STLS (RFC 2595, 4)."""
    greeting = yield b""
    if not greeting.startswith(b"+OK"):
        raise _refused(greeting)
    line = yield b"CAPA\r\n"
    # A server without CAPA (RFC 2449, 5) may still know STLS.
    if line.startswith(b"+OK"):
        offered = set()
        while (line := (yield b"")) != b".":
            offered.add(line.strip().upper())
        if b"STLS" not in offered:
            raise NoStarttlsError
    line = yield b"STLS\r\n"
    if not line.startswith(b"+OK"):
        raise NoStarttlsError(f"answers STLS with {quoted(line)}")


def _smtp(command: bytes) -> Generator[bytes, bytes, tuple[bytes, list[bytes]]]:
    """Send a command; return the reply's code and the text of its lines (4.2.1)."""
    text = []
    while True:
        line = yield command
        match = _SMTP.fullmatch(line)
        if match is None:
            raise ProtocolError(f"sends {quoted(line)}, which is not SMTP")
        text.append(match[3] or b"")
        if match[2] != b"-":
            return match[1], text
        command = b""


def _imap(
    tag: bytes, command: bytes
) -> Generator[bytes, bytes, tuple[list[bytes], list[bytes]]]:
    """Send a command; return its tagged status and every line of the reply."""
    line = yield tag + b" " + command + b"\r\n"
    lines = [line]
    while not line.startswith(tag + b" "):
        if not line.startswith(b"*"):
            raise ProtocolError(f"sends {quoted(line)}, which is not IMAP")
        line = yield b""
        lines.append(line)
    return line.upper().split()[:2], lines


def _refused(greeting: bytes) -> TurnedAwayError | ProtocolError:
    error = TurnedAwayError if is_refusal(greeting) else ProtocolError
    return error(f"greets with {quoted(greeting)}")


def is_refusal(line: bytes) -> bool:
    """Whether a server's first line turns us away."""
    return _REFUSAL.match(line.upper()) is not None


def quoted(line: bytes) -> str:
    """Return a server's line in quotes, made harmless and not too long."""
    text = line.decode("utf-8", "backslashreplace").strip()
    return f'"{printable(text, MAX_SHOWN_CHARACTERS)}"'
