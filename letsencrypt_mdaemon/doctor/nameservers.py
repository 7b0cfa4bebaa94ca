"""What DNS says of a name: asked of the zone's own servers, as the CA's resolver does.

What this machine's resolver says may be true inside a network only. So it is asked
where the root's servers are; from there each zone's servers tell the next ones
(RFC 1034, 5.3.3). Where they cannot be reached, the resolver's word has to do.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import ip_address
from typing import TYPE_CHECKING, Literal, TypeAlias

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.resolver

from letsencrypt_mdaemon.doctor.caa import Property

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dns.rrset import RRset

_log = logging.getLogger(__name__)

Kind: TypeAlias = Literal["A", "AAAA", "CAA"]
TRY = 1.5
"""Seconds that a server may take; it is asked twice, as packets get lost."""
SERVERS = 4
"""Servers of a zone that are asked."""
REFERRALS = 16
"""From one zone to the next; a name has seldom more than five."""
ALIASES = 10
"""CNAMEs that are followed; resolvers stop at about as many."""
PAYLOAD = 1232
"""Bytes of an answer by UDP (dnsflagday.net/2020)."""


class Status(Enum):
    """What came of a question."""

    FOUND = "found"
    NO_DATA = "no such record"
    NXDOMAIN = "no such name"
    SERVFAIL = "refused or failed"
    SILENT = "no answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What DNS says.

    Args:
        addresses: The A or AAAA records, as text.
        properties: The CAA records.
        zone: The zone whose servers said so, "." for the root; empty if others did.
        by: Who said so.
        resolver: What this machine's resolver said.
    """

    status: Status
    addresses: tuple[str, ...] = ()
    properties: tuple[Property, ...] = ()
    zone: str = ""
    by: str = ""
    resolver: Status = Status.SILENT

    @property
    def is_own(self) -> bool:
        """Whether the zone's own servers said so."""
        return bool(self.zone)


def is_public(address: str) -> bool:
    """Whether an address may be asked from anywhere (IANA's special registries)."""
    value = ip_address(address)
    mapped = getattr(value, "ipv4_mapped", None)
    return (mapped or value).is_global and not value.is_multicast


@dataclass(frozen=True, slots=True)
class _Server:
    name: str
    address: str

    def __str__(self) -> str:
        return f"{self.name} ({self.address})" if self.name else self.address


class Nameservers:
    """DNS, seen from this machine.

    May be used by several threads at once.

    Args:
        resolvers: Addresses of resolvers; those of the system if none are given. Given,
            they are a laboratory's, whose servers may have private addresses.
        port: Where all DNS servers listen.
    """

    def __init__(self, resolvers: Sequence[str] = (), *, port: int = 53) -> None:
        self._laboratory = bool(resolvers)
        self._resolvers = [_Server("", address) for address in resolvers or _system()]
        self._port = port
        self._zones: dict[dns.name.Name, tuple[_Server, ...]] = {}
        self._misses: Counter[_Server] = Counter()
        self._alive: set[_Server] = set()

    def look_up(self, name: str, kind: Kind, deadline: float) -> Answer:
        """Return what DNS says of a name.

        Args:
            deadline: On the monotonic clock.
        """
        try:
            wanted = dns.name.from_text(name)
        except (dns.exception.DNSException, UnicodeError):
            return Answer(status=Status.NXDOMAIN)
        told = self._from_resolver(wanted, kind, deadline)
        if told.status is Status.SILENT:
            return told
        own = self._from_zone(wanted, kind, deadline)
        return replace(own or told, resolver=told.status)

    def _from_resolver(self, name: dns.name.Name, kind: str, deadline: float) -> Answer:
        by, response = self._first(self._resolvers, name, kind, deadline, recurse=True)
        if response is None:
            listed = ", ".join(map(str, self._resolvers)) or "no DNS server is set"
            return Answer(status=Status.SILENT, by=listed)
        _, answer = _read(response, name, kind)
        return replace(answer, by=f"the resolver {by}")

    def _from_zone(
        self, name: dns.name.Name, kind: str, deadline: float
    ) -> Answer | None:
        """Return what the zone's own servers say; None if they cannot be asked."""
        zone, servers = self._nearest(name, deadline)
        aliases = 0
        for _ in range(REFERRALS):
            by, response = self._first(servers, name, kind, deadline)
            if response is None:
                return None
            cut = _referral(response, zone, name)
            if cut is not None:
                zone, servers = cut.name, self._referred(cut, response, zone, deadline)
                self._zones[zone] = servers
                continue
            if not response.flags & dns.flags.AA and response.rcode() in _SAID:
                # Somebody on the way answers in their place.
                return None
            alias, answer = _read(response, name, kind)
            # Of an alias that leads elsewhere, only its own servers know.
            if alias == name or answer.status is Status.FOUND:
                return replace(answer, zone=zone.to_text(omit_final_dot=True), by=by)
            aliases += 1
            if aliases > ALIASES:
                return Answer(status=Status.SERVFAIL, by=by)
            name = alias
            zone, servers = self._nearest(name, deadline)
        return None

    def _nearest(
        self, name: dns.name.Name, deadline: float
    ) -> tuple[dns.name.Name, tuple[_Server, ...]]:
        """Return the nearest zone above a name whose servers are known."""
        while name != dns.name.root:
            if name in self._zones:
                return name, self._zones[name]
            name = name.parent()
        if name not in self._zones:
            response = self._first(self._resolvers, name, "NS", deadline, recurse=True)[
                1
            ]
            found = response and response.get_rrset(
                response.answer, name, dns.rdataclass.IN, dns.rdatatype.NS
            )
            targets = [item.target for item in found or ()]
            self._zones[name] = self._addressed(targets, {}, deadline)
        return name, self._zones[name]

    def _referred(
        self,
        cut: RRset,
        response: dns.message.Message,
        zone: dns.name.Name,
        deadline: float,
    ) -> tuple[_Server, ...]:
        """Return the servers that a referral names, by its glue where that counts."""
        glue: dict[dns.name.Name, list[str]] = {}
        for rrset in response.additional:
            address = rrset.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA)
            if address and rrset.name.is_subdomain(zone):
                glue.setdefault(rrset.name, []).extend(x.to_text() for x in rrset)
        return self._addressed([item.target for item in cut], glue, deadline)

    def _addressed(
        self,
        targets: Iterable[dns.name.Name],
        glue: dict[dns.name.Name, list[str]],
        deadline: float,
    ) -> tuple[_Server, ...]:
        """Return some servers by their addresses, those by IPv4 first."""
        servers: list[_Server] = []
        for target in targets:
            addresses = glue.get(target) or self._addresses(target, deadline)
            label = target.to_text(omit_final_dot=True)
            servers += [_Server(label, address) for address in addresses[:2]]
            if len(servers) >= SERVERS:
                break
        if not self._laboratory:
            # The CA cannot ask these: they are our network's view of the zone.
            servers = [server for server in servers if is_public(server.address)]
        return tuple(sorted(servers, key=lambda server: ":" in server.address))

    def _addresses(self, name: dns.name.Name, deadline: float) -> tuple[str, ...]:
        for kind in ("A", "AAAA"):
            if found := self._from_resolver(name, kind, deadline).addresses:
                return found
        return ()

    def _first(
        self,
        servers: Sequence[_Server],
        name: dns.name.Name,
        kind: str,
        deadline: float,
        *,
        recurse: bool = False,
    ) -> tuple[str, dns.message.Message | None]:
        """Return the first useful answer and whose it is, or else a useless one."""
        useless: tuple[str, dns.message.Message | None] = "", None
        for server in [*servers, *servers]:
            # Not every name waits for one that is not there.
            if self._misses[server] > 1 and server not in self._alive:
                continue
            response = self._ask(server, name, kind, deadline, recurse=recurse)
            if response is None:
                continue
            if response.rcode() in _SAID:
                return str(server), response
            useless = str(server), response
        return useless

    def _ask(
        self,
        server: _Server,
        name: dns.name.Name,
        kind: str,
        deadline: float,
        *,
        recurse: bool,
    ) -> dns.message.Message | None:
        left = min(TRY, deadline - time.monotonic())
        if left <= 0:
            return None
        flags = dns.flags.RD if recurse else 0
        query = dns.message.make_query(name, kind, flags=flags, payload=PAYLOAD)
        try:
            response, _ = dns.query.udp_with_fallback(
                query,
                server.address,
                timeout=left,
                port=self._port,
                ignore_unexpected=True,
                ignore_errors=True,
            )
        except (dns.exception.DNSException, OSError, EOFError, ValueError) as exc:
            _log.debug("%s %s at %s: %s", name, kind, server, exc)
            self._misses[server] += 1
            return None
        self._alive.add(server)
        return response


_SAID = {dns.rcode.NOERROR, dns.rcode.NXDOMAIN}


def _read(
    response: dns.message.Message, name: dns.name.Name, kind: str
) -> tuple[dns.name.Name, Answer]:
    """Return what a response says, and the name that its aliases lead to."""
    if response.rcode() not in _SAID:
        return name, Answer(status=Status.SERVFAIL)
    wanted = dns.rdatatype.from_text(kind)
    for _ in range(ALIASES + 1):
        found = response.get_rrset(response.answer, name, dns.rdataclass.IN, wanted)
        if found and kind == "CAA":
            rows = tuple(Property(x.flags, _text(x.tag), _text(x.value)) for x in found)
            return name, Answer(status=Status.FOUND, properties=rows)
        if found:
            texts = tuple(item.to_text() for item in found)
            return name, Answer(status=Status.FOUND, addresses=texts)
        alias = response.get_rrset(
            response.answer, name, dns.rdataclass.IN, dns.rdatatype.CNAME
        )
        if not alias:
            break
        name = alias[0].target
    missing = response.rcode() == dns.rcode.NXDOMAIN
    return name, Answer(status=Status.NXDOMAIN if missing else Status.NO_DATA)


def _referral(
    response: dns.message.Message, zone: dns.name.Name, name: dns.name.Name
) -> RRset | None:
    """Return the NS records of the next zone, if the response leads to one."""
    if response.rcode() != dns.rcode.NOERROR or response.answer:
        return None
    for rrset in response.authority:
        if (
            rrset.rdtype == dns.rdatatype.NS
            and name.is_subdomain(rrset.name)
            and rrset.name.is_subdomain(zone)
            and rrset.name != zone
        ):
            return rrset
    return None


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _system() -> list[str]:
    """Return the resolvers that the system is set to."""
    try:
        servers = dns.resolver.Resolver().nameservers
    except (dns.exception.DNSException, OSError) as exc:
        _log.debug("No resolver: %s", exc)
        return []
    return [
        server for server in servers if isinstance(server, str) and "/" not in server
    ]
