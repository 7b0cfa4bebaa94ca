"""The CA's suggested renewal window (RFC 9773), and the moment drawn from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """When the CA suggests to renew (RFC 9773, 4.2), and why, if it says so."""

    start: datetime
    end: datetime
    explanation_url: str = ""

    def draw(self, generator: random.Random) -> datetime:
        """Return a moment in the window, every one equally likely."""
        return self.start + (self.end - self.start) * generator.random()


@dataclass(frozen=True, slots=True)
class Draw:
    """The moment drawn once from the CA's suggested window (RFC 9773, 4.2).

    Args:
        at: The moment drawn; None if the CA gave no advice.
        ask_again: Not before this moment is the CA asked again (4.3).
    """

    thumbprint: str
    start: datetime | None
    end: datetime | None
    at: datetime | None
    ask_again: datetime
    explanation_url: str = ""

    def holds(self, now: datetime) -> bool:
        """Whether it is too early to ask the CA again.

        A clock that was wrong when it was drawn does not silence us for long.
        """
        return now < self.ask_again < now + timedelta(days=2)

    def asked(
        self, window: Window | None, ask_again: datetime, generator: random.Random
    ) -> Draw:
        """Return what the CA's answer makes of it: drawn anew for a new window only."""
        if window is None or (window.start, window.end) == (self.start, self.end):
            return replace(self, ask_again=ask_again)
        return Draw(
            self.thumbprint,
            window.start,
            window.end,
            window.draw(generator).replace(microsecond=0),
            ask_again,
            window.explanation_url,
        )

    def moment(self, now: datetime, interval: timedelta) -> datetime | None:
        """Return when the CA's advice makes it due.

        A run that comes up in the window renews at the first chance after the moment
        drawn. If the next one comes only after the window, this one does (4.2): only
        inside it a renewal is exempt from Let's Encrypt's limits, and too early is
        better than too late.

        Args:
            interval: Until the next run.
        """
        if self.at is None or self.end is None:
            return None
        following = now + interval
        return min(self.at, now) if following > self.end else self.at
