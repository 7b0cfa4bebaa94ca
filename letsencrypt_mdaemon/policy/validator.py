"""Answers of DNS that are proven from the root's keys on (RFC 4033 to 4035).

This machine's resolver need not validate, and is not believed if it says that it did.
Each zone's own servers are asked, from the root on; the resolver only if they cannot be
reached. A zone is unsigned only if its parent proves that (RFC 4035, 5.2).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

import dns.name
import dns.rcode
import dns.rdataset
from dns.exception import DNSException
from dns.rdataclass import IN
from dns.rdatatype import CNAME, DNAME, DNSKEY, DS, NS, NSEC, NSEC3, RdataType

from letsencrypt_mdaemon.policy import anchors, signatures
from letsencrypt_mdaemon.policy.answer import Answer, State
from letsencrypt_mdaemon.policy.denial import (
    Denial,
    closer_match,
    denial,
    is_unsigned_cut,
)
from letsencrypt_mdaemon.policy.network import Network, Server, servers_in
from letsencrypt_mdaemon.policy.signatures import BogusError, Hash, shown

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from dns.message import Message
    from dns.name import Name
    from dns.rdataset import Rdataset
    from dns.rrset import RRset

    from letsencrypt_mdaemon.policy.anchors import Anchor

_log = logging.getLogger(__name__)

MAX_ALIASES = 10
"""CNAMEs that are followed; resolvers stop at about as many."""
MAX_KEYS = 32
"""The keys of a zone; more make its answers bogus."""
MAX_AUTHORITY = 40
"""The sets of records in the authority section that are looked at."""


class _Zone(NamedTuple):
    """A zone; without keys it is unsigned."""

    name: Name
    servers: tuple[Server, ...]
    keys: Rdataset | None


class _OptOutError(Exception):
    """A wildcard stands where an unsigned zone may be (RFC 5155, 9.2)."""


class _SilentError(Exception):
    """Who does not answer."""


class Validator:
    """Looks up records and proves them; for one thread.

    Args:
        at: The time that signatures are compared with.
        trusted: The hashes of the root's keys.
    """

    def __init__(
        self,
        network: Network,
        *,
        at: datetime,
        trusted: Sequence[Anchor] = anchors.ROOT,
    ) -> None:
        self._network = network
        self._now = at.timestamp()
        self._trusted = trusted
        self._zones: dict[Name, _Zone] = {}
        self._is_direct = True

    def look_up(self, name: str, kind: RdataType) -> Answer:
        """Return what DNS says; aliases are followed."""
        try:
            wanted = dns.name.from_text(name)
        except (DNSException, UnicodeError) as exc:
            return Answer(State.FAILED, why=f"{name} is not a name of DNS: {exc}")
        state, ttl = State.SECURE, 2**31
        try:
            for _ in range(MAX_ALIASES):
                found, alias = self._resolve(wanted, kind)
                if found.state is State.INSECURE:
                    state = State.INSECURE
                ttl = min(ttl, found.ttl)
                if alias is None:
                    return found._replace(state=state, ttl=ttl)
                wanted = alias
        except BogusError as exc:
            return Answer(State.BOGUS, owner=shown(wanted), why=str(exc))
        except _SilentError as exc:
            return Answer(State.FAILED, owner=shown(wanted), why=str(exc))
        return Answer(State.FAILED, why=f"{name} leads through too many aliases")

    def at_all_servers(self, found: Answer, kind: RdataType) -> list[Answer]:
        """Return what each server of the zone of an answer says that answers rightly.

        Those that are silent or lame serve no sender either.
        """
        name = dns.name.from_text(found.owner)
        zone = self._nearest(name)
        rows = []
        for server in found.servers:
            response = self._network.ask_one(server, name, kind)
            if response is None:
                continue
            try:
                row, alias = self._read(response, zone, name, kind)
            except BogusError as exc:
                rows.append(
                    Answer(State.BOGUS, owner=found.owner, why=f"{server}: {exc}")
                )
                continue
            if row is not None and alias is None:
                rows.append(row)
        return rows

    # One name, without aliases

    def _resolve(self, name: Name, kind: RdataType) -> tuple[Answer, Name | None]:
        """Return the answer about a name, and the alias to follow, if it is one."""
        while True:
            zone = self._nearest(name)
            if zone.keys is None:
                return self._unsigned(name, kind)
            response = self._ask(zone, name, kind)
            why = ""
            try:
                answer, alias = self._read(response, zone, name, kind)
                if answer is not None:
                    return answer, alias
            except _OptOutError:
                return self._unsigned(name, kind)
            except BogusError as exc:
                why = str(exc)
            # What the zone does not prove, a zone below it may.
            if not self._descend(zone, name):
                raise BogusError(why or f"nothing proves what {shown(name)} has")

    def _nearest(self, name: Name) -> _Zone:
        """Return the known zone nearest to a name."""
        while name not in self._zones:
            if name == dns.name.root:
                self._zones[name] = self._root()
                break
            name = name.parent()
        return self._zones[name]

    def _root(self) -> _Zone:
        servers = self._network.root_servers()
        zone = _Zone(dns.name.root, servers, None)
        hashes = {Hash(*item) for item in self._trusted}
        return zone._replace(keys=self._keys(zone, hashes))

    def _descend(self, zone: _Zone, name: Name) -> bool:
        """Find the next zone below one on the way to a name; return whether there is.

        Raises:
            BogusError: If its DS records or keys are not proven.
        """
        for depth in range(len(zone.name) + 1, len(name) + 1):
            cut = dns.name.Name(name.labels[-depth:])
            if cut in self._zones:
                continue
            response = self._ask(zone, cut, DS)
            found = response.get_rrset(response.answer, cut, IN, DS)
            if found is not None:
                self._require(response, zone, found)
                below = self._below(zone, cut)
                hashes = signatures.supported(found)
                if hashes:
                    below = below._replace(keys=self._keys(below, hashes))
                self._zones[cut] = below
                return True
            if is_unsigned_cut(zone.name, self._denials(response, zone), cut):
                self._zones[cut] = _Zone(cut, (), None)
                return True
        return False

    def _below(self, zone: _Zone, cut: Name) -> _Zone:
        """Return a zone below one, with its servers."""
        response = self._ask(zone, cut, NS)
        found = servers_in(response, cut)
        servers = self._network.addressed(found, response, zone.name) if found else ()
        return _Zone(cut, servers, None)

    def _keys(self, zone: _Zone, hashes: set[Hash]) -> Rdataset:
        """Return the keys of a zone: signed by one whose hash its parent gives."""
        called = shown(zone.name)
        response = self._ask(zone, zone.name, DNSKEY)
        found = response.get_rrset(response.answer, zone.name, IN, DNSKEY)
        if found is None or len(found) > MAX_KEYS:
            raise BogusError(f"{called} has no keys, or too many")
        entry = dns.rdataset.Rdataset(IN, DNSKEY)
        for key in found:
            if any(signatures.is_of(zone.name, key, row) for row in hashes):
                entry.add(key)
        if not entry:
            raise BogusError(f"no key of {called} is the one that its parent names")
        self._require(response, zone._replace(keys=entry), found)
        return found.to_rdataset()

    def _ask(self, zone: _Zone, name: Name, kind: RdataType) -> Message:
        """Return what the servers of a zone say, or else a resolver.

        Raises:
            _SilentError: If nobody answers.
        """
        if self._is_direct:
            response = self._network.ask(zone.servers, name, kind)
            if response is not None:
                return response
            # A firewall lets nobody but the resolver ask.
            self._is_direct = zone.name != dns.name.root
        response = self._network.ask(self._network.resolvers, name, kind)
        if response is None:
            listed = ", ".join(map(str, (*zone.servers, *self._network.resolvers)))
            raise _SilentError(
                f"no DNS server answers about {shown(name)}; asked: {listed or 'none'}"
            )
        return response

    def _unsigned(self, name: Name, kind: RdataType) -> tuple[Answer, Name | None]:
        """Return what a resolver says about a name of an unsigned zone."""
        response = self._network.ask(self._network.resolvers, name, kind)
        if response is None:
            raise _SilentError(f"no DNS server answers about {shown(name)}")
        exists = response.rcode() != dns.rcode.NXDOMAIN
        blank = Answer(State.INSECURE, exists=exists, owner=shown(name))
        if (found := response.get_rrset(response.answer, name, IN, kind)) is not None:
            return blank._replace(rdatas=tuple(found), ttl=found.ttl), None
        alias = response.get_rrset(response.answer, name, IN, CNAME)
        return blank, alias[0].target if alias else None

    # Proofs

    def _read(
        self, response: Message, zone: _Zone, name: Name, kind: RdataType
    ) -> tuple[Answer | None, Name | None]:
        """Return what a response proves with the keys of a zone, and the alias in it.

        Returns:
            None if it proves nothing.

        Raises:
            BogusError: If a signature is wrong.
        """
        blank = Answer(State.SECURE, owner=shown(name), servers=zone.servers)
        for found in response.answer:
            is_above = name != found.name and name.is_subdomain(found.name)
            if found.rdtype == DNAME and is_above:
                ttl = self._require(response, zone, found)
                rest = name.relativize(found.name)
                return blank._replace(ttl=ttl), rest.concatenate(found[0].target)
        for each in (kind, CNAME):
            rrset = response.get_rrset(response.answer, name, IN, each)
            if rrset is None:
                continue
            if not signatures.of_zone(response, rrset, zone.name):
                return None, None
            ttl = self._require(response, zone, rrset)
            alias = rrset[0].target if each == CNAME and kind != CNAME else None
            rows = () if alias is not None else tuple(rrset)
            return blank._replace(rdatas=rows, ttl=ttl), alias
        proven = denial(zone.name, self._denials(response, zone), name, kind)
        if proven is Denial.NOTHING:
            return None, None
        if proven is Denial.UNSIGNED:
            return self._unsigned(name, kind)
        return blank._replace(exists=proven is Denial.NO_DATA), None

    def _denials(self, response: Message, zone: _Zone) -> list[RRset]:
        """Return the NSEC and NSEC3 records that a zone signed."""
        found = []
        for rrset in response.authority[:MAX_AUTHORITY]:
            if rrset.rdtype not in (NSEC, NSEC3):
                continue
            try:
                self._require(response, zone, rrset)
            except BogusError as exc:
                _log.debug("%s", exc)
                continue
            found.append(rrset)
        return found

    def _require(self, response: Message, zone: _Zone, found: RRset) -> int:
        """Return how long caches may keep records that a zone signed.

        Raises:
            BogusError: If no signature is right and in time; or if they come from a
                wildcard, and nothing proves that it may stand for their name.
            _OptOutError: If it may, but for an unsigned zone.
        """
        item = signatures.valid(
            found,
            signatures.of_zone(response, found, zone.name),
            (zone.name, zone.keys),
            self._now,
        )
        if item.labels < len(found.name) - 1 - found.name.is_wild():
            proven = Denial.NOTHING
            if found.rdtype not in (NSEC, NSEC3):
                rows = self._denials(response, zone)
                proven = closer_match(zone.name, rows, found.name, item.labels)
            if proven is Denial.UNSIGNED:
                raise _OptOutError
            if proven is Denial.NOTHING:
                message = "a wildcard stands for it, and nothing proves that it may"
                raise BogusError(f"{shown(found.name)}: {message}")
        left = int(item.expiration - self._now)
        return min(int(found.ttl), int(item.original_ttl), left)
