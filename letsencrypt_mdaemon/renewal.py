"""When a certificate is due, and why: rules over values, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.pki.certificate import dns_names, is_self_signed, key_type
from letsencrypt_mdaemon.text import words

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cryptography import x509


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


SHORT_LIVED = timedelta(days=10)
"""The longest lifetime that is renewed at its half."""


def backstop(certificate: x509.Certificate) -> datetime:
    """Return when a third of the lifetime is left; half, if it is ten days or less.

    Let's Encrypt's integration guide, "When to Renew".
    """
    return certificate.not_valid_after_utc - slack(lifetime(certificate))


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


def earliest(certificate: x509.Certificate) -> datetime:
    """Return when the administrator's days may make it due: after half of its lifetime.

    Lifetimes shrink; days that were chosen for 90 would renew one of 45 at every run.
    """
    return certificate.not_valid_before_utc + lifetime(certificate) / 2


INTERVAL = timedelta(hours=12)
"""Between runs, as long as nothing else is known: the examples run twice a day."""


def slack(span: timedelta) -> timedelta:
    """Return how long before the end a certificate of this lifetime is due."""
    return span / (2 if span <= SHORT_LIVED else 3)


def interval(runs: Sequence[datetime]) -> timedelta | None:
    """Return the usual time between scheduled runs; None if there were too few.

    Args:
        runs: When they began. Of several within an hour only the first counts.
    """
    counted: list[datetime] = []
    for run in sorted(runs):
        if not counted or run - counted[-1] >= timedelta(hours=1):
            counted.append(run)
    gaps = sorted(later - earlier for earlier, later in pairwise(counted))
    return gaps[len(gaps) // 2] if len(gaps) >= 3 else None  # noqa: PLR2004


def is_sparse(every: timedelta, span: timedelta) -> bool:
    """Whether runs at this interval are too few for a lifetime: fewer than three tries.

    One of them may meet a CA that is down, and one a name that fails.
    """
    return every * 3 > slack(span)


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
        return f"the names changed: {words(', '.join(changes))}"
    if key_type(certificate) != key:
        return f"the key should be {key} and is {key_type(certificate)}"
    return ""


def lifetime(certificate: x509.Certificate) -> timedelta:
    """Return how long a certificate is valid in all."""
    return certificate.not_valid_after_utc - certificate.not_valid_before_utc


def days(span: timedelta) -> str:
    """Return a span as people say it: days, or hours when it is short."""
    if span >= timedelta(days=2):
        return f"{span.days} days"
    hours = span // timedelta(hours=1)
    return "less than 2 hours" if hours < 2 else f"{hours} hours"  # noqa: PLR2004
