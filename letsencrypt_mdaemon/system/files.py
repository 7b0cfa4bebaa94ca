"""Edit several files that others write to as well: all or none, and nothing lost.

Each file is read, edited, and swapped for its edited copy. Then what was swapped out is
looked at, and the file itself: if somebody else wrote meanwhile, that file is started
over from what he wrote. Owner, mode and access list are kept, on Windows also
attributes and streams; hard links are not.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.errors import DeployError, Error
from letsencrypt_mdaemon.system import disk
from letsencrypt_mdaemon.system.backups import Backups, back_up, prune
from letsencrypt_mdaemon.system.handles import Folder, opened, read, resolved
from letsencrypt_mdaemon.system.identity import Status
from letsencrypt_mdaemon.system.swap import swap

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

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
        self.target = resolved(path)
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
        """Write the new content beside the file, for those who may read the former."""
        if self.fresh not in self.outs:
            disk.remove(self.fresh)
        self.fresh = disk.neighbour(self.target)
        for _ in range(MAX_ROUNDS):
            like, content = _seen(self.target, len(self.expected) + 1)
            disk.refuse_read_only(self.target, like.found)
            # Those who may read another file may not read this one.
            if content == self.expected:
                disk.create(self.fresh, self.data, like=like)
                return
            self._take_over()
        raise self._is_busy()

    def _take_over(self) -> None:
        """Start over from what somebody else wrote."""
        self.former = self.expected = _written(self.target, self.content_of)
        self.data = self.edit(self.former)

    def put_in_place(self) -> None:
        """Swap the files; start over as long as somebody else writes.

        Raises:
            DeployError: If he does not stop.
        """
        for _ in range(MAX_ROUNDS):
            # Who has it open is about to write it, so what he wrote is read first.
            out = disk.when_free(self._swap_if_expected)
            if out is not None:
                self.outs[out] = self.expected
                if not self._start_over(out):
                    return
            else:
                self._take_over()
            self.prepare()
        raise self._is_busy()

    def _is_busy(self) -> DeployError:
        return DeployError(
            f"Another program writes {self.path} again and again.",
            hint="Find out which one (MDaemon's settings window?), and run again.",
        )

    def _swap_if_expected(self) -> Path | None:
        as_expected = self.read() == self.expected
        return swap(self.fresh, self.target) if as_expected else None

    def carry_over(self) -> None:
        """Take over what was written into the swapped-out files since."""
        for out in list(self.outs):
            before = self.outs[out], self.former, self.expected, self.data
            try:
                if self._start_over(out):
                    self.prepare()
                    self.put_in_place()
            except BaseException:  # it is looked at again
                self.outs[out], self.former, self.expected, self.data = before
                raise

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
            DeployError: If somebody else does not stop writing.
        """
        if not self.outs:
            # An interrupted swap may have been made all the same.
            with suppress(OSError, Error):
                if self.read() == self.data != self.content_of(self.fresh):
                    self.outs[self.fresh] = self.expected
        if not self.outs:
            return
        current = self.read()
        back = next(iter(self.outs))
        if current != self.data or self.outs[back] != self.original:
            back = self._beside(self.merge(self.data, self.former, current))
        for _ in range(MAX_ROUNDS):
            out = disk.when_free(partial(swap, back, self.target))
            self.outs.pop(back, None)
            self.outs[out] = current
            if self.content_of(out) == current:
                return
            late, now = (_written(path, self.content_of) for path in (out, self.target))
            self.outs[out] = late
            back = self._beside(self.merge(current, late, now))
            current = now
        raise self._is_busy()

    def _beside(self, content: bytes) -> Path:
        """Write some content beside the file, for those who may read the file."""
        if self.fresh not in self.outs:
            disk.remove(self.fresh)
        self.fresh = disk.neighbour(self.target)
        like, _ = _seen(self.target, 0)
        disk.create(self.fresh, content, like=like)
        return self.fresh

    def clean(self) -> None:
        """Remove what is left beside the file, but never the last copy."""
        for path in {self.fresh, *self.outs}:
            if not self.is_stuck or path not in self.outs:
                disk.remove(path)


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
        try:
            return any(
                item.content_of(out) != content
                for item in self._files
                for out, content in item.outs.items()
            )
        except (OSError, Error):
            return True  # nobody knows

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
                former = {item.target: item.former for item in self._files}
                saved = back_up(former, backups)
            _put_in_place(self._files)
        except BaseException:
            if saved and not any(item.is_stuck for item in self._files):
                shutil.rmtree(saved, ignore_errors=True)
            self._clean()
            raise
        for path in {item.target.parent for item in self._files}:
            with Folder(path) as folder:
                folder.sync()
        if backups and saved:
            prune(backups, saved)
        return saved

    def settle(self) -> None:
        """Carry over what others wrote into the replaced files after the swap.

        Until then these stay beside the new ones, as another program may have one open.

        Raises:
            DeployError: If that cannot be written; then the replaced files stay.
        """
        problems = []
        for item in self._files:
            try:
                with suppress(OSError, Error):
                    item.carry_over()
                    continue
                # Once more: what failed may be over, and there is no later time.
                with disk.explained(f"write {item.path}", failure=DeployError):
                    item.carry_over()
            except Error as exc:
                item.is_stuck = True
                kept = ", ".join(map(str, item.outs))
                problems.append(f"{exc} What it held meanwhile is in {kept}.")
        self._clean()
        if problems:
            hint = "Compare the files, and copy what is missing by hand."
            raise DeployError(" ".join(problems), hint=hint)

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
            status = _seen(item.target, 0)[0].found
        # Some file systems ignore case, and some have no numbers for their files.
        number = (status.st_dev, status.st_ino) if status.st_ino else None
        other = found.setdefault(number or os.path.normcase(item.target), item)
        if other.data != item.data:
            raise DeployError(
                f"{path} and {other.path} are the same file.",
                hint="Give only one of them.",
            )
    return [item for item in found.values() if item.former != item.data]


def _seen(path: Path, limit: int) -> tuple[Status, bytes]:
    """Return a file's status and what it holds, at most so many bytes.

    On Windows nobody can open it while another program replaces it.
    """

    def look() -> tuple[Status, bytes]:
        with opened(path) as handle:
            return Status.of(handle), read(handle, limit)

    return disk.when_free(look)


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
