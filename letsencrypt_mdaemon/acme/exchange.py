"""One HTTP request, within limits of time and size, and only where it may go."""

from __future__ import annotations

import logging
import math
import os
import re
import socket
import ssl
import time
from contextlib import closing
from dataclasses import replace
from http.client import HTTPException, HTTPResponse, HTTPSConnection
from ipaddress import ip_address
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
import urllib3
from cryptography import x509
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3 import connection, exceptions

from letsencrypt_mdaemon._version import __version__
from letsencrypt_mdaemon.acme.http import Reply, TransientError
from letsencrypt_mdaemon.errors import AcmeError
from letsencrypt_mdaemon.pki.chain import title
from letsencrypt_mdaemon.system.disk import reason
from letsencrypt_mdaemon.system.incoming import Incoming, seconds_left
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_log = logging.getLogger(__name__)

MAX_HEAD_BYTES = 64 << 10
"""Status line and headers; Let's Encrypt's have about 1,000."""

MAX_REDIRECTS = 3
CONNECT_SECONDS = 10.0

# RFC 8555, 6.1: name and version of the client. What is not compressed cannot swell.
_HEADERS = {
    "User-Agent": f"letsencrypt-mdaemon/{__version__}",
    "Accept": "*/*",
    "Accept-Encoding": "identity",
}

_FAILURES = (requests.RequestException, exceptions.HTTPError, HTTPException, OSError)

_LOST = (
    requests.ConnectionError,
    requests.Timeout,
    exceptions.ProtocolError,  # the body ended too early, or was no HTTP
    exceptions.TimeoutError,
    HTTPException,
    TimeoutError,
)


class _Response(HTTPResponse):
    """A response for which the socket's timeout is that of the whole."""

    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:  # noqa: ANN401
        seconds = sock.gettimeout()
        deadline = time.monotonic() + (math.inf if seconds is None else seconds)
        self._incoming = Incoming(sock, deadline, MAX_HEAD_BYTES)
        super().__init__(self._incoming, *args, **options)  # type: ignore[arg-type] # it only calls `makefile`

    def begin(self) -> None:
        """Read the head; who reads the body has a limit for that."""
        super().begin()
        self._incoming.most = math.inf


class _Connection(connection.HTTPConnection):
    response_class = _Response

    def _new_conn(self) -> socket.socket:
        """Connect; all addresses that DNS names share the time of one."""
        host, seconds = self._dns_host, self.timeout
        deadline = time.monotonic() + (seconds or CONNECT_SECONDS)
        failure: Exception = exceptions.NewConnectionError(self, "no address")
        try:
            rows = socket.getaddrinfo(host, self.port, type=socket.SOCK_STREAM)
            for address in dict.fromkeys(str(row[4][0]) for row in rows):
                self._dns_host, self.timeout = address, seconds_left(deadline)
                try:
                    return super()._new_conn()
                except exceptions.HTTPError as exc:
                    failure = exc
        except socket.gaierror as exc:
            raise exceptions.NameResolutionError(host, self, exc) from exc
        except TimeoutError as exc:
            failure = exceptions.ConnectTimeoutError(self, "timed out")
            failure.__cause__ = exc
        finally:
            self._dns_host, self.timeout = host, seconds
        raise failure


class _SecureConnection(_Connection, connection.HTTPSConnection):
    """The same over TLS, whose handshake has the socket's timeout for the whole."""


class Adapter(HTTPAdapter):
    """Connections with limits, which share a TLS context.

    Otherwise each connection reads the roots anew; Mozilla's take 16 ms.
    """

    def __init__(self) -> None:
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._lock = Lock()
        super().__init__()

    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        """Return a pool whose connections have the limits."""
        pool: Any = super().get_connection_with_tls_context(*args, **options)
        secure = pool.scheme == "https"
        pool.ConnectionCls = _SecureConnection if secure else _Connection
        return pool

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


def check_url(url: str, directory_url: str) -> None:
    """Refuse a URL that does not begin with https (RFC 8555, 6.1), or that has a login.

    A CA on this machine may do without TLS.

    Raises:
        AcmeError: If it is such a URL.
    """
    try:
        there, ca = urlsplit(url), urlsplit(directory_url)
        local = _is_loopback(there.hostname) and _is_loopback(ca.hostname)
        schemes = {"https", "http"} if local else {"https"}
        good = there.scheme in schemes and there.hostname and "@" not in there.netloc
    except ValueError:
        good = False
    if not good:
        shown = printable(re.sub("//[^/]*@", "//...@", url), 300)
        message = f"The CA's URL {shown} is refused: it must begin with https:// and a "
        message += "host, without a login (RFC 8555, 6.1)."
        hint = "Check directory-url, and whether a proxy answers; if neither is the "
        hint += "cause, report this to the CA."
        raise AcmeError(message, hint=hint)


def _is_loopback(host: str | None) -> bool:
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return host == "localhost"


def route(
    url: str, ca_bundle: Path | None = None, *, proxy: str = ""
) -> dict[str, Any]:
    """Return the proxies and roots for a URL, as the environment has them.

    A login from `.netrc` is never among them.

    Args:
        proxy: The URL of the only proxy; "" = that of the environment, or on Windows of
            this account's settings. NO_PROXY lists exceptions in both cases.
    """
    roots = str(ca_bundle or "")
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        roots = roots or os.environ.get(name, "")
    proxies = requests.utils.get_environ_proxies(url)
    if proxy:
        bypassed = requests.utils.should_bypass_proxies(url, no_proxy=None)
        proxies = {} if bypassed else {"http": proxy, "https": proxy}
    return {"proxies": proxies, "verify": roots or True}


def proxy_of(url: str) -> str:
    """Return the proxy that this account has for a URL; "" if it has none."""
    proxies = requests.utils.get_environ_proxies(url)
    return requests.utils.select_proxy(url, proxies) or ""


def send(  # noqa: PLR0913 - what a request is made of
    adapter: Adapter,
    method: str,
    url: str,
    *,
    seconds: float,
    most: int,
    by: Mapping[str, Any],
    headers: Mapping[str, str] | None = None,
    data: str | None = None,
) -> Reply:
    """Send a request, without login and cookies; follow no redirect.

    Args:
        seconds: For all of it, however it comes.
        most: Bytes that the body may have.
        by: The route; see `route`.

    Raises:
        TransientError: If no answer comes, or not in time.
        AcmeError: If it cannot be sent, or the answer is too long or encoded.
    """
    heads = {**_HEADERS, **(headers or {})}
    limits: Any = urllib3.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))
    try:
        request = requests.Request(method, url, heads, data=data).prepare()
        # Not through a session of `requests`: that reads the body of a redirect, to its
        # end and decoded.
        response = adapter.send(request, stream=True, timeout=limits, **by)
        with closing(response.raw) as raw:
            reply = Reply(url, response.status_code, response.headers, b"")
            if reply.redirect:
                return reply
            return replace(reply, body=_read(raw, url, most))
    except (*_FAILURES, ValueError) as exc:
        raise unanswered(url, exc, by.get("proxies", {})) from exc


def _read(raw: urllib3.BaseHTTPResponse, url: str, most: int) -> bytes:
    coding = raw.headers.get("Content-Encoding", "identity")
    if coding.strip().lower() not in {"", "identity"}:
        message = f"{printable(url, 300)} sent what was not asked for: the encoding "
        message += f"{printable(coding, 40)}."
        raise AcmeError(message, hint="Check whether a proxy answers instead.")
    body = bytearray()
    while part := raw.read(65536, decode_content=False):
        body += part
        if len(body) > most:
            message = f"{printable(url, 300)} sent more than {most} bytes."
            raise AcmeError(message, hint="Check whether a proxy answers instead.")
    return bytes(body)


def follow(get: Callable[[str], Reply], url: str) -> Reply:
    """Get a resource that may have moved, a few times."""
    for _ in range(MAX_REDIRECTS):
        reply = get(url)
        if not reply.redirect:
            return reply
        url = reply.redirect
    return get(url)


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
    of_tls = requests.exceptions.SSLError | exceptions.SSLError
    if isinstance(exc, of_tls) and not isinstance(cause, hung_up):
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
        connection.response_class = _Response
        headers = HTTPAdapter().proxy_headers(proxy)
        connection.set_tunnel(there.hostname or "", there.port or 443, headers)
        with closing(connection):
            connection.connect()
            der = connection.sock.getpeercert(binary_form=True) or b""
        return title(x509.load_der_x509_certificate(der), "issuer")
    except (OSError, HTTPException, ValueError, TypeError) as exc:
        _log.debug("Could not see the certificate: %s", printable(exc))
        return ""
