"""Decide from a snapshot whether a certificate is due, and why.

Also when it will be, and whether a schedule is too sparse for its lifetime.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.pki.certificate import (
    dns_names,
    is_self_signed,
    key_type,
    public_key_hash,
    thumbprint,
)
from letsencrypt_mdaemon.pki.names import twins
from letsencrypt_mdaemon.state.ledger import RETRY_INTERVAL
from letsencrypt_mdaemon.text import day, days, printable, when

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from cryptography import x509

    from letsencrypt_mdaemon.pki.certificate import Certificate
    from letsencrypt_mdaemon.renewal.snapshot import Snapshot
    from letsencrypt_mdaemon.state.ledger import Wait
    from letsencrypt_mdaemon.state.memory import Memory

INTERVAL = timedelta(hours=12)
"""The assumed time between runs: the examples run twice a day."""

SHORT_LIVED = timedelta(days=10)
"""The longest lifetime whose renewal is due at its half."""

URGENT = timedelta(days=3)
"""If less is left of the certificate in use, every run tries."""

LOSABLE = timedelta(days=7)
"""If less is left of the certificate in use, the next one may lose a name."""


_ADVICE = "the CA suggests renewing the certificate (ARI)"


class Due(NamedTuple):
    """Whether a certificate should be ordered or bound now, and why.

    Args:
        reason: One clause: the rule that decided, and its facts.
        at: When it is due, or was.
        rule: The rule that makes it due by time; "" if another reason does.
        ignores: Until when the CA's advice to renew now is ignored; None if it is not.
    """

    due: bool
    reason: str
    at: datetime
    rule: str = ""
    ignores: datetime | None = None

    @property
    def is_advised(self) -> bool:
        """Whether only the CA's advice (ARI) makes it due."""
        return self.due and self.rule == _ADVICE


def decide(snapshot: Snapshot) -> Due:
    """Decide whether a certificate is due."""
    now, request = snapshot.now, snapshot.request
    if snapshot.pending is not None:
        return _resume(snapshot, snapshot.pending)
    if request.activate_only:
        return Due(due=False, reason="no certificate waits for activation", at=now)
    drawn, why = None, ""
    draw, leaf = snapshot.draw, snapshot.ours
    if leaf and draw and draw.thumbprint == thumbprint(leaf) and not request.force:
        drawn = draw.moment(now, request.interval or INTERVAL)
        why = draw.explanation_url
    due = by_rule(snapshot, snapshot.names, drawn)
    if due.is_advised and (until := advised_until(snapshot)):
        due = by_rule(snapshot, snapshot.names)._replace(ignores=until)
    if due.due and due.at == drawn and why:
        due = due._replace(reason=f"{due.reason}; the CA's reason: {why}")
    last = now - RETRY_INTERVAL
    again = [item.name for item in snapshot.dropped if item.tried <= last]
    if again and not due.due:
        reason = f"another attempt to validate {', '.join(again)}"
        return Due(due=True, reason=reason, at=now)
    return due


def by_rule(
    snapshot: Snapshot, names: Sequence[str], drawn: datetime | None = None
) -> Due:
    """Decide by the certificate in use and the earliest of the rules.

    Args:
        names: The names that the certificate should have, in any order.
        drawn: The moment drawn from the CA's suggested window.
    """
    now, certificate = snapshot.now, snapshot.in_use
    if snapshot.request.force:
        return Due(due=True, reason="--force requests a new order", at=now)
    if certificate is None:
        return Due(due=True, reason=_unclear(snapshot.named.values()), at=now)
    if reason := _unwanted(snapshot, certificate, names) or _spoiled(snapshot):
        return Due(due=True, reason=reason, at=now)
    at, rule = first(certificate, drawn, snapshot.request.days_left)
    end = certificate.not_valid_after_utc
    if end <= now:
        reason = f"the certificate in use expired on {day(end, now)}"
    elif at <= now:
        reason = f"{rule}: it expires in {days(end - now)}"
    else:
        reason = f"the certificate in use is valid until {day(end, now)}"
    return Due(due=min(at, end) <= now, reason=reason, at=at, rule=rule)


def advised_until(snapshot: Snapshot) -> datetime | None:
    """Return until when the CA's advice (ARI) may bring no further order.

    One order in a quarter of the lifetime: a window that is always in the past would
    bring one at every run. Counted are certificates that the CA issued.

    Returns:
        None if its advice counts now.
    """
    request, leaf = snapshot.request, snapshot.ours
    if leaf is None or request.force or thumbprint(leaf) not in snapshot.stored:
        return None
    quarter = lifetime(leaf) / 4
    last = [
        item.advised + quarter
        for item in snapshot.memory.issued
        if item.advised is not None
        and item.directory_url == request.directory_url
        and set(item.names) == set(snapshot.names)
        and item.advised <= snapshot.now < item.advised + quarter
    ]
    return max(last, default=None)


def wait(snapshot: Snapshot) -> Wait | None:
    """Return why a retry has to wait after earlier failures, if it has to."""
    if snapshot.pending is not None or snapshot.spare is not None:
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
    """Return the names to order: without those that wait, if they may be dropped."""
    request, now = snapshot.request, snapshot.now
    if not request.drop or request.force:
        return request.names
    urgent = _is_urgent(snapshot)
    early = {
        item.name: item.limited or bool(item.paused)
        for item in snapshot.ledger.failing(request.names)
        if item.name and (item.paused or item.not_before(urgent=urgent) > now)
    }
    if not may_drop(snapshot, early, limited=any(early.values())):
        return request.names
    return tuple(name for name in request.names if name not in early)


def may_drop(
    snapshot: Snapshot, failed: Collection[str], *, limited: bool = False
) -> bool:
    """Whether a certificate may go without names that the CA could not validate.

    Never without the first name, or one that MTA-STS needs. A name that the certificate
    in use covers goes in its last week: losing a name that works is worse than waiting.

    Args:
        limited: Whether the CA only limits or pauses names. Before the last week, such
            a name is waited for, unless it was dropped already.
    """
    if not set(failed) <= {*snapshot.request.names[1:]} - {*snapshot.request.needed}:
        return False
    leaf = snapshot.in_use
    if leaf is None or leaf.not_valid_after_utc - snapshot.now <= LOSABLE:
        return True
    if is_self_signed(leaf):
        return True
    if limited:
        return set(failed) <= {item.name for item in snapshot.dropped}
    return not set(failed) & set(dns_names(leaf))


def is_wanted(snapshot: Snapshot, pending: Certificate) -> bool:
    """Whether a certificate that was issued earlier still fits the settings."""
    request, held = snapshot.request, set(pending.names)
    wanted = set(snapshot.names), set(request.names)
    return (
        any(names <= held <= names | twins(names) for names in wanted)
        and key_type(pending.leaf) == request.key_type
        and snapshot.now < backstop(pending.leaf)
        and not snapshot.memory.revoked(pending.thumbprint)
        and not is_compromised(pending.leaf, snapshot.memory)
    )


def is_compromised(leaf: x509.Certificate, memory: Memory) -> bool:
    """Whether any certificate with this key was revoked as compromised."""
    return bool(memory.compromised) and public_key_hash(leaf) in memory.compromised


def _resume(snapshot: Snapshot, pending: Certificate) -> Due:
    """Return whether to deploy the pending certificate: daily after a rollback."""
    attempt, now = snapshot.attempt, snapshot.now
    failed = attempt.failed if attempt else None
    if failed is None or attempt is None or attempt.thumbprint != pending.thumbprint:
        reason = "an earlier run obtained a certificate that not every port uses yet"
        return Due(due=True, reason=reason, at=now)
    again = failed + RETRY_INTERVAL
    reason = f"a new certificate was rolled back on {when(failed, now)}"
    urgent = snapshot.in_use is None or _is_urgent(snapshot)
    if again <= now or urgent or snapshot.request.activate_only:
        return Due(due=True, reason=f"{reason}; this is another attempt", at=now)
    return Due(due=False, reason=reason, at=again)


def _is_urgent(snapshot: Snapshot) -> bool:
    leaf = snapshot.in_use
    return leaf is not None and leaf.not_valid_after_utc - snapshot.now < URGENT


def first(
    certificate: x509.Certificate, drawn: datetime | None, days_left: int
) -> tuple[datetime, str]:
    """Return when a certificate is due by time, and by which rule."""
    at = backstop(certificate)
    part = "half" if lifetime(certificate) <= SHORT_LIVED else "a third"
    rule = f"{part} or less of the certificate's lifetime is left"
    if days_left:
        asked = certificate.not_valid_after_utc - timedelta(days=days_left)
        wanted = max(asked, earliest(certificate))
        if wanted < at:
            at, rule = wanted, f"renew-days is set to {days_left} days before the end"
            if asked < wanted:
                rule = "renew-days is set, and half of the lifetime is over"
    if drawn is not None and drawn < at:
        at, rule = drawn, _ADVICE
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
    """Return why the certificate in use does not fit the settings, or ""."""
    if is_self_signed(certificate):
        return "the certificate in use is self-signed"
    if snapshot.ours is None:
        return "this program did not obtain the certificate in use from this CA"
    held, key = set(dns_names(certificate)), snapshot.request.key_type
    known = snapshot.memory.find(thumbprint(certificate))
    # What the CA added of its own accord is no change.
    added = twins(known.names if known else names)
    changes = [f"with {name}" for name in names if name not in held]
    changes += [f"without {name}" for name in sorted(held - added - set(names))]
    if changes:
        return f"the names changed: {printable(', '.join(changes))}"
    if key_type(certificate) != key:
        return f"the key type is {key_type(certificate)}, and key-type is {key}"
    return ""


def _spoiled(snapshot: Snapshot) -> str:
    """Return why the saved state rules out the certificate in use, or ""."""
    memory, leaf = snapshot.memory, snapshot.ours
    if leaf is None:
        return ""
    digest = thumbprint(leaf)
    if revoked := memory.revoked(digest):
        return f"the certificate in use was revoked on {day(revoked, snapshot.now)}"
    if is_compromised(leaf, memory):
        return "the key of the certificate in use was revoked as compromised"
    if memory.in_use and digest != memory.in_use:
        return "the certificate in use is not the last one that this program activated"
    return ""


def lifetime(certificate: x509.Certificate) -> timedelta:
    """Return the lifetime of a certificate."""
    return certificate.not_valid_after_utc - certificate.not_valid_before_utc


def slack(span: timedelta) -> timedelta:
    """Return how long before the end a certificate of this lifetime is due."""
    return span / (2 if span <= SHORT_LIVED else 3)


def backstop(certificate: x509.Certificate) -> datetime:
    """Return when a third of the lifetime is left; half, if it is ten days or less.

    Let's Encrypt's integration guide, "When to Renew".
    """
    return certificate.not_valid_after_utc - slack(lifetime(certificate))


def earliest(certificate: x509.Certificate) -> datetime:
    """Return the earliest moment for renew-days: half of the lifetime.

    Lifetimes shrink: renew-days = 60, chosen for 90 days, would renew a certificate of
    45 days at every run.
    """
    return certificate.not_valid_before_utc + lifetime(certificate) / 2


def interval(runs: Sequence[datetime]) -> timedelta | None:
    """Return the usual time between scheduled runs; None if there were too few.

    Args:
        runs: Their starts; of several within an hour, only the first counts.
    """
    counted: list[datetime] = []
    for run in sorted(runs):
        if not counted or run - counted[-1] >= timedelta(hours=1):
            counted.append(run)
    gaps = sorted(later - earlier for earlier, later in pairwise(counted))
    return gaps[len(gaps) // 2] if len(gaps) >= 3 else None  # noqa: PLR2004


def is_sparse(every: timedelta, span: timedelta) -> bool:
    """Whether runs at this interval leave fewer than three attempts in a lifetime.

    During one attempt the CA may be down; during another a name may fail.
    """
    return every * 3 > slack(span)
