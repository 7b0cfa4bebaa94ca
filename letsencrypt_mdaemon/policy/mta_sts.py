"""The MTA-STS policy of a domain, fetched and read as senders do (RFC 8461)."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from letsencrypt_mdaemon.system.incoming import Incoming, seconds_left

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_POLICY_BYTES = 64 << 10
"""Of a policy (RFC 8461, 3.3)."""
MAX_HEADER_BYTES = 64 << 10
LEAST_SECONDS = 86_400
"""Of max_age: senders keep shorter policies for less than a day (RFC 8461, 3.2)."""
MAX_MX = 100
"""The mx lines of a policy that are read."""
MODES = ("enforce", "testing", "none")

_ID = re.compile(r"[ \t]*id[ \t]*=[ \t]*([A-Za-z0-9]{1,32})[ \t]*")
_LINE = re.compile(
    r"[ \t]*([A-Za-z0-9][\w.-]{0,31})[ \t]*:[ \t]*(\S[^\r\n]*)", re.ASCII
)
_LABEL = "[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?"
_PATTERN = re.compile(rf"(?:\*\.)?(?:{_LABEL}\.)*{_LABEL}")


class Policy(NamedTuple):
    """What a policy says.

    Args:
        mode: enforce, testing or none.
        mx: The names of the MX hosts, in lower case; `*.` stands for one label.
        max_age: Seconds that senders keep it.
    """

    mode: str
    mx: tuple[str, ...]
    max_age: int

    def allows(self, host: str) -> bool:
        """Whether an MX host is one of the policy's (RFC 8461, 4.1)."""
        return any(_matches(pattern, host.lower()) for pattern in self.mx)


class FetchError(Exception):
    """Senders get no policy.

    Attributes:
        kind: unreachable, certificate, redirect, status, too-large or invalid.
    """

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind = kind


def identifier(texts: Iterable[str]) -> str | None:
    """Return the id in a domain's `_mta-sts` TXT records; None if there is no record.

    Args:
        texts: The TXT records, with their strings joined.

    Raises:
        ValueError: If there are several, or the record has no id (RFC 8461, 3.1).
    """
    rows = [text for text in texts if re.match(r"v=STSv1[ \t]*(;|\Z)", text)]
    if not rows:
        return None
    if len(rows) > 1:
        raise ValueError(f"there are {len(rows)} records")
    found = [
        match[1] for part in rows[0].split(";")[1:] if (match := _ID.fullmatch(part))
    ]
    if not found:
        raise ValueError("the record has no id of letters and digits")
    return found[0]


def parse(data: bytes) -> Policy:
    """Return a policy (RFC 8461, 3.2).

    Raises:
        ValueError: If it is none.
    """
    text = data.decode("utf-8")
    values: dict[str, str] = {}
    mx: list[str] = []
    for line in re.split(r"\r?\n", text.rstrip("\r\n")):
        found = _LINE.fullmatch(line)
        if found is None:
            raise ValueError(f"the line {line[:60]!r} is no name and value")
        name, value = found[1], found[2].rstrip(" \t")
        if name == "mx":
            mx.append(value.lower())
        else:
            values.setdefault(name, value)  # further ones do not count
    if values.get("version") != "STSv1":
        raise ValueError("its version is not STSv1")
    mode = values.get("mode", "")
    if mode not in MODES:
        raise ValueError("its mode is not enforce, testing or none")
    if not re.fullmatch("[0-9]{1,10}", age := values.get("max_age", "")):
        raise ValueError("its max_age is not a number of seconds")
    if len(mx) > MAX_MX or (mode != "none" and not mx):
        raise ValueError(f"it has {len(mx)} mx lines, not 1 to {MAX_MX}")
    if wrong := [pattern for pattern in mx if not _PATTERN.fullmatch(pattern)]:
        raise ValueError(f"{wrong[0][:60]!r} is no name of an MX host")
    return Policy(mode, tuple(mx), int(age))


def fetch(
    domain: str,
    *,
    timeout: float,
    addresses: Iterable[str] = (),
    port: int = 443,
    trusted: ssl.SSLContext | None = None,
) -> Policy:
    """Return the policy that a domain's policy host serves (RFC 8461, 3.3).

    Args:
        timeout: Seconds for all of it.
        addresses: Where to connect to; by default, where the system finds the host.
        trusted: What checks the certificate; by default the system's roots.

    Raises:
        FetchError: If senders would get none.
    """
    host = f"mta-sts.{domain}"
    try:
        return parse(_get(host, [*addresses] or [host], port, timeout, trusted))
    except ssl.SSLCertVerificationError as exc:
        raise FetchError("certificate", exc.verify_message) from exc
    except (ValueError, RecursionError) as exc:
        raise FetchError("invalid", str(exc)) from exc
    except (OSError, http.client.HTTPException) as exc:
        why = str(exc) or type(exc).__name__
        raise FetchError("unreachable", why) from exc


def _get(
    host: str,
    addresses: list[str],
    port: int,
    timeout: float,
    trusted: ssl.SSLContext | None,
) -> bytes:
    deadline = time.monotonic() + timeout
    context = trusted or ssl.create_default_context()
    with _connected(addresses, port, deadline) as plain:
        plain.settimeout(seconds_left(deadline))
        with context.wrap_socket(plain, server_hostname=host) as tls:
            request = (
                "GET /.well-known/mta-sts.txt HTTP/1.1\r\n"
                f"Host: {host}\r\nAccept: text/plain\r\nConnection: close\r\n\r\n"
            )
            tls.sendall(request.encode("ascii"))
            most = MAX_POLICY_BYTES + MAX_HEADER_BYTES
            with Incoming(tls, deadline, most) as incoming:
                answer: Any = incoming  # it has what is used of a socket
                with http.client.HTTPResponse(answer, method="GET") as response:
                    response.begin()
                    _check(response)
                    body = response.read(MAX_POLICY_BYTES + 1)
    if len(body) > MAX_POLICY_BYTES:
        raise FetchError("too-large", "it is larger than 64 KB")
    return body


def _check(response: http.client.HTTPResponse) -> None:
    """Require what senders do: 200, no redirect, plain text (RFC 8461, 3.2 and 3.3)."""
    status = response.status
    if status in range(300, 400):
        raise FetchError("redirect", f"HTTP {status}: senders follow no redirect")
    if status != http.client.OK:
        raise FetchError("status", f"HTTP {status}")
    kind = response.headers.get_content_type()
    if kind != "text/plain":
        raise FetchError("invalid", f"its media type is {kind[:60]}, not text/plain")
    with suppress(ValueError):
        if int(response.headers.get("Content-Length", "0")) > MAX_POLICY_BYTES:
            raise FetchError("too-large", "it is larger than 64 KB")


def _connected(addresses: list[str], port: int, deadline: float) -> socket.socket:
    failure: OSError = OSError("it has no address")
    for address in addresses:
        try:
            return socket.create_connection((address, port), seconds_left(deadline))
        except OSError as exc:
            failure = exc
    raise failure


def _matches(pattern: str, host: str) -> bool:
    if pattern.startswith("*."):
        return host.partition(".")[2] == pattern[2:]
    return pattern == host
