"""Finds NSIS, or unpacks it from Debian's archive, and makes setup programs with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests import debian_archive
from tests.limits import HANG_SECONDS
from tests.windows.across.frozen import NAME, PACKAGING


def find(cache: Path) -> tuple[str, dict[str, str]]:
    """Return makensis and the environment that it needs.

    Args:
        cache: A folder that survives this run; about 10 MB are kept there.

    Raises:
        ArchiveError: There is no apt here, or it cannot fetch the package.
    """
    if installed := shutil.which("makensis"):
        return installed, dict(os.environ)
    folder = cache / "nsis"
    program = folder / "usr" / "bin" / "makensis"
    if not program.exists():
        shutil.rmtree(folder, ignore_errors=True)
        debian_archive.unpack("nsis", into=folder)
    libraries = folder / "usr" / "lib" / "x86_64-linux-gnu"
    return str(program), {
        **os.environ,
        "NSISDIR": str(folder / "usr" / "share" / "nsis"),
        "LD_LIBRARY_PATH": str(libraries),
    }


def make(
    nsis: tuple[str, dict[str, str]], folder: Path, out: Path, version: str, *more: str
) -> Path:
    """Make a setup program as packaging/windows does, quickly, and return it."""
    program, environment = nsis
    done = subprocess.run(
        [
            *(sys.executable, str(PACKAGING / "installer.py"), str(folder), str(out)),
            *("--version", version, "--makensis", program),
            *("--target", "amd64-unicode", "--compressor", "zlib", *more),
        ],
        capture_output=True,
        text=True,
        env=environment,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out / f"{NAME}-{version}-x64.exe"
