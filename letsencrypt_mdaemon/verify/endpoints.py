"""The TLS ports of a mail server, and the addresses to check them at."""

from __future__ import annotations

import ipaddress
import logging
import re
import socket
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.pki.names import normalise
from letsencrypt_mdaemon.system.parallel import ask_all
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_log = logging.getLogger(__name__)

PORTS = {
    "smtp+starttls": (25, 587),
    "smtps": (465,),
    "imap+starttls": (143,),
    "imaps": (993,),
    "pop3+stls": (110,),
    "pop3s": (995,),
    "https": (443, 444),
}
"""MDaemon's usual ports; 443 and 444 are webmail and Remote Administration."""
LOOPBACK = ("127.0.0.1", "::1")
MAX_ADDRESSES = 8
"""Addresses of this machine, or of one name, that are checked."""
DNS_TIMEOUT_SECONDS = 5.0

_URL = re.compile(
    r"(?P<scheme>[a-z0-9+]+)://"
    r"(?P<host>\[[^\s\[\]]+\]|[^\s\[\]:/]+)"
    r"(?::(?P<port>[1-9]\d{0,4}))?/?",
    re.IGNORECASE | re.ASCII,
)


class Endpoint(NamedTuple):
    """A port, and how TLS starts there.

    Args:
        scheme: A key of `PORTS`.
        host: A name or an address.
        name: The name that DNS gives this address for, if there is one.
    """

    scheme: str
    host: str
    port: int
    name: str = ""

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """Read `scheme://host[:port]`.

        Raises:
            ValueError: If the text is anything else.
        """
        match = _URL.fullmatch(url.strip())
        scheme, host, port = match.groups() if match else ("", "", None)
        try:
            usual_port = PORTS[scheme.lower()][0]
            number = range(1 << 16)[int(port or usual_port)]
            return cls(scheme.lower(), _host(host.strip("[]")), number)
        except (ValueError, LookupError):
            schemes = ", ".join(f"{scheme}://" for scheme in PORTS)
            raise ValueError(
                f"{printable(url, 200)!r} is not an endpoint such as imaps://192.0.2.1 "
                f"or https://mail.example.com:444; the schemes are {schemes}"
            ) from None

    @property
    def url(self) -> str:
        """The endpoint as `parse` reads it, by name if there is one."""
        host = self.name or self.host
        return f"{self.scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def kind(self) -> str:
        """The part of the server: mail, webmail or administration.

        Only these usual ports tell; any other HTTPS port is of the kind `web`.
        """
        web = {443: "webmail", 444: "administration"}
        return web.get(self.port, "web") if self.scheme == "https" else "mail"

    @property
    def is_by_name(self) -> bool:
        """Whether the host is a name."""
        return not _is_address(self.host)

    def __str__(self) -> str:
        """Return the URL, with the address if that is not in it."""
        return f"{self.url} ({self.host})" if self.name else self.url


def usual(addresses: Iterable[str]) -> list[Endpoint]:
    """Return MDaemon's usual ports at some addresses."""
    return [
        Endpoint(scheme, host, port)
        for host in addresses
        for scheme, ports in PORTS.items()
        for port in ports
    ]


def own_addresses() -> tuple[str, ...]:
    """Return the addresses of this machine, loopback first."""
    name = socket.gethostname()
    return worth_checking([*LOOPBACK, *_look_up([name]).get(name, ())])


def worth_checking(addresses: Iterable[str]) -> tuple[str, ...]:
    """Return the addresses at which a server may answer differently.

    Leaves out other loopback addresses, link-local ones, and all after the first few.
    """
    found = []
    for text in dict.fromkeys(addresses):
        address = ipaddress.ip_address(text)
        other = address.is_loopback and text not in LOOPBACK
        if not (other or address.is_link_local or address.is_unspecified):
            found.append(text)
    if skipped := ", ".join(found[MAX_ADDRESSES:]):
        _log.info("Checking only %d addresses; skipping %s", MAX_ADDRESSES, skipped)
    return tuple(found[:MAX_ADDRESSES])


def resolved(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    """Return the endpoints, those by name replaced by one for each of its addresses.

    An endpoint whose name has no address stays: its handshake shows why.
    """
    endpoints = list(endpoints)
    found = _look_up(endpoint.host for endpoint in endpoints if endpoint.is_by_name)
    by_address = []
    for endpoint in endpoints:
        by_address += [
            endpoint._replace(host=address, name=endpoint.host)
            for address in found.get(endpoint.host, ())
        ] or [endpoint]
    return list(dict.fromkeys(by_address))


def public(endpoints: Iterable[Endpoint], names: Sequence[str]) -> list[Endpoint]:
    """Return the same ports at the addresses that DNS gives for some names.

    An address of several names is checked for the first of them.
    """
    found = _look_up(names)
    name_at: dict[str, str] = {}
    for name in names:
        if name not in found:
            _log.warning("DNS has no address for %s, or does not answer.", name)
        for address in found.get(name, ()):
            name_at.setdefault(address, name)
    ports = dict.fromkeys((endpoint.scheme, endpoint.port) for endpoint in endpoints)
    return [
        Endpoint(scheme, address, port, name)
        for (address, name), (scheme, port) in product(name_at.items(), ports)
    ]


def _look_up(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the addresses of each name that has any."""

    def look_up(name: str) -> tuple[str, ...]:
        try:
            found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as exc:
            _log.debug("%s: %s", name, exc)
            return ()
        addresses = dict.fromkeys(str(row[4][0]).partition("%")[0] for row in found)
        return tuple(addresses)[:MAX_ADDRESSES]

    answers = ask_all(look_up, names, timeout=DNS_TIMEOUT_SECONDS)
    return {name: addresses for name, addresses in answers.items() if addresses}


def _host(text: str) -> str:
    """Return an address, or a host name in lower-case ASCII.

    Raises:
        ValueError: If the text is neither.
    """
    if _is_address(text):
        return text
    name = text if text.isascii() else normalise(text)
    if not re.fullmatch(r"[\w-]+(\.[\w-]+)*\.?", name, re.ASCII):
        raise ValueError
    return name.removesuffix(".").lower()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
