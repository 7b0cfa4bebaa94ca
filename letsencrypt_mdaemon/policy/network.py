"""Questions to DNS servers: those of each zone, or else this machine's resolvers.

What comes back is nobody's word yet: `policy.validator` decides what is true.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.resolver
from dns.exception import DNSException
from dns.rdataclass import IN
from dns.rdatatype import AAAA, NS, A

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dns.message import Message
    from dns.name import Name
    from dns.rdatatype import RdataType
    from dns.rrset import RRset

_log = logging.getLogger(__name__)

QUERY_TIMEOUT_SECONDS = 1.5
"""Seconds for a server to answer; it is asked twice, because packets get lost."""
MAX_ASKED = 4
"""Servers that are asked for one answer."""
MAX_SERVERS = 16
"""Addresses of a zone's servers that are known."""
MAX_UDP_BYTES = 1232
"""Bytes of an answer by UDP (dnsflagday.net/2020)."""
_USEFUL = {dns.rcode.NOERROR, dns.rcode.NXDOMAIN}


class Server(NamedTuple):
    """A DNS server.

    Args:
        name: Empty for a resolver.
    """

    name: str
    address: str

    def __str__(self) -> str:
        """Return the server as messages show it."""
        return f"{self.name} ({self.address})" if self.name else self.address


class Network:
    """The DNS that this machine can reach.

    Args:
        resolvers: Addresses of resolvers, by default the system's. Others belong to
            laboratories, where a zone's servers may have private addresses.
        port: Where all DNS servers listen.
        timeout: Seconds for all questions together.
    """

    def __init__(
        self, resolvers: Sequence[str] = (), *, port: int = 53, timeout: float = 30.0
    ) -> None:
        self._laboratory = bool(resolvers)
        self.resolvers = tuple(Server("", each) for each in resolvers or _system())
        self._port = port
        self._deadline = time.monotonic() + timeout
        self._misses: Counter[Server] = Counter()
        self._alive: set[Server] = set()

    def ask(
        self, servers: Sequence[Server], name: Name, kind: RdataType
    ) -> Message | None:
        """Return the first useful answer of some servers; None if there is none."""
        asked = servers[:MAX_ASKED]
        for server in [*asked, *asked]:
            response = self.ask_one(server, name, kind)
            if response is not None and response.rcode() in _USEFUL:
                return response
        return None

    def ask_one(self, server: Server, name: Name, kind: RdataType) -> Message | None:
        """Return what one server answers, with DNSSEC's records; None if nothing."""
        left = min(QUERY_TIMEOUT_SECONDS, self._deadline - time.monotonic())
        # A dead server does not cost every question its timeout.
        is_dead = self._misses[server] > 1 and server not in self._alive
        if left <= 0 or is_dead:
            return None
        # CD: a resolver that validates is to hand over also what it would refuse.
        flags = 0 if server.name else dns.flags.RD | dns.flags.CD
        query = dns.message.make_query(
            name, kind, flags=flags, want_dnssec=True, payload=MAX_UDP_BYTES
        )
        try:
            response, _ = dns.query.udp_with_fallback(
                query,
                server.address,
                timeout=left,
                port=self._port,
                ignore_unexpected=True,
                ignore_errors=True,
            )
        except (DNSException, OSError, EOFError, ValueError) as exc:
            _log.debug("%s %s at %s: %s", name, kind.name, server, exc)
            self._misses[server] += 1
            return None
        self._alive.add(server)
        return response

    def root_servers(self) -> tuple[Server, ...]:
        """Return the root's servers, as a resolver gives them."""
        response = self.ask(self.resolvers, dns.name.root, NS)
        if response is None:
            return ()
        found = _find(response, dns.name.root)
        return self.addressed(found, response, dns.name.root) if found else ()

    def addressed(
        self, found: RRset, response: Message, zone: Name
    ) -> tuple[Server, ...]:
        """Return the servers of NS records with their addresses, IPv4 first.

        Args:
            zone: Whose servers gave the response: they may give addresses below it.
        """
        glue: dict[Name, list[str]] = {}
        for rrset in response.additional:
            if rrset.name.is_subdomain(zone) and rrset.rdtype in (A, AAAA):
                glue.setdefault(rrset.name, []).extend(x.to_text() for x in rrset)
        servers: list[Server] = []
        for item in found:
            if len(servers) >= MAX_SERVERS:
                break
            label = item.target.to_text(omit_final_dot=True)
            addresses = glue.get(item.target) or self.addresses(item.target)
            servers += [Server(label, address) for address in addresses[:2]]
        if not self._laboratory:
            # Senders elsewhere cannot ask the others.
            servers = [each for each in servers if ip_address(each.address).is_global]
        return tuple(sorted(servers, key=lambda each: ":" in each.address))

    def addresses(self, name: Name) -> list[str]:
        """Return the addresses that a resolver gives for a name."""
        for kind in (A, AAAA):
            response = self.ask(self.resolvers, name, kind)
            rows: Iterable[RRset] = response.answer if response else ()
            if found := [
                x.to_text() for row in rows if row.rdtype == kind for x in row
            ]:
                return found
        return []


def servers_in(response: Message, cut: Name) -> RRset | None:
    """Return the NS records of a zone in an answer or a referral."""
    return _find(response, cut)


def _find(response: Message, name: Name) -> RRset | None:
    for section in (response.answer, response.authority):
        if (found := response.get_rrset(section, name, IN, NS)) is not None:
            return found
    return None


def _system() -> list[str]:
    try:
        servers = dns.resolver.Resolver().nameservers
    except (DNSException, OSError) as exc:
        _log.debug("No resolver: %s", exc)
        return []
    return [row for row in servers if isinstance(row, str) and "/" not in row]
