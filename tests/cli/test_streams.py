"""Output that nobody reads is no failure: a closed pipe, no stdout, no stderr."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import letsencrypt_mdaemon
from letsencrypt_mdaemon.state.folder import State
from tests.limits import HANG_SECONDS
from tests.program import HOST_NAME, Program, environment

LINUX = pytest.mark.skipif(sys.platform == "win32", reason="no shell, no /dev/full")
RENEW = ("--scheduled", "--to", "anna@example.test", "--no-reload")


def closed(command: Sequence[str], *, stderr: bool = False) -> int:
    """Run a command whose output nobody reads any more; return the exit code."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=writer if stderr else subprocess.DEVNULL,
            env=environment(),
            timeout=HANG_SECONDS,
            check=False,
        )
    finally:
        os.close(writer)
    return done.returncode


def shell(command: Sequence[str], redirect: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command with its streams redirected by a shell."""
    return subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {redirect}', "sh", *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment(),
        timeout=HANG_SECONDS,
        check=False,
    )


def is_good(program: Program) -> bool:
    """Whether a run is remembered as good, and nobody got a mail."""
    memory = State(program.state).load()
    layout = program.layout
    mails = [*layout.raw.iterdir(), *layout.delivered.iterdir()]
    return memory.exit_code == 0 and bool(memory.in_use) and not mails


@pytest.mark.parametrize("stderr", [False, True])
@pytest.mark.parametrize("verbose", [(), ("-v",)], ids=str)
def test_a_closed_pipe_is_no_failure_of_a_run(
    program: Program, verbose: tuple[str, ...], *, stderr: bool
) -> None:
    command = program.command("renew", *RENEW, *verbose)

    assert closed(command, stderr=stderr) == 0

    assert is_good(program)
    assert "Traceback" not in program.log()


@LINUX
@pytest.mark.parametrize(
    "redirect", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "> /dev/full"]
)
def test_missing_streams_are_no_failure_of_a_run(
    program: Program, redirect: str
) -> None:
    done = shell(program.command("renew", *RENEW), redirect)

    assert done.returncode == 0, done.stderr
    assert is_good(program)
    # Nothing that is opened later gets the number of a stream that is missing.
    for file in program.layout.folder.rglob("*"):
        if file.is_file() and file.suffix in {".json", ".pem", ".ini"}:
            assert b'"schema"' not in file.read_bytes(), file
    assert f"Ordered a certificate for {HOST_NAME}" in program.log()


@pytest.mark.parametrize("command", ["status", "config show", "discover"])
def test_a_closed_pipe_is_no_failure_of_a_command(
    program: Program, command: str
) -> None:
    assert closed(program.command(command), stderr=True) == 0


def test_a_failure_keeps_its_exit_code_though_nobody_reads_it(
    program: Program,
) -> None:
    assert closed(program.command("renew", "--endpoint", "x"), stderr=True) == 2
    assert closed([*program.command("renew")[:3], "--nonsense"], stderr=True) == 2
    assert closed([*program.command("renew")[:3], "--help"], stderr=True) == 0


@LINUX
def test_a_full_disk_fails_a_command_that_only_prints(program: Program) -> None:
    done = shell(program.command("status"), "> /dev/full")

    assert done.returncode == 1
    assert b"Could not print the result: No space left on device" in done.stderr


def test_what_is_printed_is_ascii_which_every_code_page_has() -> None:
    package = Path(letsencrypt_mdaemon.__file__).parent
    found = {
        f"{path.relative_to(package).as_posix()}: {node.value!r}"
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and not node.value.isascii()
    }
    # What is written into the sandbox's files, a tree in a docstring, and what is
    # replaced or refused before anything is printed.
    allowed = {"demo.py", "folder.py", "errors.py", "parameters.py", "schedule.py"}
    allowed |= {"html.py"}  # a page says that it is UTF-8
    assert {text.partition(":")[0].rpartition("/")[2] for text in found} <= allowed
