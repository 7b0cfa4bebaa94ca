"""`setup` at a console of Windows: Wine has one in every terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pexpect
import pytest

from tests.limits import HANG_SECONDS
from tests.program import HOST_NAME, environment, taken
from tests.windows.across.conftest import HERE, WindowsProgram
from tests.windows.across.frozen import MACHINE, WINE

IMAP = "imap.example.test"
BETWEEN = r"(?:\x1b\[[\d;?]*[A-Za-z]|\s)+"
"""Wine's console moves the cursor where a space is, and hides it meanwhile."""


class Console:
    """A console of Windows."""

    def __init__(self, terminal: pexpect.spawn[str]) -> None:
        self._terminal = terminal

    def shows(self, text: str) -> None:
        """Wait until it shows a text, wherever the line is broken."""
        self._terminal.expect(BETWEEN.join(map(re.escape, text.split())))

    def type(self, line: str) -> None:
        """Type a line, and press Enter."""
        self._terminal.send(f"{line}\r")

    def exit_code(self) -> int | None:
        """Return how the program ended."""
        self._terminal.expect(pexpect.EOF)
        self._terminal.close()
        return self._terminal.exitstatus


@contextmanager
def console(*command: str, columns: int) -> Iterator[Console]:
    """Start a program of Windows at a console."""
    terminal = pexpect.spawn(
        "wine",
        list(command),
        env={**environment(), **WINE, "TERM": "xterm"},
        encoding="utf-8",
        timeout=HANG_SECONDS,
        dimensions=(40, columns),
    )
    try:
        yield Console(terminal)
    finally:
        terminal.close(force=True)


@pytest.mark.parametrize("columns", [80])
def test_a_person_sets_up_a_server_at_a_console(
    program: WindowsProgram, columns: int
) -> None:
    options = taken(["setup"], program.options)
    options.remove("--agree-tos")
    python = str(MACHINE / "python" / "python.exe")
    command = [python, "-P", str(HERE / "setting_up.py"), "setup", "--no-schedule"]
    store = ["--store", r"pem:C:\MDaemon\certificates"]

    with console(*command, *store, *options, columns=columns) as terminal:
        terminal.shows(r"MDaemon in C:\MDaemon")
        terminal.shows(f"Names of the certificate [{HOST_NAME}]:")
        terminal.type(f"{HOST_NAME}, {IMAP}")
        terminal.shows("Mail when something fails [postmaster@example.test]:")
        terminal.type("")
        terminal.shows("The CA's terms of service:")
        terminal.shows("Agree? [y/N]:")
        terminal.type("y")
        terminal.shows("keeps the old certificate? [y/N]:")
        terminal.type("")
        terminal.shows("1 rights, certificate store, keys, semaphores ok")
        terminal.shows("4 configuration written")
        terminal.shows("9 of 9 ports proven")
        terminal.shows("9 test mail sent")
        terminal.shows("Ready. Next renewal: about")
        assert terminal.exit_code() == 0

    status = program.run("status", *store)
    assert set(status.report["certificate"]["names"]) == {HOST_NAME, IMAP}
    config = program.layout.letsencrypt / "letsencrypt-mdaemon.ini"
    assert b"to=postmaster@example.test\r\n" in config.read_bytes()
    assert set(program.server.serving.values()) == program.bound()
