"""Put the states of many servers side by side: the worst first."""

from __future__ import annotations

import math
import os
import stat
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.app.collected import (
    Server,
    parse,
    rank,
    unknown,
    with_problems,
    worst,
)
from letsencrypt_mdaemon.app.health import Grade
from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.system import handles
from letsencrypt_mdaemon.system.disk import reason
from letsencrypt_mdaemon.text import local, printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from datetime import date, datetime
    from pathlib import Path

MAX_FILE_BYTES = 1 << 20
"""A hundred names and ports take a tenth of it."""
MAX_FILES = 20_000
WEEKS = 12
WEEK = timedelta(weeks=1)


class Week(NamedTuple):
    """What comes in seven days: the names of servers."""

    start: date
    renewals: tuple[str, ...]
    expiries: tuple[str, ...]


class Fleet(NamedTuple):
    """Servers, the worst first.

    Args:
        now: When it was judged.
    """

    servers: tuple[Server, ...]
    now: datetime

    @property
    def grade(self) -> Grade:
        """The worst."""
        return worst(server.grade for server in self.servers)

    @property
    def counts(self) -> dict[Grade, int]:
        """How many servers have each grade, the worst first."""
        grades = [server.grade for server in self.servers]
        order = sorted(Grade, key=rank, reverse=True)
        return {grade: grades.count(grade) for grade in order}

    @property
    def verdict(self) -> str:
        """The result in a sentence."""
        number = len(self.servers)
        counted = [
            f"{count} {grade.name}" for grade, count in self.counts.items() if count
        ]
        return f"{number} server{'s' * (number != 1)}: {', '.join(counted)}."

    def weeks(self) -> list[Week]:
        """Return the renewals and expiries of the next weeks.

        What is due already is in the first week; what expired already is in none.
        """
        first = local(self.now)
        weeks = []
        for number in range(WEEKS):
            start, end = first + number * WEEK, first + (number + 1) * WEEK
            due = [
                server.name
                for server in self.servers
                if server.due
                and server.due < end
                and (not number or server.due >= start)
            ]
            over = [
                server.name
                for server in self.servers
                if server.end and start <= server.end < end
            ]
            weeks.append(Week(start.date(), tuple(due), tuple(over)))
        return weeks


def of(servers: Iterable[Server], now: datetime) -> Fleet:
    """Return servers as a fleet: the worst first, then the one that expires first."""

    def order(server: Server) -> tuple[int, float, str]:
        end = server.end.timestamp() if server.end else math.inf
        return -rank(server.grade), end, server.name

    return Fleet(tuple(sorted(servers, key=order)), now)


def collect(folder: Path, now: datetime, *, without: Collection[Path] = ()) -> Fleet:
    """Read the files of a folder, each of one server.

    Whatever is in it, each file is a server, if only one that is unknown. Hidden files
    are skipped.

    Args:
        without: Files that are no server's: the reports.

    Raises:
        ConfigError: If the folder cannot be read, is empty, or holds too many files.
    """
    skipped = {path.absolute() for path in without}
    try:
        names = sorted(
            path.name
            for path in folder.iterdir()
            if not path.name.startswith(".") and path.absolute() not in skipped
        )
        with handles.Folder(folder) as opened:
            if len(names) > MAX_FILES:
                message = f"{folder} holds {len(names)} files, more than {MAX_FILES}."
                raise ConfigError(message, hint="Put fewer servers into a report.")
            found = [_read(opened, name, now) for name in names]
    except OSError as exc:
        message = f"Could not read {folder}: {reason(exc)}."
        raise ConfigError(message, hint="Check the path.") from exc
    if not found:
        message = f"{folder} is empty."
        hint = "Collect what `status --json --ports` prints on each server there."
        raise ConfigError(message, hint=hint)
    return of(_joined(found), now)


def _read(folder: handles.Folder, name: str, now: datetime) -> Server:
    shown = printable(name, 200).strip() or repr(name)
    try:
        data = _content(folder, name)
    except (OSError, ValueError) as exc:
        why = f"could not read the file: {printable(reason(exc))}"
        return unknown(shown, why, sources=(shown,))
    return parse(data, shown, now)


def _content(folder: handles.Folder, name: str) -> bytes:
    """Return what a file holds: no link's target, and nothing that makes us wait.

    Raises:
        ValueError: If it is no file, or too large.
    """
    # Before opening, as opening a device may have an effect; and again afterwards, as
    # another may have taken its place.
    _must_be_file(folder.status(name))
    handle = folder.open(name, os.O_RDONLY)
    try:
        _must_be_file(os.fstat(handle))
        data = handles.read(handle, MAX_FILE_BYTES + 1)
    finally:
        os.close(handle)
    if len(data) > MAX_FILE_BYTES:
        message = f"it is larger than {MAX_FILE_BYTES >> 20} MB"
        raise ValueError(message)
    return data


def _must_be_file(status: os.stat_result) -> None:
    kinds = {stat.S_IFLNK: "a link", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe"}
    if not stat.S_ISREG(status.st_mode):
        kind = kinds.get(stat.S_IFMT(status.st_mode), "a device")
        message = f"it is {kind}"
        raise ValueError(message)


def _joined(found: Iterable[Server]) -> list[Server]:
    """Return the servers, with what `check` says added to the status of the same one.

    That adds problems and removes none: whoever writes a file in the name of another
    server cannot make that look good.
    """
    rows = list(found)
    statuses = [server for server in rows if not server.is_check]
    known = {(server.host, server.name) for server in statuses}
    checks: dict[tuple[str, str], list[Server]] = {}
    for server in rows:
        if server.is_check:
            checks.setdefault((server.host, server.name), []).append(server)
    joined = []
    for server in statuses:
        for check in checks.get((server.host, server.name), ()):
            server = _with_check(server, check)  # noqa: PLW2901 - one after the other
        joined.append(server)
    alone = [row for key, items in checks.items() if key not in known for row in items]
    return joined + alone


def _with_check(server: Server, check: Server) -> Server:
    both = with_problems(server, check.problems)
    return both._replace(
        sources=server.sources + check.sources,
        ports=server.ports or check.ports,
        end=server.end or check.end,
        last_run=server.last_run or check.last_run,
    )
