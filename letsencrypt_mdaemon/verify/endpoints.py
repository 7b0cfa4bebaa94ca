"""Which ports of a mail server speak TLS, and at which addresses they are asked."""

from __future__ import annotations

import ipaddress
import logging
import re
import socket
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

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
"""MDaemon's usual ports; of 443 and 444 one is webmail, one Remote Administration."""
LOOPBACK = ("127.0.0.1", "::1")
MOST = 8
"""Addresses of this machine, or of one name, that are asked."""
PATIENCE = 5.0
"""Seconds for DNS."""

_URL = re.compile(
    r"(?P<scheme>[a-z0-9+]+)://"
    r"(?P<host>\[[^\s\[\]]+\]|[^\s\[\]:/]+)"
    r"(?::(?P<port>[1-9]\d{0,4}))?/?",
    re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A port and how TLS starts there.

    Args:
        host: A name or an address.
        name: The name that the address was found by, if it was.
    """

    scheme: str
    host: str
    port: int
    name: str = ""

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """Read `scheme://host[:port]`.

        Raises:
            ValueError: If it is something else.
        """
        match = _URL.fullmatch(url.strip())
        scheme, host, port = match.groups() if match else ("", "", None)
        try:
            usual_port = PORTS[scheme.lower()][0]
            number = range(1 << 16)[int(port or usual_port)]
            return cls(scheme.lower(), _host(host.strip("[]")), number)
        except (ValueError, LookupError):
            kinds = ", ".join(f"{scheme}://" for scheme in PORTS)
            message = (
                f"{printable(url, 200)!r} is no endpoint such as imaps://192.0.2.1 or"
            )
            message += f" https://mail.example.com:444; the kinds are {kinds}"
            raise ValueError(message) from None

    @property
    def url(self) -> str:
        """As it is written; by name if it has one."""
        host = self.name or self.host
        return f"{self.scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def is_by_name(self) -> bool:
        """Whether the host is a name."""
        return not _is_address(self.host)

    def __str__(self) -> str:
        """Return the URL, with the address that it means."""
        return f"{self.url} ({self.host})" if self.name else self.url


def usual(addresses: Iterable[str]) -> list[Endpoint]:
    """Return the usual ports at some addresses."""
    ports = [(scheme, port) for scheme, row in PORTS.items() for port in row]
    return [
        Endpoint(scheme, host, port) for host in addresses for scheme, port in ports
    ]


def own_addresses(*, patience: float = PATIENCE) -> tuple[str, ...]:
    """Return the addresses of this machine, loopback first."""
    name = socket.gethostname()
    found = _look_up([name], patience).get(name, ())
    return worth_asking([*LOOPBACK, *found])


def worth_asking(addresses: Iterable[str]) -> tuple[str, ...]:
    """Return the addresses at which a server may answer otherwise than at the others.

    That is neither another loopback nor a link-local address; and not more than a few.
    """
    found = []
    for text in dict.fromkeys(addresses):
        address = ipaddress.ip_address(text)
        other = address.is_loopback and text not in LOOPBACK
        if not (other or address.is_link_local or address.is_unspecified):
            found.append(text)
    if len(found) > MOST:
        left_out = ", ".join(found[MOST:])
        _log.info("So many addresses; these are not asked: %s", left_out)
    return tuple(found[:MOST])


def resolved(
    endpoints: Iterable[Endpoint], *, patience: float = PATIENCE
) -> list[Endpoint]:
    """Return endpoints by every address of theirs in place of those by name.

    One whose name has no address stays as it is: asking it will tell why.
    """
    endpoints = list(endpoints)
    names = [endpoint.host for endpoint in endpoints if endpoint.is_by_name]
    found = _look_up(names, patience)
    by_address = []
    for endpoint in endpoints:
        if endpoint.host in found:
            by_address += [
                replace(endpoint, host=address, name=endpoint.host)
                for address in found[endpoint.host]
            ]
        else:
            by_address.append(endpoint)
    return list(dict.fromkeys(by_address))


def public(
    endpoints: Iterable[Endpoint], names: Sequence[str], *, patience: float = PATIENCE
) -> list[Endpoint]:
    """Return the same ports at the addresses that DNS gives for some names.

    At an address that several names have, the first of them is asked for.
    """
    found = _look_up(names, patience)
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


def _look_up(names: Iterable[str], patience: float) -> dict[str, tuple[str, ...]]:
    """Return the addresses of each name that has any."""

    def look_up(name: str) -> tuple[str, ...]:
        try:
            found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as exc:
            _log.debug("%s: %s", name, exc)
            return ()
        addresses = dict.fromkeys(str(row[4][0]).partition("%")[0] for row in found)
        return tuple(addresses)[:MOST]

    answers = ask_all(look_up, names, timeout=patience)
    return {name: addresses for name, addresses in answers.items() if addresses}


def _host(text: str) -> str:
    """Return a host as DNS has it, or an address.

    Raises:
        ValueError: If it is neither.
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
