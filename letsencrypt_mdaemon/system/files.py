"""Replace several files, all or none, and keep their former contents.

Not kept when a file is replaced: on Windows an access list of its own (the new file
inherits its folder's), and hard links.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.errors import DeployError
from letsencrypt_mdaemon.system import disk

if TYPE_CHECKING:
    from collections.abc import Mapping

_log = logging.getLogger(__name__)

MAX_FILE_BYTES = 64 * 1024 * 1024
"""Of a file that is replaced."""


class _Replacement:
    """A file to replace, or to make if there is no `former` content.

    The new file, and a copy of the former one to go back to, are prepared beside it.
    """

    def __init__(
        self, path: Path, target: Path, data: bytes, former: bytes | None
    ) -> None:
        self.path, self.target = path, target
        self.data, self.former = data, former
        self.fresh, self.spare = disk.neighbour(target), disk.neighbour(target)
        self.is_stuck = False

    def prepare(self) -> None:
        """Write the new file, and the copy of the former one."""
        if self.former is None:
            disk.create(self.fresh, self.data)
        else:
            disk.create(self.fresh, self.data, like=self.target)
            disk.create(self.spare, self.former, like=self.target)

    def undo(self) -> None:
        """Restore the former content, unless it is still in place."""
        try:
            if self.fresh.exists():
                return
            if self.former is None:
                self.target.unlink(missing_ok=True)
            else:
                disk.replace(self.spare, self.target)
        except OSError as exc:
            _log.warning("Could not restore %s: %s", self.path, exc)
            self.is_stuck = True

    def clean(self) -> None:
        """Remove what is left beside the file, but never the last copy."""
        disk.remove(self.fresh)
        if not self.is_stuck:
            disk.remove(self.spare)


def replace_all(
    contents: Mapping[Path, bytes], *, backups: Path | None, keep: int, now: datetime
) -> Path | None:
    """Give every file its new content, or none of them.

    Everything that needs disk space is done before the first file changes: the new
    files, and copies of the former ones in case we must go back. A file that has its
    content already is left alone; a new file is private.

    Args:
        contents: The new content of each file. A link stays; its target is replaced.
        backups: A folder for the former contents; each call adds a folder with the
            time in UTC as its name, and the files' whole paths in it.
        keep: How many of those folders stay; the new one always does.
        now: The time for that name.

    Returns:
        The new folder below `backups`, if former contents were kept there.

    Raises:
        DeployError: If a file cannot be replaced; all of them are unchanged, unless
            the message says otherwise.
    """
    replacements = _replacements(contents)
    with contextlib.ExitStack() as leftovers:
        for item in replacements:
            leftovers.callback(item.clean)
            with disk.explained(f"write {item.path}", failure=DeployError):
                item.prepare()
        saved = _back_up(replacements, backups, now) if backups else None
        try:
            _swap(replacements)
        except BaseException:
            if saved and not any(item.is_stuck for item in replacements):
                shutil.rmtree(saved, ignore_errors=True)
            raise
    for folder in {item.target.parent for item in replacements}:
        disk.sync_folder(folder)
    if backups and saved:
        _prune(backups, keep, saved)
    return saved


# Replacing


def _replacements(contents: Mapping[Path, bytes]) -> list[_Replacement]:
    found: dict[object, _Replacement] = {}
    for path, data in contents.items():
        with disk.explained(f"write {path}", failure=DeployError):
            target = Path(os.path.realpath(path))
            former, identity = _former(path, target)
        item = _Replacement(path, target, data, former)
        other = found.setdefault(identity, item)
        if other.data != data:
            raise DeployError(
                f"{path} and {other.path} are the same file.",
                hint="Give only one of them.",
            )
    return [item for item in found.values() if item.former != item.data]


def _former(path: Path, target: Path) -> tuple[bytes | None, object]:
    """Return a file's content, and what tells whether another path leads to it."""
    # Some file systems ignore case, and some have no numbers for their files.
    identity: object = os.path.normcase(target)
    if not target.parent.is_dir():
        message = f"Could not write {path}: its folder does not exist."
        raise DeployError(message, hint="Check the path.")
    try:
        status = target.stat()
        former = disk.read_limited(target, MAX_FILE_BYTES)
    except FileNotFoundError:
        return None, identity
    except ValueError as exc:
        message = f"Cannot replace {path}: {exc}."
        raise DeployError(message, hint="Check the path.") from exc
    # Root may write to it all the same, and replacing needs the folder's permission
    # only; but somebody removed the permission on purpose.
    if not status.st_mode & 0o222:
        raise DeployError(
            f"{path} is read-only.",
            hint="Allow writing (attrib -r, or chmod u+w) and run again.",
        )
    return former, (status.st_dev, status.st_ino) if status.st_ino else identity


def _swap(replacements: list[_Replacement]) -> None:
    try:
        for item in replacements:
            with disk.explained(f"write {item.path}", failure=DeployError):
                disk.replace(item.fresh, item.target)
    except BaseException as exc:
        for item in reversed(replacements):
            item.undo()
        stuck = [item for item in replacements if item.is_stuck]
        if not stuck:
            raise
        new = ", ".join(str(item.path) for item in stuck)
        kept = ", ".join(str(item.spare) for item in stuck if item.former is not None)
        raise DeployError(
            f"{str(exc) or 'Interrupted.'} The new content remains in {new}.",
            hint=f"Restore the former content by hand from {kept}." if kept else "",
        ) from exc


# Backups


def _back_up(
    replacements: list[_Replacement], backups: Path, now: datetime
) -> Path | None:
    formers = {item.target: item.former for item in replacements}
    if not any(former is not None for former in formers.values()):
        return None
    with disk.explained(f"write {backups}", failure=DeployError):
        saved = _new_folder(backups, now)
        try:
            for target, former in formers.items():
                if former is not None:
                    copy = saved / _path_inside(target)
                    disk.make_private_folder(copy.parent)
                    disk.create(copy, former)
        except BaseException:
            shutil.rmtree(saved, ignore_errors=True)
            raise
    return saved


def _new_folder(backups: Path, now: datetime) -> Path:
    disk.make_private_folder(backups)
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
    """Remove the oldest folders whose names are like ours."""
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
        _log.warning("Could not remove old backups in %s: %s", backups, exc)
