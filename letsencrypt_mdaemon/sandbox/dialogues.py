"""Answers of the sandbox's ports to IMAP, POP3 and HTTP requests."""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


class Answer(NamedTuple):
    """The bytes of an answer, and whether TLS or the connection's end follows."""

    says: bytes
    then_tls: bool = False
    then_ends: bool = False


# RFC 3501, section 9: a tag is made of anything but "+" and the atom-specials.
COMMAND = re.compile(rb"([!#-$&',-\[\]-z|}~]+) ([A-Za-z]+)( .*)?", re.DOTALL)


def imap(line: bytes, *, offers_tls: bool) -> Answer:
    """Answer an IMAP command before login (RFC 3501, sections 6.1 and 6.2)."""
    found = COMMAND.fullmatch(line)
    if not found:
        return Answer(b"* BAD Invalid command\r\n")
    tag, command, rest = found[1], found[2].upper(), found[3]
    match command, rest:
        case b"CAPABILITY", None:
            starts = b" STARTTLS" if offers_tls else b""
            says = b"* CAPABILITY IMAP4rev1%s LOGINDISABLED\r\n" % starts
            answer = Answer(says + tag + b" OK CAPABILITY completed\r\n")
        case b"NOOP", None:
            answer = Answer(tag + b" OK NOOP completed\r\n")
        case b"LOGOUT", None:
            says = b"* BYE The sandbox closes the connection\r\n"
            answer = Answer(says + tag + b" OK Goodbye\r\n", then_ends=True)
        case b"STARTTLS", None if offers_tls:
            answer = Answer(tag + b" OK Begin TLS now\r\n", then_tls=True)
        case b"LOGIN" | b"AUTHENTICATE", bytes():
            answer = Answer(tag + b" NO Login is disabled\r\n")
        case _:
            answer = Answer(tag + b" BAD Command not supported\r\n")
    return answer


def pop3(line: bytes, *, offers_tls: bool) -> Answer:
    """Answer a POP3 command before login (RFCs 1939; 2449, 5; 2595, 4)."""
    match line.upper():
        case b"CAPA":
            starts = b"STLS\r\n" if offers_tls else b""
            return Answer(b"+OK\r\n" + starts + b"IMPLEMENTATION sandbox\r\n.\r\n")
        case b"QUIT":
            return Answer(b"+OK Goodbye\r\n", then_ends=True)
        case b"STLS" if offers_tls:
            return Answer(b"+OK Begin TLS now\r\n", then_tls=True)
    # NOOP, too, needs a login.
    return Answer(b"-ERR Command not supported\r\n")


def http(head: bytes, *, offers_tls: bool) -> Answer:  # noqa: ARG001
    """Answer an HTTP request with a page (RFC 9112)."""
    status, page = HTTPStatus.OK, b"This is the sandbox of letsencrypt-mdaemon.\n"
    found = re.match(rb"([!-~]+) [!-~]+ HTTP/1\.[01](?:\r\n|\Z)", head)
    if not found:
        status, page = HTTPStatus.BAD_REQUEST, b""
    elif found[1] not in {b"GET", b"HEAD"}:
        status, page = HTTPStatus.NOT_IMPLEMENTED, b""
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Content-Type: text/plain",
        f"Content-Length: {len(page)}",
        "Connection: close",
    ]
    says = "".join(f"{line}\r\n" for line in [*lines, ""]).encode()
    body = b"" if found and found[1] == b"HEAD" else page
    return Answer(says + body, then_ends=True)


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A protocol of requests and answers; the greeting contains the host name."""

    greets: str
    ends: bytes
    answer: Callable[..., Answer]
