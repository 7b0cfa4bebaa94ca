"""An ACME server for tests: strict by RFC 8555, with faults on request."""

from __future__ import annotations

import argparse
import http.client
import logging
import re
import secrets
import ssl
import time
from contextlib import suppress
from copy import deepcopy
from dataclasses import KW_ONLY, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from threading import Event, RLock, Thread
from typing import TYPE_CHECKING, Any, Self

from cryptography.hazmat.primitives import serialization as ser

from letsencrypt_mdaemon.sandbox.ca import accounts, certificates, orders
from letsencrypt_mdaemon.sandbox.ca.faults import Faults
from letsencrypt_mdaemon.sandbox.ca.messages import (
    ACCOUNT_ALGORITHMS,
    HOUR,
    LOST,
    POST_AS_GET,
    Account,
    Answer,
    Document,
    Issued,
    Message,
    Problem,
    Request,
    Resource,
    parse,
    rfc3339,
    unb64url,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from cryptography import x509

log = logging.getLogger(__name__)
REVOCATION_REASONS = [0, 1, 3, 4, 5]


@dataclass(eq=False, repr=False)
class CertificateAuthority:
    """An ACME server on 127.0.0.1, as a context manager.

    It keeps the documents that it sends by their URLs.
    """

    folder: Path  # for the root of the HTTPS certificate
    _: KW_ONLY
    http_port: int  # used instead of port 80 of the web servers
    lifetime: timedelta = timedelta(days=90)
    profiles: Mapping[str, str] = field(default_factory=dict)  # name -> description
    blocked: Collection[str] = ()  # names that the CA refuses
    external_accounts: Mapping[str, bytes] = field(default_factory=dict)  # kid -> key
    alternates: int = 0  # number of alternate chains
    reuse_orders: bool = False  # return open orders for the same account and names
    suggested_window: tuple[datetime, datetime] | None = None
    explanation_url: str | None = None
    timeout: float = 5.0  # seconds to wait for a web server
    resolve: Callable[[str], str | None] = lambda _: "127.0.0.1"  # None: no such name
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    faults: Faults = field(default_factory=Faults)

    def __post_init__(self) -> None:
        self.requests: list[Request] = []
        self.accounts: dict[str, Account] = {}
        self.orders: dict[str, Document] = {}
        self.authorizations: dict[str, Document] = {}
        self.issued: dict[str, Issued] = {}  # by their ARI identifiers
        self.ca_bundle = self.folder / "https-root.pem"
        self.roots: list[x509.Certificate] = []
        self.intermediates: list[x509.Certificate] = []
        self.key, now = certificates.new_key(), self.now()
        below = self.key.public_key()
        for number in range(self.alternates + 1):
            key = certificates.new_key()
            root = certificates.authority(f"Sandbox Root {number}", now, key)
            sub = certificates.authority("Sandbox Intermediate", now, key, root, below)
            self.roots.append(root)
            self.intermediates.append(sub)
        self.root = self.roots[0]
        self.resources: dict[str, Resource] = {}
        self._nonces: set[str] = set()
        self.threads: list[Thread] = []
        self.lock, self.closing = RLock(), Event()

    def __enter__(self) -> Self:
        context, handler = self._https(), partial(Handler, self.answer)
        self._server = ThreadingTCPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        # The connection's own thread performs the handshake.
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self._base = f"https://127.0.0.1:{self._server.server_address[1]}"
        actions = {
            "newAccount": accounts.new_account,
            "newOrder": orders.new_order,
            "revokeCert": revoke,
            "keyChange": accounts.change_key,
        }
        self.directory: Document = {
            "newNonce": self.publish(Resource("newNonce", get=lambda: Answer(204))),
            **{
                name: self.publish(Resource(name, partial(act, self)))
                for name, act in actions.items()
            },
            "renewalInfo": f"{self._base}/acme/{secrets.token_urlsafe(9)}",
            secrets.token_urlsafe(9): "https://ca.test/an-entry-nobody-knows",
            "meta": {
                "termsOfService": "https://ca.test/terms",
                "website": "https://ca.test/",
                "externalAccountRequired": bool(self.external_accounts),
                **({"profiles": {**self.profiles}} if self.profiles else {}),
            },
        }
        self.directory_url = f"{self._base}/acme/sandbox/directory"
        directory = Resource("directory", get=lambda: Answer(document=self.directory))
        self.resources[self.directory_url] = directory
        self.threads = [Thread(target=self._server.serve_forever, args=(0.02,))]
        self.threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop answering, and wait for running requests and validations."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        with self.lock:  # the last answer may have started another thread
            threads = list(self.threads)
        for thread in threads:
            thread.join()

    def _https(self) -> ssl.SSLContext:
        now, pem = datetime.now(UTC), ser.Encoding.PEM
        key, signer = certificates.new_key(), certificates.new_key()
        root = certificates.authority("Sandbox HTTPS Root", now, signer)
        leaf = certificates.Draft(
            common_name="localhost",
            names=("localhost", "127.0.0.1"),
            key=key.public_key(),
            issuer=root,
            signer=signer,
            not_before=now - HOUR,
            not_after=now + timedelta(days=365),
        ).sign()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ca_bundle.write_bytes(root.public_bytes(pem))
        file = self.folder / "https-key.pem"
        file.touch(mode=0o600)
        private = key.private_bytes(pem, ser.PrivateFormat.PKCS8, ser.NoEncryption())
        file.write_bytes(private + leaf.public_bytes(pem))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def now(self) -> datetime:
        """Return the CA's time, to the second."""
        return self.clock().astimezone(UTC).replace(microsecond=0)

    # RFC 8555, section 6: transport

    def answer(
        self, method: str, path: str, headers: http.client.HTTPMessage, body: bytes
    ) -> Answer:
        """Return the answer to a request, after the faults have changed it."""
        with self.lock:
            if self.closing.is_set():
                return LOST
            resource = self.resources.get(self._base + path, Resource("nowhere"))
            request = Request(method, path, resource.name, headers, body)
            self.requests.append(request)
            said = self.faults.overrule(f"before {resource.name}", request)
            if isinstance(said, Answer):
                return said
            try:
                if said:
                    raise said
                answer = self._answer(request, resource)
                answer.document = deepcopy(answer.document)
            except Problem as problem:
                answer = problem.answer
            links = [f'<{self.directory_url}>;rel="index"', answer.headers.get("Link")]
            self._nonces.add(nonce := secrets.token_urlsafe(18))
            answer.headers["Link"] = ", ".join(filter(None, links))
            answer.headers |= {"Replay-Nonce": nonce, "Cache-Control": "no-store"}
            said = self.faults.overrule(f"after {resource.name}", answer)
            return said.answer if isinstance(said, Problem) else said or answer

    def _answer(self, request: Request, resource: Resource) -> Answer:
        if resource.name == "nowhere":
            raise Problem("malformed", f"There is nothing at {request.path}", 404)
        if request.method in {"GET", "HEAD"} and resource.get:
            answer = resource.get()
            return answer if request.method == "GET" else replace(answer, status=200)
        if request.method != "POST" or not resource.post:
            allow = {"Allow": "GET, HEAD" if resource.get else "POST"}
            detail = f"{request.method} is not allowed here"
            raise Problem("malformed", detail, 405, allow)
        if request.headers.get("Content-Type") != "application/jose+json":  # 6.2
            raise Problem("malformed", "The body is not application/jose+json", 415)
        message = Message.read(parse(request.body))
        url, nonce = message.header.get("url"), str(message.header.get("nonce"))
        if url != self._base + request.path:  # 6.4
            raise Problem("unauthorized", f"The request was signed for {url}", 403)
        account = accounts.signer(self, message.header, resource.name)
        message.verify(account.key, ACCOUNT_ALGORITHMS)
        known = nonce in self._nonces
        self._nonces.discard(nonce)
        if not known or self.faults.reject_nonce():  # 6.5
            raise Problem("badNonce", f"Nonce {nonce} is unknown or was used before")
        if resource.owner not in {None, account}:
            raise Problem("unauthorized", "It belongs to another account", 403)
        if message.payload and resource.name in {"order", "certificate"}:  # 6.3
            raise Problem("malformed", "Only POST-as-GET is allowed here")
        payload = parse(message.payload) if message.payload else POST_AS_GET
        return resource.post(account, payload)

    def publish(self, resource: Resource) -> str:
        """Publish a resource at a random URL, so that clients cannot guess it."""
        url = f"{self._base}/acme/{secrets.token_urlsafe(9)}"
        self.resources[url] = resource
        return url

    def remember(self, issued: Issued) -> None:
        """Record a certificate, and publish its renewal information (RFC 9773)."""
        name = certificates.ari_name(issued.certificate)
        self.issued[name] = issued
        info = Resource("renewalInfo", get=partial(renewal_info, self, issued))
        self.resources[f"{self.directory['renewalInfo']}/{name}"] = info


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


def revoke(ca: CertificateAuthority, signer: Account, payload: Document) -> Answer:
    """Revoke a certificate; its owner or its own key must sign (7.6)."""
    der = unb64url(payload.get("certificate"))
    for issued in ca.issued.values():
        if issued.certificate.public_bytes(ser.Encoding.DER) == der:
            break
    else:
        raise Problem("malformed", "This CA did not issue the certificate", 404)
    own_key = certificates.spki(issued.certificate.public_key())
    if signer is not issued.owner and certificates.spki(signer.key.key) != own_key:
        raise Problem("unauthorized", "The certificate belongs to another account", 403)
    if payload.get("reason", 0) not in REVOCATION_REASONS:
        raise Problem("badRevocationReason", "This CA does not support the reason")
    if issued.revoked:
        raise Problem("alreadyRevoked", "The certificate is already revoked")
    issued.revoked = True
    return Answer()


def renewal_info(ca: CertificateAuthority, issued: Issued) -> Answer:
    """Suggest to renew after two thirds of the lifetime; if revoked, an hour ago."""
    start = issued.certificate.not_valid_before_utc
    life = issued.certificate.not_valid_after_utc - start
    middle, now = start + life * 2 / 3, ca.now()
    window = ca.suggested_window or (middle - life / 100, middle + life / 100)
    window = (now - HOUR, now - HOUR / 2) if issued.revoked else window
    shown = {"start": rfc3339(window[0]), "end": rfc3339(window[1])}
    document: Document = {"suggestedWindow": shown}
    if ca.explanation_url:
        document["explanationURL"] = ca.explanation_url
    return Answer(200, document, {"Retry-After": "21600"})


def main() -> None:
    """Run a CA until Ctrl-C."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--http-port", type=int, default=5002)
    parser.add_argument("--directory", type=Path, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    with CertificateAuthority(options.directory, http_port=options.http_port) as ca:
        log.info("Directory: %s; trusted root: %s", ca.directory_url, ca.ca_bundle)
        with suppress(KeyboardInterrupt):
            while True:
                time.sleep(1)


if __name__ == "__main__":
    main()
