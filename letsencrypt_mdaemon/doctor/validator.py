"""Fetch a token file as a CA's validator does (RFC 8555, 8.3), from where we stand.

The rules are Let's Encrypt's, as its validator applies them and the Baseline
Requirements (3.2.2.4.19) ask: port 80 first, few redirects, and few bytes.
"""

from __future__ import annotations

import codecs
import errno
import http.client
import io
import re
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from letsencrypt_mdaemon._version import __version__
from letsencrypt_mdaemon.doctor.advice import Code
from letsencrypt_mdaemon.doctor.findings import Finding
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from typing_extensions import Buffer

Dial: TypeAlias = Callable[[str, int, float], socket.socket]
"""Connects to an address and a port, within some seconds."""

PATIENCE = 8.0
"""Seconds for all of a fetch; Let's Encrypt waits about ten."""
FOLLOWED = {301, 302, 307, 308}
MOST_REDIRECTS = 10
LONGEST_PATH = 2000
BODY_LIMIT = 128
"""Bytes that are read; an answer has to be shorter."""
LIMIT = 256 << 10
"""Bytes of an answer, its headers included."""
_PORTS = {"http": 80, "https": 443}
_PROXIES = ("x-squid-error", "proxy-authenticate", "proxy-connection")
_ASKS_FOR_LOGIN = {407, 511}
# What says that this machine has no way there, whatever others have.
_NO_ROUTE = {
    *(errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT),
    *(10051, 10049, 10047),  # the same on Windows
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What came of a fetch.

    Args:
        finding: Why the CA would not be content; None if it would.
        urls: Those asked, one after the other.
        status: The last answer's; 0 if there was none.
        server: The program that the last answer names (RFC 9110, 10.2.4).
        body: Its first bytes.
    """

    finding: Finding | None
    urls: tuple[str, ...]
    status: int = 0
    server: str = ""
    body: bytes = b""


class Stopped(Exception):  # noqa: N818 - an answer, not an error of ours
    """The CA would go no further."""

    def __init__(self, kind: Code, seen: str) -> None:
        super().__init__(seen)
        self.finding = Finding(kind=kind, seen=seen)


class AddressOf(Protocol):
    """Tells where the host of a redirect is."""

    def __call__(self, host: str, deadline: float) -> str:
        """Return the address that the CA would ask.

        Raises:
            Stopped: If it would ask none.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    reason: str
    headers: http.client.HTTPMessage
    body: bytes


class Validator:
    """Fetches by the rules.

    Args:
        address_of: Tells where the hosts of redirects are.
        dial: How to connect; elsewhere than `connect` in a laboratory.
    """

    def __init__(self, address_of: AddressOf, dial: Dial) -> None:
        self._address_of = address_of
        self._dial = dial

    def fetch(
        self, name: str, address: str, path: str, expected: bytes, deadline: float
    ) -> Fetched:
        """Fetch a file of a name at one of its addresses.

        Args:
            expected: The whole content that the file should have.
            deadline: On the monotonic clock; the CA's patience may end before.
        """
        deadline = min(deadline, time.monotonic() + PATIENCE)
        urls = [f"http://{name}{path}"]
        try:
            answer = self._follow(urls, address, deadline)
        except Stopped as exc:
            return Fetched(finding=exc.finding, urls=tuple(urls))
        return Fetched(
            finding=_judge(
                answer, f"{printable(urls[-1], 200)} at {address}", expected
            ),
            urls=tuple(urls),
            status=answer.status,
            server=printable(answer.headers.get("Server", ""), 80),
            body=answer.body,
        )

    def _follow(self, urls: list[str], address: str, deadline: float) -> _Answer:
        """Return the last answer; each further URL is added to the list."""
        while True:
            url = urlsplit(urls[-1])
            answer = self._get(url, address, deadline)
            location = answer.headers.get("Location", "")
            # One that does not say where is no redirect, but an answer like others.
            if not location or answer.status not in {*FOLLOWED, 303}:
                return answer
            where = f"{printable(urls[-1], 200)} redirects ({answer.status}) to "
            where += printable(location, 200)
            if answer.status not in FOLLOWED:
                raise Stopped(Code.HTTP_REDIRECT_303, where)
            target = _target(urls[-1], location, where)
            if len(urls) > MOST_REDIRECTS or target.geturl() in urls:
                raise Stopped(Code.HTTP_REDIRECT_LOOP, f"{where}, in a circle")
            if target.hostname != url.hostname:
                address = self._address_of(target.hostname or "", deadline)
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
                seen = f"{where} did not answer in {PATIENCE:g} s"
                raise Stopped(Code.HTTP_NO_ANSWER, seen) from exc
            except (OSError, http.client.HTTPException, ValueError) as exc:
                seen = f"{where} did not answer as a web server does: {_reason(exc)}"
                raise Stopped(Code.HTTP_NO_ANSWER, seen) from exc

    def _connect(
        self, scheme: str, address: str, where: str, deadline: float
    ) -> socket.socket:
        try:
            return self._dial(address, _PORTS[scheme], _left(deadline))
        except OSError as exc:
            seen = f"{where}: no connection: {_reason(exc)}"
            if exc.errno in _NO_ROUTE or getattr(exc, "winerror", 0) in _NO_ROUTE:
                seen = f"{where}: this machine has no way there: {_reason(exc)}"
                raise Stopped(Code.HAIRPIN_UNKNOWN, seen) from exc
            kind = Code.PORT80_TIMEOUT
            if isinstance(exc, ConnectionRefusedError):
                kind = Code.PORT80_REFUSED
            if scheme == "https":
                kind = Code.HTTPS_FAILED
            raise Stopped(kind, seen) from exc


def connect(address: str, port: int, timeout: float) -> socket.socket:
    """Connect to an address."""
    return socket.create_connection((address, port), timeout)


def path_of(token: str) -> str:
    """Return where the CA looks for a token (RFC 8555, 8.3)."""
    return f"/.well-known/acme-challenge/{token}"


def _target(url: str, location: str, where: str) -> SplitResult:
    """Return the URL that a redirect leads to.

    Raises:
        Stopped: If it is not followed.
    """
    try:
        if not re.fullmatch(r"[^\x00-\x1f\x7f]*", location):
            raise ValueError  # noqa: TRY301 - said as the others
        # The bytes of a header come as Latin-1; the fragment is not sent.
        quoted = quote(location, safe="!#$%&'()*+,/:;=?@[]~", encoding="latin-1")
        # `urljoin` takes what begins with the same scheme for relative.
        joined = quoted if urlsplit(quoted).scheme else urljoin(url, quoted)
        target = urlsplit(joined)._replace(fragment="")
        target = target._replace(netloc=target.netloc.lower())
        scheme, host, port = target.scheme, target.hostname or "", target.port
    except ValueError:
        raise Stopped(Code.HTTP_REDIRECT_INVALID, f"{where}, which is no URL") from None
    if scheme not in _PORTS:
        raise Stopped(Code.HTTP_REDIRECT_SCHEME, where)
    if port not in (None, _PORTS[scheme]):
        raise Stopped(Code.HTTP_REDIRECT_PORT, where)
    if host.endswith(".well-known"):
        raise Stopped(Code.HTTP_REDIRECT_MISSING_SLASH, where)
    if not re.fullmatch(r"([a-z0-9_-]{1,63}\.)+[a-z][a-z0-9-]*\.?", host):
        raise Stopped(Code.HTTP_REDIRECT_HOST, f"{where}, whose host is no public name")
    if len(target.path) > LONGEST_PATH:
        seen = f"{where}, whose path has more than {LONGEST_PATH} bytes"
        raise Stopped(Code.HTTP_REDIRECT_INVALID, seen)
    # Without login and usual port: so a circle is found however it is written.
    return target._replace(netloc=host, path=target.path or "/")


def _secure(
    plain: socket.socket, host: str, where: str, deadline: float
) -> ssl.SSLSocket:
    """Begin TLS: 1.2 or better, and any certificate will do.

    Raises:
        Stopped: If that fails.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Weak keys of a certificate that nobody looks at do not matter.
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    try:
        plain.settimeout(_left(deadline))
        return context.wrap_socket(plain, server_hostname=host)
    except (OSError, ValueError) as exc:
        plain.close()
        seen = f"{where}: no TLS 1.2 or better: {_reason(exc)}"
        raise Stopped(Code.HTTPS_FAILED, seen) from exc


def _ask(connection: socket.socket, url: SplitResult, deadline: float) -> _Answer:
    path = url.path + (f"?{url.query}" if url.query else "")
    request = (
        f"GET {path} HTTP/1.1\r\n"
        f"Host: {url.hostname}\r\n"
        f"User-Agent: Mozilla/5.0 (compatible; letsencrypt-mdaemon/{__version__})\r\n"
        "Accept: */*\r\n"
        "Connection: close\r\n\r\n"
    )
    connection.settimeout(_left(deadline))
    connection.sendall(request.encode("ascii"))
    with http.client.HTTPResponse(_Line(connection, deadline)) as response:  # type: ignore[arg-type] # it only calls `makefile`
        response.begin()
        body = response.read(BODY_LIMIT)
        return _Answer(response.status, response.reason, response.msg, body)


class _Line(io.RawIOBase):
    """What comes over a connection, until a deadline and no more than `LIMIT` bytes."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline
        self._heard = 0

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return what `http.client` reads from."""
        return io.BufferedReader(self, 1 << 10)

    def readable(self) -> bool:
        """Say yes."""
        return True

    def readinto(self, buffer: Buffer) -> int:
        """Read what is there.

        Raises:
            TimeoutError: The deadline has passed.
            ValueError: It becomes too much.
        """
        self._connection.settimeout(_left(self._deadline))
        count = self._connection.recv_into(buffer)
        self._heard += count
        if self._heard > LIMIT:
            raise ValueError(f"it says more than {LIMIT >> 10} KB")
        return count


def _judge(answer: _Answer, where: str, expected: bytes) -> Finding | None:
    """Return why an answer is not the token's file."""
    headers, body = answer.headers, answer.body
    by = f", by {server}" if (server := headers.get("Server")) else ""
    via = f", via {via}" if (via := headers.get("Via")) else ""
    said = f"{where} answered {answer.status} {answer.reason}{by}{via}"
    if answer.status in _ASKS_FOR_LOGIN or any(name in headers for name in _PROXIES):
        return Finding(kind=Code.PROXY_INTERCEPTS, seen=said)
    if answer.status != http.client.OK:
        return Finding(kind=Code.HTTP_STATUS, number=answer.status, seen=said)
    kind = _judge_body(body, headers.get("Content-Type", ""), expected)
    if kind is None:
        return None
    return Finding(kind=kind, seen=f"{said}: {body[:60].decode('utf-8', 'replace')!r}")


def _judge_body(body: bytes, content_type: str, expected: bytes) -> Code | None:
    text = body.decode("utf-8", "replace").rstrip().encode("utf-8", "replace")
    if len(body) < BODY_LIMIT and text == expected:
        return None
    if body.startswith(codecs.BOM_UTF8) and expected in body:
        return Code.BODY_BOM
    if "html" in content_type.lower() or re.match(
        rb"\s*<(!doctype|html|head|body)", body, re.IGNORECASE
    ):
        return Code.BODY_HTML_LOGIN_PAGE
    if len(body) >= BODY_LIMIT:
        return Code.BODY_TOO_LONG
    return Code.WEBROOT_NOT_SERVED


def _left(deadline: float) -> float:
    """Return the seconds that are left.

    Raises:
        TimeoutError: If none are.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _reason(exc: Exception) -> str:
    if isinstance(exc, TimeoutError):
        return "it takes too long"
    said = getattr(exc, "reason", None) or getattr(exc, "strerror", None) or exc
    return printable(said, 200) or type(exc).__name__
