"""Single operations on files and private folders, and words for what fails."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import secrets
import shutil
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from letsencrypt_mdaemon.errors import ConfigError, Error
from letsencrypt_mdaemon.system import handles
from letsencrypt_mdaemon.system.handles import PRIVATE, Folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from letsencrypt_mdaemon.system.identity import Status

if sys.platform == "win32":
    import pywintypes
    import win32con
    import win32file

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

SHARING_TIMEOUT_SECONDS = 15.0
"""How long another program, such as a virus scanner, may keep a file open."""
ASKING_TIMEOUT_SECONDS = 3.0
"""The same before anything is written: then a refusal means a lack of permission."""

POLL_SECONDS = 0.05

# Windows' rights to add to a folder (FILE_ADD_FILE, FILE_ADD_SUBDIRECTORY).
_ADD_FILE, _ADD_FOLDER = 2, 4

# Windows' codes for "access denied" and "in use by another process", and three for the
# same when one file replaces another.
_SHARING_ERRORS = (5, 32, 1175, 1176, 1177)
_REFUSALS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR),
    *(errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EEXIST),
    errno.EINVAL,  # no name for a file there
}
_UNFINISHED = re.compile(r"\..{1,40}\.[0-9a-f]{12}\.tmp", re.DOTALL)


def reason(error: OSError | ValueError) -> str:
    """Return what the system, or `read_limited`, says about an error."""
    return getattr(error, "strerror", None) or str(error)


@contextmanager
def explained(
    doing: str, *, failure: type[Error] | None = None, hint: str = ""
) -> Iterator[None]:
    """Raise an error of the system as one of ours: `Could not DOING: REASON`.

    Args:
        doing: A verb and its object, such as `write PATH`.
        failure: The class of error to raise; by default a `ConfigError` if something is
            missing, read-only or not allowed, else an `Error`.
        hint: What to do; by default advice for a file that cannot be written. A full
            disk always gets its own.

    Raises:
        Error: In place of an `OSError`.
    """
    try:
        yield
    except OSError as exc:
        if exc.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            hint = "Make room on that disk and run again."
        elif not hint and may_be_in_use(exc):
            hint = "Close the program that has it open, or let this account write it."
        message = f"Could not {doing}: {reason(exc)}."
        hint = hint or "Let this account write to it and to its folder."
        failure = failure or (ConfigError if exc.errno in _REFUSALS else Error)
        raise failure(message, hint=hint) from exc


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner could ever read, whole or not at all.

    On Windows those who may read what is in its folder can read it.

    Raises:
        OSError: If it cannot be written; a former file is unchanged.
    """
    fresh = neighbour(path)
    with Folder(path.parent) as folder:
        try:
            folder.create(fresh.name, data)
            when_free(lambda: folder.rename(fresh.name, path.name))
        finally:
            remove(fresh)
        folder.sync()


def fill_private_folder(
    path: Path, contents: Mapping[str, bytes], readers: Iterable[str] = ()
) -> None:
    """Make a new folder with files that only its owner can read.

    Args:
        readers: See `make_private_folder`.

    Raises:
        OSError: If it cannot be made or filled; an unfinished folder stays.
    """
    make_private_folder(path, readers=readers)
    with Folder(path) as folder:
        for name, data in contents.items():
            folder.create(name, data)
        folder.sync()


def make_private_folder(
    path: Path, mode: int = 0o700, readers: Iterable[str] = ()
) -> None:
    """Make a folder, and missing ones above it, for its owner only unless asked.

    On Windows for SYSTEM and the administrators, too; nobody else can change it.

    Args:
        readers: The SIDs that may read it, too, on Windows.

    Raises:
        OSError: If it cannot be made, or a file has its name.
    """
    if handles.extended(path).is_dir():
        return
    if path.parent != path:
        make_private_folder(path.parent, mode, readers)
    with Folder(path.parent) as folder:
        try:
            folder.make_folder(path.name, mode, readers=readers)
        except FileExistsError:
            if not handles.extended(path).is_dir():
                raise


def read_limited(path: Path, limit: int, kind: str = "such a file") -> bytes:
    """Return the content of a file of at most `limit` bytes.

    Args:
        kind: What the limit is for.

    Raises:
        ValueError: If it is larger, or a folder, a pipe or a device.
        OSError: If it does not exist or cannot be read.
    """
    with handles.opened(path) as handle:
        data = handles.read(handle, limit + 1)
    if len(data) > limit:
        size = f"{limit >> 10} kB" if limit >> 10 else f"{limit} bytes"
        size = f"{limit >> 20} MB" if limit >> 20 else size
        raise ValueError(f"it is larger than {size}, the limit for {kind}")
    return data


def sweep(folder: Path) -> None:
    """Remove unfinished files of a killed process in a folder and below.

    Only for our own folders, and only while no other run is active. A file that cannot
    be removed causes a warning; the next run tries again.
    """
    for path in handles.extended(folder, room=1 << 15).rglob(".*.tmp"):
        if _UNFINISHED.fullmatch(path.name) and path.is_file():
            try:
                delete(path)
            except OSError as exc:
                _log.warning("Could not remove %s: %s", path, reason(exc))


def neighbour(path: Path) -> Path:
    """Return a new path in the same folder, which `sweep` recognises."""
    # It has to match _UNFINISHED.
    return path.with_name(f".{path.name[:40]}.{secrets.token_hex(6)}.tmp")


def neighbours(path: Path) -> list[Path]:
    """Return the existing paths that `neighbour` may have given."""
    head = f".{path.name[:40]}."
    return [
        other
        for other in path.parent.iterdir()
        if other.name.startswith(head) and _UNFINISHED.fullmatch(other.name)
    ]


def create(
    path: Path, data: bytes, *, mode: int = PRIVATE, like: Status | None = None
) -> None:
    """Write a new file; see `Folder.create`."""
    with Folder(path.parent) as folder:
        folder.create(path.name, data, mode=mode, like=like)


def rename(path: Path, to: Path) -> None:
    """Rename a file or a folder within its folder, replacing any file of that name.

    On Windows, wait until nobody has either open.
    """
    with Folder(path.parent) as folder:
        when_free(lambda: folder.rename(path.name, to.name))


def ask_to_write(path: Path) -> None:
    """Ask whether a file could be made or replaced, and change nothing.

    Folders above it that do not exist would be made.

    Raises:
        OSError: If it could not: no permission, read-only, a full disk.
    """
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    _ask(folder)
    if path.exists():
        refuse_read_only(path, path.stat())
        _ask(path)


def refuse_read_only(path: Path, status: os.stat_result) -> None:
    """Respect that somebody made a file read-only on purpose.

    Root may write to it all the same, and replacing it needs the permission of its
    folder only.

    Raises:
        PermissionError: If nobody may write to the file.
    """
    if not status.st_mode & 0o222:
        raise PermissionError(errno.EACCES, "it is read-only", str(path))


if sys.platform == "win32":

    def _ask(path: Path) -> None:
        # `os.access` knows no access lists. Whoever opens it like this changes nothing.
        wanted = win32con.DELETE | win32con.GENERIC_READ
        if path.is_dir():
            if not shutil.disk_usage(path).free:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            wanted = _ADD_FILE | _ADD_FOLDER
        when_free(lambda: _open(path, wanted), ASKING_TIMEOUT_SECONDS)

    def _open(path: Path, wanted: int) -> None:
        everybody = 7  # may read, write and delete it meanwhile
        how = win32con.OPEN_EXISTING, win32con.FILE_FLAG_BACKUP_SEMANTICS
        try:
            win32file.CreateFile(str(path), wanted, everybody, None, *how, None).Close()
        except pywintypes.error as exc:
            raise OSError(None, exc.strerror, str(path), exc.winerror) from exc

else:

    def _ask(path: Path) -> None:
        status, system = path.stat(), os.statvfs(path)
        # Replacing a file needs the folder's permission only, unless it is immutable,
        # which not even its owner or root may change.
        matters = path.is_dir() or os.geteuid() in {0, status.st_uid}
        code = 0
        if system.f_flag & os.ST_RDONLY:
            code = errno.EROFS
        elif matters and not os.access(path, os.W_OK):
            code = errno.EACCES
        elif system.f_blocks and not system.f_bfree:
            code = errno.ENOSPC
        if code:
            raise OSError(code, os.strerror(code), str(path))


def when_free(act: Callable[[], _T], timeout: float | None = None) -> _T:
    """Act on a file; on Windows, wait until nobody has it open.

    Args:
        timeout: Seconds; None = `SHARING_TIMEOUT_SECONDS`.
    """
    seconds = SHARING_TIMEOUT_SECONDS if timeout is None else timeout
    deadline, pause = time.monotonic() + seconds, 0.001
    while True:
        try:
            return act()
        except OSError as exc:
            if not may_be_in_use(exc) or time.monotonic() >= deadline:
                raise
            time.sleep(pause)
            pause = min(2 * pause, POLL_SECONDS)


def _is_in_use(error: OSError) -> bool:
    return getattr(error, "winerror", None) in _SHARING_ERRORS


def may_be_in_use(error: OSError) -> bool:
    """Whether the cause may be that another program has the file open."""
    # The C library below `os.open` does not report Windows' code.
    unknown = sys.platform == "win32" and getattr(error, "winerror", None) is None
    return _is_in_use(error) or (unknown and isinstance(error, PermissionError))


def delete(path: Path) -> None:
    """Remove a file or a link."""
    with Folder(path.parent) as folder:
        folder.remove(path.name)


def is_gone(path: Path) -> bool:
    """Whether nothing is there; what this account may not look at may be there."""
    try:
        return not path.exists()
    except PermissionError:
        return False


def remove(path: Path) -> None:
    """Remove a file if possible."""
    with contextlib.suppress(OSError):
        delete(path)
