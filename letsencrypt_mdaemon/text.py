"""Text for people: safe, and with moments in local time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

CHOOSE = (
    "In MDaemon: Security > Security Manager > SSL & TLS, pages MDaemon, Webmail and "
    "Remote Administration: select"
)
"""How a certificate is chosen in MDaemon; its name follows."""

CHOOSE_ONCE = "Choose any certificate of the store once in MDaemon's SSL & TLS dialog"
"""The advice that makes the server's files name a known certificate."""


def printable(text: object, limit: int = 2000) -> str:
    """Return a text from outside that is safe for terminals, logs and mails.

    A CA's problem document, a greeting or a certificate's subject may contain anything.
    Control and formatting characters become escapes.

    Args:
        limit: The largest number of characters; longer texts are cut.
    """
    shown = str(text)[: limit + 1]
    if not shown.isprintable():
        shown = "".join(
            c if c.isprintable() else " " if c in "\r\n\t" else ascii(c)[1:-1]
            for c in shown
        )
    return shown if len(shown) <= limit else shown[: max(limit - 3, 0)] + "..."[:limit]


def when(moment: datetime, now: datetime | None = None) -> str:
    """Return a moment in local time, with the zone and the distance from now."""
    here = local(moment)
    # Not %Z: on Windows its names are long, and translated.
    zone = here.isoformat()[-6:]
    return f"{here:%Y-%m-%d %H:%M} {zone} ({_distance(moment, now)})"


def day(moment: datetime, now: datetime | None = None) -> str:
    """Return the local day of a moment, with the distance from now."""
    return f"{local(moment):%Y-%m-%d} ({_distance(moment, now)})"


def local(moment: datetime) -> datetime:
    """Return a moment in local time, or as it is where that has no year left.

    A certificate without an end has the last second of the year 9999 (RFC 5280,
    4.1.2.5).
    """
    try:
        return moment.astimezone()
    except (OverflowError, OSError, ValueError):
        return moment


def days(span: timedelta) -> str:
    """Return a span in days, or in hours or minutes if it is short."""
    for unit in ("days", "hours", "minutes"):
        if (number := span // timedelta(**{unit: 1})) > 1:
            return f"{number} {unit}"
    return "less than 2 minutes"


def _distance(moment: datetime, now: datetime | None) -> str:
    away = moment - (now or datetime.now(UTC))
    if away > timedelta():
        return f"in {days(away)}"
    return f"{days(-away)} ago" if -away >= timedelta(minutes=2) else "just now"
