"""A crontab and a Task Scheduler in memory, as their programs show them."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from letsencrypt_mdaemon.app import scheduling
from letsencrypt_mdaemon.errors import Error
from letsencrypt_mdaemon.system.process import Ended
from letsencrypt_mdaemon.system.schedule import NAME, Cron
from letsencrypt_mdaemon.system.tasks import TaskScheduler, task
from letsencrypt_mdaemon.windows import access


class Crontab:
    """The program crontab: `-l` prints, `-` replaces.

    Args:
        text: What is in it; None = there is none.
    """

    def __init__(self, text: str | None = None) -> None:
        self.text = text
        self.refuses = False

    def add(self, command: str) -> None:
        """Schedule another command, as somebody else does."""
        self.text = f"{self.text or ''}1 1 * * * {command}\n"

    def __call__(
        self,
        program: Path,
        *arguments: str,
        given: str = "",
        failure: type[Error] = Error,
        encoding: str = "",
    ) -> Ended:
        """Run it."""
        assert (program.name, failure, encoding) == ("crontab", Error, "")
        if self.refuses:
            return Ended(1, "You (nobody) are not allowed to use this program\n")
        if arguments == ("-",):
            assert given.endswith("\n") or not given, "cron ignores the last line else"
            self.text = given
            return Ended(0, "")
        assert arguments == ("-l",)
        if self.text is None:
            return Ended(1, "no crontab for root\n")
        return Ended(0, self.text)


class Schtasks:
    """The program schtasks.exe, as far as it is asked.

    Attributes:
        tasks: Name → definition, as text.
        results: Name → the columns of `/V /FO CSV`: last run and last result.
        hidden: The names of tasks that this account may not see.
        broken: The names of tasks whose definition cannot be read.
        ends_with: The last result of a task that is run at once.
        before: The results that it shows until then, one after the other.
    """

    def __init__(self) -> None:
        self.tasks: dict[str, str] = {}
        self.results: dict[str, tuple[str, str]] = {}
        self.hidden: set[str] = set()
        self.broken: set[str] = set()
        self.refuses = False
        self.ends_with = "0"
        self.before: list[str] = []

    @property
    def text(self) -> str | None:
        """The definition of our task; None if there is none."""
        return self.tasks.get(NAME)

    @text.setter
    def text(self, definition: str | None) -> None:
        if definition is None:
            self.tasks.pop(NAME, None)
        else:
            self.tasks[NAME] = definition

    def add(self, command: str) -> None:
        """Schedule another command, as somebody else does."""
        xml = task(command.split(), 1, 1, access.SYSTEM).decode("utf-16")
        self.tasks["another"] = re.sub(r"\A<\?xml.*?\?>\s*", "", xml)

    def is_disabled(self, name: str) -> bool:
        """Whether a task is disabled."""
        settings = self.tasks[name].partition("Settings>")[2]
        return re.search("Enabled>false<", settings) is not None

    def __call__(  # noqa: C901, PLR0911, PLR0912 - as many as there are answers
        self,
        program: Path,
        *arguments: str,
        given: str = "",
        failure: type[Error] = Error,
        encoding: str = "",
    ) -> Ended:
        """Run it."""
        assert (program.name, failure, encoding) == ("schtasks.exe", Error, "")
        if arguments[0] == "/Query" and "/TN" not in arguments:
            assert not given
            return self._listed(*arguments[1:])
        verb, _, path, *rest = arguments
        name = path.removeprefix("\\")
        there = name in self.tasks
        if verb == "/Query" and name in {*self.hidden, *self.broken}:
            return Ended(1, "FEHLER: Zugriff verweigert\n")
        assert given == ("N\n" if verb == "/Create" and "/F" not in rest else "")
        if verb == "/Create":
            if self.refuses:
                return Ended(1, "FEHLER: Zugriff verweigert\n")
            assert rest[0] == "/XML"
            if there and "/F" not in rest:
                # It asks, is told no, and finds that all right.
                return Ended(0, "WARNUNG: Ersetzen (J/N)? N\n")
            root = ET.fromstring(Path(rest[1]).read_bytes())  # noqa: S314 - ours
            self.tasks[name] = ET.tostring(root, encoding="unicode")
        elif not there:
            return Ended(1, "ERROR: The system cannot find the file specified.\n")
        elif verb == "/Delete":
            assert rest == ["/F"]
            if self.refuses:
                return Ended(1, "FEHLER: Zugriff verweigert\n")
            del self.tasks[name]
        elif verb == "/Run":
            assert rest == []
            if self.refuses:
                return Ended(1, "FEHLER: Zugriff verweigert\n")
            self.results[name] = ("28.11.2026 12:00:00", self.ends_with)
        elif verb == "/Change":
            assert rest in (["/ENABLE"], ["/DISABLE"])
            if self.refuses:
                return Ended(1, "FEHLER: Zugriff verweigert\n")
            head, mark, settings = self.tasks[name].partition("Settings>")
            new = "true" if rest == ["/ENABLE"] else "false"
            settings = re.sub("(Enabled>)[a-z]+<", rf"\g<1>{new}<", settings)
            self.tasks[name] = head + mark + settings
        elif rest == ["/XML"]:
            return Ended(0, HEAD + self.tasks[name])
        else:
            assert rest == ["/V", "/FO", "CSV", "/NH"]
            last, result = self.results.get(name, ("30.11.1999 00:00:00", "267011"))
            if name in self.results and self.before:
                result = self.before.pop(0)
            row = ["PC", f"\\{name}", "26.11.2026 03:17:00", "Bereit", "Nur", last]
            return Ended(
                0, ",".join(f'"{x}"' for x in [*row, result, "N/A", "x"]) + "\n"
            )
        return Ended(0, "")

    def _listed(self, *how: str) -> Ended:
        """List what this account may see."""
        seen = {x: text for x, text in self.tasks.items() if x not in self.hidden}
        if how == ("/FO", "CSV", "/NH"):
            rows = "".join(f'"\\{x}","N/A","Bereit"\n' for x in seen for _ in range(2))
            return Ended(0, '"\\Microsoft\\Windows\\X","N/A","Bereit"\n' + rows)
        assert how == ("/XML", "ONE")
        listed = ""
        for name, text in seen.items():
            if name in self.broken:
                return Ended(1, f"{HEAD}<Tasks>\n{listed}FEHLER: ungültig\n")
            listed += f"<!-- \\{name} -->\n{text}"
        return Ended(0, f"{HEAD}<Tasks>\n{listed}</Tasks>\n")


HEAD = '<?xml version="1.0" encoding="UTF-16"?>\n'

Jobs = Crontab | Schtasks


def in_memory(monkeypatch: pytest.MonkeyPatch, *command: str) -> Jobs:
    """Let the scheduler of this system be one in memory.

    Args:
        command: What it runs for us; nothing if there is none.
    """
    fake: Jobs
    scheduler: scheduling.Scheduler
    if sys.platform == "win32":
        fake = Schtasks()
        scheduler = TaskScheduler(Path("schtasks.exe"), fake, account=access.SYSTEM)
    else:
        fake = Crontab()
        scheduler = Cron(Path("crontab"), fake)
    if command:
        scheduler.install(command)
    monkeypatch.setattr(scheduling, "of_this_system", lambda: scheduler)
    return fake
