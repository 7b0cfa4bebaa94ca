"""Run a program of the system: by its path, with a timeout, and never by a shell."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import IO, TYPE_CHECKING, NamedTuple, Protocol

from letsencrypt_mdaemon.errors import ConfigError, Error
from letsencrypt_mdaemon.system.disk import explained

if TYPE_CHECKING:
    import subprocess

_log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 60.0
LAST_WORDS_SECONDS = 2.0
"""For what a program said before it ended to arrive."""
FOLDERS = ("/usr/bin", "/bin", "/usr/sbin", "/sbin")
"""Where the system's programs are; who starts us decides about `PATH`."""
# Windows' own programs write in the code page of the console, also into a pipe.
_ENCODING = "oem" if sys.platform == "win32" else "utf-8"
ANSI = "mbcs" if sys.platform == "win32" else "utf-8"
"""The encoding of those that write in the code page of windows instead."""


def system_program(name: str) -> Path:
    """Return the path of a program of the system, whatever `PATH` says.

    Args:
        name: Without `.exe`; on Windows also a path below System32.

    Raises:
        ConfigError: If there is no such program.
    """
    if sys.platform == "win32":
        return windows_system() / f"{name}.exe"
    for folder in FOLDERS:
        if (path := Path(folder, name)).is_file():
            return path
    raise ConfigError(
        f"Could not find the program {name} in {', '.join(FOLDERS)}.",
        hint=f"Install {name}.",
    )


def windows_system() -> Path:
    """Return Windows' System32, as Windows says and not the environment."""
    if sys.platform == "win32":
        import win32api  # noqa: PLC0415 - Windows only

        return Path(win32api.GetSystemDirectory())
    return Path("C:/Windows/System32")


class Ended(NamedTuple):
    """A program's exit code, and its output on both streams."""

    code: int
    output: str


class Run(Protocol):
    """Runs a program, as `run` does."""

    def __call__(
        self,
        program: Path,
        /,
        *arguments: str,
        given: str = "",
        failure: type[Error] = Error,
        encoding: str = _ENCODING,
    ) -> Ended:
        """Run a program and wait until it ends."""
        ...


def run(
    program: Path,
    *arguments: str,
    given: str = "",
    timeout: float = TIMEOUT_SECONDS,
    failure: type[Error] = Error,
    encoding: str = _ENCODING,
) -> Ended:
    """Run a program and wait until it ends.

    No argument may be a secret: anyone who lists the processes sees them.

    Args:
        given: The text on its standard input.
        timeout: Seconds until it is killed.
        failure: The class of error to raise.
        encoding: Of its input and output.

    Raises:
        Error: If it is missing, may not be run, or does not end in time.
    """
    import subprocess  # noqa: PLC0415 - seldom needed

    _log.debug("Running %s", [str(program), *arguments])
    missing = "Check that it exists, and that this account may run it."
    try:
        with explained(f"run {program}", failure=failure, hint=missing):
            child = subprocess.Popen(
                [program, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                # No window flashes up when a scheduled task runs.
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        lines = given.replace("\n", os.linesep)
        said = _talk(child, lines.encode(encoding, "surrogateescape"), timeout)
    except subprocess.TimeoutExpired as exc:
        message = f"{program} did not end within {timeout:.0f} seconds."
        hint = "Run it by hand to see why it hangs."
        raise failure(message, hint=hint) from exc
    output = said.decode(encoding, "surrogateescape")  # given back as it came
    output = output.replace("\r\n", "\n").replace("\r", "\n")
    _log.debug("%s ended with %d: %s", program.name, child.returncode, output)
    return Ended(child.returncode, output)


def _talk(child: subprocess.Popen[bytes], given: bytes, timeout: float) -> bytes:
    """Give a program its input, wait until it ends, and return what it said.

    A program that it started may keep our pipe open for ever: nobody waits for that.

    Raises:
        TimeoutExpired: If it does not end in time; then it is killed.
    """
    said: list[bytes] = []

    def write(pipe: IO[bytes]) -> None:
        with suppress(OSError):  # it may end without reading
            pipe.write(given)
        with suppress(OSError):
            pipe.close()

    def read(pipe: IO[bytes]) -> None:
        with pipe:
            while piece := os.read(pipe.fileno(), 1 << 16):
                said.append(piece)

    reader = Thread(target=read, args=[child.stdout], daemon=True)
    reader.start()
    Thread(target=write, args=[child.stdin], daemon=True).start()
    try:
        child.wait(timeout)
    except BaseException:
        child.kill()
        child.wait()
        raise
    reader.join(LAST_WORDS_SECONDS)
    return b"".join(said)
