"""What the recipients of the mails know, and what a rehearsal found."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - the codec reads the types
from typing import NamedTuple


class Mailed(NamedTuple):
    """A failure that was mailed last at that time; `what` tells it from others."""

    what: str
    at: datetime


class Told(NamedTuple):
    """What the recipients of the mails know; `state.news` decides by it.

    Args:
        failure: The failure of the last run; "" if it was good.
        since: When runs began to fail; None if they do not, and that is known.
        runs: How many failed since then.
        open: Whether it was mailed that they fail, and not yet that they do not.
        mailed: The failures that were mailed, oldest first.
        begins: The validity of the certificate in use that expires first.
        ends: See `begins`.
        limits: How many limits of the time left were mailed for that certificate.
        dropped: The names that they know the certificate to lack.
    """

    failure: str = ""
    since: datetime | None = None
    runs: int = 0
    open: bool = False
    mailed: tuple[Mailed, ...] = ()
    begins: datetime | None = None
    ends: datetime | None = None
    limits: int = 0
    dropped: tuple[str, ...] = ()


class WouldFail(NamedTuple):
    """A name that failed in a rehearsal.

    Args:
        since: When it first did.
        code: What the doctor found first; "" if nothing.
        why: The words of the CA and of the doctor.
        change: What to do.
    """

    name: str
    since: datetime
    code: str
    why: str
    change: str

    def __str__(self) -> str:
        """Return the name with the code."""
        return f"{self.name} ({self.code})" if self.code else self.name


class Rehearsed(NamedTuple):
    """The last rehearsal of the next renewal.

    Args:
        thumbprint: Of the certificate to be renewed.
    """

    thumbprint: str
    at: datetime
    failing: tuple[WouldFail, ...] = ()
