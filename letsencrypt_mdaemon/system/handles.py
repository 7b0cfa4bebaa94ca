"""Every write of this program, by handle: no name that others can redirect is trusted.

A folder is opened and held. What is made, renamed or removed in it is named relative to
that handle, so it happens there, whatever the folder's path leads to meanwhile. A link
on the way is followed only if root or this account made it. On Windows an open folder
cannot be renamed, nor can those above it; each file opened in it is compared with what
its name stands for.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import threading
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from letsencrypt_mdaemon.system import identity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from letsencrypt_mdaemon.system.identity import Status

if sys.platform == "win32":
    import pywintypes
    import win32con
    import win32file

PRIVATE, PUBLIC = 0o600, 0o644
"""The modes of files that only we, or all accounts, may read."""
MAX_LINKS = 40
"""On the way to one file, as for Linux."""

# Never a link, never waiting for a pipe's other end; bytes as they are on Windows.
_SAFE = getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
_SAFE |= getattr(os, "O_NOFOLLOW", 0)
# Opens a folder that may be entered but not read, and a link itself.
_STEP = getattr(os, "O_PATH", os.O_RDONLY) | getattr(os, "O_NOFOLLOW", 0)
_FLAG_OPEN_REPARSE_POINT = 0x00200000  # winbase.h; not in pywin32's stubs
_UMASK = threading.Lock()


class Folder:
    """A folder, held open until the block ends.

    Every name is that of an entry of the folder. A link by that name is never followed.

    Raises:
        OSError: If it is no folder, or another account's link leads to it; and by each
            method, if the system refuses.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.handle: int | None = None
        try:
            if sys.platform == "win32":
                self.path = resolved(path)
                self._pin = _pinned(self.path)
            else:
                self.handle = _opened_folder(path)
        except OSError as exc:
            exc.filename = str(path)
            raise
        self._both = {"src_dir_fd": self.handle, "dst_dir_fd": self.handle}

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the folder."""
        if sys.platform == "win32":
            self._pin.Close()
        elif self.handle is not None:
            os.close(self.handle)

    def open(self, name: str, flags: int, mode: int = PRIVATE) -> int:
        """Open a file, and return its handle; see `os.open`."""
        handle = os.open(self._at(name), flags | _SAFE, mode, dir_fd=self.handle)
        with _closed_on_failure(handle):
            if self.handle is None:  # Windows may have followed a link
                if not os.path.samestat(os.fstat(handle), self.status(name)):
                    raise _is_link(name)
            elif sys.platform != "win32" and flags & os.O_EXCL:
                os.fchmod(handle, mode)  # in spite of the umask
        return handle

    def open_single(self, name: str, flags: int, *, ours: bool) -> int:
        """Open a regular file that has no second name, and that may have to be ours."""
        handle = self.open(name, flags)
        with _closed_on_failure(handle):
            status = os.fstat(handle)
            good = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
            if sys.platform != "win32" and ours:
                good = good and status.st_uid == os.geteuid()
            if not good:
                raise OSError(errno.EPERM, "Another file or account is behind it", name)
        return handle

    def create(
        self,
        name: str,
        data: bytes,
        *,
        mode: int = PRIVATE,
        like: Status | None = None,
        durable: bool = True,
    ) -> None:
        """Write a new file, whole or not at all.

        Args:
            like: Of the file whose mode and owner the new one gets.
            durable: Whether the content has to survive a power cut from now on.
        """
        handle = self.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with _closed_on_failure(handle):
                if like is not None:
                    like.give(handle, self._at(name))
                write(handle, data)
                if durable:
                    os.fsync(handle)
            os.close(handle)
        except BaseException:
            with contextlib.suppress(OSError):
                self.remove(name)
            raise

    def status(self, name: str) -> os.stat_result:
        """Return the status of an entry, also of a link."""
        return os.stat(self._at(name), dir_fd=self.handle, follow_symlinks=False)

    def rename(self, name: str, to: str) -> None:
        """Rename an entry; whatever file or link has the new name is replaced."""
        os.replace(self._at(name), self._at(to), **self._both)  # noqa: PTH105

    def link(self, name: str, to: str) -> None:
        """Give a file a second name."""
        options: Any = {"follow_symlinks": False, **self._both}
        os.link(self._at(name), self._at(to), **options)

    def remove(self, name: str) -> None:
        """Remove a file or a link."""
        os.unlink(self._at(name), dir_fd=self.handle)

    def make_folder(
        self,
        name: str,
        mode: int,
        *,
        readers: Iterable[str] = (),
        inherits: bool = False,
    ) -> None:
        """Make a folder in it.

        On Windows it gets an access list for the mode, from the start.

        Args:
            readers: The SIDs that may read it, too, on Windows.
            inherits: Whether it gets the list of this folder instead.
        """
        if sys.platform == "win32" and not inherits:
            listed = identity.folder_list(mode, readers)
            identity.make_folder(self._at(name), listed)
            return
        # By its name only could the mode be set later, and by then it may be another.
        with _UMASK:
            former = os.umask(0)
            try:
                os.mkdir(self._at(name), mode, dir_fd=self.handle)
            finally:
                os.umask(former)

    def remove_folder(self, name: str) -> None:
        """Remove an empty folder in it."""
        os.rmdir(self._at(name), dir_fd=self.handle)

    def sync(self) -> None:
        """Make renames survive a power cut, where the system can flush a folder."""
        # Not every file system can, and there is no remedy now.
        with contextlib.suppress(OSError):
            if self.handle is not None:
                handle = os.open(".", os.O_RDONLY, dir_fd=self.handle)
                with _closed_on_failure(handle):
                    os.fsync(handle)
                os.close(handle)

    def _at(self, name: str) -> str:
        return name if self.handle is not None else str(self.path / name)


@contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    """Open a regular file that exists, without waiting; yield its handle.

    Raises:
        ValueError: If it is a folder, a pipe or a device.
        OSError: If it does not exist or cannot be opened; see `resolved`.
    """
    path = resolved(path)
    # Before opening, as opening a device may have an effect; and again afterwards, as a
    # pipe may have replaced the file, which is why opening must not wait.
    if sys.platform == "win32":
        _must_be_regular(path.stat())
        handle = os.open(path, flags | _SAFE)
    else:
        with Folder(path.parent) as folder:
            _must_be_regular(folder.status(path.name))
            handle = folder.open(path.name, flags)
    try:
        _must_be_regular(os.fstat(handle))
        yield handle
    finally:
        os.close(handle)


def resolved(path: Path) -> Path:
    """Return the file that a path leads to by links of root's or of this account's.

    A missing file is returned as well.

    Raises:
        OSError: If a link is another account's, or there are too many.
    """
    if sys.platform == "win32":
        return extended(Path(os.path.realpath(extended(path))))
    with contextlib.suppress(FileNotFoundError):
        for number in count(1):
            with Folder(path.parent) as folder:
                status = folder.status(path.name)
                if not stat.S_ISLNK(status.st_mode):
                    break
                _must_be_trusted(status, path.name, number)
                path = path.parent / os.readlink(path.name, dir_fd=folder.handle)
    return path


def extended(path: Path, room: int = 0) -> Path:
    """Return a path in the form that may have any length on Windows, if it needs that.

    Args:
        room: The characters that something in it may add.
    """
    if sys.platform != "win32":
        return path
    return Path(identity.extended(os.path.abspath(path), room))  # noqa: PTH100 - no link


def read(handle: int, limit: int) -> bytes:
    """Return what an open file holds, but at most so many bytes."""
    data = bytearray()
    while piece := os.read(handle, min(limit - len(data), 1 << 20)):
        data += piece
    return bytes(data)


def write(handle: int, data: bytes) -> None:
    """Write all the data, however little the system takes at a time."""
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]


@contextmanager
def _closed_on_failure(handle: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        os.close(handle)
        raise


def _must_be_regular(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise ValueError("it is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is not a regular file")


def _must_be_trusted(link: os.stat_result, name: str, number: int) -> None:
    if number > MAX_LINKS:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
    if sys.platform != "win32" and link.st_uid not in {0, os.geteuid()}:
        raise _is_link(name)


def _is_link(name: str) -> OSError:
    return OSError(errno.ELOOP, "A link of another account leads elsewhere", name)


if sys.platform == "win32":

    def _pinned(path: Path) -> Any:  # noqa: ANN401 - its stub is no type
        """Open a folder so that nobody can rename it or those above it."""
        access = 1  # FILE_LIST_DIRECTORY: with less, Windows does not keep others out
        share = win32con.FILE_SHARE_READ | win32con.FILE_SHARE_WRITE
        flags = win32con.FILE_FLAG_BACKUP_SEMANTICS | _FLAG_OPEN_REPARSE_POINT
        try:
            pin = win32file.CreateFile(
                str(path), access, share, None, win32con.OPEN_EXISTING, flags, None
            )
        except pywintypes.error as exc:
            code = OSError(None, "", None, exc.winerror).errno or 0  # as of `os.open`
            raise OSError(code, os.strerror(code), str(path)) from exc
        # Only now can no part of the path become a junction any more.
        is_folder = path.is_dir()
        if is_folder and path == Path(os.path.realpath(path)):
            return pin
        pin.Close()
        missing = NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        raise _is_link(path.name) if is_folder else missing

else:

    def _opened_folder(path: Path) -> int:
        """Walk to a folder and return its handle; see `resolved`."""
        if not hasattr(os, "O_PATH"):  # no handle of a link: follow none of them
            path = Path(os.path.realpath(path))
        left, links = [*reversed(path.parts)], count(1)
        here = os.open(path.anchor or ".", _STEP)
        try:
            while left:
                name = left.pop()
                there = os.open(name, _STEP, dir_fd=here)
                try:
                    status = os.fstat(there)
                    if stat.S_ISLNK(status.st_mode):
                        _must_be_trusted(status, name, next(links))
                        left += reversed(Path(os.readlink("", dir_fd=there)).parts)
                    else:
                        here, there = there, here
                finally:
                    os.close(there)
            return os.open(".", _STEP, dir_fd=here)  # fails unless it is a folder
        finally:
            os.close(here)
