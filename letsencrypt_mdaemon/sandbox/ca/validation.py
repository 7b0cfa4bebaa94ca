"""How the sandbox CA validates a challenge (RFC 8555, 8.3)."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from letsencrypt_mdaemon.sandbox.ca.messages import Document, Problem, rfc3339

if TYPE_CHECKING:
    from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority

REDIRECTS, MAX_REDIRECTS = {301, 302, 307, 308}, 10
MAX_TOKEN_FILE_BYTES = 128

FAILURES = {
    TimeoutError: "Timeout during connect (likely firewall problem)",
    ConnectionRefusedError: "Connection refused",
    ConnectionResetError: "Connection reset by peer",
}


def validate(
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
            settle(known, challenge, "invalid" if error else "valid")


def settle(authorization: Document, challenge: Document, status: str) -> None:
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
