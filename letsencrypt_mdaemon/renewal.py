"""When a certificate is due, and why: rules over values, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.certificate import dns_names, is_self_signed, key_type

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

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


def backstop(certificate: x509.Certificate) -> datetime:
    """Return when a third of the lifetime is left; half, if it is ten days or less.

    Let's Encrypt's integration guide, "When to Renew".
    """
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    lifetime = end - start
    return end - lifetime / (2 if lifetime <= timedelta(days=10) else 3)


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
    if (reason := _mismatch(in_use, ours, names, key)) and not force:
        return Due(due=True, reason=reason, at=now)
    if force:
        return Due(due=True, reason="it was forced", at=now)
    certificate = in_use[0]
    assert certificate is not None  # noqa: S101 - or there was a mismatch
    at, reason = backstop(certificate), "a third of its lifetime or less is left"
    if certificate.not_valid_after_utc - certificate.not_valid_before_utc <= timedelta(
        days=10
    ):
        reason = "half of its lifetime or less is left"
    if drawn is not None and drawn < at:
        at, reason = drawn, "the CA suggests it (ARI)"
    left = certificate.not_valid_after_utc - now
    if left <= timedelta(0):
        return Due(due=True, reason="the certificate in use has expired", at=at)
    if at <= now:
        reason = f"{reason}: it expires in {days(left)}"
        return Due(due=True, reason=reason, at=at)
    until = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
    reason = f"the certificate in use is good until {until} ({days(left)})"
    return Due(due=False, reason=reason, at=at)


def _mismatch(
    in_use: Sequence[x509.Certificate | None],
    ours: bool,  # noqa: FBT001
    names: Sequence[str],
    key: str,
) -> str:
    """Return why what is in use is not what should be, whatever its dates; or ""."""
    known = {certificate for certificate in in_use if certificate is not None}
    if not known:
        return "the server's files name no certificate that is in the store"
    if None in in_use:
        return "some of the server's files name a certificate that is not in the store"
    if len(known) > 1:
        return "the server's files name different certificates"
    certificate = known.pop()
    if is_self_signed(certificate):
        return "the certificate in use is self-signed"
    if not ours:
        return "the certificate in use was not obtained from this CA by this program"
    held = set(dns_names(certificate))
    changes = [f"+{name}" for name in names if name not in held]
    changes += [f"-{name}" for name in sorted(held - set(names))]
    if changes:
        return f"the names changed: {', '.join(changes)}"
    if key_type(certificate) != key:
        return f"the key should be {key} and is {key_type(certificate)}"
    return ""


def days(span: timedelta) -> str:
    """Return a span as people say it: days, or hours when it is short."""
    hours = int(span.total_seconds() // 3600)
    if hours >= 48:  # noqa: PLR2004
        return f"{hours // 24} days"
    return f"{hours} hours" if hours != 1 else "1 hour"
