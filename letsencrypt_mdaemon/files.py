"""Replace files all or none, write private files, read with a limit, and lock.

Not kept when a file is replaced: on Windows an access list of its own (the new file
inherits its folder's), and hard links.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import secrets
import shutil
import socket
import stat
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.errors import BusyError, DeployError, Error
from letsencrypt_mdaemon.text import words

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

if sys.platform == "win32":
    import msvcrt

    import pywintypes
    import win32con
    import win32file
else:
    import fcntl

# The largest file that is replaced, in bytes.
LIMIT = 64 * 1024 * 1024
# How long another program may keep a file open before we give up, in seconds.
SHARING = 3.0
# When the vendor's own library takes a lock file for forgotten, in seconds.
ABANDONED = 10.0
PAUSE = 0.05

# Windows' codes for "access denied" and "in use by another process".
IN_USE = (5, 32)
# And for a range that another handle has locked.
LOCKED = 33
_UNFINISHED = re.compile(r"\..{1,40}\.[0-9a-f]{12}\.tmp", re.DOTALL)
_BINARY: int = getattr(os, "O_BINARY", 0)
_NO_LINK: int = getattr(os, "O_NOFOLLOW", 0)

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Change:
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
        _create(self.fresh, self.data, like=self)
        if self.former is not None:
            _create(self.spare, self.former, like=self)

    def swap(self) -> None:
        _replace(self.fresh, self.target)

    def undo(self) -> None:
        """Put the former content back, unless it is still in place."""
        try:
            if self.fresh.exists():
                return
            if self.former is None:
                self.target.unlink(missing_ok=True)
            else:
                _replace(self.spare, self.target)
        except OSError as exc:
            _log.warning("%s could not be put back: %s", self.path, exc)
            self.is_stuck = True

    def clean(self) -> None:
        """Remove what is left of the neighbours, but never the last copy."""
        _remove(self.fresh)
        if not self.is_stuck:
            _remove(self.spare)


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
            with _explained(change.path):
                change.prepare()
        saved = _back_up(changes, backups, now) if backups else None
        try:
            _swap(changes)
        except BaseException:
            if saved and not any(change.is_stuck for change in changes):
                shutil.rmtree(saved, ignore_errors=True)
            raise
    for folder in {change.target.parent for change in changes}:
        _sync_folder(folder)
    if backups and saved:
        _prune(backups, keep, saved)
    return saved


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner could ever read, whole or not at all.

    Raises:
        OSError: It cannot be written; a former file is as it was.
    """
    fresh = _neighbour(path)
    try:
        _create(fresh, data)
        _replace(fresh, path)
    finally:
        _remove(fresh)
    _sync_folder(path.parent)


def fill_private_folder(path: Path, contents: Mapping[str, bytes]) -> None:
    """Make a folder of files for its owner only, that must not be there yet.

    Raises:
        OSError: It cannot be made or filled; what there is of it stays.
    """
    make_private_folder(path)
    for name, data in contents.items():
        _create(path / name, data)
    _sync_folder(path)


def make_private_folder(path: Path) -> None:
    """Make a folder, and those above it, for its owner only; existing ones stay.

    Raises:
        OSError: It cannot be made, or a file has its name.
    """
    if path.is_dir():
        return
    # `Path.mkdir(parents=True)` would give the mode to the last one only.
    if path.parent != path:
        make_private_folder(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)


def read_limited(path: Path, limit: int) -> bytes:
    """Return the content of a file of at most `limit` bytes.

    Raises:
        ValueError: It is larger, or a folder, a pipe or a device.
        OSError: It is not there or cannot be read.
    """
    # Asked first, as opening a device may do something; then without waiting, as a
    # pipe may have taken the file's place.
    _require_regular(path.stat())
    flags = os.O_RDONLY | _BINARY | getattr(os, "O_NONBLOCK", 0)
    handle = os.open(path, flags)
    try:
        _require_regular(os.fstat(handle))
        data = bytearray()
        while piece := os.read(handle, min(limit + 1 - len(data), 1 << 20)):
            data += piece
    finally:
        os.close(handle)
    if len(data) > limit:
        raise ValueError(f"it is larger than {limit} bytes")
    return bytes(data)


@contextmanager
def courtesy_lock(path: Path, *, patience: float = 12.0) -> Iterator[None]:
    """Hold `path` with ``.lck`` added, the lock that the vendor's library respects.

    Like there, a lock file that has not changed for ten seconds counts as forgotten.
    It keeps out those who look for it, nobody else.

    Args:
        path: The file that is about to be read and replaced.
        patience: How long to wait for another holder, in seconds.

    Raises:
        DeployError: Somebody holds it all that time, or it cannot be made.
    """
    lock = path.with_name(path.name + ".lck")
    # It is ours as long as it holds this: who took us for dead has made a new one.
    token = f"{os.getpid()} {secrets.token_hex(8)}\n".encode()
    with _explained(lock):
        _take(lock, token, patience)
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            if read_limited(lock, len(token)) == token:
                lock.unlink()


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Be the only process that holds this lock; it ends with the process at the latest.

    The file says who holds it. It is never removed, because another process may have
    opened it already and would then hold a lock nobody else can see.

    Raises:
        BusyError: Another process holds it.
        Error: The file cannot be made or locked.
    """
    hint = "Let this account write there."
    try:
        make_private_folder(path.parent)
        # Python opens files so that programs it starts do not inherit them.
        handle = os.open(path, os.O_RDWR | os.O_CREAT | _BINARY | _NO_LINK, 0o600)
    except OSError as exc:
        raise Error(f"{path} cannot be opened: {exc.strerror}.", hint=hint) from exc
    try:
        try:
            held = _lock(handle)
        except OSError as exc:
            raise Error(f"{path} cannot be locked: {exc.strerror}.", hint=hint) from exc
        if not held:
            raise BusyError(
                f"Another run holds {path}{_who(handle)}.",
                hint="Wait for it to end; ending it releases the lock.",
            )
        # Only a service to whoever waits: a full disk is no reason not to start.
        with contextlib.suppress(OSError):
            os.ftruncate(handle, 0)
            _write(handle, _holder())
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.ftruncate(handle, 0)
    finally:
        os.close(handle)


# Replacing


def _changes(contents: Mapping[Path, bytes]) -> list[_Change]:
    changes: dict[object, _Change] = {}
    for path, data in contents.items():
        with _explained(path):
            target = Path(os.path.realpath(path))
            former, status = _former(path, target)
        change = _Change(
            path, target, data, former, status, _neighbour(target), _neighbour(target)
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


def sweep(folder: Path) -> None:
    """Remove what a killed process left unfinished in a folder and below.

    Only for folders of our own, by the one run there is. What cannot be removed is
    said; the next run tries again.
    """
    for path in folder.rglob(".*.tmp"):
        if _UNFINISHED.fullmatch(path.name) and path.is_file():
            try:
                path.unlink()
            except OSError as exc:
                _log.warning("%s cannot be removed: %s", path, exc.strerror)


def _neighbour(path: Path) -> Path:
    # As _UNFINISHED knows it.
    return path.with_name(f".{path.name[:40]}.{secrets.token_hex(6)}.tmp")


def _create(
    path: Path, data: bytes, like: _Change | None = None, *, lasting: bool = True
) -> None:
    """Write a new file: private, or with the mode and owner of the other one.

    Args:
        lasting: Whether it has to survive a power cut from now on.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o600)
    try:
        try:
            if like is not None and like.status is not None:
                _copy_status(like.target, like.status, path, handle)
            _write(handle, data)
            if lasting:
                os.fsync(handle)
        finally:
            os.close(handle)
    except BaseException:
        _remove(path)
        raise


def _write(handle: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]


def _copy_status(
    original: Path, status: os.stat_result, path: Path, handle: int
) -> None:
    if sys.platform != "win32":
        # Only root may give files away; others may at least keep the group.
        for owner in (status.st_uid, -1):
            with contextlib.suppress(OSError):
                os.fchown(handle, owner, status.st_gid)
                break
    # Labels and access lists as far as they can be had, the mode in any case.
    with contextlib.suppress(OSError):
        shutil.copystat(original, path)
    shutil.copymode(original, path)
    os.utime(path)
    if sys.platform != "win32" and os.fstat(handle).st_gid != status.st_gid:
        # What one group may do is none of another group's business.
        os.fchmod(handle, stat.S_IMODE(status.st_mode) & ~0o070)


def _replace(fresh: Path, target: Path) -> None:
    """Put `fresh` in the place of `target`, once nobody has that open on Windows."""
    deadline = time.monotonic() + SHARING
    while True:
        try:
            fresh.replace(target)
        except PermissionError as exc:
            if not _is_in_use(exc) or time.monotonic() >= deadline:
                raise
            time.sleep(PAUSE)
        else:
            return


def _is_in_use(error: OSError) -> bool:
    return getattr(error, "winerror", None) in IN_USE


def _may_be_in_use(error: OSError) -> bool:
    # Below `os.open` the C library tells no code of Windows.
    untold = sys.platform == "win32" and getattr(error, "winerror", None) is None
    return _is_in_use(error) or (untold and isinstance(error, PermissionError))


def _swap(changes: list[_Change]) -> None:
    try:
        for change in changes:
            with _explained(change.path):
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


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make renames last through a power cut, where a folder can be flushed."""
    if sys.platform != "win32":
        # Not every file system can, and nothing could be done about it now.
        with contextlib.suppress(OSError):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _require_regular(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise ValueError("it is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is not a regular file")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what the system says about `path` into words and advice."""
    try:
        yield
    except OSError as exc:
        message = f"{path} cannot be written: {exc.strerror or exc}."
        if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
            hint = "Make room on that disk and run again."
        elif _may_be_in_use(exc):
            hint = "Close the program that has it open, or let this account write it."
        else:
            hint = "Let this account write to it and to its folder."
        raise DeployError(message, hint=hint) from exc


# Backups


def _back_up(changes: list[_Change], backups: Path, now: datetime) -> Path | None:
    formers = {change.target: change.former for change in changes}
    if not any(former is not None for former in formers.values()):
        return None
    with _explained(backups):
        saved = _new_folder(backups, now)
        try:
            for target, former in formers.items():
                if former is not None:
                    copy = saved / _path_inside(target)
                    make_private_folder(copy.parent)
                    _create(copy, former)
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


# Locks


def _take(lock: Path, token: bytes, patience: float) -> None:
    start = since = time.monotonic()
    seen = (0, 0)
    while True:
        with contextlib.suppress(FileExistsError), _unless_in_use():
            _create(lock, token, lasting=False)
            return
        now = time.monotonic()
        try:
            status = lock.lstat()
        except FileNotFoundError:
            status = None
        if status and seen != (status.st_ino, status.st_mtime_ns):
            seen, since = (status.st_ino, status.st_mtime_ns), now
        # A file server's clock may differ; a lock watched that long is as forgotten.
        # Two who find the same one could take each other's: our runs never meet here.
        if status and max(time.time() - status.st_mtime, now - since) > ABANDONED:
            with _unless_in_use():
                lock.unlink(missing_ok=True)
                continue
        if now - start >= patience:
            raise DeployError(
                f"{lock} is held by another program.",
                hint="Wait for that program, or remove the file if there is none.",
            )
        time.sleep(PAUSE)


@contextmanager
def _unless_in_use() -> Iterator[None]:
    """Go on if a file is open elsewhere; on Windows even a removed one may be."""
    try:
        yield
    except PermissionError as exc:
        if not _may_be_in_use(exc):
            raise


def _lock(handle: int) -> bool:
    """Try to lock an open file, without waiting."""
    if sys.platform == "win32":
        # Nobody else can read a locked byte, so it is one far behind the content.
        place = pywintypes.OVERLAPPED()
        place.Offset = 1 << 30
        flags = win32con.LOCKFILE_EXCLUSIVE_LOCK | win32con.LOCKFILE_FAIL_IMMEDIATELY
        try:
            win32file.LockFileEx(msvcrt.get_osfhandle(handle), flags, 1, 0, place)
        except pywintypes.error as exc:
            if exc.winerror == LOCKED:
                return False
            raise OSError(exc.winerror, exc.strerror) from exc
    else:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _holder() -> bytes:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
    return json.dumps(holder).encode() + b"\n"


def _who(handle: int) -> str:
    """Return who holds the lock, as far as the file says so."""
    try:
        holder = json.loads(os.read(handle, 500))
        who = f": process {holder['pid']} on {holder['host']}, since {holder['since']}"
    except (OSError, ValueError, TypeError, KeyError):
        return ""
    return words(who)
