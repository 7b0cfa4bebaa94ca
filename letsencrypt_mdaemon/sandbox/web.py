"""The sandbox's webmail HTTP server."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from enum import Enum
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Request(NamedTuple):
    """One HTTP request, and the status it was answered with."""

    method: str
    path: str
    host: str
    status: int


class WebServer(ThreadingTCPServer):
    """A thread for each connection; closing it waits for all of them."""

    # Elsewhere than on POSIX this option would let two servers share a port.
    allow_reuse_address = os.name == "posix"
    record: Callable[[Request], None]


class Page(SimpleHTTPRequestHandler):
    """Answers with a file below the webroot; never lists a folder."""

    server: WebServer
    timeout = 2  # seconds: so long can a silent client hold up the end
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {"": "text/plain"}

    def list_directory(self, path: str | os.PathLike[str]) -> None:  # noqa: ARG002
        """Say that there is nothing."""
        self.send_error(HTTPStatus.NOT_FOUND)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:  # noqa: ARG002
        """Record the request; called before the answer leaves."""
        headers = getattr(self, "headers", {})  # unset when it could not be parsed
        path = getattr(self, "path", "")
        host = headers.get("Host", "")
        self.server.record(Request(self.command or "", path, host, int(code)))

    def log_message(self, *_args: object) -> None:
        """Write nothing: requests are recorded."""


class Fault(Enum):
    """What goes wrong in a part of the server once another certificate is named."""

    DEAD = "nothing listens any more"
    NO_TLS = "TLS is neither offered nor begun"
    WRONG = "it shows a self-signed certificate for another name"
    NO_CHAIN = "it shows the new certificate without any intermediate"
    STALE_CHAIN = "it shows the new certificate with the former one's intermediates"


@contextmanager
def thread(work: Callable[[], None], end: Callable[[], None]) -> Iterator[None]:
    """Run `work` in a thread that is told to end, and waited for, on the way out."""
    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        end()
        worker.join()
