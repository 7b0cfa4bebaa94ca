"""What NSEC and NSEC3 records prove to be missing (RFC 4035, 5.4; RFC 5155, 8).

The records given here are of one zone, and their signatures are validated.
"""

from __future__ import annotations

import base64
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

import dns.dnssec
import dns.name
from dns.rdatatype import CNAME, DNAME, DS, NS, NSEC, NSEC3, SOA, RdataType

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dns.name import Name
    from dns.rrset import RRset

MAX_ITERATIONS = 150
"""Of NSEC3 hashes; zones with more count as unsigned (RFC 9276, 3.2), as in Unbound."""
MAX_RECORDS = 20
"""The NSEC or NSEC3 records of an answer that are looked at; three are enough."""
MAX_HASHES = 64
"""The names that are hashed for one question (RFC 9276, 2.3)."""
_OPT_OUT = 1
_SHA1 = 1
_STAR = dns.name.Name([b"*"])


class Denial(Enum):
    """What is proven."""

    NO_DATA = "the name has no such record"
    NO_NAME = "the name does not exist"
    UNSIGNED = "what is there may be unsigned"
    NOTHING = "nothing is proven"


class _Row(NamedTuple):
    """One NSEC or NSEC3 record; the keys are names, or hashes of names."""

    key: Any
    following: Any
    types: frozenset[int]
    opts_out: bool = False

    @property
    def is_delegation(self) -> bool:
        """Whether it is the parent's record at a zone cut."""
        return NS in self.types and SOA not in self.types

    def lacks(self, kind: RdataType) -> bool:
        """Whether it shows that its name has no such record (RFC 6840, 4.1 and 4.3)."""
        if kind in self.types or CNAME in self.types:
            return False
        return SOA not in self.types if kind == DS else not self.is_delegation

    def covers(self, key: Any) -> bool:  # noqa: ANN401 - as its own
        """Whether nothing exists between its own key and the next one, and this is."""
        own, following = self.key, self.following
        if own < following:
            return bool(own < key < following)
        return bool(own < key or key < following)


def denial(zone: Name, records: Iterable[RRset], name: Name, kind: RdataType) -> Denial:
    """Return what is proven about a name and a type of record."""
    nsec, hashed = _rows(zone, records)
    if hashed is None:
        return Denial.UNSIGNED
    if hashed:
        return hashed.denial(name, kind)
    return _denied(nsec, name, kind)


def is_unsigned_cut(zone: Name, records: Iterable[RRset], name: Name) -> bool:
    """Whether a name is proven to be a delegation without DS (RFC 4035, 5.2)."""
    nsec, hashed = _rows(zone, records)
    if hashed is None:
        return True
    if hashed:
        row = hashed.match(name)
        if row is not None:
            return row.is_delegation and row.lacks(DS)
        _, cover = hashed.encloser(name)
        return cover is not None and cover.opts_out
    return any(row.key == name and row.is_delegation and row.lacks(DS) for row in nsec)


def closer_match(
    zone: Name, records: Iterable[RRset], name: Name, labels: int
) -> Denial:
    """Return whether a wildcard rightly stands for a name.

    RFC 4035, 5.3.4; RFC 5155, 8.8 and 9.2.

    Args:
        labels: Of the signature: those of the wildcard, without its star.
    """
    nsec, hashed = _rows(zone, records)
    if hashed is None:
        return Denial.UNSIGNED
    if hashed:
        cover = hashed.cover(dns.name.Name(name.labels[-labels - 2 :]))
        if cover is None:
            return Denial.NOTHING
        return Denial.UNSIGNED if cover.opts_out else Denial.NO_NAME
    is_missing = any(_is_within(row, name) and row.covers(name) for row in nsec)
    return Denial.NO_NAME if is_missing else Denial.NOTHING


def _rows(zone: Name, records: Iterable[RRset]) -> tuple[list[_Row], _Hashed | None]:
    """Return the NSEC rows and the NSEC3 rows; None for those if hashing costs much."""
    nsec: list[_Row] = []
    hashed = _Hashed(zone)
    for rrset in list(records)[:MAX_RECORDS]:
        for item in list(rrset)[:1]:
            if rrset.rdtype == NSEC:
                types = frozenset(_types(item.windows))
                nsec.append(_Row(rrset.name, item.next, types))
            elif rrset.rdtype == NSEC3 and item.algorithm == _SHA1:
                if item.iterations > MAX_ITERATIONS:
                    return nsec, None
                hashed.add(rrset.name, item)
    return nsec, hashed


def _types(windows: Iterable[tuple[int, bytes]]) -> Iterator[int]:
    """Yield the types of a bitmap (RFC 4034, 4.1.2)."""
    for window, bitmap in windows:
        for place, byte in enumerate(bitmap):
            for bit in range(8):
                if byte & (0x80 >> bit):
                    yield window * 256 + place * 8 + bit


def _is_within(row: _Row, name: Name) -> bool:
    """Whether a row may deny a name: not one below a cut or a DNAME (RFC 6840, 4.1)."""
    is_below = name.is_subdomain(row.key) and name != row.key
    return not (is_below and (row.is_delegation or DNAME in row.types))


def _denied(rows: list[_Row], name: Name, kind: RdataType) -> Denial:
    for row in rows:
        if row.key == name:
            return Denial.NO_DATA if row.lacks(kind) else Denial.NOTHING
    cover = next((r for r in rows if _is_within(r, name) and r.covers(name)), None)
    if cover is None:
        return Denial.NOTHING
    if cover.following.is_subdomain(name):
        return Denial.NO_DATA  # an empty non-terminal
    shared = [_common(name, end) for end in (cover.key, cover.following)]
    star = _STAR + max(shared, key=len)
    for row in rows:
        if row.key == star:
            return Denial.NO_DATA if row.lacks(kind) else Denial.NOTHING
        if row.covers(star) and _is_within(row, star):
            return Denial.NO_NAME
    return Denial.NOTHING


def _common(name: Name, other: Name) -> Name:
    """Return the longest name that both are below."""
    _, _, count = name.fullcompare(other)
    return dns.name.Name(name.labels[len(name.labels) - count :])


class _Hashed:
    """The NSEC3 rows of an answer; those with other parameters do not count."""

    def __init__(self, zone: Name) -> None:
        self._zone = zone
        self._rows: list[_Row] = []
        self._how: tuple[bytes, int] | None = None
        self._known: dict[Name, str] = {}

    def __bool__(self) -> bool:
        return bool(self._rows)

    def add(self, owner: Name, item: Any) -> None:  # noqa: ANN401 - an NSEC3
        """Add a record; its owner is the hash, directly below the zone."""
        how = item.salt, item.iterations
        self._how = self._how or how
        if owner.parent() != self._zone or how != self._how:
            return
        key = owner.labels[0].decode("ascii", "replace").upper()
        following = base64.b32hexencode(item.next).decode().rstrip("=")
        types = frozenset(_types(item.windows))
        out = bool(item.flags & _OPT_OUT)
        self._rows.append(_Row(key, following, types, out))

    def match(self, name: Name) -> _Row | None:
        """Return the row of a name."""
        key = self._hash(name)
        return next((row for row in self._rows if row.key == key), None)

    def cover(self, name: Name) -> _Row | None:
        """Return the row that shows that a name does not exist."""
        key = self._hash(name)
        return next((row for row in self._rows if key and row.covers(key)), None)

    def encloser(self, name: Name) -> tuple[Name | None, _Row | None]:
        """Return the closest name above that exists, and what covers the next closer.

        RFC 5155, 8.3.
        """
        closer = name
        while closer != self._zone and closer.is_subdomain(self._zone):
            above = closer.parent()
            row = self.match(above)
            if row is not None:
                if row.is_delegation or DNAME in row.types:
                    return None, None
                return above, self.cover(closer)
            closer = above
        return None, None

    def denial(self, name: Name, kind: RdataType) -> Denial:
        """Return what is proven about a name and a type."""
        row = self.match(name)
        if row is not None:
            return Denial.NO_DATA if row.lacks(kind) else Denial.NOTHING
        above, cover = self.encloser(name)
        if above is None or cover is None:
            return Denial.NOTHING
        if cover.opts_out:
            return Denial.UNSIGNED
        star = _STAR + above
        wild = self.match(star)
        if wild is not None:
            return Denial.NO_DATA if wild.lacks(kind) else Denial.NOTHING
        return Denial.NO_NAME if self.cover(star) else Denial.NOTHING

    def _hash(self, name: Name) -> str:
        if name not in self._known:
            if self._how is None or len(self._known) >= MAX_HASHES:
                return ""
            found = dns.dnssec.nsec3_hash(name, *self._how, _SHA1)
            self._known[name] = found.upper()
        return self._known[name]
