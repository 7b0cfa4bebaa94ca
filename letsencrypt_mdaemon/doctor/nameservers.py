"""DNS as the CA's resolver sees it: answers of the zone's own servers.

What this machine's resolver answers may be true only inside its network. So it is asked
for the root's servers; from there each zone's servers refer to the next ones (RFC 1034,
5.3.3). The resolver's own answer counts only if those servers cannot be reached.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from enum import Enum
from ipaddress import ip_address
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.resolver
from dns.exception import DNSException
from dns.rdataclass import IN
from dns.rdatatype import AAAA, CNAME, NS, A, RdataType

from letsencrypt_mdaemon.doctor.caa import Property

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dns.message import Message
    from dns.name import Name
    from dns.rrset import RRset

_log = logging.getLogger(__name__)

Kind: TypeAlias = Literal["A", "AAAA", "CAA"]
QUERY_TIMEOUT_SECONDS = 1.5
"""Seconds for a server to answer; it is asked twice, because packets get lost."""
MAX_SERVERS = 4
"""Servers of a zone that are asked."""
MAX_REFERRALS = 16
"""Referrals from one zone to the next; a name seldom needs more than five."""
MAX_ALIASES = 10
"""CNAMEs that are followed; resolvers stop at about as many."""
MAX_UDP_BYTES = 1232
"""Bytes of an answer by UDP (dnsflagday.net/2020)."""


class Status(Enum):
    """What came of a query."""

    FOUND = "found"
    NO_DATA = "no such record"
    NXDOMAIN = "no such name"
    SERVFAIL = "refused or failed"
    SILENT = "no answer"


class DnsAnswer(NamedTuple):
    """What DNS answers.

    Args:
        addresses: The A or AAAA records, as text.
        properties: The CAA records.
        zone: The zone whose servers answered, "." for the root; empty if others did.
        by: The server that answered.
        resolver: What this machine's resolver answered.
    """

    status: Status
    addresses: tuple[str, ...] = ()
    properties: tuple[Property, ...] = ()
    zone: str = ""
    by: str = ""
    resolver: Status = Status.SILENT


def is_public(address: str) -> bool:
    """Whether an address is reachable from anywhere (IANA's special registries)."""
    value = ip_address(address)
    mapped = getattr(value, "ipv4_mapped", None)
    return (mapped or value).is_global and not value.is_multicast


class _Server(NamedTuple):
    name: str  # empty for a resolver
    address: str

    def __str__(self) -> str:
        return f"{self.name} ({self.address})" if self.name else self.address


class Nameservers:
    """DNS, seen from this machine; several threads may use it at once.

    Args:
        resolvers: Addresses of resolvers, by default the system's. Others belong to
            tests, where a zone's servers may have private addresses.
        port: Where all DNS servers listen.
    """

    def __init__(self, resolvers: Sequence[str] = (), *, port: int = 53) -> None:
        self._laboratory = bool(resolvers)
        self._resolvers = [_Server("", address) for address in resolvers or _system()]
        self._port = port
        self._zones: dict[Name, tuple[_Server, ...]] = {}
        self._misses: Counter[_Server] = Counter()
        self._alive: set[_Server] = set()

    def look_up(self, name: str, kind: Kind, deadline: float) -> DnsAnswer:
        """Return what DNS answers about a name until a deadline (`time.monotonic`)."""
        try:
            wanted = dns.name.from_text(name)
        except (DNSException, UnicodeError):
            return DnsAnswer(Status.NXDOMAIN)
        theirs = self._from_resolver(wanted, kind, deadline)
        if theirs.status is Status.SILENT:
            return theirs
        own = self._from_zone(wanted, kind, deadline)
        return (own or theirs)._replace(resolver=theirs.status)

    def _from_resolver(self, name: Name, kind: str, deadline: float) -> DnsAnswer:
        by, response = self._first(self._resolvers, name, kind, deadline)
        if response is None:
            listed = ", ".join(map(str, self._resolvers)) or "no DNS server is set"
            return DnsAnswer(Status.SILENT, by=listed)
        _, answer = _read(response, name, kind)
        return answer._replace(by=f"the resolver {by}")

    def _from_zone(self, name: Name, kind: str, deadline: float) -> DnsAnswer | None:
        """Return what the zone's own servers answer; None if they are out of reach."""
        zone, servers = self._nearest(name, deadline)
        aliases = 0
        for _ in range(MAX_REFERRALS):
            by, response = self._first(servers, name, kind, deadline)
            if response is None:
                return None
            cut = _referral(response, zone, name)
            if cut is not None:
                zone, servers = cut.name, self._referred(cut, response, zone, deadline)
                self._zones[zone] = servers
                continue
            if not response.flags & dns.flags.AA and response.rcode() in _USEFUL:
                # Somebody on the way answers in the servers' place.
                return None
            alias, answer = _read(response, name, kind)
            # Only the target's own servers know what an alias leads to.
            if alias == name or answer.status is Status.FOUND:
                return answer._replace(zone=zone.to_text(omit_final_dot=True), by=by)
            aliases += 1
            if aliases > MAX_ALIASES:
                return DnsAnswer(Status.SERVFAIL, by=by)
            name = alias
            zone, servers = self._nearest(name, deadline)
        return None

    def _nearest(self, name: Name, deadline: float) -> tuple[Name, tuple[_Server, ...]]:
        """Return the nearest zone above a name whose servers are known."""
        while name != dns.name.root:
            if name in self._zones:
                return name, self._zones[name]
            name = name.parent()
        if name not in self._zones:
            _, response = self._first(self._resolvers, name, "NS", deadline)
            found = response and response.get_rrset(response.answer, name, IN, NS)
            targets = [item.target for item in found or ()]
            self._zones[name] = self._addressed(targets, {}, deadline)
        return name, self._zones[name]

    def _referred(
        self, cut: RRset, response: Message, zone: Name, deadline: float
    ) -> tuple[_Server, ...]:
        """Return the servers of a referral, by glue where the zone may give it."""
        glue: dict[Name, list[str]] = {}
        for rrset in response.additional:
            if rrset.rdtype in (A, AAAA) and rrset.name.is_subdomain(zone):
                glue.setdefault(rrset.name, []).extend(x.to_text() for x in rrset)
        return self._addressed([item.target for item in cut], glue, deadline)

    def _addressed(
        self, targets: Iterable[Name], glue: dict[Name, list[str]], deadline: float
    ) -> tuple[_Server, ...]:
        """Return some servers with their addresses, IPv4 first."""
        servers: list[_Server] = []
        for target in targets:
            addresses = glue.get(target) or self._addresses(target, deadline)
            label = target.to_text(omit_final_dot=True)
            servers += [_Server(label, address) for address in addresses[:2]]
            if len(servers) >= MAX_SERVERS:
                break
        if not self._laboratory:
            # The CA cannot ask the others: they are our network's view of the zone.
            servers = [server for server in servers if is_public(server.address)]
        return tuple(sorted(servers, key=lambda server: ":" in server.address))

    def _addresses(self, name: Name, deadline: float) -> tuple[str, ...]:
        found = self._from_resolver(name, "A", deadline).addresses
        return found or self._from_resolver(name, "AAAA", deadline).addresses

    def _first(
        self, servers: Sequence[_Server], name: Name, kind: str, deadline: float
    ) -> tuple[str, Message | None]:
        """Return the first useful answer and its server, or else a useless one."""
        useless: tuple[str, Message | None] = "", None
        for server in [*servers, *servers]:
            # A dead server does not cost every name its timeout.
            if self._misses[server] > 1 and server not in self._alive:
                continue
            if response := self._ask(server, name, kind, deadline):
                if response.rcode() in _USEFUL:
                    return str(server), response
                useless = str(server), response
        return useless

    def _ask(
        self, server: _Server, name: Name, kind: str, deadline: float
    ) -> Message | None:
        left = min(QUERY_TIMEOUT_SECONDS, deadline - time.monotonic())
        if left <= 0:
            return None
        flags = 0 if server.name else dns.flags.RD
        query = dns.message.make_query(name, kind, flags=flags, payload=MAX_UDP_BYTES)
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
            _log.debug("%s %s at %s: %s", name, kind, server, exc)
            self._misses[server] += 1
            return None
        self._alive.add(server)
        return response


_USEFUL = {dns.rcode.NOERROR, dns.rcode.NXDOMAIN}


def _read(response: Message, name: Name, kind: str) -> tuple[Name, DnsAnswer]:
    """Return the name that the aliases in a response lead to, and what it says."""
    if response.rcode() not in _USEFUL:
        return name, DnsAnswer(Status.SERVFAIL)
    for _ in range(MAX_ALIASES + 1):
        found = response.get_rrset(response.answer, name, IN, RdataType[kind])
        if found and kind == "CAA":
            rows = tuple(Property(x.flags, _text(x.tag), _text(x.value)) for x in found)
            return name, DnsAnswer(Status.FOUND, properties=rows)
        if found:
            texts = tuple(item.to_text() for item in found)
            return name, DnsAnswer(Status.FOUND, addresses=texts)
        alias = response.get_rrset(response.answer, name, IN, CNAME)
        if not alias:
            break
        name = alias[0].target
    missing = response.rcode() == dns.rcode.NXDOMAIN
    return name, DnsAnswer(Status.NXDOMAIN if missing else Status.NO_DATA)


def _referral(response: Message, zone: Name, name: Name) -> RRset | None:
    """Return the NS records of the next zone, if the response leads to one."""
    if response.rcode() != dns.rcode.NOERROR or response.answer:
        return None
    below = [x for x in response.authority if x.rdtype == NS and x.name != zone]
    between = (x for x in below if name.is_subdomain(x.name))
    return next((x for x in between if x.name.is_subdomain(zone)), None)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _system() -> list[str]:
    try:
        servers = dns.resolver.Resolver().nameservers
    except (DNSException, OSError) as exc:
        _log.debug("No resolver: %s", exc)
        return []
    return [row for row in servers if isinstance(row, str) and "/" not in row]
