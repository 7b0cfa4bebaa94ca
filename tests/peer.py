"""A CA that can be wrong on the level of bytes and connections."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import BaseRequestHandler, ThreadingTCPServer

from letsencrypt_mdaemon.errors import ACME_ERROR

PAGE = b"<html><head><title>\nBack soon.</title></head><h1>Maintenance</h1></html>"


class Peer(ThreadingHTTPServer):
    """Has a good directory and good nonces; `steps` are its answers to POSTs.

    The last step is repeated. `posts` holds the protected header of each POST.
    """

    daemon_threads = True
    request_queue_size = 50

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Talk)
        scheme = "https" if context else "http"
        if context:
            # The connection's own thread performs the handshake.
            self.socket = context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )
        self.url = f"{scheme}://127.0.0.1:{self.server_port}"
        self.directory: object = {
            name: f"{self.url}/{name}"
            for name in ("newNonce", "newAccount", "newOrder")
        }
        self.steps: list[Step] = [ok]
        self.posts: list[dict[str, str]] = []
        self.heads: list[str] = []
        self.new_nonces: list[str] = []
        self.lock = threading.Lock()

    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that are gone."""


class Talk(BaseHTTPRequestHandler):
    """One connection to it."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer is one write
    disable_nagle_algorithm = True
    server: Peer

    def do_HEAD(self) -> None:
        with self.server.lock:
            self.server.heads.append(self.path)
            known = self.server.new_nonces
            number = len(self.server.heads)
            nonce = known.pop(0) if known else f"new-nonce-{number}"
        self.say(200, b"", nonce)

    def do_GET(self) -> None:
        self.say(200, json.dumps(self.server.directory).encode())

    def do_POST(self) -> None:
        with self.server.lock:
            steps = self.server.steps
            step = steps.pop(0) if len(steps) > 1 else steps[0]
        step(self)

    def read(self) -> dict[str, str]:
        """Read the POST; return its protected header."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        coded = body["protected"]
        header = urlsafe_b64decode(coded + "=" * (-len(coded) % 4))
        protected: dict[str, str] = json.loads(header)
        with self.server.lock:
            self.server.posts.append(protected)
        return protected

    def say(
        self, status: int, body: bytes, nonce: str | None = None, **headers: str
    ) -> None:
        self.send_response(status)
        if nonce is not None:
            headers["Replay-Nonce"] = nonce
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


Step = Callable[[Talk], None]


def ok(talk: Talk) -> None:
    talk.read()
    talk.say(200, b"{}")


def bringing(nonce: str) -> Step:
    """Answer well, and bring a nonce."""

    def step(talk: Talk) -> None:
        talk.read()
        talk.say(200, b"{}", nonce)

    return step


def rejecting(nonce: str | None = None) -> Step:
    """Call the nonce bad, quote it as Boulder does, and bring a fresh one or none."""

    def step(talk: Talk) -> None:
        bad = talk.read()["nonce"]
        detail = f'JWS has an invalid anti-replay nonce: "{bad}"'
        problem = {"type": f"{ACME_ERROR}badNonce", "detail": detail}
        talk.say(400, json.dumps(problem).encode(), nonce)

    return step


def reset(talk: Talk) -> None:
    """Reset the connection though the body is still on its way."""
    linger = struct.pack("ii", 1, 0)
    talk.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    talk.close_connection = True
    talk.connection.close()


def hang_up(talk: Talk) -> None:
    talk.read()
    talk.close_connection = True


def cut(talk: Talk) -> None:
    talk.read()
    talk.send_response(200)
    talk.send_header("Content-Length", "100")
    talk.end_headers()
    talk.wfile.write(b'{"status": ')
    talk.close_connection = True


def cut_chunk(talk: Talk) -> None:
    talk.read()
    talk.send_response(200)
    talk.send_header("Transfer-Encoding", "chunked")
    talk.end_headers()
    talk.wfile.write(b"64\r\n{")
    talk.close_connection = True


def gibberish(talk: Talk) -> None:
    talk.read()
    talk.wfile.write(b"SSH-2.0-OpenSSH_9.9\r\n")
    talk.close_connection = True


def silence(talk: Talk) -> None:
    """Say nothing until the client goes."""
    talk.read()
    talk.rfile.read(1)
    talk.close_connection = True


def endless(talk: Talk) -> None:
    talk.read()
    talk.send_response(200)
    talk.end_headers()
    while True:
        talk.wfile.write(b" " * 65536)


def refusing(status: int, body: object = PAGE, **headers: str) -> Step:
    """Refuse with bytes, or with a JSON value."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    def step(talk: Talk) -> None:
        talk.read()
        talk.say(status, data, **{k.replace("_", "-"): v for k, v in headers.items()})

    return step


@contextmanager
def serving_peer(context: ssl.SSLContext | None = None) -> Iterator[Peer]:
    """Start it, with TLS if there is a context for that, and end it."""
    with Peer(context) as peer:
        thread = threading.Thread(target=peer.serve_forever, args=(0.005,))
        thread.start()
        try:
            yield peer
        finally:
            peer.shutdown()
            thread.join()


@contextmanager
def tunnel(port: int) -> Iterator[tuple[int, list[bytes]]]:
    """Yield the port of a proxy that leads to one port, and what it was asked."""
    asked: list[bytes] = []

    def forward(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    class Proxy(BaseRequestHandler):
        def handle(self) -> None:
            request = b""
            while b"\r\n\r\n" not in request:
                request += self.request.recv(4096)
            asked.append(request)
            self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            with socket.create_connection(("127.0.0.1", port)) as there:
                back = threading.Thread(target=forward, args=(there, self.request))
                back.start()
                forward(self.request, there)
                back.join()

    with ThreadingTCPServer(("127.0.0.1", 0), Proxy) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.005,))
        thread.start()
        try:
            yield server.server_address[1], asked
        finally:
            server.shutdown()
            thread.join()
