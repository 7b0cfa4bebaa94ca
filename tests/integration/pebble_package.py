"""Finds Pebble, or unpacks it from Debian's package without installing anything."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests import debian_archive

PACKAGE = "pebble"


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
        try:
            debian_archive.unpack(PACKAGE, into=unpacked)
        except debian_archive.ArchiveError as exc:
            raise NoPebbleError(str(exc)) from exc
        found = Pebble.below(unpacked / "usr/bin")
    if found is None:
        message = f"Debian's package {PACKAGE} has no program of that name."
        raise NoPebbleError(message)
    return found
