"""Issue worthless certificates by RFC 8555: strictly, or wrongly where a test asks."""

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
from pathlib import Path
from socketserver import ThreadingTCPServer
from threading import Event, RLock, Thread
from typing import TYPE_CHECKING, Self
from urllib.parse import urljoin, urlsplit

from cryptography.hazmat.primitives import serialization as ser
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from josepy import jwk

from letsencrypt_mdaemon.sandbox.ca.certificates import (
    Draft,
    ari_name,
    authority,
    csr_key,
    new_key,
    public_key,
    spki,
)
from letsencrypt_mdaemon.sandbox.ca.faults import Faults
from letsencrypt_mdaemon.sandbox.ca.http import Handler, log
from letsencrypt_mdaemon.sandbox.ca.messages import (
    ACCOUNT_ALGORITHMS,
    BINDING_ALGORITHMS,
    HOUR,
    LOST,
    NOWHERE,
    REASONS,
    WEEK,
    YEAR,
    Account,
    Answer,
    Document,
    Issued,
    Message,
    Post,
    Problem,
    Request,
    Resource,
    b64url,
    contacts,
    decide,
    glance,
    identifier,
    member,
    parse,
    rfc3339,
    unb64url,
    usable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from cryptography import x509

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"


REDIRECTS, MOST_REDIRECTS = {301, 302, 307, 308}, 10


REVOCATION_REASONS = [0, 1, 3, 4, 5]


DNS_NAME = re.compile(rf"(?=.{{1,253}}\Z)({LABEL}\.)+(?=[a-z]){LABEL}")


MOST_NAMES, LONGEST_COMMON_NAME = 100, 64


LARGEST_TOKEN_FILE = 128  # bytes a web server may show for a challenge


LOOK: Document = {}  # the payload of POST-as-GET (RFC 8555, 6.3)


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
