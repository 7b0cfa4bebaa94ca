"""When a certificate is due, and why: rules over a snapshot, nothing else."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.pki.certificate import (
    dns_names,
    is_self_signed,
    key_type,
    public_key_hash,
    thumbprint,
)
from letsencrypt_mdaemon.renewal.lifetime import (
    SHORT_LIVED,
    backstop,
    days,
    earliest,
    lifetime,
)
from letsencrypt_mdaemon.state.ledger import NEARLY_A_DAY
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from cryptography import x509

    from letsencrypt_mdaemon.pki.certificate import Certificate
    from letsencrypt_mdaemon.renewal.snapshot import Snapshot
    from letsencrypt_mdaemon.state.ledger import Wait
    from letsencrypt_mdaemon.state.memory import Memory


URGENT = timedelta(days=3)
"""With less left of the certificate in use, every run tries."""

LOSABLE = timedelta(days=7)
"""With less left of the certificate in use, the next one may lose a name."""


class Due(NamedTuple):
    """Whether a certificate should be ordered or bound now, and why.

    Args:
        reason: One clause: which rule decided, and from what.
        at: When it is due, or was.
        rule: What makes it due then, if nothing is wrong with it; else "".
    """

    due: bool
    reason: str
    at: datetime
    rule: str = ""


def decide(snapshot: Snapshot) -> Due:
    """Decide whether a certificate is due, all that is known considered."""
    now, request = snapshot.now, snapshot.request
    if snapshot.pending is not None:
        return _resume(snapshot, snapshot.pending)
    if request.activate_only:
        return Due(due=False, reason="no certificate waits to be put into use", at=now)
    drawn, why = None, ""
    draw, leaf = snapshot.draw, snapshot.ours
    if leaf and draw and draw.thumbprint == thumbprint(leaf) and not request.force:
        drawn, why = draw.moment(now, request.interval), draw.explanation_url
    due = by_rule(snapshot, snapshot.names, drawn)
    if due.due and due.at == drawn and why:
        due = due._replace(reason=f"{due.reason}; the CA says why: {why}")
    again = [item.name for item in snapshot.dropped if item.tried + NEARLY_A_DAY <= now]
    if again and not due.due:
        reason = f"{', '.join(again)} could not be validated before, and is tried again"
        return Due(due=True, reason=reason, at=now)
    return due


def by_rule(
    snapshot: Snapshot, names: Sequence[str], drawn: datetime | None = None
) -> Due:
    """Decide by the certificate in use: the rule that comes first decides.

    Args:
        names: The names that it should have, in any order.
        drawn: The moment drawn from the CA's suggested window.
    """
    now, certificate = snapshot.now, snapshot.in_use
    if snapshot.request.force:
        return Due(due=True, reason="a new order was forced", at=now)
    if certificate is None:
        return Due(due=True, reason=_unclear(snapshot.named.values()), at=now)
    if reason := _unwanted(snapshot, certificate, names) or _spoiled(snapshot):
        return Due(due=True, reason=reason, at=now)
    at, rule = _first(certificate, drawn, snapshot.request.days_left)
    end = certificate.not_valid_after_utc
    left = days(end - now)
    if end <= now:
        reason = f"the certificate in use expired on {end:%Y-%m-%d}"
    elif at <= now:
        reason = f"{rule}: it expires in {left}"
    else:
        reason = f"the certificate in use is good until {end:%Y-%m-%d} ({left})"
    return Due(due=min(at, end) <= now, reason=reason, at=at, rule=rule)


def wait(snapshot: Snapshot) -> Wait | None:
    """Return why it is too early to try again, after what failed before."""
    if snapshot.pending is not None:
        return None
    names, left = tried_now(snapshot), snapshot.order
    return snapshot.ledger.wait(
        names,
        snapshot.now,
        urgent=_is_urgent(snapshot),
        resumes=left is not None and set(left.names) == set(names),
        limits=snapshot.request.limits,
    )


def tried_now(snapshot: Snapshot) -> tuple[str, ...]:
    """Return the names to order: all, or without those that wait, if that may be."""
    request, now = snapshot.request, snapshot.now
    if not request.drop or request.force:
        return request.names
    urgent = _is_urgent(snapshot)
    early = {
        item.name
        for item in snapshot.ledger.failing(request.names)
        if item.name and (item.paused or item.not_before(urgent=urgent) > now)
    }
    if not may_drop(snapshot, early):
        return request.names
    return tuple(name for name in request.names if name not in early)


def may_drop(snapshot: Snapshot, failed: Collection[str]) -> bool:
    """Whether a certificate may go without names that the CA could not validate.

    Never without the first name; and never without one that the certificate in use
    covers as long as that has more than a week left: losing a name that works is worse
    than waiting.
    """
    if not set(failed) <= set(snapshot.request.names[1:]):
        return False
    leaf = snapshot.in_use
    if leaf is None or leaf.not_valid_after_utc - snapshot.now <= LOSABLE:
        return True
    return is_self_signed(leaf) or not set(failed) & set(dns_names(leaf))


def is_wanted(snapshot: Snapshot, pending: Certificate) -> bool:
    """Whether a certificate that was issued earlier is still what is wanted."""
    request = snapshot.request
    return (
        set(pending.names) in (set(snapshot.names), set(request.names))
        and key_type(pending.leaf) == request.key_type
        and snapshot.now < backstop(pending.leaf)
        and not is_compromised(pending.leaf, snapshot.memory)
    )


def is_compromised(leaf: x509.Certificate, memory: Memory) -> bool:
    """Whether a certificate's key was revoked as compromised, with whichever one."""
    return bool(memory.compromised) and public_key_hash(leaf) in memory.compromised


def last_verified(snapshot: Snapshot) -> tuple[x509.Certificate, datetime] | None:
    """Return the certificate to go back to, and when every port served it."""
    for issued in reversed(snapshot.memory.issued):
        leaf, _ = snapshot.stored.get(issued.thumbprint, (None, ""))
        if leaf is None or issued.verified is None or issued.revoked is not None:
            continue
        if leaf == snapshot.in_use or is_compromised(leaf, snapshot.memory):
            continue
        if leaf.not_valid_before_utc <= snapshot.now < leaf.not_valid_after_utc:
            return leaf, issued.verified
    return None


def _resume(snapshot: Snapshot, pending: Certificate) -> Due:
    """Return whether the pending certificate is tried now: after a roll-back daily."""
    attempt, now = snapshot.attempt, snapshot.now
    failed = attempt.failed if attempt else None
    if failed is None or attempt is None or attempt.thumbprint != pending.thumbprint:
        reason = "an earlier run obtained a certificate that is not in use yet"
        return Due(due=True, reason=reason, at=now)
    again = failed + NEARLY_A_DAY
    reason = f"a new certificate was rolled back on {failed:%Y-%m-%d %H:%M} UTC"
    urgent = snapshot.in_use is None or _is_urgent(snapshot)
    if again <= now or urgent or snapshot.request.activate_only:
        return Due(due=True, reason=f"{reason} and is tried again", at=now)
    return Due(due=False, reason=reason, at=again)


def _is_urgent(snapshot: Snapshot) -> bool:
    leaf = snapshot.in_use
    return leaf is not None and leaf.not_valid_after_utc - snapshot.now < URGENT


def _first(
    certificate: x509.Certificate, drawn: datetime | None, days_left: int
) -> tuple[datetime, str]:
    """Return when a certificate that is as it should be is due, and by which rule."""
    at = backstop(certificate)
    part = "half" if lifetime(certificate) <= SHORT_LIVED else "a third"
    rule = f"{part} or less of the certificate's lifetime is left"
    if days_left:
        asked = certificate.not_valid_after_utc - timedelta(days=days_left)
        wanted = max(asked, earliest(certificate))
        if wanted < at:
            at, rule = wanted, f"renew-days asks for it {days_left} days before the end"
            if asked < wanted:
                rule = "renew-days asks for it, and half of the lifetime is over"
    if drawn is not None and drawn < at:
        at, rule = drawn, "the CA suggests to renew the certificate (ARI)"
    return at, rule


def _unclear(named: Iterable[x509.Certificate | None]) -> str:
    """Return why no single certificate is in use."""
    found = set(named)
    if not found - {None}:
        return "the server's files name no certificate that is in the store"
    if None in found:
        return "some of the server's files name a certificate that is not in the store"
    return "the server's files name different certificates"


def _unwanted(
    snapshot: Snapshot, certificate: x509.Certificate, names: Sequence[str]
) -> str:
    """Return why the certificate in use is not the one wanted, or ""."""
    if is_self_signed(certificate):
        return "the certificate in use is self-signed"
    if snapshot.ours is None:
        return "the certificate in use was not obtained from this CA by this program"
    held, key = set(dns_names(certificate)), snapshot.request.key_type
    changes = [f"+{name}" for name in names if name not in held]
    changes += [f"-{name}" for name in sorted(held - set(names))]
    if changes:
        return f"the names changed: {printable(', '.join(changes))}"
    if key_type(certificate) != key:
        return f"the key should be {key} and is {key_type(certificate)}"
    return ""


def _spoiled(snapshot: Snapshot) -> str:
    """Return why the certificate in use must not stay, as far as we remember; or ""."""
    memory, leaf = snapshot.memory, snapshot.ours
    if leaf is None:
        return ""
    digest = thumbprint(leaf)
    known = memory.find(digest)
    if known is not None and known.revoked is not None:
        return f"the certificate in use was revoked on {known.revoked:%Y-%m-%d}"
    if is_compromised(leaf, memory):
        return "the key of the certificate in use was revoked as compromised"
    if memory.in_use and digest != memory.in_use:
        return "the certificate in use is not the one that was put into use last"
    return ""
