"""Let a person's choice of certificate stand for a while, by rules without I/O.

While a hold is in force, a run still obtains certificates in time, but the server keeps
the certificate that the person chose.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.pki.certificate import is_self_signed, thumbprint
from letsencrypt_mdaemon.renewal import due as rules
from letsencrypt_mdaemon.renewal.spare import fault
from letsencrypt_mdaemon.state.memory import Hold, utc
from letsencrypt_mdaemon.text import day, days

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography import x509

    from letsencrypt_mdaemon.renewal.due import Due
    from letsencrypt_mdaemon.renewal.snapshot import Snapshot

LAST_PART, LAST_DAYS = 10, timedelta(days=7)
"""A hold ends when this part of the lifetime is left, or these days if it is less."""


def begin(
    leaf: x509.Certificate, why: str, now: datetime, until: datetime | None = None
) -> Hold | None:
    """Return a new hold; None if the next run of `renew` replaces the certificate.

    It does so if the certificate is self-signed, or if the hold would be over already.
    """
    end = leaf.not_valid_after_utc
    until = until or end - min(rules.lifetime(leaf) / LAST_PART, LAST_DAYS)
    if is_self_signed(leaf) or until <= now:
        return None
    return Hold(thumbprint(leaf), utc(now), utc(until), why)


def next_due(snapshot: Snapshot, leaf: x509.Certificate) -> datetime | None:
    """Return when a certificate is due that was just put into use.

    Returns:
        None if it is due now: no date in the past.
    """
    after = snapshot._replace(
        request=snapshot.request._replace(force=False),
        named=dict.fromkeys(snapshot.named, leaf),
        pending=None,
        spare=None,
    )
    held = in_force(after)
    due = decide(after, held) if held else rules.by_rule(after, after.names)
    return None if due.due else due.at


def in_force(snapshot: Snapshot) -> Hold | None:
    """Return the hold on a certificate that the server's files name and that is good.

    `activate` ends a hold, so none is in force then.
    """
    held, leaf = snapshot.memory.hold, _leaf(snapshot)
    if held is None or leaf is None or snapshot.request.activate_only:
        return None
    alone = snapshot._replace(named=dict.fromkeys(snapshot.named, leaf))
    if fault(alone) or rules.is_compromised(leaf, snapshot.memory):
        return None
    return held if snapshot.now < held.until else None


def unfinished(snapshot: Snapshot) -> x509.Certificate | None:
    """Return the held certificate if it has to be put into use again.

    An earlier run did not see it on every port, or a value names another one again.
    """
    leaf, attempt = _leaf(snapshot), snapshot.attempt
    if leaf is None or in_force(snapshot) is None:
        return None
    is_left = (
        attempt is not None
        and attempt.thumbprint == thumbprint(leaf)
        and attempt.failed is None
        and not attempt.undoing
    )
    return leaf if is_left or snapshot.in_use is None else None


def binding(snapshot: Snapshot) -> Hold | None:
    """Return the hold in force, unless this run puts its certificate into use again."""
    held, spare = in_force(snapshot), snapshot.spare
    is_held = held and spare is not None and thumbprint(spare) == held.thumbprint
    return None if is_held else held


def decide(snapshot: Snapshot, held: Hold) -> Due:
    """Decide while a hold is in force: only time makes a certificate due.

    What was obtained earlier waits, so that no other is ordered.
    """
    leaf, now, draw = _leaf(snapshot), snapshot.now, snapshot.draw
    assert leaf is not None  # noqa: S101 - else the hold is not in force
    drawn = None
    if draw is not None and draw.thumbprint == held.thumbprint:
        drawn = draw.moment(now, snapshot.request.interval or rules.INTERVAL)
    at, rule = rules.first(leaf, drawn, snapshot.request.days_left)
    waits = snapshot.pending is not None or snapshot.spare is not None
    if snapshot.request.force and not waits:
        return rules.Due(due=True, reason="--force requests a new order", at=now)
    if at <= now and not waits:
        reason = f"{rule}: it expires in {days(leaf.not_valid_after_utc - now)}"
        return rules.Due(due=True, reason=reason, at=at, rule=rule)
    until = day(held.until, now)
    reason = f"runs keep the certificate that you chose until {until}"
    if waits:
        reason += ", and a newer one waits for `activate`"
    return rules.Due(due=False, reason=reason, at=held.until if waits else at)


def _leaf(snapshot: Snapshot) -> x509.Certificate | None:
    """Return the held certificate, if the server's files name it."""
    held = snapshot.memory.hold
    found = (leaf for leaf in snapshot.named.values() if leaf is not None)
    return next((x for x in found if held and thumbprint(x) == held.thumbprint), None)
