"""Write a file for others to read."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.system import disk
from letsencrypt_mdaemon.system.handles import Folder
from letsencrypt_mdaemon.system.identity import Status

if TYPE_CHECKING:
    from pathlib import Path


def publish(path: Path, data: bytes) -> None:
    """Replace a file at once, or write a new one, that only its owner can read.

    Who may read a former one may read the new one as well. A link is refused: it is not
    replaced, and what it leads to is not written.

    Raises:
        Error: If it cannot be written; a former file is unchanged.
    """
    fresh = disk.neighbour(path)
    with disk.explained(f"write {path}"), Folder(path.parent) as folder:
        like = _like(folder, path)
        try:
            folder.create(fresh.name, data, like=like)
            disk.when_free(lambda: folder.rename(fresh.name, path.name))
        except BaseException:
            disk.remove(fresh)
            raise
        folder.sync()


def _like(folder: Folder, path: Path) -> Status | None:
    """Return the owner and mode of a former file; None if there is none."""
    try:
        former = folder.status(path.name)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(former.st_mode):
        kind = "a link" if stat.S_ISLNK(former.st_mode) else "no regular file"
        raise OSError(errno.EEXIST, f"it is {kind}", str(path))
    disk.refuse_read_only(path, former)
    handle = folder.open(path.name, os.O_RDONLY)
    try:
        return Status.of(handle)
    finally:
        os.close(handle)
