"""When a certificate is due, and why: rules over values, nothing else."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

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
    from collections.abc import Collection, Sequence

    from cryptography import x509

    from letsencrypt_mdaemon.pki.certificate import Certificate
    from letsencrypt_mdaemon.renewal.adapters import Adapters, Request
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


def by_rule(
    order: Request,
    found: Situation,
    parts: Adapters,
    now: datetime,
    *,
    drawn: datetime | None = None,
) -> Due:
    """Return what is due by what is known here alone."""
    return decide(
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
    digest = thumbprint(found.in_use)
    known = memory.find(digest)
    if known is not None and known.revoked is not None:
        return f"the certificate in use was revoked on {known.revoked:%Y-%m-%d}"
    if found.ours and is_compromised(found.in_use, memory):
        return "the key of the certificate in use was revoked as compromised"
    if memory.in_use and digest != memory.in_use:
        return "the certificate in use is not the one that was put into use last"
    return ""


def is_compromised(leaf: x509.Certificate, memory: Memory) -> bool:
    """Whether a certificate's key was revoked as compromised, with whichever one."""
    return bool(memory.compromised) and public_key_hash(leaf) in memory.compromised


def wait(
    order: Request, found: Situation, parts: Adapters, now: datetime
) -> Wait | None:
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
    order: Request, found: Situation, parts: Adapters, now: datetime
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
    if not early or not may_drop(early, order.names, found.in_use, now):
        return order.names
    return tuple(name for name in order.names if name not in early)


def resume(
    order: Request, found: Situation, pending: Certificate, now: datetime
) -> Due:
    """Return whether the pending certificate is tried now: after a roll-back daily."""
    failed = found.attempt.failed if found.attempt else None
    same = found.attempt and found.attempt.thumbprint == pending.thumbprint
    if failed is None or not same:
        reason = "an earlier run obtained a certificate that is not in use yet"
        return Due(due=True, reason=reason, at=now)
    again = failed + NEARLY_A_DAY
    left = found.in_use.not_valid_after_utc - now if found.in_use else timedelta(0)
    reason = f"a new certificate was rolled back on {failed:%Y-%m-%d %H:%M} UTC"
    if again <= now or left < URGENT or order.activate_only:
        return Due(due=True, reason=f"{reason} and is tried again", at=now)
    when = f"{again:%Y-%m-%d %H:%M} UTC"
    _log.warning("%s; it is tried again after %s", reason, when)
    return Due(due=False, reason=reason, at=again)


def usable(
    pending: Certificate | None,
    wanted: Sequence[Sequence[str]],
    order: Request,
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
    if fits and now < backstop(pending.leaf):
        return pending
    _log.info("The pending certificate %s does not fit any more", pending.thumbprint)
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """Whether a certificate should be ordered now, and why.

    Args:
        reason: One clause that says which rule decided, and from what.
        at: When it is due, or was.
        rule: What makes it due then, when nothing is wrong with it; else "".
    """

    due: bool
    reason: str
    at: datetime
    rule: str = ""


def decide(  # noqa: PLR0913 - each is one input of the decision
    in_use: Sequence[x509.Certificate | None],
    *,
    ours: bool,
    names: Sequence[str],
    key: str,
    now: datetime,
    drawn: datetime | None = None,
    days_left: int = 0,
    spoiled: str = "",
    force: bool = False,
) -> Due:
    """Decide whether a certificate is due: the rule that comes first decides.

    Args:
        in_use: What each of the server's targets names; None = nothing we know.
        ours: Whether this program obtained it from this CA.
        names: The names it should have, in any order.
        key: The kind of key it should have.
        drawn: The moment drawn from the CA's suggested window.
        days_left: It is due when no more days than these are left; see `earliest`.
        spoiled: Why it must not stay, as far as only our memory can tell; or "".
    """
    if force:
        return Due(due=True, reason="a new order was forced", at=now)
    if reason := _unclear(in_use):
        return Due(due=True, reason=reason, at=now)
    certificate = in_use[0]
    assert certificate is not None  # noqa: S101 - or it was unclear
    reason = _unwanted(certificate, ours=ours, names=names, key=key) or spoiled
    if reason:
        return Due(due=True, reason=reason, at=now)
    at, rule = _first(certificate, drawn, days_left)
    end = certificate.not_valid_after_utc
    if end <= now:
        reason = f"the certificate in use expired on {end:%Y-%m-%d}"
        return Due(due=True, reason=reason, at=at, rule=rule)
    left = days(end - now)
    if at <= now:
        reason = f"{rule}: it expires in {left}"
        return Due(due=True, reason=reason, at=at, rule=rule)
    reason = f"the certificate in use is good until {end:%Y-%m-%d} ({left})"
    return Due(due=False, reason=reason, at=at, rule=rule)


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


def may_drop(
    failed: Collection[str],
    names: Sequence[str],
    in_use: x509.Certificate | None,
    now: datetime,
) -> bool:
    """Whether a certificate may go without names that the CA could not validate.

    Never without the first name; and never without one that the certificate in use
    covers as long as that has more than a week left: losing a name that works is worse
    than waiting.
    """
    if not set(failed) <= set(names[1:]):
        return False
    if in_use is None or in_use.not_valid_after_utc - now <= timedelta(days=7):
        return True
    return is_self_signed(in_use) or not set(failed) & set(dns_names(in_use))


def _unclear(in_use: Sequence[x509.Certificate | None]) -> str:
    """Return why no single certificate is in use; "" if one is."""
    known = set(in_use) - {None}
    if not known:
        return "the server's files name no certificate that is in the store"
    if None in in_use:
        return "some of the server's files name a certificate that is not in the store"
    if len(known) > 1:
        return "the server's files name different certificates"
    return ""


def _unwanted(
    certificate: x509.Certificate, *, ours: bool, names: Sequence[str], key: str
) -> str:
    """Return why a certificate is not the one wanted, whatever its dates; or ""."""
    if is_self_signed(certificate):
        return "the certificate in use is self-signed"
    if not ours:
        return "the certificate in use was not obtained from this CA by this program"
    held = set(dns_names(certificate))
    changes = [f"+{name}" for name in names if name not in held]
    changes += [f"-{name}" for name in sorted(held - set(names))]
    if changes:
        return f"the names changed: {printable(', '.join(changes))}"
    if key_type(certificate) != key:
        return f"the key should be {key} and is {key_type(certificate)}"
    return ""
