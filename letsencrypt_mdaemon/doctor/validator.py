"""Fetch a token file as a CA's validator does (RFC 8555, 8.3), from this machine.

The rules are those of Let's Encrypt's validator and the Baseline Requirements
(3.2.2.4.19): port 80 first, few redirects, and few bytes.
"""

from __future__ import annotations

import codecs
import errno
import http.client
import re
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import closing
from typing import NamedTuple, TypeAlias
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from letsencrypt_mdaemon._version import __version__
from letsencrypt_mdaemon.doctor.findings import Code, Finding
from letsencrypt_mdaemon.system.disk import reason
from letsencrypt_mdaemon.system.incoming import Incoming, seconds_left
from letsencrypt_mdaemon.text import printable

AddressOf: TypeAlias = Callable[[str, float], str]
"""Returns the address that the CA connects to for a host; takes a deadline, too.

Raises `FetchError` if the CA would connect to none.
"""
Dial: TypeAlias = Callable[[str, int, float], socket.socket]
"""Connects to an address and a port, within some seconds."""
_Answer: TypeAlias = tuple[http.client.HTTPResponse, bytes]
"""A response, and the first bytes of its body."""

TIMEOUT_SECONDS = 8.0
"""Seconds for a whole fetch; Let's Encrypt waits about ten."""
PROTOCOL_SECONDS = 2.0
FOLLOWED = {301, 302, 307, 308}
MAX_REDIRECTS = 10
MAX_PATH_CHARACTERS = 2000
MAX_BODY_BYTES = 128
"""Bytes that the CA reads; the token file has to be shorter."""
MAX_ANSWER_BYTES = 256 << 10
"""Bytes of an answer, its headers included."""
_PORTS = {"http": 80, "https": 443}
_PROXIES = ("x-squid-error", "proxy-authenticate", "proxy-connection")
_ASKS_FOR_LOGIN = {407, 511}
# This machine has no route to the address; others may have one.
_NO_ROUTE = {
    *(errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT),
    *(10051, 10049, 10047),  # the same on Windows
}


class Fetched(NamedTuple):
    """What came of a fetch.

    Args:
        finding: Why validation would fail; None if it would not.
        urls: The URLs that were fetched, in order.
        status: The HTTP status of the last answer; 0 if there was none.
        server: The Server header of the last answer (RFC 9110, 10.2.4).
        body: The first bytes of the last answer's body.
    """

    finding: Finding | None
    urls: tuple[str, ...]
    status: int = 0
    server: str = ""
    body: bytes = b""


class FetchError(Exception):
    """The CA would not get an answer, or not follow it any further."""

    def __init__(self, kind: Code, seen: str) -> None:
        super().__init__(seen)
        self.finding = Finding(kind=kind, seen=seen)


class Validator(NamedTuple):
    """Fetches files by the rules of a CA."""

    address_of: AddressOf
    dial: Dial

    def fetch(
        self, name: str, address: str, path: str, expected: bytes, deadline: float
    ) -> Fetched:
        """Fetch a file of a name at one of its addresses.

        Args:
            expected: The whole content that the file should have.
            deadline: On the monotonic clock; the CA may time out earlier.
        """
        deadline = min(deadline, time.monotonic() + TIMEOUT_SECONDS)
        urls = [f"http://{name}{path}"]
        try:
            response, body = self._follow(urls, address, deadline)
        except FetchError as exc:
            return Fetched(exc.finding, tuple(urls))
        where = f"{printable(urls[-1], 200)} at {address}"
        return Fetched(
            finding=_check(response, body, where, expected),
            urls=tuple(urls),
            status=response.status,
            server=printable(response.headers.get("Server", ""), 80),
            body=body,
        )

    def _follow(self, urls: list[str], address: str, deadline: float) -> _Answer:
        """Return the last response, and add each further URL to the list."""
        while True:
            url = urlsplit(urls[-1])
            response, body = self._get(url, address, deadline)
            location = response.headers.get("Location", "")
            # Without a location it is no redirect, but a response like others.
            if not location or response.status not in {*FOLLOWED, 303}:
                return response, body
            where = f"{printable(urls[-1], 200)} redirects ({response.status}) to "
            where += printable(location, 200)
            if response.status not in FOLLOWED:
                raise FetchError(Code.HTTP_REDIRECT_303, where)
            target = _target(urls[-1], location, where)
            if len(urls) > MAX_REDIRECTS or target.geturl() in urls:
                raise FetchError(Code.HTTP_REDIRECT_LOOP, f"{where}, in a loop")
            if target.hostname != url.hostname:
                address = self.address_of(target.hostname or "", deadline)
            urls.append(target.geturl())

    def _get(self, url: SplitResult, address: str, deadline: float) -> _Answer:
        host = url.hostname or ""
        where = f"{printable(url.geturl(), 200)} at {address}"
        connection = self._connect(url.scheme, address, where, deadline)
        if url.scheme == "https":
            connection = _secure(connection, host, where, deadline)
        with closing(connection):
            try:
                return _ask(connection, url, deadline)
            except TimeoutError as exc:
                seen = f"{where} did not answer within {TIMEOUT_SECONDS:g} s"
                raise FetchError(Code.HTTP_NO_ANSWER, seen) from exc
            except (OSError, http.client.HTTPException, ValueError) as exc:
                seen = f"{where} did not answer in HTTP: {_reason(exc)}"
                raise FetchError(Code.HTTP_NO_ANSWER, seen) from exc

    def _connect(
        self, scheme: str, address: str, where: str, deadline: float
    ) -> socket.socket:
        try:
            return self.dial(address, _PORTS[scheme], seconds_left(deadline))
        except OSError as exc:
            seen = f"could not connect to {where}: {_reason(exc)}"
            if exc.errno in _NO_ROUTE or getattr(exc, "winerror", 0) in _NO_ROUTE:
                seen = f"{where}: this machine has no route there: {_reason(exc)}"
                raise FetchError(Code.HAIRPIN_UNKNOWN, seen) from exc
            refused = isinstance(exc, ConnectionRefusedError)
            kind = Code.PORT80_REFUSED if refused else Code.PORT80_TIMEOUT
            if scheme == "https":
                kind = Code.HTTPS_FAILED
            raise FetchError(kind, seen) from exc


def protocol(dial: Dial, address: str, port: int, deadline: float) -> str:
    """Return what a web server speaks at a port: `https`, `http`, or ""."""
    for scheme in ("https", "http"):
        url = urlsplit(f"{scheme}://localhost/")
        # A web server may have to look up its client first.
        until = min(deadline, time.monotonic() + PROTOCOL_SECONDS)
        try:
            connection = dial(address, port, seconds_left(until))
            if scheme == "https":
                connection = _secure(connection, "localhost", "", until)
            with closing(connection):
                _ask(connection, url, until)
        except (OSError, http.client.HTTPException, ValueError, FetchError):
            continue
        return scheme
    return ""


def _target(url: str, location: str, where: str) -> SplitResult:
    """Return the URL that a redirect leads to, if the CA follows it."""
    try:
        if not re.fullmatch(r"[^\x00-\x1f\x7f]*", location):
            raise ValueError  # noqa: TRY301 - reported like the others
        # http.client decodes headers as Latin-1; a fragment is not sent.
        quoted = quote(location, safe="!#$%&'()*+,/:;=?@[]~", encoding="latin-1")
        # `urljoin` takes a URL with the same scheme for a relative one.
        joined = quoted if urlsplit(quoted).scheme else urljoin(url, quoted)
        target = urlsplit(joined)._replace(fragment="")
        target = target._replace(netloc=target.netloc.lower())
        scheme, host, port = target.scheme, target.hostname or "", target.port
    except ValueError:
        seen = f"{where}, which is not a valid URL"
        raise FetchError(Code.HTTP_REDIRECT_INVALID, seen) from None
    if scheme not in _PORTS:
        raise FetchError(Code.HTTP_REDIRECT_SCHEME, where)
    if port not in (None, _PORTS[scheme]):
        raise FetchError(Code.HTTP_REDIRECT_PORT, where)
    if host.endswith(".well-known"):
        raise FetchError(Code.HTTP_REDIRECT_MISSING_SLASH, where)
    if not re.fullmatch(r"([a-z0-9_-]{1,63}\.)+[a-z][a-z0-9-]*\.?", host):
        seen = f"{where}, whose host is not a public name"
        raise FetchError(Code.HTTP_REDIRECT_HOST, seen)
    if len(target.path) > MAX_PATH_CHARACTERS:
        seen = f"{where}, whose path is longer than {MAX_PATH_CHARACTERS} characters"
        raise FetchError(Code.HTTP_REDIRECT_INVALID, seen)
    # Without login and usual port, so that every way to write a loop is noticed.
    return target._replace(netloc=host, path=target.path or "/")


def _secure(
    plain: socket.socket, host: str, where: str, deadline: float
) -> ssl.SSLSocket:
    """Start TLS 1.2 or later, with any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Nobody looks at the certificate, so its keys may be weak.
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    try:
        plain.settimeout(seconds_left(deadline))
        return context.wrap_socket(plain, server_hostname=host)
    except (OSError, ValueError) as exc:
        plain.close()
        seen = f"{where}: could not start TLS 1.2 or later: {_reason(exc)}"
        raise FetchError(Code.HTTPS_FAILED, seen) from exc


def _ask(connection: socket.socket, url: SplitResult, deadline: float) -> _Answer:
    path = url.path + (f"?{url.query}" if url.query else "")
    request = (
        f"GET {path} HTTP/1.1\r\n"
        f"Host: {url.hostname}\r\n"
        f"User-Agent: Mozilla/5.0 (compatible; letsencrypt-mdaemon/{__version__})\r\n"
        "Accept: */*\r\n"
        "Connection: close\r\n\r\n"
    )
    connection.settimeout(seconds_left(deadline))
    connection.sendall(request.encode("ascii"))
    incoming = Incoming(connection, deadline, MAX_ANSWER_BYTES)
    with http.client.HTTPResponse(incoming) as response:  # type: ignore[arg-type] # it only calls `makefile`
        response.begin()
        return response, response.read(MAX_BODY_BYTES)


def _check(
    response: http.client.HTTPResponse, body: bytes, where: str, expected: bytes
) -> Finding | None:
    """Return why a response is not the token file; None if it is."""
    headers = response.headers
    by = f", by {server}" if (server := headers.get("Server")) else ""
    via = f", via {via}" if (via := headers.get("Via")) else ""
    seen = f"{where} answered {response.status} {response.reason}{by}{via}"
    if response.status in _ASKS_FOR_LOGIN or any(name in headers for name in _PROXIES):
        return Finding(kind=Code.PROXY_INTERCEPTS, seen=seen)
    if response.status != http.client.OK:
        return Finding(kind=Code.HTTP_STATUS, number=response.status, seen=seen)
    kind = _check_body(body, headers.get("Content-Type", ""), expected)
    if kind is None:
        return None
    return Finding(kind=kind, seen=f"{seen}: {body[:60].decode('utf-8', 'replace')!r}")


def _check_body(body: bytes, content_type: str, expected: bytes) -> Code | None:
    text = body.decode("utf-8", "replace").rstrip().encode("utf-8", "replace")
    if len(body) < MAX_BODY_BYTES and text == expected:
        return None
    if body.startswith(codecs.BOM_UTF8) and expected in body:
        return Code.BODY_BOM
    if "html" in content_type.lower() or re.match(
        rb"\s*<(!doctype|html|head|body)", body, re.IGNORECASE
    ):
        return Code.BODY_HTML_LOGIN_PAGE
    if len(body) >= MAX_BODY_BYTES:
        return Code.BODY_TOO_LONG
    return Code.WEBROOT_NOT_SERVED


def _reason(exc: Exception) -> str:
    said = reason(exc) if isinstance(exc, OSError) else exc
    return printable(said, 200) or type(exc).__name__
