"""The HTTP server for the sandbox's webroot."""

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
    """One HTTP request, and the status of its answer."""

    method: str
    path: str
    host: str
    status: int


class WebServer(ThreadingTCPServer):
    """A thread for each connection; closing it waits for all of them."""

    # On Windows, this option would let two servers share a port.
    allow_reuse_address = os.name == "posix"
    record: Callable[[Request], None]


class Page(SimpleHTTPRequestHandler):
    """Answers with a file below the webroot; never lists a folder."""

    server: WebServer
    timeout = 2  # seconds that a silent client can delay the shutdown
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {"": "text/plain"}

    def list_directory(self, path: str | os.PathLike[str]) -> None:  # noqa: ARG002
        """Answer with 404."""
        self.send_error(HTTPStatus.NOT_FOUND)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:  # noqa: ARG002
        """Record the request; called before the answer is sent."""
        headers = getattr(self, "headers", {})  # unset if the request is malformed
        path = getattr(self, "path", "")
        host = headers.get("Host", "")
        self.server.record(Request(self.command or "", path, host, int(code)))

    def log_message(self, *_args: object) -> None:
        """Write nothing: requests are recorded."""


class Fault(Enum):
    """A fault of a part of the server, once its INI file names another certificate."""

    DEAD = "the ports are closed"
    NO_TLS = "the ports offer no TLS"
    WRONG = "the ports serve a self-signed certificate for another name"
    NO_CHAIN = "the ports serve the new certificate without intermediates"
    STALE_CHAIN = "the ports serve the new certificate with the old intermediates"


@contextmanager
def thread(work: Callable[[], None], end: Callable[[], None]) -> Iterator[None]:
    """Run `work` in a thread; at exit, call `end` and wait for the thread."""
    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        end()
        worker.join()
