"""When a certificate is due, and why: rules over values, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.certificate import dns_names, is_self_signed, key_type
from letsencrypt_mdaemon.errors import words

if TYPE_CHECKING:
    import random
    from collections.abc import Collection, Sequence

    from cryptography import x509


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """Whether a certificate should be ordered now, and why.

    Args:
        reason: One clause that says which rule decided, and from what.
        at: When it is due, or was.
    """

    due: bool
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """When the CA suggests to renew (RFC 9773, 4.2), and why, if it says so."""

    start: datetime
    end: datetime
    explanation_url: str = ""

    def draw(self, generator: random.Random) -> datetime:
        """Return a moment in the window, every one equally likely."""
        return self.start + (self.end - self.start) * generator.random()


SHORT_LIVED = timedelta(days=10)
"""The longest lifetime that is renewed at its half."""


def backstop(certificate: x509.Certificate) -> datetime:
    """Return when a third of the lifetime is left; half, if it is ten days or less.

    Let's Encrypt's integration guide, "When to Renew".
    """
    lifetime = _lifetime(certificate)
    left = lifetime / (2 if lifetime <= SHORT_LIVED else 3)
    return certificate.not_valid_after_utc - left


def decide(  # noqa: PLR0913 - each is one input of the decision
    in_use: Sequence[x509.Certificate | None],
    *,
    ours: bool,
    names: Sequence[str],
    key: str,
    now: datetime,
    drawn: datetime | None = None,
    force: bool = False,
) -> Due:
    """Decide whether a certificate is due.

    Args:
        in_use: What each of the server's targets names; None = nothing we know.
        ours: Whether this program obtained it from this CA.
        names: The names it should have, in any order.
        key: The kind of key it should have.
        drawn: The moment drawn from the CA's suggested window.
    """
    if force:
        return Due(due=True, reason="a new order was forced", at=now)
    if reason := _unclear(in_use):
        return Due(due=True, reason=reason, at=now)
    certificate = in_use[0]
    assert certificate is not None  # noqa: S101 - or it was unclear
    if reason := _unwanted(certificate, ours=ours, names=names, key=key):
        return Due(due=True, reason=reason, at=now)
    at = backstop(certificate)
    part = "half" if _lifetime(certificate) <= SHORT_LIVED else "a third"
    rule = f"{part} or less of the certificate's lifetime is left"
    if drawn is not None and drawn < at:
        at, rule = drawn, "the CA suggests to renew the certificate (ARI)"
    end = certificate.not_valid_after_utc
    if end <= now:
        reason = f"the certificate in use expired on {end:%Y-%m-%d}"
        return Due(due=True, reason=reason, at=at)
    left = days(end - now)
    if at <= now:
        return Due(due=True, reason=f"{rule}: it expires in {left}", at=at)
    reason = f"the certificate in use is good until {end:%Y-%m-%d} ({left})"
    return Due(due=False, reason=reason, at=at)


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


def _lifetime(certificate: x509.Certificate) -> timedelta:
    return certificate.not_valid_after_utc - certificate.not_valid_before_utc


def days(span: timedelta) -> str:
    """Return a span as people say it: days, or hours when it is short."""
    if span >= timedelta(days=2):
        return f"{span.days} days"
    hours = span // timedelta(hours=1)
    return "less than 2 hours" if hours < 2 else f"{hours} hours"  # noqa: PLR2004
