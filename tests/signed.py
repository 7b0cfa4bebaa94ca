"""A DNS in memory whose zones are signed, from its own root on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import dns.dnssec
import dns.flags
import dns.message
import dns.name
import dns.node
import dns.rcode
import dns.rdataset
import dns.rrset
import dns.zone
from cryptography.hazmat.primitives.asymmetric import ec
from dns.rdataclass import IN
from dns.rdatatype import CNAME, DNAME, DS, NSEC, RRSIG, SOA, RdataType

from letsencrypt_mdaemon.policy.anchors import Anchor
from letsencrypt_mdaemon.policy.network import Network, Server
from letsencrypt_mdaemon.policy.validator import Validator

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SERVERS = (Server("ns1.test", "192.0.2.1"), Server("ns2.test", "192.0.2.2"))
RESOLVER = Server("", "192.0.2.53")
TTL = 3600


@dataclass
class SignedZone:
    """A zone; `records` are as zone files have them, with names below the zone.

    Args:
        is_signed: Whether it is signed, and its parent has a DS record.
        since: When its signatures begin to count.
        until: When they end.
    """

    name: str
    records: list[str] = field(default_factory=list)
    is_signed: bool = True
    since: datetime = NOW - timedelta(days=1)
    until: datetime = NOW + timedelta(days=30)
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    published_ds: list[str] | None = None

    @property
    def dnskey(self) -> dns.rdataset.Rdataset:
        """The zone's only key."""
        made = dns.dnssec.make_dnskey(
            self.key.public_key(), dns.dnssec.ECDSAP256SHA256, flags=257
        )
        return dns.rdataset.from_rdata(TTL, made)

    def sign(self, *others: SignedZone, text: str = "") -> dns.zone.Zone:
        """Return the zone, signed by its key and by those of others.

        Args:
            text: Further records, such as delegations.
        """
        head = [f"@ {TTL} IN SOA ns1.test. admin.test. 1 60 60 600 60"]
        head += [f"@ {TTL} IN NS ns1.test."]
        name = dns.name.from_text(self.name)
        lines = "\n".join([*head, *self.records, text])
        made = dns.zone.from_text(lines, name, relativize=False)
        if self.is_signed:
            signers = [self, *others]
            keys: list[Any] = [(each.key, each.dnskey[0]) for each in signers]
            with made.writer() as writer:
                for each in signers:
                    writer.add(name, each.dnskey)
            dns.dnssec.sign_zone(
                made,
                keys=keys,
                inception=self.since,
                expiration=self.until,
                add_dnskey=False,
            )
        return made

    @property
    def ds(self) -> str:
        """The hash of its key, as its parent publishes it."""
        made = dns.dnssec.make_ds(
            dns.name.from_text(self.name), self.dnskey[0], "SHA256"
        )
        return made.to_text()


class World:
    """Zones, and what servers answer of them."""

    def __init__(self, *zones: SignedZone) -> None:
        self.zones = {dns.name.from_text(zone.name): zone for zone in zones}
        self.made: dict[dns.name.Name, dns.zone.Zone] = {}
        self.broken: dict[tuple[str, RdataType], object] = {}
        self.asked: list[tuple[str, str, str]] = []
        self.refresh()

    def refresh(self) -> None:
        """Sign all zones."""
        self.made = {name: self._made(name, zone) for name, zone in self.zones.items()}

    @property
    def anchors(self) -> tuple[Anchor, ...]:
        """The hashes of the root's key."""
        tag, algorithm, kind, digest = self.zones[dns.name.root].ds.split()
        return (Anchor(int(tag), int(algorithm), int(kind), digest.lower()),)

    def validator(self, *, at: datetime = NOW) -> Validator:
        """Return a validator that asks this DNS, and no other."""
        return Validator(InMemory(self), at=at, trusted=self.anchors)

    def _made(self, name: dns.name.Name, zone: SignedZone) -> dns.zone.Zone:
        text = [f"@ {TTL} IN NS {server.name}." for server in SERVERS]
        for other, child in self.zones.items():
            if other != dns.name.root and self._parent(other) == name:
                label = other.relativize(name)
                text += [f"{label} {TTL} IN NS ns1.test."]
                hashes = [child.ds] * child.is_signed
                hashes = hashes if child.published_ds is None else child.published_ds
                text += [f"{label} {TTL} IN DS {row}" for row in hashes]
        return zone.sign(text="\n".join(text))

    def _parent(self, name: dns.name.Name) -> dns.name.Name:
        return self._zone_of(name.parent())

    def _zone_of(self, name: dns.name.Name) -> dns.name.Name:
        return max((z for z in self.zones if name.is_subdomain(z)), key=len)

    def answer(self, query: dns.message.Message) -> dns.message.Message:
        """Return what the servers of the zones answer: they serve all zones."""
        (question,) = query.question
        name, kind = question.name, question.rdtype
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AA
        origin = self._zone_of(name)
        if kind == DS and origin == name != dns.name.root:
            origin = self._parent(name)
        zone = self.made[origin]
        self._fill(response, zone, name, kind)
        return response

    def _fill(
        self,
        response: dns.message.Message,
        zone: dns.zone.Zone,
        name: dns.name.Name,
        kind: RdataType,
    ) -> None:
        node = zone.get_node(name)
        for above, other in zone.nodes.items():
            is_below = name != above and name.is_subdomain(above)
            if is_below and other.get_rdataset(IN, DNAME):
                self._put(response.answer, above, other, DNAME)
                return
        if node is None:
            star = self._wildcard(zone, name)
            if any(other.is_subdomain(name) for other in zone.nodes):
                self._deny(response, zone, name)
                return
            if star is None:
                response.set_rcode(dns.rcode.NXDOMAIN)
                self._deny(response, zone, name)
                self._deny(response, zone, self._star(zone, name))
                return
            node = zone.get_node(star)
            assert node is not None
            self._deny(response, zone, name)
        wanted = kind if node.get_rdataset(IN, kind) else CNAME
        found = node.get_rdataset(IN, wanted)
        if found is None:
            self._deny(response, zone, name)
            return
        self._put(response.answer, name, node, wanted)
        target = found[0].target if wanted == CNAME else None
        if target not in (None, name) and target.is_subdomain(zone.origin):
            self._fill(response, zone, target, kind)

    def _star(self, zone: dns.zone.Zone, name: dns.name.Name) -> dns.name.Name:
        above = name.parent()
        while not any(other.is_subdomain(above) for other in zone.nodes):
            above = above.parent()
        return dns.name.Name([b"*"]).concatenate(above)

    def _wildcard(
        self, zone: dns.zone.Zone, name: dns.name.Name
    ) -> dns.name.Name | None:
        star = self._star(zone, name)
        return star if zone.get_node(star) is not None else None

    def _deny(
        self, response: dns.message.Message, zone: dns.zone.Zone, name: dns.name.Name
    ) -> None:
        origin = zone.origin
        assert origin is not None
        if not response.authority:
            apex = zone.get_node(origin)
            assert apex is not None
            self._put(response.authority, origin, apex, SOA)
        owners = sorted(n for n in zone.nodes if zone.get_rdataset(n, NSEC))
        before = [owner for owner in owners if owner <= name]
        if before:
            node = zone.get_node(before[-1])
            assert node is not None
            known = {(rrset.name, rrset.rdtype) for rrset in response.authority}
            if (before[-1], NSEC) not in known:
                self._put(response.authority, before[-1], node, NSEC)

    def _put(
        self,
        section: list[dns.rrset.RRset],
        name: dns.name.Name,
        node: dns.node.Node,
        kind: RdataType,
    ) -> None:
        found = (node.get_rdataset(IN, kind), node.get_rdataset(IN, RRSIG, kind))
        section += [
            dns.rrset.from_rdata_list(name, rows.ttl, list(rows))
            for rows in found
            if rows is not None
        ]


class InMemory(Network):
    """The network of a world: `Server`s of its zones, and a resolver."""

    def __init__(self, world: World) -> None:
        super().__init__(["192.0.2.53"])
        self.world = world
        self.dead: set[Server] = set()

    def ask_one(
        self, server: Server, name: dns.name.Name, kind: RdataType
    ) -> dns.message.Message | None:
        """Return the world's answer, unless something is broken."""
        world, shown = self.world, name.to_text(omit_final_dot=True).lower()
        world.asked.append((server.name, shown, kind.name))
        flags = 0 if server.name else dns.flags.RD
        query = dns.message.make_query(name, kind, flags=flags, want_dnssec=True)
        broken = world.broken.get((server.name or "resolver", kind))
        broken = broken or world.broken.get((shown, kind))
        if broken == "silent":
            return None
        response = world.answer(query)
        if callable(broken):
            broken(response)
        # As it comes off the wire.
        return dns.message.from_wire(response.to_wire(max_size=65535))

    def root_servers(self) -> tuple[Server, ...]:
        """Return the servers of every zone."""
        return SERVERS

    def addressed(
        self, found: object, response: object, zone: object
    ) -> tuple[Server, ...]:
        """Return the servers of every zone."""
        del found, response, zone
        return SERVERS


def world(*records: str, zones: Sequence[SignedZone] = ()) -> World:
    """Return a root, `test` and a signed `example.test` with some records."""
    return World(
        SignedZone("."),
        SignedZone("test"),
        SignedZone("example.test", list(records)),
        *zones,
    )
