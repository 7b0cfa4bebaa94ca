"""Whether other users of this machine can change a folder or exchange it (POSIX).

Root is trusted, and whoever else the caller names. An access list counts, too: its mask
shows as the permissions of the group.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

assert sys.platform != "win32"  # noqa: S101 - tells the type checker

import grp  # noqa: E402 - not on Windows
import pwd  # noqa: E402

from letsencrypt_mdaemon.errors import Doubt  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

MAX_LINKS = 40
"""On the way to one folder; Linux's own limit."""

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def doubts(folder: Path, owners: Collection[int]) -> list[Doubt]:
    """Return who else can change a folder or exchange it or a parent of it.

    What does not exist yet is not doubted.

    Args:
        owners: The trusted users besides root.

    Raises:
        OSError: If a parent cannot be looked at.
    """
    trusted, found = {0, *owners}, []
    *parents, last = _way(folder)
    for place in parents:
        found += _parent(place, trusted)
    return found + _own(last, folder, trusted)


def content_doubts(folder: Path, owners: Collection[int]) -> list[Doubt]:
    """Return who else can change the content of a folder, or made some of it.

    What this process cannot read is left out: it is not used either.
    """
    trusted, found = {0, *owners}, []
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            found += _own(Path(parent, name), folder, trusted)
    return found


def _way(path: Path) -> Iterator[Path]:
    """Yield each folder and each link on the way to a path, and where it ends."""
    root, *names = path.absolute().parts
    here, left, links = Path(root), names[::-1], 0
    while left:
        yield here
        name = left.pop()
        here = here.parent if name == ".." else here / name
        if here.is_symlink():
            links += 1
            if links > MAX_LINKS:
                raise OSError(f"{path} has too many links")
            yield here
            target = Path(os.readlink(here))  # noqa: PTH115 - keeps its `..`
            here = Path(target.root or here.parent)
            left += [part for part in target.parts[::-1] if part != target.root]
    yield here


def _parent(place: Path, trusted: Collection[int]) -> list[Doubt]:
    status = _status(place)
    if status is None:
        return []
    if status.st_uid not in trusted:
        return [Doubt(place, _belongs(status))]
    if stat.S_ISLNK(status.st_mode):  # its own mode means nothing
        return []
    # Where the sticky bit is set, only its owner can rename what is in it.
    mode = 0 if status.st_mode & stat.S_ISVTX else status.st_mode & _OTHERS_WRITE
    if not mode or (mode == stat.S_IWGRP and _is_private_group(status)):
        return []
    return [Doubt(place, "others can write to it", (("chmod", "go-w", str(place)),))]


def _own(place: Path, folder: Path, trusted: Collection[int]) -> list[Doubt]:
    status = _status(place)
    if status is None:
        return []
    if status.st_uid not in trusted:
        command = ("chown", "-hR", str(os.geteuid()), str(folder))
        return [Doubt(place, _belongs(status), (command,))]
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        why = "is neither a file nor a folder"
        return [Doubt(place, why, (("rm", str(place)),))]
    if not status.st_mode & _OTHERS_WRITE:
        return []
    command = ("chmod", "-R", "go-w", str(folder))
    return [Doubt(place, "others can write to it", (command,))]


def _status(place: Path) -> os.stat_result | None:
    try:
        return place.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _belongs(status: os.stat_result) -> str:
    try:
        return f"belongs to {pwd.getpwuid(status.st_uid).pw_name}"
    except KeyError:
        return f"belongs to user {status.st_uid}"


def _is_private_group(status: os.stat_result) -> bool:
    """Whether a folder's group is that of its owner alone, as many systems make it."""
    try:
        user, group = pwd.getpwuid(status.st_uid), grp.getgrgid(status.st_gid)
    except KeyError:
        return False
    members = {user.pw_name, *group.gr_mem}
    return group.gr_name == user.pw_name and len(members) == 1
