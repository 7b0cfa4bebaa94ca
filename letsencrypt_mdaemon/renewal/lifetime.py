"""How long certificates last, and what follows for a schedule."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography import x509


SHORT_LIVED = timedelta(days=10)
"""The longest lifetime that is renewed at its half."""


def backstop(certificate: x509.Certificate) -> datetime:
    """Return when a third of the lifetime is left; half, if it is ten days or less.

    Let's Encrypt's integration guide, "When to Renew".
    """
    return certificate.not_valid_after_utc - slack(lifetime(certificate))


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


def lifetime(certificate: x509.Certificate) -> timedelta:
    """Return how long a certificate is valid in all."""
    return certificate.not_valid_after_utc - certificate.not_valid_before_utc


def days(span: timedelta) -> str:
    """Return a span as people say it: days, or hours when it is short."""
    if span >= timedelta(days=2):
        return f"{span.days} days"
    hours = span // timedelta(hours=1)
    return "less than 2 hours" if hours < 2 else f"{hours} hours"  # noqa: PLR2004
