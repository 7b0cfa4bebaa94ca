"""Another user of the same machine, without any rights: what he may try is tried."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.limits import HANG_SECONDS

UID = 65_534
"""Nobody's: his files are not ours, and ours are not his."""

_AS_HIM = f"""
import json, os, pathlib, shutil, socket, sys, time
os.setgroups([])
os.setresgid({UID}, {UID}, {UID})
os.setresuid({UID}, {UID}, {UID})
code = sys.argv.pop(1)
exec(code)
"""
"""Python itself may be where only root can go: so it is started, and then lets go."""


class Attacker:
    """Runs Python as another user, while the test goes on as root."""

    uid = UID

    def run(self, code: str, *args: object) -> str:
        """Run Python code as the other user and return what it printed.

        The code finds its arguments in `sys.argv[1:]`, and os, sys, pathlib, shutil,
        socket, time and json imported.

        Raises:
            AssertionError: it failed: an attack that does not get as far as the program
                under test shows nothing.
        """
        done = subprocess.run(
            self._command(code, *args),
            cwd="/",
            check=False,
            capture_output=True,
            text=True,
            timeout=HANG_SECONDS,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def running(self, code: str, *args: object) -> Iterator[subprocess.Popen[str]]:
        """Run it beside the test, until the block ends; it may print when ready."""
        with subprocess.Popen(
            self._command(code, *args),
            cwd="/",
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    @staticmethod
    def _command(code: str, *args: object) -> list[str]:
        return [sys.executable, "-I", "-c", _AS_HIM, code, *map(str, args)]


def open_to_all(folder: Path) -> None:
    """Let everybody make files in a folder, as they may in `/tmp`."""
    os.chmod(folder, 0o777)  # noqa: PTH101, S103 - this is what the test is about
