"""Compute from lifetimes when to renew, and whether a schedule is too sparse."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography import x509

SHORT_LIVED = timedelta(days=10)
"""The longest lifetime whose renewal is due at its half."""


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


INTERVAL = timedelta(hours=12)
"""The assumed time between runs: the examples run twice a day."""


def slack(span: timedelta) -> timedelta:
    """Return how long before the end a certificate of this lifetime is due."""
    return span / (2 if span <= SHORT_LIVED else 3)


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


def lifetime(certificate: x509.Certificate) -> timedelta:
    """Return the lifetime of a certificate."""
    return certificate.not_valid_after_utc - certificate.not_valid_before_utc
