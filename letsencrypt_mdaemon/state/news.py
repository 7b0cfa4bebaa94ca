"""Decide which news of a run are worth a mail.

A failure is mailed when it begins or changes, then daily; with less than a tenth of the
lifetime left, at every run. Its end is mailed once. So is each limit of the time left,
and each name that the certificate lacks after a failure, or has again.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.state.memory import utc
from letsencrypt_mdaemon.state.told import Mailed, Told

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

PAUSE = timedelta(hours=20)
"""Between two mails about the same failure: a day, less what a schedule varies."""

LIMITS = tuple(timedelta(days=days) for days in (7, 3, 1, 0))
"""Of the time left, where they are less than a quarter of the lifetime."""

MAX_MAILED = 20
"""The failures whose mails are remembered."""


class Event(StrEnum):
    """A reason for a mail."""

    FAILED = "failed"
    AGAIN = "again"
    RECOVERED = "recovered"
    EXPIRING = "expiring"
    DROPPED = "dropped"
    RETURNED = "returned"
    RENEWED = "renewed"
    EVERY_RUN = "every-run"


MORE = (Event.RENEWED, Event.EVERY_RUN)
"""The events that are mailed only if that is asked for."""


class Now(NamedTuple):
    """How a run ended.

    Args:
        failure: What tells this failure from others; "" = the run was good; None = it
            only waits, also with a certificate that was rolled back, so that whatever
            failed still does.
        renewed: Whether the server uses another certificate than before.
        begins: The validity of the certificate in use that expires first; None = it is
            the one of the run before.
        ends: See `begins`.
        names: The names that the certificate should have.
        dropped: Those of them that it lacks for now.
    """

    at: datetime
    failure: str | None
    renewed: bool = False
    begins: datetime | None = None
    ends: datetime | None = None
    names: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


def count(told: Told, now: Now) -> Told:
    """Return what is remembered of a run, whether it is mailed or not."""
    if now.ends is not None and now.ends != told.ends:
        told = told._replace(begins=now.begins, ends=now.ends, limits=0)
    if now.failure:
        since = min(told.since or now.at, now.at)
        runs = told.runs + 1
        told = told._replace(failure=now.failure, since=utc(since), runs=runs)
    elif now.failure is not None:
        # A name that is not wanted any more is no news.
        wanted = tuple(name for name in told.dropped if name in now.names)
        told = told._replace(failure="", dropped=wanted)
    if not told.failure and not told.open:
        recent = tuple(row for row in told.mailed if not _is_old(row, now.at))
        told = told._replace(since=None, runs=0, mailed=recent)
    return told


def decide(told: Told, now: Now, more: Collection[str] = ()) -> Event | None:
    """Return the event to mail after a run that is counted; None if there is none.

    Args:
        more: Those of `MORE` that are asked for.
    """
    expiring = Event.EXPIRING if _limits(told, now.at) > told.limits else None
    if told.failure:
        last = [row for row in told.mailed if row.what == told.failure]
        if not last:
            return Event.FAILED
        if is_urgent(told, now.at) or _is_old(last[-1], now.at):
            return Event.AGAIN
        return expiring
    is_good = now.failure is not None
    news = {
        Event.RECOVERED: told.open and is_good,
        Event.DROPPED: is_good and dropped(told, now),
        Event.RETURNED: is_good and returned(told, now),
        Event.RENEWED: now.renewed and Event.RENEWED in more,
        Event.EXPIRING: expiring,
        Event.EVERY_RUN: Event.EVERY_RUN in more,
    }
    return next((event for event, happened in news.items() if happened), None)


def note(told: Told, now: Now) -> Told:
    """Return what is remembered once a mail about a counted run is sent."""
    is_open = bool(told.failure) or (told.open and now.failure is None)
    told = told._replace(limits=_limits(told, now.at), open=is_open)
    if not told.failure:
        if now.failure is not None:
            told = told._replace(dropped=now.dropped)
        return count(told, now)
    others = [row for row in told.mailed if row.what != told.failure]
    rows = [*others, Mailed(told.failure, utc(now.at))][-MAX_MAILED:]
    return told._replace(mailed=tuple(rows))


def dropped(told: Told, now: Now) -> tuple[str, ...]:
    """Return the names that the certificate lacks, and nobody was told."""
    return tuple(name for name in now.dropped if name not in told.dropped)


def returned(told: Told, now: Now) -> tuple[str, ...]:
    """Return the names that it lacked, as was told, and that it has again."""
    return tuple(name for name in told.dropped if name not in now.dropped)


def is_urgent(told: Told, now: datetime) -> bool:
    """Whether less than a tenth of the lifetime of the certificate in use is left."""
    if told.begins is None or told.ends is None:
        return False
    return (told.ends - now) * 10 < told.ends - told.begins


def _is_old(row: Mailed, now: datetime) -> bool:
    """Whether a mail is a day old; or from the future, which a wrong clock made."""
    return not timedelta() <= now - row.at < PAUSE


def _limits(told: Told, now: datetime) -> int:
    """Return how many limits of the time left are reached."""
    if told.begins is None or told.ends is None:
        return 0
    quarter = (told.ends - told.begins) / 4
    limits = (quarter, *(limit for limit in LIMITS if limit < quarter))
    return sum(told.ends - now <= limit for limit in limits)
