"""Single operations on files and private folders."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import secrets
import shutil
import stat
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.errors import DeployError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from letsencrypt_mdaemon.system.files import Change


_log = logging.getLogger(__name__)


# How long another program may keep a file open before we give up, in seconds.
SHARING = 3.0


PAUSE = 0.05


# Windows' codes for "access denied" and "in use by another process".
IN_USE = (5, 32)


_UNFINISHED = re.compile(r"\..{1,40}\.[0-9a-f]{12}\.tmp", re.DOTALL)


BINARY: int = getattr(os, "O_BINARY", 0)


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner could ever read, whole or not at all.

    Raises:
        OSError: It cannot be written; a former file is as it was.
    """
    fresh = neighbour(path)
    try:
        create(fresh, data)
        replace(fresh, path)
    finally:
        remove(fresh)
    sync_folder(path.parent)


def fill_private_folder(path: Path, contents: Mapping[str, bytes]) -> None:
    """Make a folder of files for its owner only, that must not be there yet.

    Raises:
        OSError: It cannot be made or filled; what there is of it stays.
    """
    make_private_folder(path)
    for name, data in contents.items():
        create(path / name, data)
    sync_folder(path)


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
    flags = os.O_RDONLY | BINARY | getattr(os, "O_NONBLOCK", 0)
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


def neighbour(path: Path) -> Path:
    """Return a new path beside another, which `sweep` recognises."""
    # As _UNFINISHED knows it.
    return path.with_name(f".{path.name[:40]}.{secrets.token_hex(6)}.tmp")


def create(
    path: Path, data: bytes, like: Change | None = None, *, lasting: bool = True
) -> None:
    """Write a new file: private, or with the mode and owner of the other one.

    Args:
        lasting: Whether it has to survive a power cut from now on.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o600)
    try:
        try:
            if like is not None and like.status is not None:
                _copy_status(like.target, like.status, path, handle)
            write(handle, data)
            if lasting:
                os.fsync(handle)
        finally:
            os.close(handle)
    except BaseException:
        remove(path)
        raise


def write(handle: int, data: bytes) -> None:
    """Write all of it, whatever the system takes at a time."""
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


def replace(fresh: Path, target: Path) -> None:
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


def may_be_in_use(error: OSError) -> bool:
    """Whether an error may mean that another program has the file open."""
    # Below `os.open` the C library tells no code of Windows.
    untold = sys.platform == "win32" and getattr(error, "winerror", None) is None
    return _is_in_use(error) or (untold and isinstance(error, PermissionError))


def remove(path: Path) -> None:
    """Remove a file if that is possible."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
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
def explained(path: Path) -> Iterator[None]:
    """Turn what the system says about `path` into words and advice."""
    try:
        yield
    except OSError as exc:
        message = f"{path} cannot be written: {exc.strerror or exc}."
        if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
            hint = "Make room on that disk and run again."
        elif may_be_in_use(exc):
            hint = "Close the program that has it open, or let this account write it."
        else:
            hint = "Let this account write to it and to its folder."
        raise DeployError(message, hint=hint) from exc
