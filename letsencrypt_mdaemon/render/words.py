"""Say what a report says of a server, in the columns of its table."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.text import days, local

if TYPE_CHECKING:
    from datetime import datetime

    from letsencrypt_mdaemon.app.collected import Server

HEADS = (
    *("Verdict", "Server", "Names", "Expires", "Days", "Ports", "Last run", "Version"),
    "Why",
)


MAX_NAMES = 3
"""The names of a certificate that the table shows."""


class Cells(NamedTuple):
    """A row of the table; a cell is empty where nothing is known."""

    verdict: str
    server: str
    names: str
    end: str
    days: str
    ports: str
    last_run: str
    version: str
    why: str


def cells(server: Server, now: datetime) -> Cells:
    """Return the row of a server."""
    left = server.days_left(now)
    return Cells(
        verdict=server.grade.name,
        server=server.name,
        names=_names(server.names),
        end=f"{local(server.end):%Y-%m-%d}" if server.end else "",
        days="" if left is None else f"{left // 1:.0f}",
        ports="{} of {}".format(*server.ports) if server.ports else "",
        last_run=_ago(server.last_run, now),
        version=server.version,
        why=server.why,
    )


def _names(names: tuple[str, ...]) -> str:
    more = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


def _ago(moment: datetime | None, now: datetime) -> str:
    if moment is None:
        return ""
    return "just now" if moment >= now else f"{days(now - moment)} ago"
