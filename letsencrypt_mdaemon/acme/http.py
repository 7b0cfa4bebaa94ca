"""Replies of an ACME server, read within limits, and errors for missing replies."""

from __future__ import annotations

import json
import logging
import re
import ssl
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import requests
from cryptography import x509
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from letsencrypt_mdaemon.errors import AcmeError
from letsencrypt_mdaemon.pki.chain import title
from letsencrypt_mdaemon.system.disk import reason
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

_log = logging.getLogger(__name__)

MAX_BODY_BYTES = 1 << 20
"""A certificate chain has about 10,000."""

_LOST = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,  # the body ended too early
    requests.exceptions.ContentDecodingError,
)


class TransientError(AcmeError):
    """A request that was lost on the way or met an overloaded CA."""


@dataclass(frozen=True)
class Reply:
    """A CA's answer."""

    url: str
    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def location(self) -> str:
        """The resource's URL; empty if the CA sent none."""
        location = self.headers.get("Location", "")
        return self._absolute(location) if location else ""

    @property
    def alternates(self) -> list[str]:
        """The URLs of the alternate chains (RFC 8555, 7.4.2; RFC 8288)."""
        links = requests.utils.parse_header_links(self.headers.get("Link", ""))
        found = [
            self._absolute(link["url"])
            for link in links
            if "alternate" in link.get("rel", "").lower().split()
        ]
        return [url for url in found if url]

    def _absolute(self, url: str) -> str:
        """Return a URL that may be relative to this one; "" if it is malformed."""
        try:
            return urljoin(self.url, url)
        except ValueError:
            return ""

    @property
    def retry_after(self) -> float | None:
        """Seconds that the CA asks us to wait."""
        return retry_after(self.headers.get("Retry-After"), datetime.now(UTC))

    @property
    def nonce(self) -> str:
        """The nonce; "" if there is none, or it is not base64url (6.5.1)."""
        nonce = self.headers.get("Replay-Nonce", "")
        return nonce if re.fullmatch(r"[A-Za-z0-9_-]{1,500}", nonce) else ""

    @property
    def is_refusal(self) -> bool:
        """Whether the status is not a success."""
        return not 200 <= self.status < 300  # noqa: PLR2004 - RFC 9110, 15.3

    @property
    def problem(self) -> dict[str, Any]:
        """The problem document of a refusal (6.7); empty for a load balancer's page."""
        problem = (_object(self.body) if self.is_refusal else None) or {}
        return problem if problem.keys() & {"type", "detail"} else {}

    def document(self) -> dict[str, Any]:
        """Return the JSON object.

        Raises:
            AcmeError: If the body is not a JSON object.
        """
        document = _object(self.body)
        if document is None:
            kind = printable(self.headers.get("Content-Type", "no content type"), 80)
            title = printable(html_title(self.body), 80)
            raise AcmeError(
                f"{printable(self.url, 300)} answered with {title!r} ({kind}) instead "
                "of a JSON object.",
                hint="Check directory-url, and whether a proxy answers instead.",
            )
        return document


class Adapter(HTTPAdapter):
    """Connections that share a TLS context.

    Otherwise each connection reads the roots anew; Mozilla's take 16 ms.
    """

    def __init__(self) -> None:
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._lock = Lock()
        super().__init__()

    def build_connection_pool_key_attributes(
        self,
        request: requests.PreparedRequest,
        verify: bool | str,  # noqa: FBT001 - the library's signature, as all here
        cert: Any = None,  # noqa: ANN401
    ) -> tuple[Any, Any]:
        """Return what connections to a host have in common."""
        host, pool = super().build_connection_pool_key_attributes(request, verify, cert)
        if host["scheme"] == "https":
            roots = DEFAULT_CA_BUNDLE_PATH if verify is True else str(verify)
            context = self._context(roots)
            pool = {"ssl_context": context, "cert_reqs": "CERT_REQUIRED"}
        return host, pool

    def cert_verify(self, *_: object) -> None:
        """Do nothing: the context verifies."""

    def _context(self, roots: str) -> ssl.SSLContext:
        with self._lock:
            if roots not in self._contexts:
                folder, file = (roots, None) if Path(roots).is_dir() else (None, roots)
                context = ssl.create_default_context(cafile=file, capath=folder)
                self._contexts[roots] = context
            return self._contexts[roots]


def read(response: requests.Response) -> bytes:
    """Read a body until it exceeds `MAX_BODY_BYTES`."""
    body = b""
    for part in response.iter_content(65536):
        body += part
        if len(body) > MAX_BODY_BYTES:
            break
    return body


def unanswered(url: str, exc: Exception, proxies: Mapping[str, str]) -> AcmeError:
    """Return the error for a request that got no answer.

    Args:
        proxies: The proxies in use, by the scheme or host of the URLs; see `requests`.
    """
    cause = _innermost(exc)
    said = reason(cause) if isinstance(cause, OSError) else str(cause)
    said = printable(said, 300) or type(cause).__name__
    target = printable(url, 300)
    proxy = requests.utils.select_proxy(url, proxies) if proxies else None
    if proxy:
        # Without the name and the password that may come before the host.
        host = proxy.rpartition("//")[2].rpartition("@")[2]
        target += f" through the proxy {printable(host, 300)}"
    if isinstance(exc, requests.exceptions.ProxyError):
        message = f"Could not reach {target}: {said}."
        hint = "Check HTTPS_PROXY or the system's proxy; NO_PROXY lists exceptions."
        return TransientError(message, hint=hint)
    if isinstance(cause, ssl.SSLCertVerificationError):
        message = f"Could not make a trusted TLS connection to {target}: {said}."
        hint = "For a private CA, set ca-bundle to its roots; check the clock."
        if proxy:
            who = _signer(url, proxy) or "somebody unknown"
            message += f" The certificate that came was signed by {who}."
            hint = "Exempt the CA's host from the TLS inspection of the proxy. For a "
            hint += "private CA, set ca-bundle to its roots; check the clock."
        return AcmeError(message, hint=hint)
    hung_up = ssl.SSLEOFError | ssl.SSLZeroReturnError | ConnectionError | TimeoutError
    if isinstance(exc, requests.exceptions.SSLError) and not isinstance(cause, hung_up):
        message = f"Could not make a TLS connection to {target}: {said}."
        hint = "Check directory-url, and whether a proxy answers instead of the CA."
        return AcmeError(message, hint=hint)
    if isinstance(exc, _LOST):
        hint = "Check the network, DNS, the proxy and directory-url."
        return TransientError(f"Could not reach {target}: {said}.", hint=hint)
    hint = "Check directory-url and ca-bundle."
    return AcmeError(f"Could not send a request to {target}: {said}.", hint=hint)


def _innermost(exc: BaseException) -> BaseException:
    """Return the first cause: the outer ones repeat the URL and the names of classes.

    It stands in `__context__` where urllib3 raises from an error that it has just made.
    """
    for inner in (exc.__context__, exc.__cause__):
        # Another request's error is only being handled.
        if inner is not None and not isinstance(inner, AcmeError):
            return _innermost(inner)
    return exc


def _signer(url: str, proxy: str) -> str:
    """Return who signed the certificate that comes through a proxy; "" if unknown."""
    # Nothing is sent through this connection.
    context = ssl._create_unverified_context()  # noqa: S323, SLF001
    try:
        there, by = urlsplit(url), urlsplit(proxy)
        connection = HTTPSConnection(
            by.hostname or "", by.port or 80, timeout=10, context=context
        )
        headers = HTTPAdapter().proxy_headers(proxy)
        connection.set_tunnel(there.hostname or "", there.port or 443, headers)
        with closing(connection):
            connection.connect()
            der = connection.sock.getpeercert(binary_form=True) or b""
        return title(x509.load_der_x509_certificate(der), "issuer")
    except (OSError, HTTPException, ValueError, TypeError) as exc:
        _log.debug("Could not see the certificate: %s", printable(exc))
        return ""


def retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks for, from 0 to a day.

    It is an integer or a date (RFC 9110, 10.2.3), in any time zone; None for anything
    else.
    """
    if value is None:
        return None
    if re.fullmatch(r"\s*-?[0-9]+\s*", value):
        seconds = float(value)
    elif moment := http_date(value):
        seconds = (moment - now).total_seconds()
    else:
        return None
    return min(max(seconds, 0.0), 86400.0)


def http_date(value: str) -> datetime | None:
    """Return an HTTP-date in UTC (RFC 9110, 5.6.7); None if it is not one."""
    try:
        moment = parsedate_to_datetime(value)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def html_title(body: bytes) -> str:
    """Return an HTML page's title, or the beginning of any other body."""
    text = body[:4096].decode("utf-8", "replace")
    title = re.search(r"<title[^>]*>([^<]*)", text, re.IGNORECASE)
    return (title[1] if title else text).strip().rstrip(".")


def _object(body: bytes) -> dict[str, Any] | None:
    """Return a JSON object; None for anything else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
