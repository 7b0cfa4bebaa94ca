"""Run a command twice a day: by Windows' Task Scheduler, or by cron.

A mark makes a Windows task or a line of a crontab ours; others are never changed.
"""

from __future__ import annotations

import csv
import re
import secrets
import shlex
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree as ET

from letsencrypt_mdaemon.errors import ConfigError, DeployError
from letsencrypt_mdaemon.system import disk, process
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "letsencrypt-mdaemon"
"""The name of the task, and the mark of a task or a line of ours."""

NAMESPACE = "http://schemas.microsoft.com/windows/2004/02/mit/task"

MAX_DURATION = "PT2H"
"""Of a run, which may wait more than an hour for the CA (ISO 8601)."""

_AS_ADMINISTRATOR = "Run as an administrator."
_ALLOW_CRON = "Allow this account to use cron; see crontab(1)."
OLD_SCRIPT = re.compile(r"letsencrypt\.ps1|scheduled-renew\.cmd", re.IGNORECASE)
_FIRST_DAY = "2026-01-01"  # any day in the past

# Task Scheduler's own codes for a task that has no result yet.
_NO_RESULT = {267009, 267011}  # SCHED_S_TASK_RUNNING, SCHED_S_TASK_HAS_NOT_RUN


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


def task(command: Sequence[str], hour: int, minute: int, account: str) -> bytes:
    """Return a task's definition as XML in UTF-16 ([MS-TSCH], 2.5).

    It runs twice a day with a random delay of up to an hour, and as soon as possible
    after a missed start.
    """
    ET.register_namespace("", NAMESPACE)

    def add(
        parent: ET.Element, name: str, text: str = "", **attributes: str
    ) -> ET.Element:
        child = ET.SubElement(parent, f"{{{NAMESPACE}}}{name}", attributes)
        child.text = text or None
        return child

    root = ET.Element(f"{{{NAMESPACE}}}Task", version="1.2")
    info = add(root, "RegistrationInfo")
    add(info, "Source", NAME)
    add(info, "Description", "Renews the certificate of MDaemon when it is due.")
    triggers = add(root, "Triggers")
    for each in (hour, hour + 12):
        trigger = add(triggers, "CalendarTrigger")
        add(trigger, "StartBoundary", f"{_FIRST_DAY}T{each:02}:{minute:02}:00")
        add(trigger, "Enabled", "true")
        add(trigger, "RandomDelay", "PT1H")
        add(add(trigger, "ScheduleByDay"), "DaysInterval", "1")
    principal = add(add(root, "Principals"), "Principal", id="Author")
    add(principal, "UserId", account)
    add(principal, "RunLevel", "HighestAvailable")
    settings = add(root, "Settings")
    for name, value in {
        "MultipleInstancesPolicy": "IgnoreNew",
        "DisallowStartIfOnBatteries": "false",
        "StopIfGoingOnBatteries": "false",
        "StartWhenAvailable": "true",
        "RunOnlyIfNetworkAvailable": "true",
        "ExecutionTimeLimit": MAX_DURATION,
        "Enabled": "true",
    }.items():
        add(settings, name, value)
    action = add(add(root, "Actions", Context="Author"), "Exec")
    program, *arguments = command
    add(action, "Command", program)
    add(action, "Arguments", subprocess.list2cmdline(arguments))
    ET.indent(root)
    text = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-16"?>\n{text}\n'.encode("utf-16")


class TaskScheduler:
    """Windows' Task Scheduler.

    Args:
        account: The SID of a system account, which needs no password.
        name: The name of the task.
    """

    def __init__(
        self,
        schtasks: Path,
        run: process.Run = process.run,
        *,
        account: str,
        name: str = NAME,
    ) -> None:
        self.schtasks = schtasks
        self.account = account
        self.name = name
        self._run = run

    def install(self, command: Sequence[str]) -> Job:
        """Register the task, or update it.

        Raises:
            ConfigError: If another program's task has its name.
            DeployError: If Windows refuses.
        """
        there = self._definition()
        hour, minute = _random_time()
        if there is not None:
            start = there.findtext(".//{*}StartBoundary") or ""
            if match := re.search(r"T(\d\d):(\d\d)", start):
                hour, minute = int(match[1]) % 12, int(match[2])
        with TemporaryDirectory(prefix=NAME) as folder:
            file = Path(folder) / "task.xml"
            disk.create(file, task(command, hour, minute, self.account))
            over = ["/F"] if there is not None else []
            ended = self._run(
                self.schtasks, "/Create", "/TN", self.name, "/XML", str(file), *over
            )
        if ended.code:
            raise _refused(f"register the task {self.name}", ended, _AS_ADMINISTRATOR)
        return Job(when=_twice(hour, minute), command=subprocess.list2cmdline(command))

    def show(self) -> Job | None:
        """Return our task, and the result of its last run.

        Raises:
            ConfigError: If another program's task has its name.
        """
        there = self._definition()
        if there is None:
            return None
        starts = [start.text or "" for start in there.iterfind(".//{*}StartBoundary")]
        program = there.findtext(".//{*}Command") or ""
        arguments = there.findtext(".//{*}Arguments") or ""
        # By position, as Windows translates the names of the columns.
        ended = self._run(
            self.schtasks, "/Query", "/TN", self.name, "/V", "/FO", "CSV", "/NH"
        )
        rows = [row for row in csv.reader(ended.output.splitlines()) if len(row) > 8]  # noqa: PLR2004
        _, _, following, _, _, last, result, *_ = rows[0] if rows else [""] * 9
        code = int(result) if re.fullmatch(r"-?\d+", result) else None
        ran = code is not None and code not in _NO_RESULT
        return Job(
            when=", ".join(start.partition("T")[2][:5] for start in starts),
            command=f"{subprocess.list2cmdline([program])} {arguments}".strip(),
            next_run=printable(following),
            last_run=printable(last) if ran else "",
            last_code=code if ran else None,
        )

    def remove(self) -> bool:
        """Delete our task; return whether there was one.

        Raises:
            ConfigError: If another program's task has its name.
            DeployError: If Windows refuses.
        """
        if self._definition() is None:
            return False
        ended = self._run(self.schtasks, "/Delete", "/TN", self.name, "/F")
        if ended.code:
            raise _refused(f"delete the task {self.name}", ended, _AS_ADMINISTRATOR)
        return True

    def rivals(self) -> list[str]:
        """Return the names of the tasks that run the vendor's script."""
        ended = self._run(self.schtasks, "/Query", "/XML", "ONE")
        found = re.findall(
            r"<!--\s*(.*?)\s*-->\s*(<Task\b.*?</Task>)", ended.output, re.DOTALL
        )
        return [printable(name) for name, text in found if OLD_SCRIPT.search(text)]

    def _definition(self) -> ET.Element | None:
        ended = self._run(self.schtasks, "/Query", "/TN", self.name, "/XML")
        # The declared encoding is not the one that comes out of a pipe.
        text = re.sub(r"\A.*?<\?xml.*?\?>", "", ended.output, flags=re.DOTALL).strip()
        if ended.code or not text:
            return None
        try:
            found = ET.fromstring(text)  # noqa: S314 - it comes from Windows itself
        except ET.ParseError:
            found = None
        if found is None or found.findtext(".//{*}Source") != NAME:
            raise ConfigError(
                f"Another program made the scheduled task {self.name}.",
                hint="Rename or delete that task in the Task Scheduler.",
            )
        return found


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
        hour, minute = _random_time()
        if ours and (match := re.match(r"(\d+) (\d+),", ours[0])):
            minute, hour = int(match[1]), int(match[2])
        # A percent sign would end the command (crontab(5)).
        text = shlex.join(command).replace("%", r"\%")
        line = f"{minute} {hour},{hour + 12} * * * {text} >/dev/null 2>&1 # {NAME}\n"
        self._write(lines, line)
        return Job(when=_twice(hour, minute), command=shlex.join(command))

    def show(self) -> Job | None:
        """Return our line; cron keeps no results.

        Raises:
            DeployError: If the crontab cannot be read.
        """
        for line in filter(_is_ours, self._lines()):
            *when, text = line.split(" ", 5)
            command = text.rpartition(" >/dev/null")[0].replace(r"\%", "%")
            return Job(when=" ".join(when), command=printable(command))
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

    def _lines(self) -> list[str]:
        ended = self._run(self.crontab, "-l")
        if ended.code:
            if "no crontab" in ended.output.lower():
                return []
            raise _refused("read the crontab", ended, _ALLOW_CRON)
        return ended.output.splitlines(keepends=True)

    def _write(self, lines: Sequence[str], ours: str = "") -> None:
        """Write these lines except for our former one, then our new one."""
        others = "".join(line for line in lines if not _is_ours(line))
        if others and not others.endswith("\n"):
            others += "\n"
        ended = self._run(self.crontab, "-", given=others + ours)
        if ended.code:
            raise _refused("write the crontab", ended, _ALLOW_CRON)


Scheduler = TaskScheduler | Cron


def _is_ours(line: str) -> bool:
    return line.rstrip().endswith(f"# {NAME}") and not line.startswith("#")


def _random_time() -> tuple[int, int]:
    """Return a random hour below 12 and minute, to spread the requests to the CA."""
    return secrets.randbelow(12), 1 + secrets.randbelow(58)


def _twice(hour: int, minute: int) -> str:
    """Return two times of day, twelve hours apart."""
    return f"{hour:02}:{minute:02}, {hour + 12:02}:{minute:02}"


def _refused(doing: str, ended: process.Ended, hint: str) -> DeployError:
    """Return the error for a scheduler's program that failed."""
    output = printable(ended.output.strip(), 500)
    return DeployError(f"Could not {doing} ({ended.code}): {output}", hint=hint)
