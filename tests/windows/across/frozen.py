"""Makes the folder for servers without Python, and runs the program in it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.limits import HANG_SECONDS
from tests.program import Ran, environment

MACHINE = Path(os.environ["WINDOWS_MACHINE"])
NAME = "letsencrypt-mdaemon"
PACKAGING = Path(__file__).parents[3] / "packaging" / "windows"
SPEC = PACKAGING / f"{NAME}.spec"
FREEZE_SECONDS = 3 * HANG_SECONDS
"""Reads every module, under Wine: minutes where others work, too."""
WINE = {
    "WINEPREFIX": str(MACHINE / "prefix"),
    "WINEDEBUG": "-all",
    "WINEDLLOVERRIDES": "mscoree,mshtml=;schtasks.exe=n,b",
}


def freeze(work: Path, dist: Path, *options: str) -> Ran:
    """Make the folder, with Python for Windows."""
    done = subprocess.run(
        [
            *(str(MACHINE / "wpy"), "-P", "-m", "PyInstaller", "--log-level=ERROR"),
            *(f"--workpath={work}", f"--distpath={dist}", str(SPEC), "--", *options),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        env=environment(),
        timeout=FREEZE_SECONDS,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def frozen(folder: Path, *arguments: str, planted: Path | None = None) -> Ran:
    """Run the frozen program to its end.

    Args:
        planted: The working directory, which is on Python's path, too.
    """
    there = {"PYTHONPATH": f"Z:{planted}"} if planted else {}
    done = subprocess.run(
        ["wine", str(folder / f"{NAME}.exe"), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        # Windows' code page: a frozen Python has no ear for PYTHONIOENCODING.
        encoding="cp1252",
        cwd=planted,
        env={**environment(), **WINE, **there},
        timeout=HANG_SECONDS,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)
