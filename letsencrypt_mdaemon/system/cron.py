"""The user's crontab, on Linux and macOS."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.system import process
from letsencrypt_mdaemon.system.schedule import (
    NAME,
    Job,
    random_time,
    refused,
    twice,
)
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_HINT = "Allow this account to use cron; see crontab(1)."


class Cron:
    """The user's crontab, with one line of ours."""

    def __init__(self, crontab: Path, run: process.Run = process.run) -> None:
        self.crontab = crontab
        self._run = run

    def install(self, command: Sequence[str]) -> Job:
        """Add our line, or update it.

        Raises:
            DeployError: If the crontab cannot be read or written.
        """
        lines = self._lines()
        ours = [line for line in lines if _is_ours(line)]
        hour, minute = random_time()
        if ours and (match := re.match(r"(\d+) (\d+),", ours[0])):
            minute, hour = int(match[1]), int(match[2])
        # A percent sign would end the command (crontab(5)).
        text = shlex.join(command).replace("%", r"\%")
        line = f"{minute} {hour},{hour + 12} * * * {text} >/dev/null 2>&1 # {NAME}\n"
        self._write([*self._others(lines), line])
        return Job(when=twice(hour, minute), command=shlex.join(command))

    def show(self) -> Job | None:
        """Return our line; cron keeps no results.

        Raises:
            DeployError: If the crontab cannot be read.
        """
        for line in filter(_is_ours, self._lines()):
            when, text = line.split(" ", 5)[:5], line.split(" ", 5)[5]
            command = text.rpartition(" >/dev/null")[0].replace(r"\%", "%")
            return Job(when=" ".join(when), command=printable(command))
        return None

    def remove(self) -> bool:
        """Remove our line; return whether there was one.

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
        """Return nothing: the vendor's script runs on Windows only."""
        return []

    def _lines(self) -> list[str]:
        ended = self._run(self.crontab, "-l")
        if ended.code:
            if "no crontab" in ended.output.lower():
                return []
            raise refused("read the crontab", ended, _HINT)
        return ended.output.splitlines(keepends=True)

    def _others(self, lines: Sequence[str]) -> list[str]:
        others = [line for line in lines if not _is_ours(line)]
        if others and not others[-1].endswith("\n"):
            others[-1] += "\n"
        return others

    def _write(self, lines: Sequence[str]) -> None:
        ended = self._run(self.crontab, "-", given="".join(lines))
        if ended.code:
            raise refused("write the crontab", ended, _HINT)


def _is_ours(line: str) -> bool:
    return line.rstrip().endswith(f"# {NAME}") and not line.startswith("#")
