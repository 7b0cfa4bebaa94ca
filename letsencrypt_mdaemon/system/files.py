"""Replace files all or none, write private files, read with a limit, and lock.

Not kept when a file is replaced: on Windows an access list of its own (the new file
inherits its folder's), and hard links.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.errors import DeployError
from letsencrypt_mdaemon.system.disk import (
    create,
    explained,
    make_private_folder,
    neighbour,
    read_limited,
    remove,
    replace,
    sync_folder,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


_log = logging.getLogger(__name__)


# The largest file that is replaced, in bytes.
LIMIT = 64 * 1024 * 1024


@dataclass(slots=True)
class Change:
    """A file to replace; there is no `former` content or `status` if it is new."""

    path: Path
    target: Path
    data: bytes
    former: bytes | None
    status: os.stat_result | None
    fresh: Path
    spare: Path
    is_stuck: bool = False

    def prepare(self) -> None:
        """Write the new file, and another one with which to go back."""
        create(self.fresh, self.data, like=self)
        if self.former is not None:
            create(self.spare, self.former, like=self)

    def swap(self) -> None:
        """Put the new file in place."""
        replace(self.fresh, self.target)

    def undo(self) -> None:
        """Put the former content back, unless it is still in place."""
        try:
            if self.fresh.exists():
                return
            if self.former is None:
                self.target.unlink(missing_ok=True)
            else:
                replace(self.spare, self.target)
        except OSError as exc:
            _log.warning("%s could not be put back: %s", self.path, exc)
            self.is_stuck = True

    def clean(self) -> None:
        """Remove what is left of the neighbours, but never the last copy."""
        remove(self.fresh)
        if not self.is_stuck:
            remove(self.spare)


def replace_all(
    contents: Mapping[Path, bytes], *, backups: Path | None, keep: int, now: datetime
) -> Path | None:
    """Give every file its new content, or none of them.

    All that needs room on the disk is done before the first file changes: the new
    files, and others with the former contents in case we must go back. A file that
    has its content already is left alone, one that does not exist is made private.

    Args:
        contents: The new content of each file. A link stays; its target is replaced.
        backups: A folder for the former contents; each call adds a folder with the
            time in UTC as its name, and the files' whole paths in it.
        keep: How many of those folders stay; the new one always does.
        now: The time for that name.

    Returns:
        The new folder below `backups`, if former contents were kept there.

    Raises:
        DeployError: A file cannot be replaced; all of them are as they were, unless
            the message says otherwise.
    """
    changes = _changes(contents)
    with contextlib.ExitStack() as leftovers:
        for change in changes:
            leftovers.callback(change.clean)
            with explained(change.path):
                change.prepare()
        saved = _back_up(changes, backups, now) if backups else None
        try:
            _swap(changes)
        except BaseException:
            if saved and not any(change.is_stuck for change in changes):
                shutil.rmtree(saved, ignore_errors=True)
            raise
    for folder in {change.target.parent for change in changes}:
        sync_folder(folder)
    if backups and saved:
        _prune(backups, keep, saved)
    return saved


# Replacing


def _changes(contents: Mapping[Path, bytes]) -> list[Change]:
    changes: dict[object, Change] = {}
    for path, data in contents.items():
        with explained(path):
            target = Path(os.path.realpath(path))
            former, status = _former(path, target)
        change = Change(
            path, target, data, former, status, neighbour(target), neighbour(target)
        )
        # Some file systems take no notice of case, and some have no such numbers.
        numbers = (status.st_dev, status.st_ino) if status and status.st_ino else None
        other = changes.setdefault(numbers or os.path.normcase(target), change)
        if other.data != data:
            raise DeployError(
                f"{path} and {other.path} are the same file.",
                hint="Name it once.",
            )
    return [change for change in changes.values() if change.former != change.data]


def _former(path: Path, target: Path) -> tuple[bytes | None, os.stat_result | None]:
    if not target.parent.is_dir():
        raise DeployError(
            f"{path} cannot be written: its folder is not there.",
            hint="Check the path.",
        )
    try:
        status = target.stat()
        former = read_limited(target, LIMIT)
    except FileNotFoundError:
        return None, None
    except ValueError as exc:
        message = f"{path} cannot be replaced: {exc}."
        raise DeployError(message, hint="Check the path.") from exc
    # Root may write to it all the same, and replacing asks the folder only; but
    # somebody meant it when they took the permission away.
    if not status.st_mode & 0o222:
        raise DeployError(
            f"{path} is read-only.",
            hint="Allow writing (attrib -r, or chmod u+w) and run again.",
        )
    return former, status


def _swap(changes: list[Change]) -> None:
    try:
        for change in changes:
            with explained(change.path):
                change.swap()
    except BaseException as exc:
        for change in reversed(changes):
            change.undo()
        stuck = [change for change in changes if change.is_stuck]
        if not stuck:
            raise
        new = ", ".join(str(change.path) for change in stuck)
        kept = ", ".join(str(change.spare) for change in stuck if change.status)
        raise DeployError(
            f"{str(exc) or 'Interrupted.'} The new content remains in {new}.",
            hint=f"Put the former content back by hand: {kept}." if kept else "",
        ) from exc


# Backups


def _back_up(changes: list[Change], backups: Path, now: datetime) -> Path | None:
    formers = {change.target: change.former for change in changes}
    if not any(former is not None for former in formers.values()):
        return None
    with explained(backups):
        saved = _new_folder(backups, now)
        try:
            for target, former in formers.items():
                if former is not None:
                    copy = saved / _path_inside(target)
                    make_private_folder(copy.parent)
                    create(copy, former)
        except BaseException:
            shutil.rmtree(saved, ignore_errors=True)
            raise
    return saved


def _new_folder(backups: Path, now: datetime) -> Path:
    make_private_folder(backups)
    name = f"{now.astimezone(UTC):%Y%m%d-%H%M%S}"
    number = 1
    while True:
        folder = backups / (name if number == 1 else f"{name}-{number:03}")
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            number += 1
        else:
            return folder


def _path_inside(target: Path) -> Path:
    r"""Return a relative path that names the file: ``C\MDaemon\App\MDaemon.ini``."""
    drive = [part for part in re.split(r"[\\/:?]+", target.drive) if part]
    return Path(*drive, *target.relative_to(target.anchor).parts)


def _prune(backups: Path, keep: int, saved: Path) -> None:
    """Remove the oldest folders that look like ours."""
    try:
        others = sorted(
            folder
            for folder in backups.iterdir()
            if re.fullmatch(r"\d{8}-\d{6}(-\d{3,})?", folder.name)
            and folder != saved
            and folder.is_dir()
            and not folder.is_symlink()
        )
        for folder in others[: max(0, len(others) + 1 - keep)]:
            shutil.rmtree(folder)
    except OSError as exc:
        _log.warning("Old backups in %s could not be removed: %s", backups, exc)
