"""Twice a day, by the system's own scheduler: a Windows task, or a line of cron's.

A task or a line is ours by its mark; what is not ours is never changed.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from letsencrypt_mdaemon.system import process


class Run(Protocol):
    """Runs a program: `process.run`."""

    def __call__(
        self, program: Path, /, *arguments: str, given: str = ""
    ) -> process.Ended:
        """Run it to its end."""
        ...


NAME = "letsencrypt-mdaemon"
"""Of the task; and the mark by which a task or a line is ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the scheduler has of ours.

    Args:
        when: As it says it.
        last_run: When it ran last, as the scheduler says it; "" if that is not known.
        last_code: How that ended; None if that is not known.
    """

    when: str
    command: str
    next_run: str = ""
    last_run: str = ""
    last_code: int | None = None


class Scheduler(Protocol):
    """The system's scheduler."""

    def install(self, command: Sequence[str]) -> Job:
        """Make sure that the command is run twice a day."""
        ...

    def show(self) -> Job | None:
        """Return what there is of ours."""
        ...

    def remove(self) -> bool:
        """Make sure that there is nothing of ours; return whether there was."""
        ...

    def rivals(self) -> list[str]:
        """Return what runs the old script, by name."""
        ...


def moment() -> tuple[int, int]:
    """Return an hour below twelve and a minute, so that not all ask the CA at once."""
    return secrets.randbelow(12), 1 + secrets.randbelow(58)


def twice(hour: int, minute: int) -> str:
    """Return two times of day, twelve hours apart."""
    return f"{hour:02}:{minute:02}, {hour + 12:02}:{minute:02}"
