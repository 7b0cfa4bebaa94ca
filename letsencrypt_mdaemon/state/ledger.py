"""What a CA issued and what failed there, and so when to try again.

Rules over values: Let's Encrypt's integration guide ("Retrying failures": after 1, 10
and 100 minutes, then daily) and the limits that a CA publishes.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.text import printable, when

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from letsencrypt_mdaemon.authorities import Limits

RETRY_DELAYS = (timedelta(minutes=1), timedelta(minutes=10), timedelta(minutes=100))
RETRY_INTERVAL = timedelta(hours=20)
"""Between daily retries: short enough for a schedule that varies by hours."""
MAX_SILENCE = timedelta(days=1)
"""The longest wait after a failure, whatever time the CA named."""
CLOCK_ERROR = timedelta(hours=25)
"""How far a clock may be off: a day, and an hour for a wrong time zone.

With a clock that is further off, `acme.issuer` places no order.
"""
WEEK = timedelta(days=7)
MAX_FAILURES = 20
"""The failures of each name that are kept."""
MIN_ISSUANCES = 20
"""The issuances that are kept, even if the CA counts them no more."""


class Issuance(NamedTuple):
    """A certificate that the CA issued; its names in alphabetical order."""

    names: tuple[str, ...]
    at: datetime


class Failure(NamedTuple):
    """The failures of a name, or of whole orders (""), since the last success.

    Args:
        times: When, oldest first; never empty.
        why: The CA's message about the last failure.
        until: The earliest retry that the CA allows; None if it named none.
        paused: The URL where the administrator can resume; "" if not paused.
        limited: Whether the CA only limits the name: another time, it may work.
    """

    name: str
    times: tuple[datetime, ...]
    why: str
    until: datetime | None = None
    paused: str = ""
    limited: bool = False

    def not_before(self, *, urgent: bool) -> datetime:
        """Return when to try again: while it is urgent, never as late as daily."""
        delays = (*RETRY_DELAYS, RETRY_DELAYS[-1] if urgent else RETRY_INTERVAL)
        at = self.times[-1] + delays[min(len(self.times), len(delays)) - 1]
        return at if self.until is None else max(at, self.until)


class Wait(NamedTuple):
    """Why to wait, and until when; None = until the administrator acts.

    Args:
        failed: The name that failed; "" = a whole order; None = no order did.
    """

    reason: str
    until: datetime | None
    paused: str = ""
    failed: str | None = None


class Ledger(NamedTuple):
    """The history of issuances and failures at one CA."""

    issuances: tuple[Issuance, ...] = ()
    failures: tuple[Failure, ...] = ()

    def issued(self, names: Iterable[str], at: datetime) -> Ledger:
        """Return the ledger with one more certificate, and no failures of its names."""
        wanted = tuple(sorted(names))
        recent = [old for old in self.issuances if at - old.at < WEEK + CLOCK_ERROR]
        kept = max(recent, [*self.issuances[-MIN_ISSUANCES + 1 :]], key=len)
        failures = [old for old in self.failures if old.name not in {*wanted, ""}]
        return Ledger((*kept, Issuance(wanted, at)), tuple(failures))

    def failed(
        self,
        said: Mapping[str, str],
        at: datetime,
        *,
        until: datetime | None = None,
        paused: str = "",
        limited: bool = False,
    ) -> Ledger:
        """Return the ledger with one more failure.

        Args:
            said: The CA's message for each name that failed; "" is the whole order.
        """
        times = {old.name: old.times for old in self.failures}
        failures = [old for old in self.failures if old.name not in said]
        for name, why in said.items():
            kept = (*times.get(name, ()), at)[-MAX_FAILURES:]
            failures.append(Failure(name, kept, why, until, paused, limited))
        return self._replace(failures=tuple(failures))

    def settled(self, now: datetime) -> Ledger:
        """Return the ledger without entries from the future, which a wrong clock made.

        Such a failure is forgotten, and not moved to now as an issuance is: every run
        would move it again, and wait, until the time of the wrong clock came.
        """
        issuances = [
            item._replace(at=min(item.at, now))
            for item in self.issuances
            if item.at <= now + CLOCK_ERROR
        ]
        failures = []
        for item in self.failures:
            times = tuple(at for at in item.times if at <= now)
            if not times and item.paused:
                times = (now,)
            if times:
                until = item.until and min(item.until, times[-1] + MAX_SILENCE)
                failures.append(item._replace(times=times, until=until))
        return Ledger(tuple(issuances), tuple(failures))

    def used(
        self, names: Iterable[str], now: datetime, span: timedelta = WEEK
    ) -> list[datetime]:
        """Return when the CA issued certificates for exactly these names in a span."""
        wanted = tuple(sorted(names))
        return sorted(
            item.at
            for item in self.issuances
            if item.names == wanted and now - item.at < span
        )

    def failing(self, names: Collection[str]) -> list[Failure]:
        """Return the failures of these names, and of whole orders."""
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
        """Return why an order for these names has to wait; None = go ahead.

        Args:
            urgent: Whether the certificate in use expires before many more tries.
            resumes: Whether an open order is resumed, which costs no new issuance.
        """
        waits = []
        for item in self.failing(names):
            if item.paused:
                what = f"for {item.name}" if item.name else "this account"
                return Wait(f"the CA has paused {what}: {item.why}", None, item.paused)
            if (at := item.not_before(urgent=urgent)) > now:
                waits.append(Wait(_why(item, now), at, failed=item.name))
        # A day more: the clock may have been slow at one of these issuances.
        span = WEEK + CLOCK_ERROR
        used = self.used(names, now, span)
        if limits is not None and len(used) >= limits.exact_set and not resumes:
            limit = f"limit of {limits.exact_set} certificates a week"
            reason = f"the CA's {limit} for exactly these names is reached"
            waits.append(Wait(reason, used[-limits.exact_set] + span))
        return max(waits, key=lambda wait: wait.until or now, default=None)


def _why(failure: Failure, now: datetime) -> str:
    name, times = failure.name, len(failure.times)
    what = f"{name} could not be validated" if name else "the order failed"
    if name and failure.limited:
        what = f"the CA refused {name}"
    if times > 1:
        what += f" {times} times, last"
    return f"{what} on {when(failure.times[-1], now)}: {printable(failure.why, 300)}"
