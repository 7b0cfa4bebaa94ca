"""The sandbox's mail, webmail and administration ports, all served by one thread.

SMTP comes from aiosmtpd. IMAP, POP3 and HTTP are minimal, without a login, but the
answers and the start of TLS follow the RFCs.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple, Self, cast
from weakref import WeakSet

from letsencrypt_mdaemon.errors import Error

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine, Iterable

    from aiosmtpd.smtp import SMTP, Envelope, Session

LOCALHOST = "127.0.0.1"

MAX_REQUEST_BYTES = 10_000
"""For a command or an HTTP request's head; more closes the connection."""


class Port(NamedTuple):
    """A port's protocol, how TLS starts there, and the part that it belongs to."""

    speaks: str
    tls: str
    part: str

    @property
    def scheme(self) -> str:
        """The scheme of an endpoint's URL."""
        return self.speaks + self.tls


PORTS = {
    "smtp": Port("smtp", "+starttls", "mail"),  # 25
    "submission": Port("smtp", "+starttls", "mail"),  # 587
    "smtps": Port("smtp", "s", "mail"),  # 465
    "imap": Port("imap", "+starttls", "mail"),  # 143
    "imaps": Port("imap", "s", "mail"),  # 993
    "pop3": Port("pop3", "+stls", "mail"),  # 110
    "pop3s": Port("pop3", "s", "mail"),  # 995
    "webmail": Port("http", "s", "webmail"),  # 443
    "admin": Port("http", "s", "admin"),  # 444
}
"""Label -> port; the comments give the real port numbers."""


class Answer(NamedTuple):
    """The bytes of an answer, and whether TLS or the connection's end follows."""

    says: bytes
    then_tls: bool = False
    then_ends: bool = False


# RFC 3501, section 9: a tag is made of anything but "+" and the atom-specials.
COMMAND = re.compile(rb"([!#-$&',-\[\]-z|}~]+) ([A-Za-z]+)( .*)?", re.DOTALL)


def imap(line: bytes, *, offers_tls: bool) -> Answer:
    """Answer an IMAP command before login (RFC 3501, sections 6.1 and 6.2)."""
    if not (found := COMMAND.fullmatch(line)):
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
    says = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: text/plain\r\n"
        f"Content-Length: {len(page)}\r\nConnection: close\r\n\r\n"
    ).encode()
    body = b"" if found and found[1] == b"HEAD" else page
    return Answer(says + body, then_ends=True)


DIALOGUES = {
    "imap": ("* OK {} IMAP4rev1 sandbox\r\n", b"\r\n", imap),
    "pop3": ("+OK {} POP3 sandbox\r\n", b"\r\n", pop3),
    "http": ("", b"\r\n\r\n", http),
}
"""Protocol -> greeting with the host name, the end of a request, and the answers."""


class Chat(asyncio.Protocol):
    """A dialogue with one client; with a context, the client may start TLS."""

    def __init__(
        self, ports: Ports, speaks: str, context: ssl.SSLContext | None
    ) -> None:
        greets, self.ends, self.answer = DIALOGUES[speaks]
        self.ports = ports
        self.context = context
        self.transport: asyncio.Transport | None = None
        self.said = b""
        self.greeting = greets.format(ports.host_name).encode()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet; called again after STARTTLS, when the client speaks first."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self.greeting)
        self.greeting = b""
        self.proceed()

    def data_received(self, data: bytes) -> None:
        """Answer the complete requests."""
        self.said += data
        self.proceed()

    def proceed(self) -> None:
        """Answer the complete requests, except during a TLS handshake."""
        while self.transport and self.ends in self.said:
            if self.transport.is_closing():
                return
            request, _, self.said = self.said.partition(self.ends)
            answer = self.answer(request, offers_tls=self.context is not None)
            if answer.then_tls and self.said:
                # Data sent with STARTTLS may be injected: RFC 3207, section 4.2.
                self.transport.close()
                return
            self.transport.write(answer.says)
            if answer.then_ends:
                self.transport.close()
            elif answer.then_tls and self.context:
                transport, self.transport = self.transport, None
                context, self.context = self.context, None
                self.ports.start_tls(transport, self, context, self.connection_made)
        if len(self.said) > MAX_REQUEST_BYTES and self.transport:
            self.transport.close()


class Door(asyncio.Protocol):
    """Connects one client to its protocol, after TLS if the port starts with it.

    During the handshake, it keeps the data for the protocol: the first request may
    arrive with the last bytes of the handshake.
    """

    def __init__(self, ports: Ports, label: str) -> None:
        self.ports = ports
        self.label = label
        self.said = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start TLS, connect the client to its protocol, or close the connection."""
        transport = cast("asyncio.Transport", transport)
        port, ports = PORTS[self.label], self.ports
        context = ports.contexts.get(port.part)
        ports.transports[self.label].add(transport)
        if self.label not in ports.listening:
            transport.abort()
        elif port.tls != "s":
            self.admit(transport, context)
        elif context is None:
            transport.close()
        else:
            ports.start_tls(transport, self, context, self.admit)

    def admit(
        self, transport: asyncio.Transport, context: ssl.SSLContext | None = None
    ) -> None:
        """Connect a client to its protocol; with a context, it may start TLS later."""
        protocol: asyncio.Protocol
        if (speaks := PORTS[self.label].speaks) == "smtp":
            protocol = self.ports.smtp(tls_context=context)
        else:
            protocol = Chat(self.ports, speaks, context)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if self.said:
            protocol.data_received(self.said)

    def data_received(self, data: bytes) -> None:
        """Keep the data for the protocol."""
        self.said += data


class Ports:
    """Ports on this machine, with free numbers that stay the same while it runs.

    Args:
        host_name: The name in greetings.
        deliver: Receives the mail that arrives by SMTP, in a thread of its own.
        labels: The labels of the ports in `PORTS` to open.
    """

    def __init__(
        self, host_name: str, deliver: Callable[[bytes], None], labels: Iterable[str]
    ) -> None:
        self.host_name = host_name
        self.deliver = deliver
        self.labels = tuple(labels)
        self.numbers: dict[str, int] = {}  # label -> port number, once opened
        self.contexts: dict[str, ssl.SSLContext | None] = {}  # part -> None = no TLS
        self.listening: dict[str, asyncio.Server] = {}  # label -> the listening server
        # Label -> the port's connections.
        self.transports = defaultdict[str, WeakSet[asyncio.Transport]](WeakSet)
        self.negotiations: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        try:
            from aiosmtpd.smtp import SMTP  # noqa: PLC0415  an extra
        except ImportError as exc:
            raise Error(
                "The sandbox needs aiosmtpd, which is not installed.",
                hint='Run pip install "letsencrypt-mdaemon[demo]".',
            ) from exc
        self.runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self.loop = self.runner.get_loop()
        self.smtp = partial(
            SMTP,
            self,
            hostname=self.host_name,
            ident="ESMTP sandbox",
            enable_SMTPUTF8=True,
            loop=self.loop,
        )
        self.thread = Thread(target=self.loop.run_forever)
        self.thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        for part in {port.part for port in PORTS.values()}:
            self.close(part)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.runner.close()

    def open(self, part: str, context: ssl.SSLContext | None) -> None:
        """Open a part's ports, or give them new TLS settings."""
        self._do(self._open(part, context))

    def close(self, part: str) -> None:
        """Close a part's ports and their connections."""
        self._do(self._close(part))

    def _do(self, work: Coroutine[object, object, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self.loop).result()

    async def handle_DATA(  # noqa: N802  aiosmtpd looks for this name
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        """Deliver a mail, its envelope on top (RFC 5321, section 4.4)."""
        head = f"Return-Path: <{envelope.mail_from}>\r\n"
        head += "".join(f"Delivered-To: {to}\r\n" for to in envelope.rcpt_tos)
        mail = head.encode() + (envelope.original_content or b"")
        # In another thread: `deliver` may wait for a thread that waits for this one.
        await asyncio.to_thread(self.deliver, mail)
        return "250 Message accepted for delivery"

    async def handle_exception(self, error: Exception) -> str:
        """Send the error to the client only; failed handshakes are normal."""
        return f"451 {type(error).__name__}: {error}"

    def _labels(self, part: str) -> list[str]:
        return [label for label in self.labels if PORTS[label].part == part]

    async def _open(self, part: str, context: ssl.SSLContext | None) -> None:
        self.contexts[part] = context
        for label in self._labels(part):
            if label not in self.listening:
                number = self.numbers.get(label, 0)
                door = partial(Door, self, label)
                server = await self.loop.create_server(door, LOCALHOST, number)
                self.listening[label] = server
                self.numbers[label] = server.sockets[0].getsockname()[1]

    async def _close(self, part: str) -> None:
        for label in self._labels(part):
            if server := self.listening.pop(label, None):
                server.close()
            for transport in self.transports.pop(label, ()):
                transport.abort()
        await asyncio.sleep(0)  # the connections are closed in the loop's next round

    def start_tls(
        self,
        transport: asyncio.Transport,
        protocol: asyncio.Protocol,
        context: ssl.SSLContext,
        then: Callable[[asyncio.Transport], None],
    ) -> None:
        """Start TLS with a client, then call `then`; hang up if that fails."""

        async def negotiate() -> None:
            with suppress(OSError):  # the client's error
                if secure := await self.loop.start_tls(
                    transport, protocol, context, server_side=True
                ):
                    then(secure)

        # The data that follows belongs to TLS, not to the plain-text protocol.
        transport.pause_reading()
        task = self.loop.create_task(negotiate())
        self.negotiations.add(task)
        task.add_done_callback(self.negotiations.discard)
