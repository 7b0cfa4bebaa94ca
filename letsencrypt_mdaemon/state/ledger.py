"""What was spent at a CA and what failed there, and so when to try again.

Rules over values: Let's Encrypt's integration guide ("Retrying failures": after 1, 10
and 100 minutes, then daily) and the limits that a CA publishes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from letsencrypt_mdaemon.authorities import Limits

LADDER = (timedelta(minutes=1), timedelta(minutes=10), timedelta(minutes=100))
NEARLY_A_DAY = timedelta(hours=20)
"""Once a day, also when the schedule wavers."""
LONGEST = timedelta(days=1)
"""How long a failure silences us at most, whatever time the CA named."""
CLOCK_ERROR = timedelta(hours=25)
"""How far a clock may be off: a day, and what a time zone mixed up adds to it.

By one that is further off nothing is ordered (`issuer`).
"""
WEEK = timedelta(days=7)
KEPT = 20
"""Failures remembered of each name, and issuances in all, at least."""


@dataclass(frozen=True, slots=True)
class Issuance:
    """A certificate that the CA issued, for these names in alphabetical order."""

    names: tuple[str, ...]
    at: datetime


@dataclass(frozen=True, slots=True)
class Failure:
    """What failed since it last worked: one name, or the order as a whole ("").

    Args:
        times: When, oldest first; never empty.
        why: The CA's words about the last time.
        until: Not before this moment, the CA asked; None if it did not say.
        paused: The URL at which the CA wants to be asked to go on; "" if it does not.
    """

    name: str
    times: tuple[datetime, ...]
    why: str
    until: datetime | None = None
    paused: str = ""

    def not_before(self, *, urgent: bool) -> datetime:
        """Return when to try again; on the third rung it stays while it is urgent."""
        rungs = (*LADDER, LADDER[-1] if urgent else NEARLY_A_DAY)
        at = self.times[-1] + rungs[min(len(self.times), len(rungs)) - 1]
        return at if self.until is None else max(at, self.until)


@dataclass(frozen=True, slots=True)
class Wait:
    """Why there is no further try now, and until when; None = until somebody acts."""

    reason: str
    until: datetime | None
    paused: str = ""


@dataclass(frozen=True, slots=True)
class Ledger:
    """The account book at one CA."""

    issuances: tuple[Issuance, ...] = ()
    failures: tuple[Failure, ...] = ()

    def issued(self, names: Iterable[str], at: datetime) -> Ledger:
        """Return it with one more certificate; its names do not fail any more."""
        wanted = tuple(sorted(names))
        recent = [old for old in self.issuances if at - old.at < WEEK + CLOCK_ERROR]
        kept = recent if len(recent) >= KEPT else list(self.issuances[-KEPT + 1 :])
        failures = [old for old in self.failures if old.name not in {*wanted, ""}]
        return Ledger((*kept, Issuance(wanted, at)), tuple(failures))

    def failed(
        self,
        said: Mapping[str, str],
        at: datetime,
        *,
        until: datetime | None = None,
        paused: str = "",
    ) -> Ledger:
        """Return it with one more failure.

        Args:
            said: For each name that failed the CA's words; "" is the whole order.
        """
        times = {old.name: old.times for old in self.failures}
        kept = [old for old in self.failures if old.name not in said]
        kept += [
            Failure(name, (*times.get(name, ()), at)[-KEPT:], why, until, paused)
            for name, why in said.items()
        ]
        return replace(self, failures=tuple(kept))

    def settled(self, now: datetime) -> Ledger:
        """Return it without what a clock that was wrong wrote: what is later than now.

        Such a failure is forgotten. Moved to now, as a certificate of the next day is,
        it would silence us at every run until now was as late as that clock.
        """
        issuances = [
            replace(item, at=min(item.at, now))
            for item in self.issuances
            if item.at <= now + CLOCK_ERROR
        ]
        failures = []
        for item in self.failures:
            times = tuple(at for at in item.times if at <= now)
            if not times and item.paused:
                times = (now,)
            if times:
                until = item.until and min(item.until, times[-1] + LONGEST)
                failures.append(replace(item, times=times, until=until))
        return Ledger(tuple(issuances), tuple(failures))

    def used(
        self, names: Iterable[str], now: datetime, span: timedelta = WEEK
    ) -> list[datetime]:
        """Return when certificates for exactly these names were issued this week."""
        wanted = tuple(sorted(names))
        return sorted(
            item.at
            for item in self.issuances
            if item.names == wanted and now - item.at < span
        )

    def failing(self, names: Collection[str]) -> list[Failure]:
        """Return what fails of these names, and of orders as a whole."""
        return [item for item in self.failures if item.name in {*names, ""}]

    def wait(
        self,
        names: Collection[str],
        now: datetime,
        *,
        urgent: bool = False,
        resumes: bool = False,
        limits: Limits | None = None,
    ) -> Wait | None:
        """Return why a try for these names would be too early; None = go ahead.

        Args:
            urgent: Whether the certificate in use will not last for many more tries.
            resumes: Whether an open order is gone on with, which asks for nothing new.
        """
        for item in self.failing(names):
            if item.paused:
                what = f"for {item.name}" if item.name else "this account"
                return Wait(f"the CA has paused {what}: {item.why}", None, item.paused)
        waits = [
            Wait(_why(item), at)
            for item in self.failing(names)
            if (at := item.not_before(urgent=urgent)) > now
        ]
        # A day more: the clock may have been behind when one of them was written down.
        span = WEEK + CLOCK_ERROR
        used = self.used(names, now, span)
        if limits is not None and len(used) >= limits.exact_set and not resumes:
            reason = f"the CA issues {limits.exact_set} certificates a week for "
            reason += "exactly these names, and all are used"
            waits.append(Wait(reason, used[-limits.exact_set] + span))
        return max(waits, key=lambda wait: wait.until or now, default=None)


def _why(failure: Failure) -> str:
    what = f"{failure.name} could not be validated" if failure.name else "it failed"
    times = len(failure.times)
    again = f" ({times} times)" if times > 1 else ""
    why = printable(failure.why, 300)
    return f"{what} on {failure.times[-1]:%Y-%m-%d %H:%M} UTC{again}: {why}"
