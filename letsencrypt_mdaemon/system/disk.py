"""Single operations on files and private folders, and words for what fails."""

from __future__ import annotations

import contextlib
import errno
import logging
import re
import secrets
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.errors import Error
from letsencrypt_mdaemon.system import handles
from letsencrypt_mdaemon.system.handles import PRIVATE, Folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from letsencrypt_mdaemon.system.handles import Status

_log = logging.getLogger(__name__)

SHARING_TIMEOUT_SECONDS = 3.0
"""How long another program may keep a file open before we give up."""

POLL_SECONDS = 0.05

# Windows' codes for "access denied" and "in use by another process".
_SHARING_ERRORS = (5, 32)
_UNFINISHED = re.compile(r"\..{1,40}\.[0-9a-f]{12}\.tmp", re.DOTALL)


def reason(error: OSError | ValueError) -> str:
    """Return what the system, or `read_limited`, says about an error."""
    return getattr(error, "strerror", None) or str(error)


@contextmanager
def explained(
    doing: str, *, failure: type[Error] = Error, hint: str = ""
) -> Iterator[None]:
    """Raise an error of the system as one of ours: `Could not DOING: REASON`.

    Args:
        doing: A verb and its object, such as `write PATH`.
        failure: The class of error to raise.
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
        raise failure(message, hint=hint) from exc


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner could ever read, whole or not at all.

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


def fill_private_folder(path: Path, contents: Mapping[str, bytes]) -> None:
    """Make a new folder with files that only its owner can read.

    Raises:
        OSError: If it cannot be made or filled; an unfinished folder stays.
    """
    make_private_folder(path)
    with Folder(path) as folder:
        for name, data in contents.items():
            folder.create(name, data)
        folder.sync()


def make_private_folder(path: Path, mode: int = 0o700) -> None:
    """Make a folder, and missing ones above it, for its owner only unless asked.

    Raises:
        OSError: If it cannot be made, or a file has its name.
    """
    if path.is_dir():
        return
    if path.parent != path:
        make_private_folder(path.parent, mode)
    with Folder(path.parent) as folder:
        try:
            folder.make_folder(path.name, mode)
        except FileExistsError:
            if not path.is_dir():
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
    for path in folder.rglob(".*.tmp"):
        if _UNFINISHED.fullmatch(path.name) and path.is_file():
            try:
                delete(path)
            except OSError as exc:
                _log.warning("Could not remove %s: %s", path, reason(exc))


def neighbour(path: Path) -> Path:
    """Return a new path in the same folder, which `sweep` recognises."""
    # It has to match _UNFINISHED.
    return path.with_name(f".{path.name[:40]}.{secrets.token_hex(6)}.tmp")


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


def when_free(act: Callable[[], object]) -> None:
    """Act on a file; on Windows, wait until nobody has it open."""
    deadline = time.monotonic() + SHARING_TIMEOUT_SECONDS
    while True:
        try:
            act()
        except PermissionError as exc:
            if not _is_in_use(exc) or time.monotonic() >= deadline:
                raise
            time.sleep(POLL_SECONDS)
        else:
            return


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


def remove(path: Path) -> None:
    """Remove a file if possible."""
    with contextlib.suppress(OSError):
        delete(path)
