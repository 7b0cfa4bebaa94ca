"""Run a command twice a day by Windows' Task Scheduler.

A mark makes a task ours; others are never changed, but for being switched off and on.
"""

from __future__ import annotations

import csv
import html
import logging
import re
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.system import disk, drop_in, process
from letsencrypt_mdaemon.system.drop_in import OLD_SCRIPT
from letsencrypt_mdaemon.system.schedule import (
    NAME,
    QUEUED,
    RUNNING,
    THIS_PROGRAM,
    Job,
    random_time,
    refused,
    require_one_line,
    several,
    split,
    twice,
    unfit,
)
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

_log = logging.getLogger(__name__)

MAX_DURATION = "PT2H"
"""Of a run, which may wait more than an hour for the CA (ISO 8601)."""
NAMESPACE = "http://schemas.microsoft.com/windows/2004/02/mit/task"
_AS_ADMINISTRATOR = "Run as an administrator."
# PowerShell takes any unambiguous prefix; the names end before the next parameter.
_OLD_NAMES = re.compile(r"(?is)-al[a-z]*[\s:]+(.*?)(?=\s-[a-z]|</|$)")
_FIRST_DAY = "2026-01-01"  # any day in the past
_HAS_NOT_RUN = 267011
_RESULTS = {
    267009: RUNNING,
    267010: "did not run, because the task is disabled",
    267012: "has no more runs",
    267013: "has no schedule",
    267014: f"was ended by somebody, or at the time limit ({MAX_DURATION})",
    267015: "has no triggers",
    267045: QUEUED,
    0x80070002: "did not start, because its program is not there",
    0x80070003: "did not start, because its program's folder is not there",
    0x80070005: "did not start, because its account may not run its program",
    0x800704DD: "did not start, because its account was not logged on",
    0x800710E0: "did not start, because the Task Scheduler refused it",
    0x8004130F: "did not start, because its account is not known",
    0x8004131F: "did not start, because it was still running",
    0xC000013A: "was ended by Ctrl-C, a logoff or a shutdown",
    0xC0000005: "crashed (access violation)",
    0xC0000135: "did not start, because a DLL of its program is not there",
    0xC0000142: "did not start, because a DLL of its program failed",
}
"""The Task Scheduler's own codes, and those of Windows, in place of an exit code.

winerror.h and ntstatus.h; `schtasks` shows them signed.
"""


def task(command: Sequence[str], hour: int, minute: int, account: str) -> bytes:
    """Return a task's definition as XML in UTF-16 ([MS-TSCH], 2.5).

    It runs twice a day with a random delay of up to an hour, and as soon as possible
    after a missed start.

    Raises:
        ConfigError: If the command would not be run as it is.
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
        "ExecutionTimeLimit": MAX_DURATION,
        "Enabled": "true",
    }.items():
        add(settings, name, value)
    action = add(add(root, "Actions", Context="Author"), "Exec")
    program, *arguments = command
    line = subprocess.list2cmdline(arguments)
    for text in (program, line):
        require_one_line(text)
        if re.search("%[^%]+%", text):
            raise unfit(text, "the Task Scheduler replaces names between % signs")
    add(action, "Command", program)
    add(action, "Arguments", line)
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
            ConfigError: If another program's task has its name, or the command would
                not be run as it is.
            DeployError: If Windows refuses.
        """
        there = self._definition()
        hour, minute = random_time()
        if there is not None:
            start = there.findtext(".//{*}StartBoundary") or ""
            if match := re.search(r"T(\d\d):(\d\d)", start):
                hour, minute = int(match[1]) % 12, int(match[2])
        with TemporaryDirectory(prefix=NAME) as folder:
            file = Path(folder) / "task.xml"
            disk.create(file, task(command, hour, minute, self.account))
            over = ["/F"] if there is not None else []
            # If there is one that this account could not see, it asks whether to
            # replace it.
            ended = self._run(
                self.schtasks,
                *("/Create", "/TN", self.name, "/XML", str(file), *over),
                given="" if over else "N\n",
            )
        if ended.code:
            raise refused(f"register the task {self.name}", ended, _AS_ADMINISTRATOR)
        # Who answers no, is told that all is well.
        if self._query("/XML").code:
            raise refused(f"register the task {self.name}", ended, _AS_ADMINISTRATOR)
        return Job(
            when=twice(hour, minute),
            command=subprocess.list2cmdline(command),
            words=tuple(command),
        )

    def start(self) -> None:
        """Run our task at once, without waiting for its end.

        Raises:
            DeployError: If Windows refuses.
        """
        ended = self._run(self.schtasks, "/Run", "/TN", self.name)
        if ended.code:
            raise refused(f"run the task {self.name}", ended, _AS_ADMINISTRATOR)

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
        ended = self._query("/V", "/FO", "CSV", "/NH")
        rows = [row for row in csv.reader(ended.output.splitlines()) if len(row) > 8]  # noqa: PLR2004
        _, _, following, _, _, last, result, *_ = rows[0] if rows else [""] * 9
        code = int(result) if re.fullmatch(r"-?\d+", result) else None
        ran = code is not None and code != _HAS_NOT_RUN
        words = _RESULTS.get(code & 0xFFFFFFFF, "") if code is not None else ""
        return Job(
            when=", ".join(start.partition("T")[2][:5] for start in starts),
            command=f"{subprocess.list2cmdline([program])} {arguments}".strip(),
            next_run=printable(following),
            last_run=printable(last) if ran else "",
            last_code=code if ran and not words else None,
            last_result=words,
            words=(program.strip('"'), *split(arguments)),
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
            raise refused(f"delete the task {self.name}", ended, _AS_ADMINISTRATOR)
        return True

    def rivals(self) -> list[str]:
        """Return the names of the tasks that run the vendor's script."""
        return [name for name, _ in self._old(ours=False)]

    def old_names(self) -> dict[str, list[str]]:
        """Return the alternate names of each task that runs the vendor's script."""
        found = {}
        for name, text in self._old(ours=False):
            match = _OLD_NAMES.search(html.unescape(text))
            found[name] = re.findall(r"[\w*.-]+", match[1]) if match else []
        return found

    def switch(self, name: str, *, on: bool) -> None:
        """Enable or disable another program's task.

        Raises:
            DeployError: If Windows refuses.
        """
        switch = "/ENABLE" if on else "/DISABLE"
        ended = self._run(self.schtasks, "/Change", "/TN", name, switch)
        if ended.code:
            doing = f"{switch[1:].lower()} the task {name}"
            raise refused(doing, ended, _AS_ADMINISTRATOR)

    def twins(self) -> list[str]:
        """Return the names of the tasks that run this program, if there are several.

        One that runs it by way of our script is one of them.
        """
        found = [*self._definitions(THIS_PROGRAM), *self._old(ours=True)]
        return several(list(dict.fromkeys(name for name, _ in found)))

    def _old(self, *, ours: bool) -> list[tuple[str, str]]:
        """Return name and definition of the enabled tasks that run the old script.

        Args:
            ours: Return those where ours is in its place.
        """
        return [
            (name, text)
            for name, text in self._definitions(OLD_SCRIPT)
            if drop_in.is_run_by(text) is ours
        ]

    def _definitions(self, program: re.Pattern[str]) -> list[tuple[str, str]]:
        """Return name and definition of the enabled tasks that run a program."""
        ended = self._run(self.schtasks, "/Query", "/XML", "ONE")
        found = dict(
            re.findall(
                r"<!--\s*(.*?)\s*-->\s*(<Task\b.*?</Task>)", ended.output, re.DOTALL
            )
        )
        if ended.code:
            # It stops at the first one that it cannot read.
            for name in self._names() - found.keys():
                one = self._run(self.schtasks, "/Query", "/TN", name, "/XML")
                if one.code:
                    _log.debug("Could not read the scheduled task %s", name)
                elif match := re.search(r"<Task\b.*</Task>", one.output, re.DOTALL):
                    found[name] = match[0]
        return [
            (printable(name), text)
            for name, text in found.items()
            if program.search(text) and not _is_disabled(text)
        ]

    def _names(self) -> set[str]:
        """Return the names of all tasks but those of Windows itself."""
        ended = self._run(self.schtasks, "/Query", "/FO", "CSV", "/NH")
        rows = [row for row in csv.reader(ended.output.splitlines()) if row]
        return {
            row[0]
            for row in rows
            if row[0].startswith("\\") and not row[0].startswith("\\Microsoft\\")
        }

    def _query(self, *how: str) -> process.Ended:
        return self._run(self.schtasks, "/Query", "/TN", self.name, *how)

    def _definition(self) -> ET.Element | None:
        ended = self._query("/XML")
        # The declared encoding is not the one that comes out of a pipe.
        text = re.sub(r"\A.*?<\?xml.*?\?>", "", ended.output, flags=re.DOTALL).strip()
        if ended.code or not text:
            return None
        try:
            found = ET.fromstring(text)  # noqa: S314 - it comes from Windows itself
        except ET.ParseError as exc:
            raise ConfigError(
                f"Could not read the scheduled task {self.name}: {exc}.",
                hint="Delete that task in the Task Scheduler, and run this again.",
            ) from exc
        if found.findtext(".//{*}Source") != NAME:
            raise ConfigError(
                f"Another program made the scheduled task {self.name}.",
                hint="Rename or delete that task in the Task Scheduler.",
            )
        return found


def _is_disabled(definition: str) -> bool:
    settings = definition.partition("<Settings")[2]
    return re.search(r"<Enabled>\s*false", settings, re.IGNORECASE) is not None
