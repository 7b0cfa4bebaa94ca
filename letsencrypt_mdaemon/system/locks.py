"""Lock files: the lock of a run, and the courtesy lock of MDaemon's files."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.errors import BusyError, DeployError
from letsencrypt_mdaemon.system import disk
from letsencrypt_mdaemon.system.handles import Folder, write
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


if sys.platform == "win32":
    import msvcrt

    import pywintypes
    import win32con
    import win32file
else:
    import fcntl

ABANDONED_AFTER_SECONDS = 10.0
"""When the vendor's own library considers an unchanged lock file abandoned."""

# Windows' code for a range that another handle has locked.
_LOCK_VIOLATION = 33


@contextmanager
def courtesy_lock(path: Path, *, timeout: float = 12.0) -> Iterator[None]:
    """Hold the lock file `path`.lck, which the vendor's own library respects.

    As there, a lock file that has not changed for ten seconds counts as abandoned. It
    keeps out only programs that look for it.

    Args:
        path: The file that is about to be read and replaced.
        timeout: Seconds to wait for another holder.

    Raises:
        DeployError: If another program holds it all that time, or it cannot be made.
    """
    lock = path.with_name(path.name + ".lck")
    # The lock is ours while the file holds this: who took it over made a new one.
    token = f"{os.getpid()} {secrets.token_hex(8)}\n".encode()
    with disk.explained(f"write {lock}", failure=DeployError):
        _take(lock, token, timeout)
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            if disk.read_limited(lock, len(token)) == token:
                disk.delete(lock)


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold this lock as the only process, until the process ends at the latest.

    The file says who holds it. It is never removed, because another process may have
    opened it already and would then hold a lock nobody else can see.

    Raises:
        BusyError: If another process holds it.
        Error: If the file cannot be made or locked.
    """
    with disk.explained(f"open {path}"):
        disk.make_private_folder(path.parent)
        # Python opens files so that programs it starts do not inherit them.
        with Folder(path.parent) as folder:
            flags = os.O_RDWR | os.O_CREAT
            handle = folder.open_single(path.name, flags, ours=False)
    try:
        with disk.explained(f"lock {path}"):
            held = _lock(handle)
        if not held:
            raise BusyError(
                f"Another run holds {path}{_who(handle)}.",
                hint="Wait until that run ends; ending it by hand releases the lock.",
            )
        # It only informs whoever waits: a full disk is no reason not to start.
        with contextlib.suppress(OSError):
            os.ftruncate(handle, 0)
            write(handle, _holder())
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.ftruncate(handle, 0)
    finally:
        os.close(handle)


# Locks


def _take(lock: Path, token: bytes, timeout: float) -> None:
    start = since = time.monotonic()
    seen = (0, 0)
    while True:
        with contextlib.suppress(FileExistsError), _unless_in_use():
            with Folder(lock.parent) as folder:
                folder.create(lock.name, token, durable=False)
            return
        now = time.monotonic()
        try:
            status = lock.lstat()
        except FileNotFoundError:
            status = None
        if status and seen != (status.st_ino, status.st_mtime_ns):
            seen, since = (status.st_ino, status.st_mtime_ns), now
        # A file server's clock may differ, so a lock seen for that long counts, too.
        # Two programs could take each other's new lock; our own runs never meet here.
        if (
            status
            and max(time.time() - status.st_mtime, now - since)
            > ABANDONED_AFTER_SECONDS
        ):
            with _unless_in_use():
                with contextlib.suppress(FileNotFoundError):
                    disk.delete(lock)
                continue
        if now - start >= timeout:
            raise DeployError(
                f"{lock} is held by another program.",
                hint="Wait for that program, or remove the file if no program uses it.",
            )
        time.sleep(disk.POLL_SECONDS)


@contextmanager
def _unless_in_use() -> Iterator[None]:
    """Ignore that a file is open elsewhere; on Windows even a removed one may be."""
    try:
        yield
    except PermissionError as exc:
        if not disk.may_be_in_use(exc):
            raise


def _lock(handle: int) -> bool:
    """Try to lock an open file, without waiting."""
    if sys.platform == "win32":
        # Nobody else can read a locked byte, so lock one far behind the content.
        place = pywintypes.OVERLAPPED()
        place.Offset = 1 << 30
        flags = win32con.LOCKFILE_EXCLUSIVE_LOCK | win32con.LOCKFILE_FAIL_IMMEDIATELY
        try:
            win32file.LockFileEx(msvcrt.get_osfhandle(handle), flags, 1, 0, place)
        except pywintypes.error as exc:
            if exc.winerror == _LOCK_VIOLATION:
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
    return printable(who)
