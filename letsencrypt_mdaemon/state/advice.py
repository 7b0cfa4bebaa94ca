"""The CA's suggested renewal window (RFC 9773), and the moment drawn from it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import random


class Window(NamedTuple):
    """When the CA suggests to renew, and a page that explains why (RFC 9773, 4.2)."""

    start: datetime
    end: datetime
    explanation_url: str = ""

    def draw(self, generator: random.Random) -> datetime:
        """Return a random moment in the window, all equally likely."""
        return self.start + (self.end - self.start) * generator.random()


class Draw(NamedTuple):
    """The moment drawn once from the CA's suggested window (RFC 9773, 4.2).

    Args:
        at: The moment drawn; None if the CA suggested no window.
        ask_again: The earliest time for the next request to the CA (4.3).
    """

    thumbprint: str
    start: datetime | None
    end: datetime | None
    at: datetime | None
    ask_again: datetime
    explanation_url: str = ""

    def holds(self, now: datetime) -> bool:
        """Whether it is too early to ask the CA again.

        At most for two days, in case the clock was wrong when the moment was drawn.
        """
        return now < self.ask_again < now + timedelta(days=2)

    def asked(
        self, window: Window | None, ask_again: datetime, generator: random.Random
    ) -> Draw:
        """Return the draw after the CA's answer: only a new window is drawn from."""
        if window is None or (window.start, window.end) == (self.start, self.end):
            return self._replace(ask_again=ask_again)
        return Draw(
            self.thumbprint,
            window.start,
            window.end,
            window.draw(generator).replace(microsecond=0),
            ask_again,
            window.explanation_url,
        )

    def moment(self, now: datetime, interval: timedelta) -> datetime | None:
        """Return when the certificate is due by the CA's advice; None without advice.

        The first run after the moment drawn renews. If the next run comes after the end
        of the window, this run renews (4.2): only inside the window a renewal is exempt
        from Let's Encrypt's limits, and too early is better than too late.

        Args:
            interval: The time until the next run.
        """
        if self.at is None or self.end is None:
            return None
        following = now + interval
        return min(self.at, now) if following > self.end else self.at
