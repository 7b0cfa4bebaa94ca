"""Keep what files held before they were edited, and tidy up what a killed run left."""

from __future__ import annotations

import errno
import glob
import logging
import os
import re
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.errors import DeployError
from letsencrypt_mdaemon.system import disk, handles
from letsencrypt_mdaemon.system.handles import Folder

if TYPE_CHECKING:
    from collections.abc import Mapping

_log = logging.getLogger(__name__)

MAX_BYTES = 16 << 20
"""The largest file that is compared with what a killed run left."""


class Backups(NamedTuple):
    """Where the former contents of edited files are kept.

    Args:
        folder: Each time it gets a folder with the time in UTC as its name, and the
            files' whole paths in it.
        keep: How many of those folders stay; the new one always does.
        now: The time for that name.
    """

    folder: Path
    keep: int
    now: datetime


def tidy(path: Path, backups: Path) -> list[Path]:
    """Remove what a killed run left beside a file, unless only there is its content.

    Returns:
        What stays: it is neither what the file holds, nor a backup, or it is too large
        or unreadable, so that nobody knows. What no run can have left stays as well,
        and is not returned: a link, a pipe.
    """
    target = Path(os.path.realpath(path))
    beside = [each for each in disk.neighbours(target) if _is_file(each)]
    left = [(other, _content(other)) for other in beside]
    name = glob.escape(_path_inside(target).as_posix())
    known = [target, *backups.glob(f"*/{name}")] if left else []
    contents = [_content(each) for each in known]
    kept = []
    for other, content in left:
        if content is None or (content and content not in contents):
            kept.append(other)
        else:
            disk.remove(other)
    return kept


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _content(path: Path) -> bytes | None:
    """Return what a file holds; None if it is not regular, too large, or unreadable."""
    try:
        # Who could put a link there meanwhile that is followed is root or ourselves.
        return disk.read_limited(path, MAX_BYTES) if _is_file(path) else None
    except (OSError, ValueError):
        return None


def back_up(contents: Mapping[Path, bytes], backups: Backups) -> Path:
    """Keep the contents of some files, and return the new folder.

    Raises:
        DeployError: If it cannot be written; nothing of it stays.
    """
    with disk.explained(f"write {backups.folder}", failure=DeployError):
        saved = _new_folder(backups)
        try:
            for path, content in contents.items():
                copy = saved / _path_inside(path)
                disk.make_private_folder(copy.parent)
                disk.create(copy, content)
        except BaseException:
            shutil.rmtree(handles.extended(saved, room=1 << 15), ignore_errors=True)
            raise
    return saved


def _new_folder(backups: Backups) -> Path:
    disk.make_private_folder(backups.folder)
    name = f"{backups.now.astimezone(UTC):%Y%m%d-%H%M%S}"
    with Folder(backups.folder) as folder:
        for fresh in (name, *(f"{name}-{number:03}" for number in range(2, 1000))):
            with suppress(FileExistsError):
                folder.make_folder(fresh, 0o700)
                return backups.folder / fresh
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)


def _path_inside(target: Path) -> Path:
    r"""Return a relative path that names the file: ``C\MDaemon\App\MDaemon.ini``."""
    target = Path(os.path.abspath(target))  # noqa: PTH100 - only a name: follow no link
    drive = [part for part in re.split(r"[\\/:?]+", target.drive) if part]
    return Path(*drive, *target.relative_to(target.anchor).parts)


def prune(backups: Backups, saved: Path) -> None:
    """Remove the oldest folders whose names are like ours."""
    try:
        others = sorted(
            folder
            for folder in backups.folder.iterdir()
            if re.fullmatch(r"\d{8}-\d{6}(-\d{3,})?", folder.name)
            and folder != saved
            and folder.is_dir()
            and not folder.is_symlink()
        )
        for folder in others[: max(0, len(others) + 1 - backups.keep)]:
            shutil.rmtree(handles.extended(folder, room=1 << 15))
    except OSError as exc:
        _log.warning("Could not remove old backups in %s: %s", backups.folder, exc)
