"""The sandbox's mail, webmail and administration ports, all served by one thread.

SMTP comes from aiosmtpd. IMAP, POP3 and HTTP are minimal, without a login, but the
answers and the start of TLS follow the RFCs.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar, cast
from weakref import WeakSet

from letsencrypt_mdaemon.errors import Error
from letsencrypt_mdaemon.sandbox.dialogues import Dialogue, http, imap, pop3

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine, Iterable

    from aiosmtpd.smtp import SMTP, Envelope, Session

LOCALHOST = "127.0.0.1"

MAX_REQUEST_BYTES = 10_000
"""For a command or an HTTP request's head; more closes the connection."""

T = TypeVar("T")


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

DIALOGUES = {
    "imap": Dialogue("* OK {} IMAP4rev1 sandbox\r\n", b"\r\n", imap),
    "pop3": Dialogue("+OK {} POP3 sandbox\r\n", b"\r\n", pop3),
    "http": Dialogue("", b"\r\n\r\n", http),
}


class Chat(asyncio.Protocol):
    """A dialogue with one client; with a context, the client may start TLS."""

    def __init__(
        self, ports: Ports, dialogue: Dialogue, context: ssl.SSLContext | None
    ) -> None:
        self.ports = ports
        self.dialogue = dialogue
        self.context = context
        self.transport: asyncio.Transport | None = None
        self.said = b""
        self.greeting = dialogue.greets.format(ports.host_name).encode()

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
        ends = self.dialogue.ends
        while self.transport and not self.transport.is_closing() and ends in self.said:
            request, _, self.said = self.said.partition(ends)
            answer = self.dialogue.answer(request, offers_tls=self.context is not None)
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
        protocol = self.ports.protocol(PORTS[self.label], context)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if self.said:
            protocol.data_received(self.said)

    def data_received(self, data: bytes) -> None:
        """Keep the data for the protocol."""
        self.said += data


class Inbox:
    """Receives mail by SMTP, with the methods that aiosmtpd calls."""

    def __init__(self, deliver: Callable[[bytes], None]) -> None:
        self.deliver = deliver

    async def handle_DATA(  # noqa: N802  aiosmtpd looks for this name
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        """Deliver a mail, its envelope on top (RFC 5321, section 4.4)."""
        lines = [f"Return-Path: <{envelope.mail_from}>"]
        lines += [f"Delivered-To: {address}" for address in envelope.rcpt_tos]
        head = "".join(f"{line}\r\n" for line in lines).encode()
        # In another thread: `deliver` may wait for a thread that waits for this one.
        await asyncio.to_thread(self.deliver, head + (envelope.original_content or b""))
        return "250 Message accepted for delivery"

    async def handle_exception(self, error: Exception) -> str:
        """Send the error to the client only; failed handshakes are normal."""
        return f"451 {type(error).__name__}: {error}"


class Ports:
    """Ports on this machine, with free numbers that stay the same while it runs.

    Args:
        host_name: The name in greetings.
        deliver: Receives the mail that arrives by SMTP, in a thread of its own.
        labels: The labels of the ports in `PORTS` to open.

    Attributes:
        numbers: Label -> port number, of each port that was opened.
        contexts: Part -> its TLS settings; None = no TLS.
        listening: Label -> the listening server.
        transports: Label -> the port's connections.
    """

    def __init__(
        self, host_name: str, deliver: Callable[[bytes], None], labels: Iterable[str]
    ) -> None:
        self.host_name = host_name
        self.inbox = Inbox(deliver)
        self.labels = tuple(labels)
        self.numbers: dict[str, int] = {}
        self.contexts: dict[str, ssl.SSLContext | None] = {}
        self.listening: dict[str, asyncio.Server] = {}
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
        self.smtp = SMTP
        self.loop = asyncio.new_event_loop()
        self.thread = Thread(target=self.loop.run_forever)
        self.thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._do(self._end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def open(self, part: str, context: ssl.SSLContext | None) -> None:
        """Open a part's ports, or give them new TLS settings."""
        self._do(self._open(part, context))

    def close(self, part: str) -> None:
        """Close a part's ports and their connections."""
        self._do(self._close(part))

    def _do(self, work: Coroutine[object, object, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

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

    async def _end(self) -> None:
        for part in {port.part for port in PORTS.values()}:
            await self._close(part)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self.loop.shutdown_default_executor()

    def protocol(self, port: Port, context: ssl.SSLContext | None) -> asyncio.Protocol:
        """Return the protocol for a new client; with a context, it offers STARTTLS."""
        if port.speaks != "smtp":
            return Chat(self, DIALOGUES[port.speaks], context)
        return self.smtp(
            self.inbox,
            hostname=self.host_name,
            ident="ESMTP sandbox",
            enable_SMTPUTF8=True,
            tls_context=context,
            loop=self.loop,
        )

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
                secure = await self.loop.start_tls(
                    transport, protocol, context, server_side=True
                )
                if secure:
                    then(secure)

        # The data that follows belongs to TLS, not to the plain-text protocol.
        transport.pause_reading()
        task = self.loop.create_task(negotiate())
        self.negotiations.add(task)
        task.add_done_callback(self.negotiations.discard)
