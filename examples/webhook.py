"""A receiver of the setting `notify`: checks the signature, and prints the news.

python webhook.py KEY-FILE [PORT]: listens on this machine. Beyond it, put a web server
with TLS before it: the program sends to https only.
"""

import base64
import hashlib
import hmac
import json
import sys
import time
from email.message import Message
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

MAX_BYTES = 1_000_000
MAX_AGE_SECONDS = 300  # an older message is a repeated one, or a clock is wrong


def is_signed(headers: Message, body: bytes, key: str) -> bool:
    """Whether a message is ours and fresh (Standard Webhooks 1.0.0)."""
    secret = key.encode()
    if key.startswith("whsec_"):
        secret = base64.b64decode(key.removeprefix("whsec_"))
    identifier = headers.get("webhook-id", "")
    stamp = headers.get("webhook-timestamp", "")
    signed = f"{identifier}.{stamp}.".encode() + body
    digest = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest())
    wanted = b"v1," + digest
    is_ours = hmac.compare_digest(wanted, headers.get("webhook-signature", "").encode())
    is_fresh = stamp.isdecimal() and abs(time.time() - int(stamp)) < MAX_AGE_SECONDS
    return is_ours and is_fresh


class Receiver(BaseHTTPRequestHandler):
    """One message."""

    timeout = 10
    key = ""

    def do_POST(self) -> None:
        """Take it, or refuse it."""
        length = self.headers.get("Content-Length", "")
        size = int(length) if length.isdecimal() else MAX_BYTES + 1
        body = self.rfile.read(size) if size <= MAX_BYTES else b""
        is_good = bool(body) and is_signed(self.headers, body, self.key)
        if is_good:
            news = json.loads(body)
            print(news["event"], news["subject"], flush=True)
        self.send_response(204 if is_good else 403)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing: the path may be a secret."""


if __name__ == "__main__":
    Receiver.key = Path(sys.argv[1]).read_text("utf-8").strip()
    port = int(sys.argv[2]) if sys.argv[2:] else 8080
    with HTTPServer(("127.0.0.1", port), Receiver) as server:
        print(f"Listening on port {server.server_port}", flush=True)
        server.serve_forever()
