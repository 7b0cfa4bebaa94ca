"""Run a command twice a day by cron; what all schedulers share.

A mark makes a line of a crontab ours; others are never changed.
"""

from __future__ import annotations

import re
import secrets
import shlex
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.errors import ConfigError, DeployError
from letsencrypt_mdaemon.system import process
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NAME = "letsencrypt-mdaemon"
"""The name of the task, and the mark of a task or a line of ours."""


MARK = "--scheduled"
"""The option that marks the command of our jobs, so that others are a person's."""

RUNNING, QUEUED = "is running now", "waits for a start that was put off"
"""The results of a job that has none yet."""

_ALLOW_CRON = "Allow this account to use cron; see crontab(1)."
THIS_PROGRAM = re.compile("letsencrypt[-_]mdaemon", re.IGNORECASE)
# What ends a line or is not shown, in whatever program.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class Job(NamedTuple):
    """Our job as the scheduler shows it.

    Args:
        when: The times of day.
        command: The command line.
        next_run: The next start; "" if unknown.
        last_run: The last start; "" if unknown.
        last_code: The exit code of the last run; None if unknown.
        last_result: What the scheduler says about it instead; "" if nothing.
        words: The command, word by word; () if it cannot be split.
    """

    when: str
    command: str
    next_run: str = ""
    last_run: str = ""
    last_code: int | None = None
    last_result: str = ""
    words: tuple[str, ...] = ()


class Cron:
    """The user's crontab, with one line of ours."""

    def __init__(self, crontab: Path, run: process.Run = process.run) -> None:
        self.crontab = crontab
        self._run = run

    def install(self, command: Sequence[str]) -> Job:
        """Add our line, or update it.

        Raises:
            ConfigError: If the command does not fit into one line of a crontab.
            DeployError: If the crontab cannot be read or written.
        """
        lines = self._lines()
        ours = [line for line in lines if _is_ours(line)]
        hour, minute = random_time()
        if ours and (match := re.match(r"(\d+) (\d+),", ours[0])):
            minute, hour = int(match[1]), int(match[2])
        text = shlex.join(command)
        if re.search(r"\\[\\%]", text):
            raise unfit(text, "each cron reads a backslash there in its own way")
        # A percent sign would end the command (crontab(5)).
        text = text.replace("%", r"\%")
        line = f"{minute} {hour},{hour + 12} * * * {text} >/dev/null 2>&1 # {NAME}"
        require_one_line(line)
        self._write(lines, f"{line}\n")
        return Job(
            when=twice(hour, minute),
            command=shlex.join(command),
            words=tuple(command),
        )

    def show(self) -> Job | None:
        """Return our line; cron keeps no results.

        Raises:
            DeployError: If the crontab cannot be read.
        """
        for line in filter(_is_ours, self._lines()):
            *fields, text = line.split(" ", 5)
            command = text.rpartition(" >/dev/null")[0].replace(r"\%", "%")
            when = " ".join(fields)
            if match := re.fullmatch(r"(\d+) (\d+),(\d+) \* \* \*", when):
                minute, *hours = map(int, match.groups())
                when = times(minute, *hours)
            words: list[str] = []
            with suppress(ValueError):  # somebody edited it
                words = shlex.split(command)
            return Job(when=when, command=printable(command), words=tuple(words))
        return None

    def remove(self) -> bool:
        """Remove our line; return whether there was one.

        Raises:
            DeployError: If the crontab cannot be read or written.
        """
        lines = self._lines()
        is_there = any(map(_is_ours, lines))
        if is_there:
            self._write(lines)
        return is_there

    def rivals(self) -> list[str]:
        """Return nothing: the vendor's script runs on Windows only."""
        return []

    def old_names(self) -> dict[str, list[str]]:
        """Return nothing: the vendor's script runs on Windows only."""
        return {}

    def switch(self, name: str, *, on: bool) -> None:
        """Do nothing: `rivals` names no task."""

    def twins(self) -> list[str]:
        """Return the lines that run this program, if there are several.

        Raises:
            DeployError: If the crontab cannot be read.
        """
        return several(
            [
                printable(line.strip(), 200)
                for line in self._lines()
                if THIS_PROGRAM.search(line) and not line.lstrip().startswith("#")
            ]
        )

    def _lines(self) -> list[str]:
        ended = self._run(self.crontab, "-l")
        if ended.code:
            if "no crontab" in ended.output.lower():
                return []
            raise refused("read the crontab", ended, _ALLOW_CRON)
        return ended.output.splitlines(keepends=True)

    def _write(self, lines: Sequence[str], ours: str = "") -> None:
        """Write these lines except for our former one, then our new one."""
        others = "".join(line for line in lines if not _is_ours(line))
        if others and not others.endswith("\n"):
            others += "\n"
        ended = self._run(self.crontab, "-", given=others + ours)
        if ended.code:
            raise refused("write the crontab", ended, _ALLOW_CRON)


def require_one_line(line: str) -> None:
    """Require that a command line is one line, with nothing that is not shown.

    Raises:
        ConfigError: If it is not.
    """
    if _CONTROL.search(line):
        raise unfit(line, "it has a line break or another control character")


def unfit(line: str, why: str) -> ConfigError:
    """Return the error for a command line that no scheduler should run."""
    return ConfigError(
        f"This command cannot be scheduled, because {why}: {printable(line, 1000)}",
        hint="Rename that folder or file, or set that value in the config file.",
    )


def _is_ours(line: str) -> bool:
    return line.rstrip().endswith(f"# {NAME}") and not line.startswith("#")


def several(jobs: list[str]) -> list[str]:
    """Return these jobs; none if there is only one, which then is the usual one."""
    return jobs if len(jobs) > 1 else []


def random_time() -> tuple[int, int]:
    """Return a random hour below 12 and minute, to spread the requests to the CA."""
    return secrets.randbelow(12), 1 + secrets.randbelow(58)


def twice(hour: int, minute: int) -> str:
    """Return two times of day, twelve hours apart."""
    return times(minute, hour, hour + 12)


def times(minute: int, *hours: int) -> str:
    """Return times of day, as people write them."""
    return ", ".join(f"{hour:02}:{minute:02}" for hour in hours)


def refused(doing: str, ended: process.Ended, hint: str) -> DeployError:
    """Return the error for a scheduler's program that failed."""
    output = printable(ended.output.strip(), 500)
    return DeployError(f"Could not {doing} ({ended.code}): {output}", hint=hint)


def split(line: str) -> list[str]:
    """Return the words of a command line, as a program on Windows gets them.

    The reverse of `subprocess.list2cmdline`, by the rules of Microsoft's C runtime.
    """
    words, quoted = [""], False
    is_word = False
    for slashes, mark, other in re.findall(r'(\\*)(?:(")|(.|\Z))', line, re.DOTALL):
        if mark:
            words[-1] += slashes[: len(slashes) // 2]
            if len(slashes) % 2:
                words[-1] += mark
            else:
                quoted = not quoted
            is_word = True
            continue
        words[-1] += slashes
        is_word = is_word or bool(slashes)
        if other in {" ", "\t"} and not quoted:
            words += [""] * is_word
            is_word = False
        elif other:
            words[-1] += other
            is_word = True
    return words if is_word else words[:-1]
