"""Orders, authorizations and challenges of the sandbox CA (RFC 8555, 7.4, 7.5, 8)."""

from __future__ import annotations

import http.client
import re
import secrets
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from josepy.json_util import encode_b64jose

from letsencrypt_mdaemon.sandbox.ca.certificates import Draft, csr_key, spki
from letsencrypt_mdaemon.sandbox.ca.messages import (
    HOUR,
    POST_AS_GET,
    WEEK,
    Account,
    Answer,
    Document,
    Issued,
    Problem,
    Resource,
    identifier,
    member,
    rfc3339,
    unb64url,
)

if TYPE_CHECKING:
    from cryptography import x509

    from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority

LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
DNS_NAME = re.compile(rf"(?=.{{1,253}}\Z)({LABEL}\.)+(?=[a-z]){LABEL}")
MAX_NAMES, MAX_COMMON_NAME_LENGTH = 100, 64

REDIRECTS, MAX_REDIRECTS = {301, 302, 307, 308}, 10
MAX_TOKEN_FILE_BYTES = 128

FAILURES = {
    TimeoutError: "Timeout during connect (likely firewall problem)",
    ConnectionRefusedError: "Connection refused",
    ConnectionResetError: "Connection reset by peer",
}


def new_order(ca: CertificateAuthority, account: Account, payload: Document) -> Answer:
    """Create an order, or return an open one if the CA reuses orders."""
    names = _names(ca, payload)
    order: Document = {"identifiers": [identifier(name) for name in names]}
    if payload.keys() & {"notBefore", "notAfter"}:
        raise Problem("malformed", "notBefore and notAfter are not supported")
    if ca.profiles and "profile" in payload:
        order["profile"] = payload["profile"]
        if order["profile"] not in list(ca.profiles):
            raise Problem("invalidProfile", f"There is no profile {order['profile']}")
    predecessor = None
    if "replaces" in payload:
        predecessor = _predecessor(ca, account, str(payload["replaces"]), names)
        order["replaces"] = payload["replaces"]
    for url, known in ca.orders.items() if ca.reuse_orders else ():
        waiting = _refreshed(ca, known)["status"] in {"pending", "ready"}
        same = all(known.get(n) == order.get(n) for n in ("identifiers", "profile"))
        mine = ca.resources[url].owner is account and not predecessor
        if waiting and same and mine:
            return Answer(201, known, {"Location": url})
    order["expires"] = rfc3339(ca.now() + WEEK)
    order["authorizations"] = [_authorize(ca, account, name) for name in names]
    url = ca.publish(
        Resource("order", lambda *_: Answer(document=_refreshed(ca, order)), account)
    )
    finalize = partial(_finalize, ca, url)
    order["finalize"] = ca.publish(Resource("finalize", finalize, account))
    ca.orders[url] = _refreshed(ca, order)
    if predecessor:
        predecessor.replaced_by = order
    return Answer(201, order, {"Location": url})


def _names(ca: CertificateAuthority, payload: Document) -> list[str]:
    names: dict[str, None] = {}
    for wanted in member(payload, "identifiers", list):
        if not isinstance(wanted, dict) or wanted.get("type") != "dns":
            raise Problem("unsupportedIdentifier", "Only type dns is supported")
        names[member(wanted, "value", str).lower()] = None
    if not 1 <= len(names) <= MAX_NAMES:
        raise Problem("malformed", f"An order has 1 to {MAX_NAMES} names")
    refused = [n for n in names if n in ca.blocked or not DNS_NAME.fullmatch(n)]
    if refused:
        kind, details = "rejectedIdentifier", [f"{n} is not served" for n in refused]
        parts = [
            Problem(kind, detail, 403).answer.document | {"identifier": identifier(n)}
            for detail, n in zip(details, refused, strict=True)
        ]
        raise Problem(kind, "; ".join(details), 403, more={"subproblems": parts})
    return list(names)


def _predecessor(
    ca: CertificateAuthority, account: Account, name: str, names: list[str]
) -> Issued:
    """Return the certificate that an order replaces (RFC 9773, 5)."""
    issued = ca.issued.get(name)
    if not issued:
        raise Problem("malformed", "The certificate to replace is unknown", 404)
    if issued.owner is not account:
        raise Problem("unauthorized", "The certificate belongs to another account", 403)
    if not set(names) & set(issued.names):
        raise Problem("malformed", "The certificate to replace has other names")
    order = issued.replaced_by
    if order and _refreshed(ca, order)["status"] != "invalid":
        raise Problem("alreadyReplaced", "Another order already replaces it", 409)
    return issued


def _refreshed(ca: CertificateAuthority, order: Document) -> Document:
    """Return an order with the status that follows from its authorizations."""
    parts = [ca.authorizations[url] for url in order["authorizations"]]
    states = {part["status"] for part in parts}
    if "certificate" in order:
        order["status"] = "valid"
    elif states - {"pending", "valid"} or order["expires"] < rfc3339(ca.now()):
        order["status"] = "invalid"
        for challenge in (c for part in parts for c in part["challenges"]):
            order |= {"error": challenge["error"]} if "error" in challenge else {}
    else:
        order["status"] = "pending" if "pending" in states else "ready"
    return order


def _finalize(
    ca: CertificateAuthority, url: str, account: Account, payload: Document
) -> Answer:
    """Issue the certificate (7.4)."""
    order = _refreshed(ca, ca.orders[url])
    if order["status"] != "ready":
        raise Problem("orderNotReady", f"The order is {order['status']}", 403)
    names = [wanted["value"] for wanted in order["identifiers"]]
    key = csr_key(unb64url(payload.get("csr")), names)
    if spki(key) == spki(account.key.key):
        raise Problem("badCSR", "The account's key must not be certified")
    short = (name for name in names if len(name) <= MAX_COMMON_NAME_LENGTH)
    draft = Draft(
        common_name=next(short, None),
        names=tuple(names),
        key=key,
        issuer=ca.intermediates[0],
        signer=ca.key,
        not_before=ca.now() - HOUR,
        not_after=ca.now() - HOUR + ca.lifetime,
    )
    leaf = ca.faults.draft(draft).sign()
    ca.remember(Issued(leaf, account, names))
    links: list[str] = []
    for above in reversed(ca.intermediates):
        show = partial(_certificate, [leaf, above], tuple(links))
        order["certificate"] = ca.publish(Resource("certificate", show, account))
        links.append(f'<{order["certificate"]}>;rel="alternate"')
    return Answer(200, _refreshed(ca, order), {"Location": url})


def _certificate(
    chain: list[x509.Certificate], links: tuple[str, ...], *_: object
) -> Answer:
    return Answer(headers={"Link": ", ".join(links)}, chain=list(chain))


# Section 7.5: authorizations, and 8: challenges


def _authorize(ca: CertificateAuthority, account: Account, name: str) -> str:
    authorization: Document = {"identifier": identifier(name), "status": "pending"}
    show = partial(_authorization, authorization)
    url = ca.publish(Resource("authorization", show, account))
    ca.authorizations[url] = authorization
    token = secrets.token_urlsafe(32)
    token = token if ca.faults.token is None else ca.faults.token
    authorization["expires"] = rfc3339(ca.now() + WEEK)
    authorization["challenges"] = [
        {"type": kind, "token": token, "status": "pending"}
        for kind in ("dns-01", "http-01")
    ]
    for challenge in authorization["challenges"]:
        post = partial(_challenge, ca, url, challenge)
        challenge["url"] = ca.publish(Resource("challenge", post, account))
    if ca.faults.authorizations_valid:
        _settle(authorization, authorization["challenges"][1], "valid")
    return url


def _authorization(known: Document, _: Account, payload: Document) -> Answer:
    if payload.get("status") == "deactivated":  # 7.5.2
        known["status"] = "deactivated"
    return Answer(document=known)


def _challenge(
    ca: CertificateAuthority,
    url: str,
    challenge: Document,
    account: Account,
    payload: Document,
) -> Answer:
    known = ca.authorizations[url]
    if payload is not POST_AS_GET and challenge["status"] == "pending":
        if known["status"] != "pending":
            raise Problem("malformed", "The authorization is no longer pending")
        challenge["status"] = "processing"
        challenge.pop("error", None)
        expected = f"{challenge['token']}.{encode_b64jose(account.key.thumbprint())}"
        validate = partial(_validate, ca, known, challenge, expected)
        if ca.faults.validation_in_answer:
            validate()
        else:
            ca.threads.append(Thread(target=validate))
            ca.threads[-1].start()
    return Answer(200, challenge, {"Link": f'<{url}>;rel="up"'})


# Section 8.3: validation


def _validate(
    ca: CertificateAuthority, known: Document, challenge: Document, expected: str
) -> None:
    """Validate a challenge with the answer of the name's web server."""
    ca.closing.wait(ca.faults.slow_validation)
    name, error = known["identifier"]["value"], None
    try:
        if challenge["type"] == "http-01":
            _check_token_file(ca, name, challenge["token"], expected)
        else:
            detail = f"No TXT record found at _acme-challenge.{name}"
            error = Problem("unauthorized", detail, 403)
    except Problem as problem:
        error = problem
    with ca.lock:
        if error:
            challenge["error"] = error.answer.document
        else:
            challenge["validated"] = rfc3339(ca.now())
        if error and ca.faults.failures_stay_pending:
            challenge["status"] = "pending"
        else:
            _settle(known, challenge, "invalid" if error else "valid")


def _settle(authorization: Document, challenge: Document, status: str) -> None:
    """Finish an authorization; keep only the challenge that was tried."""
    challenge["status"] = status
    authorization |= {"status": status, "challenges": [challenge]}


def _check_token_file(
    ca: CertificateAuthority, name: str, token: str, expected: str
) -> None:
    url = f"http://{name}/.well-known/acme-challenge/{token}"
    for _ in range(MAX_REDIRECTS + 1):
        address, response, seen = _fetch(ca, url)
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
        whole = len(seen) < MAX_TOKEN_FILE_BYTES
        if not whole or seen.rstrip(b"\n\r\t ") != expected.encode():
            detail = (
                f"{address}: The key authorization file from the server did not "
                f'match this challenge. Expected "{expected}" (got '
                f'"{seen.decode(errors="replace")}") from {url}'
            )
            raise Problem("unauthorized", detail, 403)
        return
    raise Problem("connection", f"Fetching {url}: Too many redirects")


def _fetch(
    ca: CertificateAuthority, url: str
) -> tuple[str, http.client.HTTPResponse, bytes]:
    """Return a web server's address, its answer, and the beginning of the body."""
    parts = urlsplit(url)
    path = parts._replace(scheme="", netloc="", fragment="").geturl()
    host = parts.netloc.lower().removesuffix(":80")
    if parts.scheme != "http" or host != parts.hostname:
        raise Problem("connection", f"Fetching {url}: Only port 80 is supported")
    address = ca.resolve(host)
    if address is None:
        detail = f"DNS problem: NXDOMAIN looking up A for {host} - check that a DNS"
        raise Problem("dns", f"{detail} record exists for this domain")
    web = http.client.HTTPConnection(address, ca.http_port, timeout=ca.timeout)
    try:
        web.request("GET", path or "/", headers={"Host": host})
        with web.getresponse() as response:
            return address, response, response.read(MAX_TOKEN_FILE_BYTES)
    except (OSError, http.client.HTTPException, ValueError) as exc:
        reasons = (said for kind, said in FAILURES.items() if isinstance(exc, kind))
        detail = next(reasons, "Error getting validation data")
        raise Problem("connection", f"{address}: Fetching {url}: {detail}") from exc
    finally:
        web.close()
