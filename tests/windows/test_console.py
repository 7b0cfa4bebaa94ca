"""What a redirected console on Windows gets: no name or path makes the program fail."""

from __future__ import annotations

import codecs
import ctypes
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from letsencrypt_mdaemon.sandbox import folder
from letsencrypt_mdaemon.system import log
from tests.limits import HANG_SECONDS

ODD = "Почта ✓ 邮件"
"""No letter of it is in code page 1252, in which Windows' pipes are written."""
UMLAUT = "Bücher"
"""This is, and the sandbox's own files are written in that code page."""


def run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run the program as an administrator does who redirects what it says."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "LETSENCRYPT_MDAEMON_"))
    }
    done = subprocess.run(
        [sys.executable, "-m", "letsencrypt_mdaemon", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr
    assert b"UnicodeEncodeError" not in done.stdout + done.stderr
    return done


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return an MDaemon whose path is not ASCII."""
    return folder.create(
        tmp_path / UMLAUT / "MDaemon", host_name="mail.example.test"
    ).folder


def beside(root: Path) -> list[str]:
    """Return the options for an MDaemon that does not run, and a CA that is away."""
    return [
        *("--mdaemon-dir", str(root)),
        *("--store", f"pem:{root / ODD}"),
        *("--alternate-host-names", "bücher.example.test,почта.example.test"),
        *("--smtp-address", "none"),
        *("--endpoint", "https://127.0.0.1:1"),
        *("--directory-url", "https://127.0.0.1:1/directory"),
    ]


@pytest.mark.parametrize("arguments", [["--help"], ["renew", "--help"], ["--version"]])
def test_help_is_written(arguments: list[str]) -> None:
    done = run(*arguments)

    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("command", ["status", "doctor"])
def test_a_report_about_odd_names_is_written(root: Path, command: str) -> None:
    done = run(command, *beside(root))

    assert done.stdout or done.stderr
    assert done.returncode in {0, 1, 2, 3, 4, 5}


def test_an_error_about_an_odd_path_is_written_with_escapes(tmp_path: Path) -> None:
    done = run("status", "--mdaemon-dir", str(tmp_path / ODD))

    assert done.returncode == 2
    assert rb"\u041f\u043e\u0447\u0442\u0430 \u2713" in done.stderr


def test_a_report_in_json_about_an_odd_path_can_be_read(tmp_path: Path) -> None:
    done = run("status", "--json", "--mdaemon-dir", str(tmp_path / ODD))

    document = json.loads(done.stdout.decode("ascii"))
    assert ODD in document["error"]["message"]


def test_the_log_is_utf8_with_the_line_ends_of_windows(root: Path) -> None:
    shutil.rmtree(root / "WorldClient" / "HTML")

    done = run("renew", *beside(root), "--agree-tos")

    assert done.returncode == 2, done.stderr
    written = (root / "Logs" / "LetsEncrypt.log").read_bytes()
    assert written.startswith(codecs.BOM_UTF8), "else PowerShell 5.1 reads it as cp1252"
    assert UMLAUT in written.decode("utf-8")
    assert written.count(b"\r\n") == written.count(b"\n") > 1
    assert b"\r\r" not in written


@pytest.mark.parametrize("flag", ["DETACHED_PROCESS", "CREATE_NO_WINDOW"])
def test_a_process_without_a_console_runs(root: Path, flag: str) -> None:
    options = [*beside(root), "--agree-tos", "--json"]

    done = subprocess.run(
        [sys.executable, "-m", "letsencrypt_mdaemon", "renew", *options],
        stdin=None,
        stdout=None,
        stderr=None,
        creationflags=getattr(subprocess, flag),
        timeout=HANG_SECONDS,
        check=False,
    )

    assert done.returncode == 3
    written = (root / "Logs" / "LetsEncrypt.log").read_text("utf-8-sig")
    assert "Traceback" not in written


def test_a_pipe_that_nobody_reads_fails_nothing(root: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "letsencrypt_mdaemon", "config", "show"],
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=writer,
            timeout=HANG_SECONDS,
            check=False,
        )
    finally:
        os.close(writer)

    assert done.returncode == 0
    assert root.is_dir()


class Console:
    """The functions of Windows' console: what it is asked, and what it answers.

    Args:
        mode: Its mode; None = it is no console.
        takes: Whether it takes another mode.
    """

    def __init__(self, mode: int | None, *, takes: bool) -> None:
        self.mode = mode
        self.takes = takes

    def GetConsoleMode(self, _: object, found: Any) -> int:  # noqa: N802, ANN401 - Windows'
        """Show the mode."""
        if self.mode is None:
            return 0
        found._obj.value = self.mode  # noqa: SLF001 - ctypes has no other way
        return 1

    def SetConsoleMode(self, _: object, mode: Any) -> int:  # noqa: N802, ANN401
        """Take another mode."""
        if self.takes:
            self.mode = mode.value
        return int(self.takes)


@pytest.mark.parametrize(
    ("console", "after", "coloured"),
    [
        (Console(3, takes=True), 7, True),
        (Console(7, takes=True), 7, True),
        (Console(3, takes=False), 3, False),
        (Console(None, takes=True), None, False),
    ],
)
def test_a_console_gets_colours_only_once_it_takes_them(
    console: Console,
    after: int | None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    *,
    coloured: bool,
) -> None:
    monkeypatch.setattr(ctypes, "WinDLL", lambda _: console)
    with (tmp_path / "any").open("w") as stream:
        assert log.takes_colours(stream) is coloured
    assert console.mode == after


def test_a_pipe_and_nul_get_no_colours() -> None:
    with open(os.devnull, "w", encoding="ascii") as nul:  # noqa: PTH123 - no file
        assert not log.takes_colours(nul)
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        assert not log.takes_colours(pipe)
