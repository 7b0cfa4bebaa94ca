"""Chromium, unpacked from Debian's package and not installed.

It starts with a fresh profile, without a network service of its own, and shows files
only.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from tests import debian_archive

ARGUMENTS = (
    *("--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
    # As root, or in a container, it has no sandbox of its own.
    "--no-sandbox",
)


@contextmanager
def chromium(tree: Path) -> Iterator[Browser]:
    """Start Chromium: that of this machine, or else one that is unpacked into a folder.

    Raises:
        debian_archive.ArchiveError: If the packages cannot be had.
    """
    installed = shutil.which("chromium")
    program = Path(installed) if installed else tree / "usr/lib/chromium/chromium"
    if not program.exists():
        debian_archive.unpack("chromium", "fonts-dejavu-core", into=tree)
    libraries = [str(path) for path in tree.glob("usr/lib/*-linux-gnu")]
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=program,
            args=ARGUMENTS,
            env={**os.environ, "LD_LIBRARY_PATH": ":".join(libraries)},
        )
        yield started
        started.close()
