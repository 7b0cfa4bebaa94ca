"""Edit several files that others write to as well: all or none, and nothing lost.

Each file is read, edited, and swapped for its edited copy. Then what was swapped out is
looked at, and the file itself: if somebody else wrote meanwhile, that file is started
over from what he wrote. Not kept when a file is replaced: on Windows an access list of
its own (the new file inherits its folder's), and hard links.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.errors import DeployError, Error
from letsencrypt_mdaemon.system import disk
from letsencrypt_mdaemon.system.swap import swap

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Edit = Callable[[bytes], bytes]
    Read = Callable[[Path], bytes]
    Merge = Callable[[bytes, bytes, bytes], bytes]

_log = logging.getLogger(__name__)

MAX_ROUNDS = 200
"""How often a file is started over, as somebody else goes on writing it."""

STABLE_SECONDS = 0.002
"""What somebody is just writing counts as written after this time without a change."""


class _File:
    """A file that is edited.

    Args:
        edit: Returns the new content; called again if somebody else wrote meanwhile.
        read: Returns the content of a file.
        merge: Returns the third content with what changed from the first to the second.
    """

    def __init__(self, path: Path, edit: Edit, read: Read, merge: Merge) -> None:
        self.path, self.edit, self.merge = path, edit, merge
        self.content_of = read
        self.target = Path(os.path.realpath(path))
        self.former = self.read()
        self.data = edit(self.former)
        self.expected = self.original = self.former
        self.fresh = disk.neighbour(self.target)
        self.outs: dict[Path, bytes] = {}
        """What was swapped out, with its content when it was last looked at."""
        self.is_stuck = False

    def read(self) -> bytes:
        """Return what the file holds now."""
        return self.content_of(self.target)

    def prepare(self) -> None:
        """Write the new content beside the file."""
        disk.refuse_read_only(self.target)
        if self.fresh not in self.outs:
            disk.remove(self.fresh)
        self.fresh = disk.neighbour(self.target)
        disk.create(self.fresh, self.data, like=self.target)

    def put_in_place(self) -> None:
        """Swap the files; start over as long as somebody else writes.

        Raises:
            DeployError: If he does not stop.
        """
        for _ in range(MAX_ROUNDS):
            if self.read() == self.expected:
                out = swap(self.fresh, self.target)
                self.outs[out] = self.expected
                if not self._start_over(out):
                    return
            else:
                self.former = self.expected = _written(self.target, self.content_of)
                self.data = self.edit(self.former)
            self.prepare()
        raise DeployError(
            f"Another program writes {self.path} again and again.",
            hint="Find out which one (MDaemon's settings window?), and run again.",
        )

    def carry_over(self) -> None:
        """Take over what was written into the swapped-out files since."""
        for out in list(self.outs):
            if self._start_over(out):
                self.prepare()
                self.put_in_place()

    def _start_over(self, out: Path) -> bool:
        """Edit again what somebody else wrote, if he did; return whether he did."""
        base, late, current = self.outs[out], self.content_of(out), self.read()
        if late == base and current == self.data:
            return False
        late, current = (_written(path, self.content_of) for path in (out, self.target))
        self.outs[out] = late
        if late == base:
            self.former = current
        elif current == self.data and base == self.former:
            self.former = late
        else:
            self.former = self.merge(base, late, current)
        self.expected, self.data = current, self.edit(self.former)
        return self.data != current

    def undo(self) -> None:
        """Take our changes back, and keep those of others.

        Raises:
            OSError: If this cannot be written.
        """
        if not self.outs:
            return
        current = self.read()
        back = next(iter(self.outs))
        if current != self.data or self.outs[back] != self.original:
            back = disk.neighbour(self.target)
            content = self.merge(self.data, self.former, current)
            disk.create(back, content, like=self.target)
        disk.replace(back, self.target)
        self.outs.pop(back, None)

    def clean(self) -> None:
        """Remove what is left beside the file, but never the last copy."""
        for path in {self.fresh, *self.outs}:
            if not self.is_stuck or path not in self.outs:
                disk.remove(path)


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


class Edits:
    """Edits of several files, of which all are made, or none.

    A file that its edit leaves as it is, is left alone. A link stays; its target is
    edited.

    Args:
        edits: What to do with the content of each file.
        read: Returns the content of a file.
        merge: Returns the third content with what changed from the first to the second.

    Raises:
        DeployError: If a file cannot be read.
    """

    def __init__(self, edits: Mapping[Path, Edit], *, read: Read, merge: Merge) -> None:
        self._files = _files(edits, read, merge)

    @property
    def have_late_changes(self) -> bool:
        """Whether somebody wrote into a replaced file after the swap."""
        return any(
            item.content_of(out) != content
            for item in self._files
            for out, content in item.outs.items()
        )

    def make(self, backups: Backups | None = None) -> Path | None:
        """Edit the files.

        Everything that needs disk space is done before the first file changes.

        Returns:
            The new folder with the former contents, if they are kept.

        Raises:
            DeployError: If a file cannot be edited; all of them are as they were,
                unless the message says otherwise.
        """
        saved = None
        try:
            for item in self._files:
                with disk.explained(f"write {item.path}", failure=DeployError):
                    item.prepare()
            if backups and self._files:
                saved = _back_up(self._files, backups)
            _put_in_place(self._files)
        except BaseException:
            if saved and not any(item.is_stuck for item in self._files):
                shutil.rmtree(saved, ignore_errors=True)
            self._clean()
            raise
        for folder in {item.target.parent for item in self._files}:
            disk.sync_folder(folder)
        if backups and saved:
            _prune(backups, saved)
        return saved

    def settle(self) -> None:
        """Carry over what others wrote into the replaced files after the swap.

        Until then these stay beside the new ones, as another program may have one open.

        Raises:
            DeployError: If that cannot be written; then the replaced files stay.
        """
        for item in self._files:
            with disk.explained(f"write {item.path}", failure=DeployError):
                item.carry_over()
        self._clean()

    def _clean(self) -> None:
        for item in self._files:
            item.clean()


def _files(edits: Mapping[Path, Edit], read: Read, merge: Merge) -> list[_File]:
    found: dict[object, _File] = {}
    for path, edit in edits.items():
        if not path.parent.is_dir():
            message = f"Could not write {path}: its folder does not exist."
            raise DeployError(message, hint="Check the path.")
        with disk.explained(f"write {path}", failure=DeployError):
            item = _File(path, edit, read, merge)
            status = item.target.stat()
        # Some file systems ignore case, and some have no numbers for their files.
        number = (status.st_dev, status.st_ino) if status.st_ino else None
        other = found.setdefault(number or os.path.normcase(item.target), item)
        if other.data != item.data:
            raise DeployError(
                f"{path} and {other.path} are the same file.",
                hint="Give only one of them.",
            )
    return [item for item in found.values() if item.former != item.data]


def _put_in_place(files: list[_File]) -> None:
    try:
        for item in files:
            with disk.explained(f"write {item.path}", failure=DeployError):
                item.put_in_place()
    except BaseException as exc:
        for item in reversed(files):
            try:
                item.undo()
            except (OSError, Error) as failure:
                _log.warning("Could not restore %s: %s", item.path, failure)
                item.is_stuck = True
        stuck = [item for item in files if item.is_stuck]
        if not stuck:
            raise
        new = ", ".join(str(item.path) for item in stuck)
        kept = ", ".join(str(next(iter(item.outs))) for item in stuck)
        raise DeployError(
            f"{str(exc) or 'Interrupted.'} The new content remains in {new}.",
            hint=f"Restore the former content by hand from {kept}.",
        ) from exc


def _written(path: Path, read: Read) -> bytes:
    """Return a file's content once nobody is just writing it, within a second."""
    content, deadline = read(path), time.monotonic() + 1
    while time.monotonic() < deadline:
        time.sleep(STABLE_SECONDS)
        former, content = content, read(path)
        if content == former and content:
            break
    return content


# Backups


def _back_up(files: list[_File], backups: Backups) -> Path:
    with disk.explained(f"write {backups.folder}", failure=DeployError):
        saved = _new_folder(backups)
        try:
            for item in files:
                copy = saved / _path_inside(item.target)
                disk.make_private_folder(copy.parent)
                disk.create(copy, item.former)
        except BaseException:
            shutil.rmtree(saved, ignore_errors=True)
            raise
    return saved


def _new_folder(backups: Backups) -> Path:
    disk.make_private_folder(backups.folder)
    name = f"{backups.now.astimezone(UTC):%Y%m%d-%H%M%S}"
    number = 1
    while True:
        folder = backups.folder / (name if number == 1 else f"{name}-{number:03}")
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


def _prune(backups: Backups, saved: Path) -> None:
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
            shutil.rmtree(folder)
    except OSError as exc:
        _log.warning("Could not remove old backups in %s: %s", backups.folder, exc)
