"""A web server that gets notifications, and may answer them badly."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple, TypeAlias

from letsencrypt_mdaemon.sandbox import mdaemon

SECRET = "s3cret-part"  # noqa: S105 - for tests
"""Of each URL; nothing may show it."""

GIGABYTE = 1 << 30
CHUNK = bytes(1 << 16)


class Got(NamedTuple):
    """One request."""

    path: str
    headers: dict[str, str]
    body: str


class Receiver(ThreadingHTTPServer):
    """Keeps what it gets, and answers as it is told.

    Attributes:
        got: What came, oldest first.
        answer: Writes an answer.
        written: The bytes of endless answers that somebody took.
        ends: Set when all is over: what hangs, hangs until then.
    """

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Talk)
        self.scheme = "https" if context else "http"
        if context is not None:
            # The connection's own thread performs the handshake.
            self.socket = context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )
        self.got: list[Got] = []
        self.answer: Answer = ok
        self.written = 0
        self.ends = threading.Event()

    @property
    def host(self) -> str:
        """Its address and port."""
        return f"127.0.0.1:{self.server_port}"

    @property
    def url(self) -> str:
        """A URL that is a secret."""
        return f"{self.scheme}://{self.host}/{SECRET}"

    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that are gone."""


class Talk(BaseHTTPRequestHandler):
    """One connection to it."""

    server: Receiver

    def do_POST(self) -> None:
        """Keep what came, and answer."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        self.server.got.append(Got(self.path, dict(self.headers.items()), body))
        with suppress(OSError):
            self.server.answer(self)

    def do_GET(self) -> None:
        """Take what follows a redirect, too."""
        self.do_POST()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


Answer: TypeAlias = Callable[[Talk], None]


def ok(talk: Talk) -> None:
    """Accept it."""
    with_status(talk, 200)


def with_status(talk: Talk, status: int, location: str = "") -> None:
    """Answer with a status, and a redirect."""
    talk.send_response(status)
    if location:
        talk.send_header("Location", location)
    talk.send_header("Content-Length", "2")
    talk.end_headers()
    talk.wfile.write(b"OK")


def hang(talk: Talk) -> None:
    """Say nothing."""
    talk.server.ends.wait()


def drip(talk: Talk) -> None:
    """Answer a byte now and then, without an end."""
    talk.send_response(200)
    talk.send_header("Content-Length", str(GIGABYTE))
    talk.end_headers()
    while not talk.server.ends.wait(0.02):
        talk.wfile.write(b".")


def drip_head(talk: Talk) -> None:
    """Send a head that has no end, a byte now and then."""
    talk.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    while not talk.server.ends.wait(0.02):
        talk.wfile.write(b".")


def gigabyte(talk: Talk) -> None:
    """Send a gigabyte as fast as somebody takes it."""
    talk.send_response(200)
    talk.send_header("Content-Length", str(GIGABYTE))
    talk.end_headers()
    while talk.server.written < GIGABYTE:
        talk.wfile.write(CHUNK)
        talk.server.written += len(CHUNK)


def hang_up(talk: Talk) -> None:
    """End the connection without a word."""
    talk.close_connection = True


@contextmanager
def receiving(
    answer: Answer = ok, context: ssl.SSLContext | None = None
) -> Iterator[Receiver]:
    """Receive on a port of this machine, with a context by https."""
    with Receiver(context) as server:
        server.answer = answer
        with mdaemon.thread(partial(server.serve_forever, 0.005), server.shutdown):
            try:
                yield server
            finally:
                server.ends.set()
