"""Replies of an ACME server, read within limits, and errors for missing replies."""

from __future__ import annotations

import json
import re
import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import requests
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from letsencrypt_mdaemon.errors import AcmeError
from letsencrypt_mdaemon.system.disk import reason
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

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


def unanswered(url: str, exc: Exception) -> AcmeError:
    """Return the error for a request that got no answer."""
    # The innermost cause: the outer ones repeat the URL and the names of classes.
    cause: BaseException = exc
    while inner := cause.__cause__ or cause.__context__:
        if isinstance(inner, AcmeError):
            break  # It belongs to an earlier request, and is just being handled.
        cause = inner
    said = reason(cause) if isinstance(cause, OSError) else str(cause)
    said = printable(said, 300) or type(cause).__name__
    if isinstance(exc, requests.exceptions.ProxyError):
        message = f"Could not reach {url} through the proxy: {said}."
        hint = "Check HTTPS_PROXY or the system's proxy; NO_PROXY lists exceptions."
        return TransientError(message, hint=hint)
    hung_up = isinstance(cause, ssl.SSLEOFError | ConnectionError | TimeoutError)
    if isinstance(exc, requests.exceptions.SSLError) and not hung_up:
        message = f"Could not make a trusted TLS connection to {url}: {said}."
        hint = "For a private CA, set ca-bundle to its roots; check the clock."
        return AcmeError(message, hint=hint)
    if isinstance(exc, _LOST):
        hint = "Check the network, DNS, the proxy and directory-url."
        return TransientError(f"Could not reach {url}: {said}.", hint=hint)
    hint = "Check directory-url and ca-bundle."
    return AcmeError(f"Could not send a request to {url}: {said}.", hint=hint)


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
