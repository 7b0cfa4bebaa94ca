"""Issue worthless certificates by RFC 8555: strictly, or wrongly where a test asks."""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import logging
import re
import secrets
import ssl
import sys
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import KW_ONLY, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from pathlib import Path
from random import Random
from socketserver import ThreadingTCPServer
from threading import Event, RLock, Thread
from typing import Any, Self, TypeVar, cast
from urllib.parse import urljoin, urlsplit

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as ser
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from josepy import b64, errors, jwa, jwk

Document = dict[str, Any]
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
T = TypeVar("T")

ACCOUNT_ALGORITHMS = {"RS256": jwa.RS256, "ES256": jwa.ES256, "ES384": jwa.ES384}
BINDING_ALGORITHMS = {"HS256": jwa.HS256, "HS384": jwa.HS384, "HS512": jwa.HS512}
CURVES = {"ES256": "secp256r1", "ES384": "secp384r1"}
CSR_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
REDIRECTS, MOST_REDIRECTS = {301, 302, 307, 308}, 10
REVOCATION_REASONS = [0, 1, 3, 4, 5]
DNS_NAME = re.compile(rf"(?=.{{1,253}}\Z)({LABEL}\.)+(?=[a-z]){LABEL}")
REASONS = {
    TimeoutError: "Timeout during connect (likely firewall problem)",
    ConnectionRefusedError: "Connection refused",
    ConnectionResetError: "Connection reset by peer",
}
MOST_NAMES, LONGEST_COMMON_NAME = 100, 64
LARGEST_TOKEN_FILE = 128  # bytes a web server may show for a challenge
HOUR, WEEK, YEAR = timedelta(hours=1), timedelta(weeks=1), timedelta(days=365)

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Answer:
    """What goes back: `body` as it is, else `chain` as PEM, else `document` as JSON.

    Status 0 hangs up without a word; `cut` hangs up halfway through the body.
    """

    status: int = 200
    document: Document = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    chain: list[x509.Certificate] = field(default_factory=list)
    body: bytes | None = None
    cut: bool = False

    def render(self) -> tuple[str, bytes]:
        """Return the media type and the body."""
        if self.body is not None:
            return "text/html", self.body
        if self.chain:
            chain = b"".join(link.public_bytes(ser.Encoding.PEM) for link in self.chain)
            return "application/pem-certificate-chain", chain
        kind = "json" if self.status < http.client.BAD_REQUEST else "problem+json"
        body = json.dumps(self.document) if self.document else ""
        return f"application/{kind}", body.encode()


@dataclass(eq=False)
class Problem(Exception):  # noqa: N818 - the RFC's word
    """A refusal (RFC 8555, 6.7); `kind` follows `urn:ietf:params:acme:error:`."""

    kind: str
    detail: str
    status: int = 400
    headers: dict[str, str] = field(default_factory=dict)
    more: Document = field(default_factory=dict)

    @property
    def answer(self) -> Answer:
        """The answer that says so."""
        kind = f"urn:ietf:params:acme:error:{self.kind}"
        document = {"type": kind, "detail": self.detail, "status": self.status}
        return Answer(self.status, document | self.more, dict(self.headers))


@dataclass(slots=True)
class Request:
    """What a client asked; `payload` is not verified, and empty if not readable."""

    method: str
    path: str
    resource: str
    headers: http.client.HTTPMessage
    payload: Document = field(default_factory=dict)


Hook = Answer | Problem | Callable[[Any], object]
LOST = Answer(status=0)


@dataclass
class Faults:
    """What this CA does wrong on purpose; nothing at first.

    Resources are named as in the directory (newNonce, newOrder, renewalInfo) or in
    RFC 8555 (account, order, authorization, challenge, finalize, certificate).

        faults.before("newOrder", html(503, retry_after=5), times=2)
        faults.before("newOrder", Problem("rateLimited", "Too many.", 429))
        faults.before("finalize", LOST)  # nothing happened
        faults.after("finalize", LOST)  # it happened, and nobody is told
        faults.after("order", lambda answer: answer.document.update(surprise=1))
        faults.after("order|finalize", processing, times=3)
        faults.after("certificate", lambda answer: answer.chain.reverse())
        faults.draft = lambda draft: replace(draft, names=("other.test",))
    """

    nonce_rejections: int = 0  # how many good nonces are called bad
    rejection_rate: float = 0.0  # the share of good nonces called bad
    random: Random = field(default_factory=lambda: Random(0))  # noqa: S311 - no secret
    token: str | None = None  # the token of every challenge
    authorizations_valid: bool = False  # before anything is proved
    slow_validation: float = 0.0  # seconds
    validation_in_answer: bool = False  # a challenge's POST waits for the outcome
    failures_stay_pending: bool = False  # with an `error`, as in smallstep's CA
    draft: Callable[[Draft], Draft] = lambda draft: draft  # what is about to be signed
    _hooks: list[list[Any]] = field(default_factory=list)

    def before(self, resources: str, hook: Hook, times: int = sys.maxsize) -> None:
        """Do nothing for the next requests but answer `hook`.

        Args:
            resources: A regular expression, such as `order|finalize`.
            hook: An answer, a problem, or a function of the `Request` that may return
                either. A function that returns False has not acted.
            times: How often it acts.
        """
        self._hooks.append([f"before ({resources})", hook, times])

    def after(self, resources: str, hook: Hook, times: int = sys.maxsize) -> None:
        """Do what is asked; then a function may change the `Answer` or replace it."""
        self._hooks.append([f"after ({resources})", hook, times])

    def overrule(self, moment: str, subject: object) -> Answer | Problem | None:
        """Return what is said instead at a moment such as `before newOrder`."""
        for entry in self._hooks:
            moments, hook, times = entry
            if times and re.fullmatch(moments, moment):
                said = hook(subject) if callable(hook) else hook
                entry[2] -= said is not False
                if isinstance(said, Answer | Problem):
                    return said
        return None

    def reject_nonce(self) -> bool:
        """Whether a good nonce is called bad this time."""
        if self.nonce_rejections > 0:
            self.nonce_rejections -= 1
            return True
        return self.random.random() < self.rejection_rate


def html(status: int, retry_after: int | datetime | None = None) -> Answer:
    """Return what a proxy before the CA says: a page, not a problem document."""
    headers = {}
    if isinstance(retry_after, datetime):
        headers["Retry-After"] = format_datetime(retry_after, usegmt=True)
    elif retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    return Answer(status, headers=headers, body=b"<html><h1>Back soon</h1></html>")


def processing(answer: Answer) -> bool:
    """Show a valid order as one still worked on."""
    if answer.document.get("status") != "valid":
        return False
    del answer.document["certificate"]
    answer.document["status"] = "processing"
    return True


def without_error(answer: Answer) -> None:
    """Show no reason for an invalid challenge, as acme2certifier does."""
    for challenge in answer.document.get("challenges", [answer.document]):
        challenge.pop("error", None)


def never_invalid(answer: Answer) -> None:
    """Show an invalid order as pending, as acme2certifier does."""
    if answer.document.get("status") == "invalid":
        answer.document.pop("error", None)
        answer.document["status"] = "pending"


def upper_case(answer: Answer) -> None:
    """Show the names of an order or an authorization in upper case."""
    one = answer.document.get("identifier", {"value": ""})
    for shown in answer.document.get("identifiers", [one]):
        shown["value"] = shown["value"].upper()


def shifted(draft: Draft, by: timedelta) -> Draft:
    """Return a draft for another time."""
    start, end = draft.not_before + by, draft.not_after + by
    return replace(draft, not_before=start, not_after=end)


@dataclass(frozen=True, slots=True)
class Message:
    """A flattened JWS whose header is all protected (RFC 8555, 6.2)."""

    header: Document
    payload: bytes
    signed: bytes
    signature: bytes

    @classmethod
    def read(cls, value: Document) -> Self:
        """Return the message; nothing is verified yet."""
        if value.keys() != {"protected", "payload", "signature"}:
            raise Problem("malformed", "The body is not a flattened JWS")
        parts = {name: unb64url(member(value, name, str)) for name in value}
        signed = f"{value['protected']}.{value['payload']}".encode()
        header = parse(parts["protected"])
        return cls(header, parts["payload"], signed, parts["signature"])

    def verify(self, key: jwk.JWK, accepted: Mapping[str, jwa.JWASignature]) -> None:
        """Refuse the message unless the key has signed it."""
        name = str(self.header.get("alg"))
        if name not in accepted:
            detail, more = f"Algorithm {name} is refused", {"algorithms": [*accepted]}
            raise Problem("badSignatureAlgorithm", detail, more=more)
        curve = getattr(getattr(key.key, "curve", None), "name", None)
        if (
            "crit" in self.header
            or curve != CURVES.get(name)
            or not accepted[name].verify(key.key, self.signed, self.signature)
        ):
            raise Problem("malformed", "JWS verification error")


@dataclass(eq=False)
class Account:
    """RFC 8555, 7.1.2; without a URL it is just a key that has signed a request."""

    key: jwk.JWK
    url: str = ""
    document: Document = field(default_factory=lambda: {"status": "valid"})


@dataclass(eq=False)
class Issued:
    """A certificate and what became of it."""

    certificate: x509.Certificate
    owner: Account
    names: list[str]
    revoked: bool = False
    replaced_by: Document | None = None  # an order


Post = Callable[[Account, Document], Answer]
LOOK: Document = {}  # the payload of POST-as-GET (RFC 8555, 6.3)


@dataclass(frozen=True, slots=True)
class Resource:
    """What is behind a URL: its name, what may be done with it, and by whom."""

    name: str
    post: Post | None = None
    owner: Account | None = None
    get: Callable[[], Answer] | None = None


NOWHERE = Resource("nowhere")


@dataclass(eq=False, repr=False)
class CertificateAuthority:
    """An ACME server on 127.0.0.1 for as long as it is entered.

    What it remembers are the very documents it shows, by their URLs.
    """

    folder: Path  # where the root of the HTTPS certificate is written
    _: KW_ONLY
    http_port: int  # stands for port 80 of the web servers it looks at
    lifetime: timedelta = timedelta(days=90)
    profiles: Mapping[str, str] = field(default_factory=dict)  # name -> description
    blocked: Collection[str] = ()  # names it refuses
    external_accounts: Mapping[str, bytes] = field(default_factory=dict)  # kid -> key
    alternates: int = 0  # other chains of a certificate
    reuse_orders: bool = False  # open ones, for the same account and names
    suggested_window: tuple[datetime, datetime] | None = None
    explanation_url: str | None = None
    timeout: float = 5.0  # seconds a web server may take
    resolve: Callable[[str], str | None] = lambda _: "127.0.0.1"  # None: no such name
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    faults: Faults = field(default_factory=Faults)

    def __post_init__(self) -> None:
        """Make the issuing keys and certificates."""
        self.requests: list[Request] = []
        self.accounts: dict[str, Account] = {}
        self.orders: dict[str, Document] = {}
        self.authorizations: dict[str, Document] = {}
        self.issued: dict[str, Issued] = {}  # by what `replaces` calls them
        self.ca_bundle = self.folder / "https-root.pem"
        self.roots: list[x509.Certificate] = []
        self._intermediates: list[x509.Certificate] = []
        self._key, now = new_key(), self._now()
        below = self._key.public_key()
        for number in range(self.alternates + 1):
            key = new_key()
            root = authority(f"Sandbox Root {number}", now, key.public_key(), key)
            sub = authority("Sandbox Intermediate", now, below, key, root)
            self.roots.append(root)
            self._intermediates.append(sub)
        self.root = self.roots[0]
        self._resources: dict[str, Resource] = {}
        self._nonces: set[str] = set()
        self._threads: list[Thread] = []
        self._lock, self._closing = RLock(), Event()

    def __enter__(self) -> Self:
        """Start to serve."""
        context, handler = self._https(), partial(Handler, self.answer)
        self._server = ThreadingTCPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        # The handshake is left to the connection's own thread.
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self._base = f"https://127.0.0.1:{self._server.server_address[1]}"
        self._directory: Document = {
            "newNonce": f"{self._base}/acme/{secrets.token_urlsafe(9)}",
            "newAccount": self._publish("newAccount", self._new_account),
            "newOrder": self._publish("newOrder", self._new_order),
            "revokeCert": self._publish("revokeCert", self._revoke),
            "keyChange": self._publish("keyChange", self._change_key),
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
        directory = Resource("directory", get=lambda: Answer(document=self._directory))
        self._resources[self.directory_url] = directory
        new_nonce = Resource("newNonce", get=lambda: Answer(204))
        self._resources[self._directory["newNonce"]] = new_nonce
        self._threads = [Thread(target=self._server.serve_forever, args=(0.02,))]
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        """Answer nobody any more, and wait for what is under way."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        with self._lock:  # the last answer may have started one more
            threads = list(self._threads)
        for thread in threads:
            thread.join()

    def _https(self) -> ssl.SSLContext:
        now, pem = datetime.now(UTC), ser.Encoding.PEM
        key, signer = new_key(), new_key()
        root = authority("Sandbox HTTPS Root", now, signer.public_key(), signer)
        leaf = Draft(
            common_name="localhost",
            names=("localhost", "127.0.0.1"),
            key=key.public_key(),
            issuer=root,
            signer=signer,
            not_before=now - HOUR,
            not_after=now + YEAR,
        ).sign()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ca_bundle.write_bytes(root.public_bytes(pem))
        file, pkcs8 = self.folder / "https-key.pem", ser.PrivateFormat.PKCS8
        file.touch(mode=0o600)
        private = key.private_bytes(pem, pkcs8, ser.NoEncryption())
        file.write_bytes(private + leaf.public_bytes(pem))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _now(self) -> datetime:
        return self.clock().astimezone(UTC).replace(microsecond=0)

    # RFC 8555, section 6: transport

    def answer(
        self, method: str, path: str, headers: http.client.HTTPMessage, body: bytes
    ) -> Answer:
        """Return what a client gets to see."""
        with self._lock:
            if self._closing.is_set():
                return LOST
            resource = self._resources.get(self._base + path, NOWHERE)
            request = Request(method, path, resource.name, headers, glance(body))
            self.requests.append(request)
            said = self.faults.overrule(f"before {resource.name}", request)
            if isinstance(said, Answer):
                return said
            try:
                if said:
                    raise said
                answer = self._answer(request, resource, body)
                answer.document = deepcopy(answer.document)
            except Problem as problem:
                answer = problem.answer
            links = [f'<{self.directory_url}>;rel="index"', answer.headers.get("Link")]
            self._nonces.add(nonce := secrets.token_urlsafe(18))
            answer.headers["Link"] = ", ".join(filter(None, links))
            answer.headers |= {"Replay-Nonce": nonce, "Cache-Control": "no-store"}
            said = self.faults.overrule(f"after {resource.name}", answer)
            return said.answer if isinstance(said, Problem) else said or answer

    def _answer(self, request: Request, resource: Resource, body: bytes) -> Answer:
        if resource is NOWHERE:
            raise Problem("malformed", f"There is nothing at {request.path}", 404)
        if request.method in {"GET", "HEAD"} and resource.get:
            answer = resource.get()
            return answer if request.method == "GET" else replace(answer, status=200)
        if request.method != "POST" or not resource.post:
            allow = {"Allow": "GET, HEAD" if resource.get else "POST"}
            raise Problem("malformed", f"{request.method} is not for this", 405, allow)
        if request.headers.get("Content-Type") != "application/jose+json":  # 6.2
            raise Problem("malformed", "Not of type application/jose+json", 415)
        message = Message.read(parse(body))
        url, nonce = message.header.get("url"), str(message.header.get("nonce"))
        if url != self._base + request.path:  # 6.4
            raise Problem("unauthorized", f"The request was signed for {url}", 403)
        account = self._signer(message.header, resource.name)
        message.verify(account.key, ACCOUNT_ALGORITHMS)
        known = nonce in self._nonces
        self._nonces.discard(nonce)
        if not known or self.faults.reject_nonce():  # 6.5
            raise Problem("badNonce", f"Nonce {nonce} is unknown or was used before")
        if resource.owner not in {None, account}:
            raise Problem("unauthorized", "This belongs to another account", 403)
        if message.payload and resource.name in {"order", "certificate"}:  # 6.3
            raise Problem("malformed", "Only POST-as-GET is for this")
        asked = parse(message.payload) if message.payload else LOOK
        return resource.post(account, asked)

    def _signer(self, header: Document, resource: str) -> Account:
        """Return who claims to have signed; for some resources that is just a key."""
        may = resource == "revokeCert" and "jwk" in header
        bare = may or resource == "newAccount"
        if ("jwk" in header, "kid" in header) != (bare, not bare):  # 6.2
            wanted = "jwk" if bare else "kid"
            raise Problem("malformed", f"The key must be named by {wanted} alone")
        if bare:
            return Account(public_key(header["jwk"]))
        account = self.accounts.get(str(header["kid"]))
        if not account:
            raise Problem("accountDoesNotExist", f"There is no account {header['kid']}")
        return usable(account)

    def _publish(self, name: str, post: Post, owner: Account | None = None) -> str:
        """Return a URL that tells nothing, so that nobody can guess it."""
        url = f"{self._base}/acme/{secrets.token_urlsafe(9)}"
        self._resources[url] = Resource(name, post, owner)
        return url

    # Section 7.3: accounts

    def _new_account(self, sender: Account, asked: Document) -> Answer:
        if known := self._account_with(sender.key):
            return Answer(200, usable(known).document, {"Location": known.url})
        if asked.get("onlyReturnExisting"):
            raise Problem("accountDoesNotExist", "No account has this key")
        if asked.get("termsOfServiceAgreed") is not True:
            raise Problem("userActionRequired", "Agree to the terms of service", 403)
        if self.external_accounts:
            self._check_binding(asked.get("externalAccountBinding"), sender.key)
        sender.document["contact"] = contacts(asked)
        sender.url = self._publish("account", self._account, sender)
        self.accounts[sender.url] = sender
        return Answer(201, sender.document, {"Location": sender.url})

    def _account_with(self, key: jwk.JWK) -> Account | None:
        return next((a for a in self.accounts.values() if a.key == key), None)

    def _check_binding(self, value: object, key: jwk.JWK) -> None:  # 7.3.4
        if not isinstance(value, dict):
            raise Problem("externalAccountRequired", "Bind an external account", 403)
        binding = Message.read(value)
        secret = self.external_accounts.get(str(binding.header.get("kid")))
        if secret is None:
            raise Problem("unauthorized", "The external account is unknown", 403)
        binding.verify(jwk.JWKOct(key=secret), BINDING_ALGORITHMS)
        right_url = binding.header.get("url") == self._directory["newAccount"]
        same_key = public_key(parse(binding.payload)) == key
        if not (right_url and same_key) or "nonce" in binding.header:
            raise Problem("malformed", "The external binding is for something else")

    def _account(self, account: Account, asked: Document) -> Answer:
        if "contact" in asked:
            account.document["contact"] = contacts(asked)
        if asked.get("status") == "deactivated":  # 7.3.6
            account.document["status"] = "deactivated"
        return Answer(document=account.document)

    def _change_key(self, account: Account, asked: Document) -> Answer:  # 7.3.5
        inner = Message.read(asked)
        key, claim = public_key(inner.header.get("jwk")), parse(inner.payload)
        inner.verify(key, ACCOUNT_ALGORITHMS)
        right_url = inner.header.get("url") == self._directory["keyChange"]
        mine = claim.get("account") == account.url
        if not (right_url and mine and public_key(claim.get("oldKey")) == account.key):
            raise Problem("malformed", "The inner JWS is for something else")
        if known := self._account_with(key):
            taken = {"Location": known.url}
            raise Problem("malformed", "The new key has an account already", 409, taken)
        account.key = key
        return Answer(document=account.document)

    # Section 7.4: orders

    def _new_order(self, account: Account, asked: Document) -> Answer:
        names = self._names(asked)
        order: Document = {"identifiers": [identifier(name) for name in names]}
        if asked.keys() & {"notBefore", "notAfter"}:
            raise Problem("malformed", "notBefore and notAfter are not supported")
        if self.profiles and "profile" in asked:
            order["profile"] = asked["profile"]
            if order["profile"] not in list(self.profiles):
                raise Problem("invalidProfile", f"No profile {order['profile']}")
        predecessor = None
        if "replaces" in asked:
            predecessor = self._predecessor(account, str(asked["replaces"]), names)
            order["replaces"] = asked["replaces"]
        for url, known in self.orders.items() if self.reuse_orders else ():
            waiting = self._refreshed(known)["status"] in {"pending", "ready"}
            same = all(known.get(n) == order.get(n) for n in ("identifiers", "profile"))
            mine = self._resources[url].owner is account and not predecessor
            if waiting and same and mine:
                return Answer(201, known, {"Location": url})
        order["expires"] = rfc3339(self._now() + WEEK)
        order["authorizations"] = [self._authorize(account, name) for name in names]
        url = self._publish("order", partial(self._order, order), account)
        finalize = partial(self._finalize, url)
        order["finalize"] = self._publish("finalize", finalize, account)
        self.orders[url] = self._refreshed(order)
        if predecessor:
            predecessor.replaced_by = order
        return Answer(201, order, {"Location": url})

    def _names(self, asked: Document) -> list[str]:
        names: dict[str, None] = {}
        for wanted in member(asked, "identifiers", list):
            if not isinstance(wanted, dict) or wanted.get("type") != "dns":
                raise Problem("unsupportedIdentifier", "Only dns is served")
            names[member(wanted, "value", str).lower()] = None
        if not 1 <= len(names) <= MOST_NAMES:
            raise Problem("malformed", f"An order has 1 to {MOST_NAMES} names")
        refused = [n for n in names if n in self.blocked or not DNS_NAME.fullmatch(n)]
        if refused:
            kind, details = (
                "rejectedIdentifier",
                [f"{n} is not served" for n in refused],
            )
            parts = [Problem(kind, detail, 403).answer.document for detail in details]
            for part, name in zip(parts, refused, strict=True):
                part["identifier"] = identifier(name)
            raise Problem(kind, "; ".join(details), 403, more={"subproblems": parts})
        return list(names)

    def _predecessor(self, account: Account, name: str, names: list[str]) -> Issued:
        """Return the certificate an order replaces (RFC 9773, 5)."""
        issued = self.issued.get(name)
        if not issued:
            raise Problem("malformed", "The certificate to replace is unknown", 404)
        if issued.owner is not account:
            raise Problem("unauthorized", "It is another account's certificate", 403)
        if not set(names) & set(issued.names):
            raise Problem("malformed", "The certificate to replace has other names")
        order = issued.replaced_by
        if order and self._refreshed(order)["status"] != "invalid":
            raise Problem("alreadyReplaced", "An order replaces it already", 409)
        return issued

    def _refreshed(self, order: Document) -> Document:
        """Return an order with the status that follows from its authorizations."""
        parts = [self.authorizations[url] for url in order["authorizations"]]
        states = {part["status"] for part in parts}
        if "certificate" in order:
            order["status"] = "valid"
        elif states - {"pending", "valid"} or order["expires"] < rfc3339(self._now()):
            order["status"] = "invalid"
            for challenge in (c for part in parts for c in part["challenges"]):
                order |= {"error": challenge["error"]} if "error" in challenge else {}
        else:
            order["status"] = "pending" if "pending" in states else "ready"
        return order

    def _order(self, order: Document, _: Account, __: Document) -> Answer:
        return Answer(document=self._refreshed(order))

    def _finalize(self, url: str, account: Account, asked: Document) -> Answer:
        order = self._refreshed(self.orders[url])
        if order["status"] != "ready":
            raise Problem("orderNotReady", f"The order is {order['status']}", 403)
        names = [wanted["value"] for wanted in order["identifiers"]]
        key = csr_key(unb64url(asked.get("csr")), names)
        if spki(key) == spki(account.key.key):
            raise Problem("badCSR", "The account's key must not be certified")
        draft = Draft(
            common_name=next((n for n in names if len(n) <= LONGEST_COMMON_NAME), None),
            names=tuple(names),
            key=key,
            issuer=self._intermediates[0],
            signer=self._key,
            not_before=self._now() - HOUR,
            not_after=self._now() - HOUR + self.lifetime,
        )
        leaf = self.faults.draft(draft).sign()
        issued = Issued(leaf, account, list(names))
        self.issued[ari_name(leaf)] = issued
        info = Resource("renewalInfo", get=partial(self._renewal_info, issued))
        self._resources[f"{self._directory['renewalInfo']}/{ari_name(leaf)}"] = info
        links: list[str] = []
        for above in reversed(self._intermediates):
            show = partial(self._certificate, [leaf, above], tuple(links))
            order["certificate"] = self._publish("certificate", show, account)
            links.append(f'<{order["certificate"]}>;rel="alternate"')
        return Answer(200, self._refreshed(order), {"Location": url})

    def _certificate(
        self, chain: list[x509.Certificate], links: tuple[str, ...], *_: object
    ) -> Answer:
        return Answer(headers={"Link": ", ".join(links)}, chain=list(chain))

    # Section 7.5: authorizations, and 8: challenges

    def _authorize(self, account: Account, name: str) -> str:
        authorization: Document = {"identifier": identifier(name), "status": "pending"}
        show = partial(self._authorization, authorization)
        url = self._publish("authorization", show, account)
        self.authorizations[url] = authorization
        token = secrets.token_urlsafe(32)
        token = token if self.faults.token is None else self.faults.token
        authorization["expires"] = rfc3339(self._now() + WEEK)
        authorization["challenges"] = [
            {"type": kind, "token": token, "status": "pending"}
            for kind in ("dns-01", "http-01")
        ]
        for challenge in authorization["challenges"]:
            post = partial(self._challenge, url, challenge)
            challenge["url"] = self._publish("challenge", post, account)
        if self.faults.authorizations_valid:
            decide(authorization, authorization["challenges"][1], "valid")
        return url

    def _authorization(self, known: Document, _: Account, asked: Document) -> Answer:
        if asked.get("status") == "deactivated":  # 7.5.2
            known["status"] = "deactivated"
        return Answer(document=known)

    def _challenge(
        self, url: str, challenge: Document, account: Account, asked: Document
    ) -> Answer:
        known = self.authorizations[url]
        if asked is not LOOK and challenge["status"] == "pending":
            if known["status"] != "pending":
                raise Problem("malformed", "The authorization is decided already")
            challenge["status"] = "processing"
            challenge.pop("error", None)
            key_authorization = (
                f"{challenge['token']}.{b64url(account.key.thumbprint())}"
            )
            args = (known, challenge, key_authorization)
            if self.faults.validation_in_answer:
                self._validate(*args)
            else:
                self._threads.append(Thread(target=self._validate, args=args))
                self._threads[-1].start()
        return Answer(200, challenge, {"Link": f'<{url}>;rel="up"'})

    def _validate(self, known: Document, challenge: Document, expected: str) -> None:
        """Decide a challenge by what the name's web server shows (8.3)."""
        self._closing.wait(self.faults.slow_validation)
        name, error = known["identifier"]["value"], None
        try:
            if challenge["type"] == "http-01":
                self._look(name, challenge["token"], expected)
            else:
                detail = f"No TXT record found at _acme-challenge.{name}"
                error = Problem("unauthorized", detail, 403)
        except Problem as problem:
            error = problem
        with self._lock:
            if error:
                challenge["error"] = error.answer.document
            else:
                challenge["validated"] = rfc3339(self._now())
            if error and self.faults.failures_stay_pending:
                challenge["status"] = "pending"
            else:
                decide(known, challenge, "invalid" if error else "valid")

    def _look(self, name: str, token: str, expected: str) -> None:
        url = f"http://{name}/.well-known/acme-challenge/{token}"
        for _ in range(MOST_REDIRECTS + 1):
            address, response, seen = self._fetch(url)
            if response.status in REDIRECTS:
                to = response.getheader("Location", "")
                try:
                    url = urljoin(url, to)
                except ValueError as exc:
                    detail = f"{address}: Fetching {url}: Invalid redirect to {to}"
                    raise Problem("connection", detail) from exc
                continue
            if response.status != http.client.OK:
                detail = f"{address}: Invalid response from {url}: {response.status}"
                raise Problem("unauthorized", detail, 403)
            whole = len(seen) < LARGEST_TOKEN_FILE
            if not whole or seen.rstrip(b"\n\r\t ") != expected.encode():
                detail = (
                    f"{address}: The key authorization file from the server did not "
                    f'match this challenge. Expected "{expected}" (got '
                    f'"{seen.decode(errors="replace")}") from {url}'
                )
                raise Problem("unauthorized", detail, 403)
            return
        raise Problem("connection", f"Fetching {url}: Too many redirects")

    def _fetch(self, url: str) -> tuple[str, http.client.HTTPResponse, bytes]:
        """Return a web server's address, its answer, and the beginning of the body."""
        parts = urlsplit(url)
        path = parts._replace(scheme="", netloc="", fragment="").geturl()
        host = parts.netloc.lower().removesuffix(":80")
        if parts.scheme != "http" or host != parts.hostname:
            raise Problem("connection", f"Fetching {url}: Only port 80 is looked at")
        address = self.resolve(host)
        if address is None:
            detail = f"DNS problem: NXDOMAIN looking up A for {host} - check that a DNS"
            raise Problem("dns", f"{detail} record exists for this domain")
        web = http.client.HTTPConnection(address, self.http_port, timeout=self.timeout)
        try:
            web.request("GET", path or "/", headers={"Host": host})
            with web.getresponse() as response:
                return address, response, response.read(LARGEST_TOKEN_FILE)
        except (OSError, http.client.HTTPException, ValueError) as exc:
            reasons = (said for kind, said in REASONS.items() if isinstance(exc, kind))
            detail = next(reasons, "Error getting validation data")
            raise Problem("connection", f"{address}: Fetching {url}: {detail}") from exc
        finally:
            web.close()

    # Section 7.6 and RFC 9773: what becomes of a certificate

    def _revoke(self, signer: Account, asked: Document) -> Answer:
        der = unb64url(asked.get("certificate"))
        for issued in self.issued.values():
            if issued.certificate.public_bytes(ser.Encoding.DER) == der:
                break
        else:
            raise Problem("malformed", "The certificate is not of this CA", 404)
        by_key = spki(issued.certificate.public_key()) == spki(signer.key.key)
        if signer is not issued.owner and not by_key:
            raise Problem("unauthorized", "The certificate is not yours", 403)
        if asked.get("reason", 0) not in REVOCATION_REASONS:
            raise Problem("badRevocationReason", "This CA knows no such reason")
        if issued.revoked:
            raise Problem("alreadyRevoked", "The certificate is revoked already")
        issued.revoked = True
        return Answer()

    def _renewal_info(self, issued: Issued) -> Answer:
        start = issued.certificate.not_valid_before_utc
        life = issued.certificate.not_valid_after_utc - start
        middle, now = start + life * 2 / 3, self._now()
        window = self.suggested_window or (middle - life / 100, middle + life / 100)
        window = (now - HOUR, now - HOUR / 2) if issued.revoked else window
        shown = {"start": rfc3339(window[0]), "end": rfc3339(window[1])}
        document: Document = {"suggestedWindow": shown}
        if self.explanation_url:
            document["explanationURL"] = self.explanation_url
        return Answer(200, document, {"Retry-After": "21600"})


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
        """Answer until the client goes, perhaps because it does not trust us."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A certificate about to be signed; only a root has no issuer."""

    common_name: str | None
    names: tuple[str, ...] = ()
    key: PublicKey
    issuer: x509.Certificate | None
    signer: ec.EllipticCurvePrivateKey
    not_before: datetime
    not_after: datetime
    is_ca: bool = False

    def sign(self) -> x509.Certificate:
        """Return the certificate."""
        common_name = x509.NameAttribute(NameOID.COMMON_NAME, self.common_name or "-")
        subject = x509.Name([common_name] if self.common_name else [])
        above = cast("PublicKey", self.issuer.public_key()) if self.issuer else self.key
        usage = "000001100" if self.is_ca else "100000000"  # RFC 5280, 4.2.1.3
        names = [general_name(name) for name in self.names]
        extensions: list[tuple[x509.ExtensionType, bool]] = [
            (x509.BasicConstraints(self.is_ca, None), True),
            (x509.KeyUsage(*(bit == "1" for bit in usage)), True),
            (x509.SubjectKeyIdentifier.from_public_key(self.key), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(above), False),
        ]
        if not self.is_ca:
            server = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
            extensions.append((server, False))
        if names:  # critical without a subject: RFC 5280, 4.2.1.6
            san = x509.SubjectAlternativeName(names)
            extensions.append((san, not self.common_name))
        builder = x509.CertificateBuilder(
            issuer_name=self.issuer.subject if self.issuer else subject,
            subject_name=subject,
            public_key=self.key,
            serial_number=int.from_bytes(secrets.token_bytes(16)) or 1,
        )
        builder = builder.not_valid_before(self.not_before)
        builder = builder.not_valid_after(self.not_after)
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.signer, hashes.SHA256())


def authority(
    name: str,
    now: datetime,
    key: PublicKey,
    signer: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None = None,
) -> x509.Certificate:
    """Return the certificate of an authority, for ten years each way."""
    decade = timedelta(days=3650)
    return Draft(
        common_name=name,
        key=key,
        issuer=issuer,
        signer=signer,
        not_before=now - decade,
        not_after=now + decade,
        is_ca=True,
    ).sign()


def general_name(name: str) -> x509.GeneralName:
    """Return a name as a certificate holds it."""
    if name[-1:].isdigit():
        return x509.IPAddress(ip_address(name))
    return x509.DNSName(name)


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a new P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def spki(key: Any) -> bytes:  # noqa: ANN401 - josepy's keys have no type
    """Return a public key in the form that can be compared."""
    form = ser.PublicFormat.SubjectPublicKeyInfo
    return cast("bytes", key.public_bytes(ser.Encoding.DER, form))


def ari_name(certificate: x509.Certificate) -> str:
    """Return what renewalInfo and `replaces` call a certificate (RFC 9773, 4.1)."""
    kind, serial = x509.AuthorityKeyIdentifier, certificate.serial_number
    authority_key = certificate.extensions.get_extension_for_class(kind).value
    number = serial.to_bytes(serial.bit_length() // 8 + 1)
    return f"{b64url(authority_key.key_identifier or b'')}.{b64url(number)}"


def is_strong(key: object) -> bool:
    """Whether a key is of a kind and size a CA takes."""
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size in range(2048, 4097)
    curves = CURVES.values()
    return isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in curves


def public_key(value: object) -> jwk.JWK:
    """Return an account's key as a client has shown it."""
    shown = value if isinstance(value, dict) else {}
    try:
        key = cast("jwk.JWK", jwk.JWK.from_json(shown))
        strong = is_strong(ser.load_der_public_key(spki(key.key)))
    except (errors.Error, AttributeError, KeyError, TypeError, ValueError) as exc:
        raise Problem("badPublicKey", "jwk is not a public key") from exc
    if not strong:
        raise Problem("badPublicKey", "The key is too weak, or of an unknown kind")
    return key


def csr_key(der: bytes, names: list[str]) -> PublicKey:
    """Return the key of a CSR that asks for just these names (RFC 8555, 7.4)."""
    try:
        csr = x509.load_der_x509_csr(der)
        key, subject = csr.public_key(), csr.subject
        sans = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        signed = csr.is_signature_valid
        signed = signed and isinstance(csr.signature_hash_algorithm, CSR_HASHES)
    except (ValueError, UnsupportedAlgorithm, x509.ExtensionNotFound) as exc:
        raise Problem("badCSR", f"The CSR cannot be read: {exc}") from exc
    if not signed or not is_strong(key):
        raise Problem("badCSR", "The CSR's signature or key is not acceptable")
    common = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    asked = {str(name.value).lower() for name in sans}
    strange = [name for name in sans if not isinstance(name, x509.DNSName)]
    strange += [name for name in common if str(name.value).lower() not in asked]
    if strange or asked != set(names):
        raise Problem("badCSR", "The CSR's names are not the order's")
    return cast("PublicKey", key)


def decide(authorization: Document, challenge: Document, status: str) -> None:
    """End an authorization: only the challenge that was tried is left."""
    challenge["status"] = status
    authorization |= {"status": status, "challenges": [challenge]}


def usable(account: Account) -> Account:
    """Return an account unless it is deactivated (RFC 8555, 7.3.6)."""
    if account.document["status"] != "valid":
        raise Problem("unauthorized", "The account is deactivated", 401)
    return account


def contacts(asked: Document) -> list[str]:
    """Return the contact addresses a client gave; none is fine (RFC 8555, 7.3)."""
    given = member(asked, "contact", list) if "contact" in asked else []
    if not all(re.fullmatch(r"mailto:[^@,?\s]+@[^@,?\s]+", str(one)) for one in given):
        raise Problem("invalidContact", "A contact is not mailto: and one address")
    return given


def identifier(name: str) -> dict[str, str]:
    """Return a name as documents hold it."""
    return {"type": "dns", "value": name}


def rfc3339(moment: datetime) -> str:
    """Return a time as documents hold it."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def parse(text: bytes) -> Document:
    """Return a JSON object."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Problem("malformed", "Not a JSON object")
    return value


def glance(body: bytes) -> Document:
    """Return the payload of a request nobody has verified, if it can be read."""
    with suppress(Problem):
        return parse(Message.read(parse(body)).payload)
    return {}


def member(document: Document, name: str, kind: type[T]) -> T:
    """Return what an object must have."""
    value = document.get(name)
    if not isinstance(value, kind):
        raise Problem("malformed", f"{name} is missing or of the wrong type")
    return value


def b64url(data: bytes) -> str:
    """Return base64url without padding."""
    return b64.b64encode(data).decode()


def unb64url(text: object) -> bytes:
    """Return the bytes behind base64url without padding, in its only spelling."""
    try:
        data = base64.urlsafe_b64decode(f"{text}==")
    except ValueError:
        data = b""
    if b64url(data) != text:
        raise Problem("malformed", "Not base64url without padding")
    return data


def main() -> None:
    """Run a CA until it is interrupted."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--http-port", type=int, default=5002)
    parser.add_argument("--directory", type=Path, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    with CertificateAuthority(options.directory, http_port=options.http_port) as ca:
        log.info("%s, to be trusted by %s", ca.directory_url, ca.ca_bundle)
        with suppress(KeyboardInterrupt):
            while True:
                time.sleep(1)


if __name__ == "__main__":
    main()
