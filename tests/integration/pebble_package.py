"""Finds Pebble, or unpacks it from Debian's package without installing anything."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

PACKAGE = "pebble"
PATIENCE_SECONDS = 300


class NoPebbleError(Exception):
    """Pebble is neither installed nor to be had; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pebble:
    """The two programs of the package."""

    server: Path
    dns: Path

    @classmethod
    def below(cls, folder: Path) -> Self | None:
        """Return the programs in a folder, or None if one is missing."""
        server, dns = folder / "pebble", folder / "pebble-challtestsrv"
        return cls(server=server, dns=dns) if server.exists() and dns.exists() else None


def find(cache: Path) -> Pebble:
    """Return Pebble from PATH, from the cache, or from Debian's archive.

    Args:
        cache: A folder that survives this run; about 10 MB are kept there.

    Raises:
        NoPebbleError: There is no apt here, or it cannot fetch the package.
    """
    installed, unpacked = shutil.which("pebble"), cache / PACKAGE
    found = Pebble.below(Path(installed).parent) if installed else None
    found = found or Pebble.below(unpacked / "usr/bin")
    if found is None:
        shutil.rmtree(unpacked, ignore_errors=True)
        with TemporaryDirectory(dir=cache) as download:
            _run("dpkg-deb", "-x", str(_fetch(Path(download))), str(unpacked))
        found = Pebble.below(unpacked / "usr/bin")
    if found is None:
        raise NoPebbleError(_need(f"it was not unpacked into {unpacked}."))
    return found


def _fetch(folder: Path) -> Path:
    """Download the package as any user may: with lists and caches of our own."""
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    options = (
        "--quiet",
        f"--option=Dir::State={folder / 'state'}",
        f"--option=Dir::Cache={folder / 'cache'}",
        "--option=Dir::State::status=/var/lib/dpkg/status",
        # As root, apt would drop to a user who may not write here.
        "--option=APT::Sandbox::User=root",
    )
    # A source of the system that is down makes apt fail, though ours may be there:
    # whether the package comes is what counts.
    update = _run("apt-get", *options, "update")
    fetch = _run("apt-get", *options, "download", PACKAGE, cwd=folder)
    package = next(folder.glob(f"{PACKAGE}_*.deb"), None)
    if package is None:
        raise NoPebbleError(_need("apt-get says:\n" + update.stderr + fetch.stderr))
    return package


def _run(*command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            cwd=cwd,
            check=False,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise NoPebbleError(_need(f"{command[0]} did not run: {exc}")) from exc


def _need(why: str) -> str:
    return f"These tests need Debian's package {PACKAGE}, on PATH or from apt; {why}"
