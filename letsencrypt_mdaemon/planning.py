"""What a run finds, and so what is due, or why it waits."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from letsencrypt_mdaemon import renewal
from letsencrypt_mdaemon.errors import AcmeError
from letsencrypt_mdaemon.pki.certificate import (
    OURS,
    key_type,
    public_key_hash,
    thumbprint,
)
from letsencrypt_mdaemon.state.advice import Draw
from letsencrypt_mdaemon.state.ledger import DAILY
from letsencrypt_mdaemon.state.memory import utc

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cryptography import x509

    from letsencrypt_mdaemon.parts import Issuer, Order, Parts
    from letsencrypt_mdaemon.pki.certificate import Certificate
    from letsencrypt_mdaemon.renewal import Due
    from letsencrypt_mdaemon.state.folder import CaState
    from letsencrypt_mdaemon.state.ledger import Wait
    from letsencrypt_mdaemon.state.memory import Attempt, Dropped, Memory

_log = logging.getLogger(__name__)

URGENT = timedelta(days=3)
"""With less left of the certificate in use, every run tries."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What a run finds.

    Args:
        names: The names it should have now: those wanted, without the dropped ones.
        in_use: The one certificate that all the targets name, if it is one.
        ours: Whether this program obtained that from this CA.
        pending: Issued earlier, not in use yet, and still what is wanted.
    """

    names: tuple[str, ...]
    dropped: tuple[Dropped, ...]
    named: tuple[x509.Certificate | None, ...]
    in_use: x509.Certificate | None
    ours: bool
    pending: Certificate | None
    attempt: Attempt | None


def look(order: Order, parts: Parts, now: datetime) -> Situation:
    """Look at what is in use, and at what earlier runs left."""
    named = tuple(parts.server.named(order.names).values())
    in_use = named[0] if len(set(named)) == 1 else None
    memory = parts.state.load()
    dropped = memory.dropped if order.drop else ()
    dropped = tuple(item for item in dropped if item.name in order.names[1:])
    without = {item.name for item in dropped}
    names = tuple(name for name in order.names if name not in without)
    pending = None
    if not order.force:
        pending = usable(parts.ca.pending(), [names, order.names], order, now)
    if pending is not None and is_compromised(pending.leaf, memory):
        pending = None
    return Situation(
        names=names,
        dropped=dropped,
        named=named,
        in_use=in_use,
        ours=in_use is not None and is_ours(in_use, order, parts),
        pending=pending,
        attempt=parts.state.attempt(),
    )


def decide(
    order: Order, found: Situation, parts: Parts, issuer: Issuer | None, now: datetime
) -> Due:
    """Return what is due; the CA is asked for its advice only if there is an issuer."""
    if found.pending is not None:
        return _resume(order, found, found.pending, now)
    if order.activate_only:
        reason = "no certificate waits to be put into use"
        return renewal.Due(due=False, reason=reason, at=now)
    drawn, why = None, ""
    if found.in_use is not None and found.ours and not order.force:
        draw = _advice(order, found.in_use, parts.ca, issuer, now)
        drawn, why = draw.moment(now, order.interval), draw.explanation_url
    due = by_rule(order, found, parts, now, drawn=drawn)
    if due.due and due.at == drawn and why:
        due = replace(due, reason=f"{due.reason}; the CA says why: {why}")
    again = [item.name for item in found.dropped if item.tried + DAILY <= now]
    if again and not due.due:
        reason = f"{', '.join(again)} could not be validated before, and is tried again"
        return renewal.Due(due=True, reason=reason, at=now)
    return due


def by_rule(
    order: Order,
    found: Situation,
    parts: Parts,
    now: datetime,
    *,
    drawn: datetime | None = None,
) -> Due:
    """Return what is due by what is known here alone."""
    return renewal.decide(
        found.named,
        ours=found.ours,
        names=found.names,
        key=order.key_type,
        now=now,
        drawn=drawn,
        days_left=order.days_left,
        spoiled=_spoiled(found, parts.state.load()),
        force=order.force,
    )


def _spoiled(found: Situation, memory: Memory) -> str:
    """Return why the certificate in use must not stay, as far as we remember; or ""."""
    if found.in_use is None:
        return ""
    print_ = thumbprint(found.in_use)
    known = memory.find(print_)
    if known is not None and known.revoked is not None:
        return f"the certificate in use was revoked on {known.revoked:%Y-%m-%d}"
    if found.ours and is_compromised(found.in_use, memory):
        return "the key of the certificate in use was revoked as compromised"
    if memory.in_use and print_ != memory.in_use:
        return "the certificate in use is not the one that was put into use last"
    return ""


def is_compromised(leaf: x509.Certificate, memory: Memory) -> bool:
    """Whether a certificate's key was revoked as compromised, with whichever one."""
    return bool(memory.compromised) and public_key_hash(leaf) in memory.compromised


def wait(order: Order, found: Situation, parts: Parts, now: datetime) -> Wait | None:
    """Return why it is too early to try again, after what failed before."""
    if found.pending is not None:
        return None
    names = tried_now(order, found, parts, now)
    left = parts.ca.order()
    return (
        parts.ca.ledger()
        .settled(now)
        .wait(
            names,
            now,
            urgent=_is_urgent(found, now),
            resumes=left is not None and set(left.names) == set(names),
            limits=order.limits,
        )
    )


def _is_urgent(found: Situation, now: datetime) -> bool:
    return found.in_use is not None and found.in_use.not_valid_after_utc - now < URGENT


def tried_now(
    order: Order, found: Situation, parts: Parts, now: datetime
) -> tuple[str, ...]:
    """Return the names to order: all, or without those that wait, if that may be."""
    if not order.drop or order.force:
        return order.names
    ledger, urgent = parts.ca.ledger().settled(now), _is_urgent(found, now)
    early = {
        item.name
        for item in ledger.failing(order.names)
        if item.name and (item.paused or item.not_before(urgent=urgent) > now)
    }
    if not early or not renewal.may_drop(early, order.names, found.in_use, now):
        return order.names
    return tuple(name for name in order.names if name not in early)


def _resume(order: Order, found: Situation, pending: Certificate, now: datetime) -> Due:
    """Return whether the pending certificate is tried now: after a roll-back daily."""
    failed = found.attempt.failed if found.attempt else None
    same = found.attempt and found.attempt.thumbprint == pending.thumbprint
    if failed is None or not same:
        reason = "an earlier run obtained a certificate that is not in use yet"
        return renewal.Due(due=True, reason=reason, at=now)
    again = failed + DAILY
    left = found.in_use.not_valid_after_utc - now if found.in_use else timedelta(0)
    reason = f"a new certificate was rolled back on {failed:%Y-%m-%d %H:%M} UTC"
    if again <= now or left < URGENT or order.activate_only:
        return renewal.Due(due=True, reason=f"{reason} and is tried again", at=now)
    when = f"{again:%Y-%m-%d %H:%M} UTC"
    _log.warning("%s; it is tried again after %s", reason, when)
    return renewal.Due(due=False, reason=reason, at=again)


def _advice(
    order: Order,
    certificate: x509.Certificate,
    ca: CaState,
    issuer: Issuer | None,
    now: datetime,
) -> Draw:
    """Return the moment drawn from the CA's suggested window (RFC 9773, 4.2 and 4.3).

    Drawn once for each window and kept; asked again when the CA wants to be asked.
    """
    print_ = thumbprint(certificate)
    kept = ca.draw()
    if kept is None or kept.thumbprint != print_:
        kept = Draw(print_, None, None, None, ask_again=now)
    if issuer is None or kept.holds(now):
        return kept
    try:
        window, seconds = issuer.suggested_window(certificate)
    except AcmeError as exc:
        # Whether it is due can be told without the CA.
        _log.warning("The CA could not be asked when to renew: %s", exc)
        window, seconds = None, 3600.0
    again = utc(now) + timedelta(seconds=seconds)
    draw = kept.asked(window, again, random.SystemRandom())
    if draw.at is not None and draw.at != kept.at:
        url = draw.explanation_url
        _log.info(
            "The CA suggests to renew between %s and %s; drawn: %s UTC%s",
            f"{draw.start:%Y-%m-%d %H:%M}",
            f"{draw.end:%Y-%m-%d %H:%M}",
            f"{draw.at:%Y-%m-%d %H:%M}",
            f"; why: {url}" if url else "",
        )
    if not order.dry_run:
        ca.save_draw(draw)
    return draw


def usable(
    pending: Certificate | None,
    wanted: Sequence[Sequence[str]],
    order: Order,
    now: datetime,
) -> Certificate | None:
    """Return the pending certificate if it is still one that is wanted.

    Args:
        wanted: The names it may have: any of these.
    """
    if pending is None:
        return None
    fits = any(set(pending.names) == set(names) for names in wanted)
    fits = fits and key_type(pending.leaf) == order.key_type
    if fits and now < renewal.backstop(pending.leaf):
        return pending
    _log.info("The pending certificate %s does not fit any more", pending.thumbprint)
    return None


def is_ours(certificate: x509.Certificate, order: Order, parts: Parts) -> bool:
    """Whether this program obtained a certificate from this CA.

    When that is not remembered, the friendly name tells, though not of which CA.
    """
    remembered = parts.state.load().find(thumbprint(certificate))
    if remembered is not None:
        return remembered.directory_url == order.directory_url
    return any(
        leaf == certificate and name.startswith(f"{OURS} ")
        for leaf, name in parts.store.certificates()
    )
