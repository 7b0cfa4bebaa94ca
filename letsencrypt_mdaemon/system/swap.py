"""Swap two files in one step, so that what was replaced can be looked at."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.system import handles
from letsencrypt_mdaemon.system.disk import neighbour, remove
from letsencrypt_mdaemon.system.handles import Folder
from letsencrypt_mdaemon.system.identity import Status

if TYPE_CHECKING:
    from pathlib import Path

if sys.platform == "win32":
    import ctypes


def swap(fresh: Path, target: Path) -> Path:
    """Put `fresh` in the place of `target` in one step; return where that is now.

    So one can see what was replaced, even if somebody wrote it at the last moment, and
    whoever still has it open goes on writing to it. Where the file system cannot swap,
    a hard link keeps it; where it has no links either (CIFS), a copy made just before.
    On Windows it fails while somebody has `target` open (see `disk.when_free`).

    Raises:
        OSError: If it cannot; `target` is unchanged.
    """
    out = neighbour(target)
    with Folder(target.parent) as folder:
        try:
            if sys.platform == "win32":
                _replace_file(fresh, target, out, folder)
            elif _exchange(fresh, target, folder):
                return fresh
            else:
                _keep(folder, target, out)
                folder.rename(fresh.name, target.name)
        except BaseException:
            if target.exists() and fresh.exists():
                remove(out)
            elif out.exists():
                folder.rename(out.name, target.name)
            raise
    return out


def _keep(folder: Folder, target: Path, out: Path) -> None:
    try:
        folder.link(target.name, out.name)
    except OSError:
        with handles.opened(target) as handle:
            like = Status.of(handle)
            data = handles.read(handle, like.found.st_size)
        folder.create(out.name, data, like=like)


if sys.platform == "win32":

    def _replace_file(fresh: Path, target: Path, out: Path, folder: Folder) -> None:
        # Not pywin32's: it hands the first two names over in the wrong order.
        replace = ctypes.WinDLL("kernel32", use_last_error=True).ReplaceFileW
        names = [ctypes.c_wchar_p(str(path)) for path in (target, fresh, out)]
        if replace(*names, 0, None, None):
            return
        error = ctypes.WinError(ctypes.get_last_error())
        # It moves `target` away first. If that is all it did (1177), finish the work;
        # unless somebody has put a new file there, which is replaced the next time.
        if out.exists():
            with contextlib.suppress(FileExistsError):
                folder.link(fresh.name, target.name)
                remove(fresh)
                return
        raise error

else:

    def _exchange(one: Path, other: Path, folder: Folder) -> bool:
        """Exchange two files; False if the system or the file system cannot."""
        import ctypes  # noqa: PLC0415 - slow to import

        libc = ctypes.CDLL(None, use_errno=True)
        at = folder.handle
        paths = os.fsencode(one.name), os.fsencode(other.name)
        try:
            if sys.platform == "darwin":
                failed = libc.renameatx_np(at, paths[0], at, paths[1], 2)  # RENAME_SWAP
            else:  # RENAME_EXCHANGE
                failed = libc.renameat2(at, paths[0], at, paths[1], 2)
        except AttributeError:
            return False
        if not failed:
            return True
        code = ctypes.get_errno()
        if code in {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}:
            return False
        raise OSError(code, os.strerror(code), str(other))
