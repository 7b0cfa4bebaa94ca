"""The sandbox CA's HTTP server."""

from __future__ import annotations

import http.client
import logging
import re
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from letsencrypt_mdaemon.sandbox.ca.messages import Answer, Problem

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)


class Handler(BaseHTTPRequestHandler):
    """One connection to the CA."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer is one write
    disable_nagle_algorithm = True
    timeout = 10  # seconds of silence

    def __init__(self, answer: Callable[..., Answer], *args: Any) -> None:  # noqa: ANN401
        """Serve the connection."""
        self.answer = answer
        super().__init__(*args)

    def handle(self) -> None:
        """Answer until the client disconnects."""
        with suppress(OSError):
            super().handle()

    def do(self) -> None:
        """Read a request, and send what the CA answers."""
        length = self.headers.get("Content-Length", "0")
        chunked = "Transfer-Encoding" in self.headers
        if re.fullmatch("[0-9]{1,5}", length) and not chunked:
            body = self.rfile.read(int(length))
            answer = self.answer(self.command, self.path, self.headers, body)
        else:
            close = {"Connection": "close"}
            answer = Problem("malformed", "The body is too long", 413, close).answer
        kind, body = answer.render()
        self.close_connection |= answer.cut or not answer.status
        if not answer.status:
            return
        self.send_response(answer.status)
        for name, value in ({"Content-Type": kind} | answer.headers).items():
            self.send_header(name, value)
        if answer.status != http.client.NO_CONTENT:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if answer.cut else body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log a request."""
        log.debug(format, *args)
