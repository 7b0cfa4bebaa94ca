"""Signatures of DNS records, and the hashes that lead from a zone to the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import dns.dnssec
import dns.name
import dns.rdataset
from dns.dnssectypes import DSDigest
from dns.exception import DNSException
from dns.rdataclass import IN
from dns.rdatatype import RRSIG

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dns.message import Message
    from dns.name import Name
    from dns.rdataset import Rdataset
    from dns.rrset import RRset

MAX_SIGNATURES = 8
"""The signatures of one set of records that are tried (CVE-2023-50387)."""
MAX_SAME_TAG = 4
"""The keys of a zone with the same tag that are tried."""
_ALGORITHMS = {5, 7, 8, 10, 13, 14, 15, 16}
_DIGESTS = (DSDigest.SHA1, DSDigest.SHA256, DSDigest.SHA384)


class BogusError(Exception):
    """Why a chain of trust is broken."""


class Hash(NamedTuple):
    """The hash of a key (RFC 4034, 5.1); the digest in lower-case hex."""

    key_tag: int
    algorithm: int
    digest_type: int
    digest: str


def of_zone(response: Message, found: RRset, zone: Name) -> list[Any]:
    """Return the signatures of a set of records that claim to be of a zone above."""
    for section in (response.answer, response.authority):
        rows = response.get_rrset(section, found.name, IN, RRSIG, found.rdtype)
        if rows is not None and found.name.is_subdomain(zone):
            return [item for item in rows if item.signer == zone]
    return []


def valid(
    found: RRset,
    signatures: Sequence[Any],
    by: tuple[Name, Rdataset | None],
    now: float,
) -> Any:  # noqa: ANN401 - an RRSIG
    """Return the signature that is right and in time.

    Args:
        by: The zone and its keys.

    Raises:
        BogusError: If none is.
    """
    called, (zone, keys) = f"{shown(found.name)} {found.rdtype.name}", by
    if not signatures or keys is None:
        raise BogusError(f"{called} is not signed by {shown(zone)}")
    why = ""
    for item in signatures[:MAX_SIGNATURES]:
        rows = dns.rdataset.from_rdata(found.ttl, item)
        tried = dns.rdataset.Rdataset(keys.rdclass, keys.rdtype)
        same: list[Any] = [key for key in keys if _tag(key) == item.key_tag]
        for key in same[:MAX_SAME_TAG]:
            tried.add(key)
        try:
            dns.dnssec.validate(found, (found.name, rows), {zone: tried}, now=now)
        except (DNSException, ValueError, ArithmeticError):
            why = _reason(item, now)
        else:
            return item
    raise BogusError(f"{called}: {why}")


def supported(found: RRset) -> set[Hash]:
    """Return the DS records that can be used; none makes the zone unsigned.

    RFC 4035, 5.2. SHA-1 does not count beside another hash (RFC 4509, 3).
    """
    rows = {
        Hash(row.key_tag, row.algorithm, int(row.digest_type), row.digest.hex())
        for row in found
        if row.algorithm in _ALGORITHMS and row.digest_type in _DIGESTS
    }
    return {row for row in rows if row.digest_type != DSDigest.SHA1} or rows


def is_of(name: Name, key: Any, row: Hash) -> bool:  # noqa: ANN401 - a DNSKEY
    """Whether a hash is of a key."""
    if (row.key_tag, row.algorithm) != (_tag(key), key.algorithm):
        return False
    try:
        made = dns.dnssec.make_ds(name, key, DSDigest(row.digest_type), validating=True)
    except (DNSException, ValueError):
        return False
    return made.digest.hex() == row.digest


def shown(name: Name) -> str:
    """Return a name as messages show it."""
    return name.to_text(omit_final_dot=name != dns.name.root)


def _tag(key: Any) -> int:  # noqa: ANN401 - a DNSKEY
    return dns.dnssec.key_id(key)


def _reason(item: Any, now: float) -> str:  # noqa: ANN401 - an RRSIG
    if item.expiration < now:
        return "its signature has expired"
    if item.inception > now:
        return "its signature is not valid yet"
    return "its signature is wrong"
