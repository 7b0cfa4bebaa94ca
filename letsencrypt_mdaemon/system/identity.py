r"""Who owns a file or folder and who may use it: kept, or given to a new one.

On Windows a mode means nothing. There a new folder gets an access list in its place,
and what is made in it inherits that.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

if sys.platform == "win32":
    import msvcrt

    import ntsecuritycon
    import pywintypes
    import win32api
    import win32con
    import win32file
    import win32security

_OTHERS_READ = 0o005
# SYSTEM, Administrators, and who made it, as of Python 3.12's `mkdir(0o700)`.
_OURS = "D:P(A;OICI;FA;;;S-1-5-18)(A;OICI;FA;;;S-1-5-32-544)(A;OICI;FA;;;S-1-3-4)"
_USERS = "S-1-5-32-545"
_LONGEST = 248 - 1
"""Characters of a folder's path without a prefix (MAX_PATH, less an 8.3 name)."""


def folder_list(mode: int, readers: Iterable[str] = ()) -> str:
    """Return the access list that stands for the mode of a folder, as SDDL.

    Args:
        readers: The SIDs that may read besides those of the mode.
    """
    sids = dict.fromkeys([*readers, *[_USERS] * bool(mode & _OTHERS_READ)])
    return _OURS + "".join(f"(A;OICI;0x1200a9;;;{sid})" for sid in sids)


def extended(path: str, room: int = 0) -> str:
    r"""Return an absolute path of Windows in the form that may have any length.

    A short one stays. `\\?\` switches off what Windows does to names, so the path has
    to be as Windows itself returns it.

    Args:
        room: The characters that something in it may add.
    """
    if len(path) + room <= _LONGEST or path.startswith("\\\\?\\"):
        return path
    if path.startswith("\\\\"):
        return f"\\\\?\\UNC\\{path[2:]}"
    return f"\\\\?\\{path}" if path[1:3] == ":\\" else path


class Status(NamedTuple):
    """Owner, mode, labels and access list, from an open file for another one.

    Args:
        security: On Windows owner and access list, as pywin32 has them.
    """

    found: os.stat_result
    labels: list[tuple[str, bytes]]
    security: Any = None

    @classmethod
    def of(cls, handle: int) -> Status:
        """Return those of an open file."""
        labels: list[tuple[str, bytes]] = []
        security = None
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                names = os.listxattr(handle)
                labels += [(name, os.getxattr(handle, name)) for name in names]
        if sys.platform == "win32":
            with contextlib.suppress(pywintypes.error):
                security = win32security.GetSecurityInfo(
                    msvcrt.get_osfhandle(handle),
                    win32security.SE_FILE_OBJECT,
                    win32security.OWNER_SECURITY_INFORMATION
                    | win32security.DACL_SECURITY_INFORMATION,
                )
        return cls(os.fstat(handle), labels, security)

    def give(self, handle: int, path: str) -> None:
        """Give them to an open file.

        Args:
            path: Of the same file, on Windows, where nobody can rename its folder.
        """
        if sys.platform == "win32":
            _give(self, path)
            return
        # Only root may give files away; others may at least keep the group.
        for owner in (self.found.st_uid, -1):
            with contextlib.suppress(OSError):
                os.fchown(handle, owner, self.found.st_gid)
                break
        if sys.platform == "linux":
            for name, value in self.labels:
                with contextlib.suppress(OSError):
                    os.setxattr(handle, name, value)
        # The permissions of one group must not pass to another.
        is_same = os.fstat(handle).st_gid == self.found.st_gid
        mode = stat.S_IMODE(self.found.st_mode)
        os.fchmod(handle, mode if is_same else mode & ~0o070)


if sys.platform == "win32":
    _KEPT = (
        win32con.FILE_ATTRIBUTE_HIDDEN
        | win32con.FILE_ATTRIBUTE_SYSTEM
        | win32con.FILE_ATTRIBUTE_ARCHIVE
        | win32con.FILE_ATTRIBUTE_NOT_CONTENT_INDEXED
    )

    def _give(status: Status, path: str) -> None:
        """Give a file the owner, access list and attributes of another one.

        Raises:
            OSError: If it cannot have the list: then others could read it.
        """
        if (security := status.security) is not None:
            listed = security.GetSecurityDescriptorDacl()
            # A file system without access lists shows none.
            if listed is not None and (parts := _own(security, listed)):
                with as_os_errors(path):
                    _set(path, parts, None, listed)
            # Only with a privilege may a file be given away.
            owner = security.GetSecurityDescriptorOwner()
            with contextlib.suppress(pywintypes.error), _restoring():
                _set(path, win32security.OWNER_SECURITY_INFORMATION, owner, None)
        kept = status.found.st_file_attributes & _KEPT
        with contextlib.suppress(pywintypes.error):
            win32file.SetFileAttributes(path, kept or win32con.FILE_ATTRIBUTE_NORMAL)

    def _own(security: Any, listed: Any) -> int:  # noqa: ANN401
        """Return which parts to set; 0 if all of a list comes from the folder."""
        control, _ = security.GetSecurityDescriptorControl()
        if control & win32security.SE_DACL_PROTECTED:
            return (
                win32security.DACL_SECURITY_INFORMATION
                | win32security.PROTECTED_DACL_SECURITY_INFORMATION
            )
        flags = [listed.GetAce(index)[0][1] for index in range(listed.GetAceCount())]
        if all(flag & win32security.INHERITED_ACE for flag in flags):
            return 0
        # Besides its own entries it inherits from its folder, as the other does.
        return (
            win32security.DACL_SECURITY_INFORMATION
            | win32security.UNPROTECTED_DACL_SECURITY_INFORMATION
        )

    def _set(path: str, parts: int, owner: Any, listed: Any) -> None:  # noqa: ANN401
        win32security.SetNamedSecurityInfo(
            path, win32security.SE_FILE_OBJECT, parts, owner, None, listed, None
        )

    @contextlib.contextmanager
    def _restoring() -> Iterator[None]:
        """Use the privilege to make anybody the owner of a file, if there is one."""
        windows: Any = win32security  # its stubs know no tuples, and no None
        token = windows.OpenProcessToken(
            win32api.GetCurrentProcess(),
            win32con.TOKEN_ADJUST_PRIVILEGES | win32con.TOKEN_QUERY,
        )
        name = ntsecuritycon.SE_RESTORE_NAME
        privilege = windows.LookupPrivilegeValue(None, name)
        wanted = [(privilege, win32con.SE_PRIVILEGE_ENABLED)]
        only = False  # not all others, too
        former = windows.AdjustTokenPrivileges(token, only, wanted)
        try:
            yield
        finally:
            windows.AdjustTokenPrivileges(token, only, former)

    def make_folder(path: str, listed: str) -> None:
        """Make a folder that has an access list from the start.

        Raises:
            OSError: If it cannot be made.
        """
        attributes = win32security.SECURITY_ATTRIBUTES()
        with as_os_errors(path):
            attributes.SECURITY_DESCRIPTOR = (
                win32security.ConvertStringSecurityDescriptorToSecurityDescriptor(
                    listed, win32security.SDDL_REVISION_1
                )
            )
            win32file.CreateDirectory(path, attributes)

    @contextlib.contextmanager
    def as_os_errors(path: str) -> Iterator[None]:
        """Turn pywin32's errors into Python's."""
        try:
            yield
        except pywintypes.error as exc:
            raise OSError(None, exc.strerror, path, exc.winerror) from exc
