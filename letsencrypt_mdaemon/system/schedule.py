"""What every scheduler has: a job that runs twice a day.

A mark makes a Windows task or a line of a crontab ours; others are never changed.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, NamedTuple, Protocol

from letsencrypt_mdaemon.errors import DeployError
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from letsencrypt_mdaemon.system import process

NAME = "letsencrypt-mdaemon"
"""The name of the task, and the mark of a task or a line of ours."""


class Job(NamedTuple):
    """Our job as the scheduler shows it.

    Args:
        when: The times of day.
        command: The command line.
        next_run: The next start; "" if unknown.
        last_run: The last start; "" if unknown.
        last_code: The exit code of the last run; None if unknown.
    """

    when: str
    command: str
    next_run: str = ""
    last_run: str = ""
    last_code: int | None = None


class Scheduler(Protocol):
    """The system's scheduler."""

    def install(self, command: Sequence[str]) -> Job:
        """Make sure that the command runs twice a day."""
        ...

    def show(self) -> Job | None:
        """Return our job; None if there is none."""
        ...

    def remove(self) -> bool:
        """Remove our job; return whether there was one."""
        ...

    def rivals(self) -> list[str]:
        """Return the names of the jobs that run the vendor's script."""
        ...


def random_time() -> tuple[int, int]:
    """Return a random hour below 12 and minute, to spread the requests to the CA."""
    return secrets.randbelow(12), 1 + secrets.randbelow(58)


def twice(hour: int, minute: int) -> str:
    """Return two times of day, twelve hours apart."""
    return f"{hour:02}:{minute:02}, {hour + 12:02}:{minute:02}"


def refused(doing: str, ended: process.Ended, hint: str) -> DeployError:
    """Return the error for a scheduler's program that failed."""
    output = printable(ended.output.strip(), 500)
    return DeployError(f"Could not {doing} ({ended.code}): {output}", hint=hint)
