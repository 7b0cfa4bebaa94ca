"""Swap two files in one step, so that what was replaced can be looked at."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.system.disk import create, neighbour, remove

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
    try:
        if sys.platform == "win32":
            _replace_file(fresh, target, out)
        elif _exchange(fresh, target):
            return fresh
        else:
            _keep(target, out)
            fresh.replace(target)
    except BaseException:
        if target.exists():
            remove(out)
        elif out.exists():
            out.replace(target)
        raise
    return out


def _keep(target: Path, out: Path) -> None:
    try:
        os.link(target, out)
    except OSError:
        create(out, target.read_bytes(), like=target)


if sys.platform == "win32":

    def _replace_file(fresh: Path, target: Path, out: Path) -> None:
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
                fresh.rename(target)
                return
        raise error

else:

    def _exchange(one: Path, other: Path) -> bool:
        """Exchange two files; False if the system or the file system cannot."""
        import ctypes  # noqa: PLC0415 - slow to import

        libc = ctypes.CDLL(None, use_errno=True)
        paths = os.fsencode(one), os.fsencode(other)
        try:
            if sys.platform == "darwin":
                failed = libc.renamex_np(*paths, 2)  # RENAME_SWAP
            else:  # -100: paths are relative to the working directory
                failed = libc.renameat2(-100, paths[0], -100, paths[1], 2)
        except AttributeError:
            return False
        if not failed:
            return True
        code = ctypes.get_errno()
        if code in {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}:
            return False
        raise OSError(code, os.strerror(code), str(other))
