"""A crontab and a Task Scheduler in memory, as their programs show them."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

from letsencrypt_mdaemon.errors import Error
from letsencrypt_mdaemon.system.process import Ended


class Crontab:
    """The program crontab: `-l` prints, `-` replaces.

    Args:
        text: What is in it; None = there is none.
    """

    def __init__(self, text: str | None = None) -> None:
        self.text = text
        self.refuses = False

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
    """

    def __init__(self) -> None:
        self.tasks: dict[str, str] = {}
        self.results: dict[str, tuple[str, str]] = {}
        self.refuses = False

    def is_disabled(self, name: str) -> bool:
        """Whether a task is disabled."""
        settings = self.tasks[name].partition("Settings>")[2]
        return re.search("Enabled>false<", settings) is not None

    def __call__(  # noqa: C901, PLR0911 - as many as there are answers
        self,
        program: Path,
        *arguments: str,
        given: str = "",
        failure: type[Error] = Error,
        encoding: str = "",
    ) -> Ended:
        """Run it."""
        assert (program.name, failure, encoding) == ("schtasks.exe", Error, "")
        assert not given
        if arguments == ("/Query", "/XML", "ONE"):
            listed = [f"<!-- \\{name} -->\n{text}" for name, text in self.tasks.items()]
            return Ended(0, f"{HEAD}<Tasks>\n{''.join(listed)}</Tasks>\n")
        verb, _, path, *rest = arguments
        name = path.removeprefix("\\")
        there = name in self.tasks
        if verb == "/Create":
            if self.refuses:
                return Ended(1, "FEHLER: Zugriff verweigert\n")
            assert rest[0] == "/XML"
            if there and "/F" not in rest:
                return Ended(1, "There is one.\n")
            root = ET.fromstring(Path(rest[1]).read_bytes())  # noqa: S314 - ours
            self.tasks[name] = ET.tostring(root, encoding="unicode")
        elif not there:
            return Ended(1, "ERROR: The system cannot find the file specified.\n")
        elif verb == "/Delete":
            assert rest == ["/F"]
            if self.refuses:
                return Ended(1, "FEHLER: Zugriff verweigert\n")
            del self.tasks[name]
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
            row = ["PC", f"\\{name}", "26.11.2026 03:17:00", "Bereit", "Nur", last]
            return Ended(
                0, ",".join(f'"{x}"' for x in [*row, result, "N/A", "x"]) + "\n"
            )
        return Ended(0, "")


HEAD = '<?xml version="1.0" encoding="UTF-16"?>\n'
