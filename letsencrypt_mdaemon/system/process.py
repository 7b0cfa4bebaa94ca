"""Run a program of the system: by its path, with a deadline, and never by a shell."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.errors import Error

if TYPE_CHECKING:
    from pathlib import Path

_log = logging.getLogger(__name__)

PATIENCE = 60.0
"""Seconds that a program has."""
# Windows' own programs write in the code page of the console, whoever reads them.
_ENCODING = "oem" if sys.platform == "win32" else "utf-8"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended, and what it said on both of its streams."""

    code: int
    output: str


def run(
    program: Path,
    *arguments: str,
    given: str = "",
    patience: float = PATIENCE,
    failure: type[Error] = Error,
) -> Ended:
    """Run a program to its end.

    No argument may be a secret: whoever lists the processes sees them.

    Args:
        given: What it reads from its standard input.
        patience: Seconds; then it is ended.
        failure: The class of error to raise.

    Raises:
        Error: It is not there, may not be run, or did not end in time.
    """
    import subprocess  # noqa: PLC0415 - seldom needed

    _log.debug("Running %s", [str(program), *arguments])
    try:
        done = subprocess.run(
            [program, *arguments],
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding=_ENCODING,
            errors="surrogateescape",  # given back as it came
            timeout=patience,
            check=False,
            # From a scheduled task, no window flashes up.
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except subprocess.TimeoutExpired as exc:
        message = f"{program} did not end within {patience:.0f} seconds."
        hint = "Run it by hand to see what it waits for."
        raise failure(message, hint=hint) from exc
    except OSError as exc:
        message = f"{program} cannot be run: {exc.strerror or exc}."
        hint = "See that it is there, and that this account may run it."
        raise failure(message, hint=hint) from exc
    _log.debug("%s ended with %d: %s", program.name, done.returncode, done.stdout)
    return Ended(done.returncode, done.stdout)
