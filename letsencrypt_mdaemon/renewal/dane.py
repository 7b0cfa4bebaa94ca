"""Decide whether a certificate may be used where TLSA records pin the one in use.

Rules over values, without I/O (RFC 7671, 8; RFC 7672, 8). Mail is lost if senders who
use DANE see records that the server's certificate does not match: so a certificate that
does not match waits. It never waits for ever: the certificate in use has an end.
"""

from __future__ import annotations

from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.pki.certificate import thumbprint
from letsencrypt_mdaemon.pki.tlsa import Tlsa, of_key
from letsencrypt_mdaemon.renewal import due as rules
from letsencrypt_mdaemon.state.ledger import Wait
from letsencrypt_mdaemon.state.pins import KEPT, Pin, Pins, Seen
from letsencrypt_mdaemon.text import when

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from cryptography import x509

    from letsencrypt_mdaemon.pki.certificate import PrivateKey
    from letsencrypt_mdaemon.policy.dane import Found, Published
    from letsencrypt_mdaemon.renewal.snapshot import Snapshot

LITTLE_PART, LITTLE_DAYS = 10, timedelta(days=7)
"""When this part of the lifetime is left, or these days if it is less: the current key.

Its records are there. A certificate for it is better than one that expires.
"""

LAST = 3 / 7
"""Of that time, the rest in which any certificate is better: 3 days of 7."""

MAX_TTL_SECONDS = 7 * 86400
"""The longest time that caches keep records, whatever their TTL says."""


class Fit(Enum):
    """How a certificate fits the TLSA records that pin the one in use."""

    FREE = "no TLSA record pins the certificate in use"
    MATCHES = "every pinned port has a record that matches"
    SOON = "the records match, but caches may still hold others"
    BREAKS = "a pinned port has no record that matches"
    UNKNOWN = "DNS fails, and no answer of the last 7 days is known"


class Left(Enum):
    """How much is left of the certificate in use."""

    PLENTY = "more than 7 days"
    LITTLE = "7 days or less"
    LAST = "3 days or less"


class Act(Enum):
    """What happens to a certificate."""

    USE = "put into use"
    WARN = "put into use, with a warning"
    CURRENT = "another one is ordered for the current key"
    WAIT = "held"
    REFUSE = "refused"
    MAIL = "put into use, with mail"


class Pinned(NamedTuple):
    """A port whose records match the certificate in use.

    Args:
        matched: Those that do.
    """

    pin: Pin
    matched: frozenset[Tlsa]

    def usable(self) -> list[Seen]:
        """Return the records that clients of the port compare."""
        return [row for row in self.pin.records if row.record.is_usable(self.pin.port)]


class Dane(NamedTuple):
    """What is known of the TLSA records of the server's ports.

    Args:
        pinned: The ports that a wrong certificate would break.
        pins: All ports with records.
        unknown: Why some could not be looked up; "" if all could.
        next_key: The key that the next certificate gets (key-policy = next).
        current: The key of the certificate in use, if it can be used again.
        keeps_key: Whether it is to be used again, whatever the policy.
    """

    pinned: tuple[Pinned, ...] = ()
    pins: tuple[Pin, ...] = ()
    unknown: str = ""
    next_key: PrivateKey | None = None
    current: PrivateKey | None = None
    keeps_key: bool = False


class Judged(NamedTuple):
    """How a certificate or a key fits.

    Args:
        ports: Those that it breaks, or where it has to wait.
        until: When the last cache has forgotten the records before; if it is SOON.
    """

    fit: Fit
    ports: tuple[Pin, ...] = ()
    until: datetime | None = None


def decide(fit: Fit, policy: str, left: Left, *, has_current: bool) -> Act:
    """Return what happens to a certificate.

    Args:
        policy: The setting key-policy.
        has_current: Whether one for the current key could be ordered, and would match.
    """
    if fit in (Fit.FREE, Fit.MATCHES):
        return Act.USE
    if fit is Fit.UNKNOWN:
        return Act.WARN
    if left is not Left.PLENTY and has_current:
        return Act.CURRENT
    if left is Left.LAST:
        return Act.MAIL
    return Act.WAIT if fit is Fit.SOON or policy == "next" else Act.REFUSE


def left(snapshot: Snapshot) -> Left:
    """Return how much is left of the certificates in use; little, if they are bad."""
    leaves = [leaf for leaf in snapshot.named.values() if leaf is not None]
    if not leaves:
        return Left.LAST
    found = [_left(snapshot, leaf) for leaf in leaves]
    return max(found, key=list(Left).index)


def _left(snapshot: Snapshot, leaf: x509.Certificate) -> Left:
    memory, now = snapshot.memory, snapshot.now
    if memory.revoked(thumbprint(leaf)) or rules.is_compromised(leaf, memory):
        return Left.LAST
    little, last = limits(leaf)
    if now >= last:
        return Left.LAST
    return Left.LITTLE if now >= little else Left.PLENTY


def limits(leaf: x509.Certificate) -> tuple[datetime, datetime]:
    """Return from when little is left of a certificate, and from when next to nothing.

    Of one for 90 days, 7 days and 3 days before its end.
    """
    end = leaf.not_valid_after_utc
    span = min(rules.lifetime(leaf) / LITTLE_PART, LITTLE_DAYS)
    return end - span, end - span * LAST


def pinned(pin: Pin, chains: Iterable[Sequence[x509.Certificate]]) -> Pinned:
    """Return which records of a port match the certificates in use."""
    records = {row.record for row in pin.records} | set(pin.partly)
    usable = [row for row in records if row.is_usable(pin.port)]
    held = list(chains)
    return Pinned(
        pin,
        frozenset(r for r in usable if any(r.matches(c, pin.host) for c in held)),
    )


def judge(
    snapshot: Snapshot, chain: Sequence[x509.Certificate], *, alone: bool = False
) -> Judged:
    """Return how a certificate fits; the chain begins with it.

    Args:
        alone: Ignore what could not be looked up.
    """
    return _judge(snapshot, lambda row, pin: row.matches(chain, pin.host), alone=alone)


def judge_key(snapshot: Snapshot, key: PrivateKey | None) -> Judged:
    """Return how the next certificate for a key would fit; None = an unknown key.

    The CA most likely issues it as it issued the one in use.
    """
    matched = {
        (port.pin.owner, row) for port in snapshot.dane.pinned for row in port.matched
    }

    def matches(row: Tlsa, pin: Pin) -> bool:
        if row.is_of_issuer:
            return (pin.owner, row) in matched
        return key is not None and row.matches_key(key)

    return _judge(snapshot, matches)


def _judge(
    snapshot: Snapshot, matches: Callable[[Tlsa, Pin], bool], *, alone: bool = False
) -> Judged:
    dane, now = snapshot.dane, snapshot.now
    broken, late, until = [], [], now
    for port in dane.pinned:
        rows = [row for row in port.usable() if matches(row.record, port.pin)]
        if not rows:
            broken.append(port.pin)
            continue
        # What the certificate in use matches, too, was there before.
        counts = min(now if row.record in port.matched else row.counts for row in rows)
        if counts > now:
            late.append(port.pin)
            until = max(until, counts)
    if broken:
        return Judged(Fit.BREAKS, tuple(broken))
    if late:
        return Judged(Fit.SOON, tuple(late), until)
    if dane.unknown and not alone:
        return Judged(Fit.UNKNOWN)
    return Judged(Fit.MATCHES if dane.pinned else Fit.FREE)


def counts_from(snapshot: Snapshot, key: PrivateKey) -> datetime | None:
    """Return from when a certificate for a key may be used; None if not yet published.

    Where no TLSA record pins the certificate in use, it may be used now.
    """
    moments = [snapshot.now]
    for port in snapshot.dane.pinned:
        rows = [row for row in port.usable() if row.record.matches_key(key)]
        if not rows:
            return None
        moments.append(min(row.counts for row in rows))
    return max(moments)


def has_current(snapshot: Snapshot) -> bool:
    """Whether a certificate for the current key could be ordered, and would match."""
    key = snapshot.dane.current
    fits = (Fit.MATCHES, Fit.UNKNOWN)
    return key is not None and judge_key(snapshot, key).fit in fits


def may_use(snapshot: Snapshot, chain: Sequence[x509.Certificate]) -> bool:
    """Whether a certificate of the store may take the place of an order."""
    fit, policy = judge(snapshot, chain).fit, snapshot.request.key_policy
    act = decide(fit, policy, left(snapshot), has_current=has_current(snapshot))
    return act in (Act.USE, Act.WARN, Act.MAIL)


def wait(snapshot: Snapshot) -> Wait | None:
    """Return why an order waits for the record of the next key, if it does."""
    if snapshot.request.key_policy != "next" or snapshot.dane.next_key is None:
        return None
    if snapshot.pending is not None or snapshot.spare is not None:
        return None
    found = judge_key(snapshot, snapshot.dane.next_key)
    has = has_current(snapshot)
    if decide(found.fit, "next", left(snapshot), has_current=has) is not Act.WAIT:
        return None
    return held(snapshot, found, of_key(snapshot.dane.next_key))


def held(snapshot: Snapshot, found: Judged, record: Tlsa) -> Wait:
    """Return why a certificate waits for its record, and until when at most."""
    now = snapshot.now
    leaves = [leaf for leaf in snapshot.named.values() if leaf is not None]
    ends = [at for leaf in leaves for at in limits(leaf) if at > now]
    until, key = min(ends, default=now), _called(snapshot)
    if found.until is not None:
        reason = f"held: the TLSA record of the {key} key is published, but caches may "
        reason += f"hold the former records until {when(found.until, now)}"
        return Wait(reason, min(until, found.until))
    reason = f"held: the TLSA record of the {key} key is not published yet. Publish "
    reason += f"{', '.join(to_publish(found.ports, record))}. The first run after all "
    return Wait(f"{reason}servers of the zone have it goes on", until)


def _called(snapshot: Snapshot) -> str:
    return "next" if snapshot.request.key_policy == "next" else "new"


def to_publish(ports: Iterable[Pin], record: Tlsa) -> list[str]:
    """Return records as zone files have them."""
    return [f"{pin.owner}. IN TLSA {record}" for pin in ports]


def mismatched(dane: Dane, names: Iterable[str]) -> list[Pin]:
    """Return the ports of our names whose records do not match what is in use."""
    fine, ours = {port.pin.owner for port in dane.pinned}, set(names)
    return [
        pin
        for pin in dane.pins
        if pin.owner not in fine
        and pin.host in ours
        and any(row.record.is_usable(pin.port) for row in pin.records)
    ]


def merge(former: Pins, found: Found, now: datetime) -> tuple[Pins, str]:
    """Return what is known after a look, and why something is not.

    Where DNS failed, the last answer counts for a while.
    """
    known = {
        pin.owner: pin for pin in former.pins if timedelta() <= now - pin.at <= KEPT
    }
    pins, unknown = [], dict(found.failed)
    for row in found.ports:
        old = known.pop(row.owner, None)
        if not row.why:
            pins.append(_seen(row, old, now))
        elif old is not None:
            pins.append(old)
        else:
            unknown.setdefault(row.host, row.why)
    if found.failed:
        # Which hosts the domains have is not known; these they had.
        looked = set(found.hosts)
        pins += [pin for pin in known.values() if pin.host not in looked]
    whys = dict.fromkeys(f"{name}: {why}" for name, why in unknown.items())
    return Pins(tuple(pins)), "; ".join(whys)


def _seen(row: Published, old: Pin | None, now: datetime) -> Pin:
    ttl = min(row.ttl, MAX_TTL_SECONDS)
    wait = timedelta(seconds=max(ttl, old.ttl if old else 0))
    before = {seen.record: seen.counts for seen in old.records} if old else {}
    return Pin(
        owner=row.owner,
        host=row.host,
        port=row.port,
        records=tuple(
            # A clock that was wrong must not delay it for longer.
            Seen(record, min(before.get(record, now + wait), now + wait))
            for record in row.records
        ),
        partly=row.partly,
        ttl=ttl,
        at=now,
    )
