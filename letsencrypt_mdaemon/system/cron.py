"""The user's crontab."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.errors import DeployError
from letsencrypt_mdaemon.system import process
from letsencrypt_mdaemon.system.schedule import NAME, Job, Run, moment, twice
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


# Linux and macOS


class Cron:
    """The user's crontab: one line of ours in it."""

    def __init__(self, crontab: Path, run: Run = process.run) -> None:
        self.crontab = crontab
        self._run = run

    def install(self, command: Sequence[str]) -> Job:
        """Add our line, or bring it up to date.

        Raises:
            DeployError: If the crontab cannot be read or written.
        """
        lines = self._lines()
        ours = [line for line in lines if _is_ours(line)]
        hour, minute = moment()
        if ours and (match := re.match(r"(\d+) (\d+),", ours[0])):
            minute, hour = int(match[1]), int(match[2])
        # A percent sign would end the command (crontab(5)).
        text = shlex.join(command).replace("%", r"\%")
        line = f"{minute} {hour},{hour + 12} * * * {text} >/dev/null 2>&1 # {NAME}\n"
        self._write([*self._others(lines), line])
        return Job(when=twice(hour, minute), command=shlex.join(command))

    def show(self) -> Job | None:
        """Return our line; cron does not keep how it ran.

        Raises:
            DeployError: If the crontab cannot be read.
        """
        for line in filter(_is_ours, self._lines()):
            when, text = line.split(" ", 5)[:5], line.split(" ", 5)[5]
            command = text.rpartition(" >/dev/null")[0].replace(r"\%", "%")
            return Job(when=" ".join(when), command=printable(command))
        return None

    def remove(self) -> bool:
        """Take our line away.

        Raises:
            DeployError: If the crontab cannot be read or written.
        """
        lines = self._lines()
        others = self._others(lines)
        if len(others) == len(lines):
            return False
        self._write(others)
        return True

    def rivals(self) -> list[str]:
        """Return nothing: the old script runs on Windows only."""
        return []

    def _lines(self) -> list[str]:
        ended = self._run(self.crontab, "-l")
        if ended.code:
            if "no crontab" in ended.output.lower():
                return []
            raise DeployError(
                f"The crontab cannot be read ({ended.code}): "
                f"{printable(ended.output.strip(), 500)}",
                hint="May this account use cron? See crontab(1).",
            )
        return ended.output.splitlines(keepends=True)

    def _others(self, lines: Sequence[str]) -> list[str]:
        others = [line for line in lines if not _is_ours(line)]
        if others and not others[-1].endswith("\n"):
            others[-1] += "\n"
        return others

    def _write(self, lines: Sequence[str]) -> None:
        ended = self._run(self.crontab, "-", given="".join(lines))
        if ended.code:
            raise DeployError(
                f"The crontab cannot be written ({ended.code}): "
                f"{printable(ended.output.strip(), 500)}",
                hint="May this account use cron? See crontab(1).",
            )


def _is_ours(line: str) -> bool:
    return line.rstrip().endswith(f"# {NAME}") and not line.startswith("#")
