"""Drive letters that one account has, and SYSTEM has not: mapped and subst drives."""

from __future__ import annotations

import sys
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import PurePath

    Look = Callable[[str], tuple[int, str]]

REMOTE = 4
"""DRIVE_REMOTE of GetDriveType."""


def lacking(path: PurePath, look: Look) -> str:
    r"""Return why SYSTEM may not have the drive of a path; "" if it has it.

    Args:
        look: Returns the type of a drive such as `C:`, and the device that its letter
            stands for: `\??\C:\folder` for a subst drive (QueryDosDevice).
    """
    drive = PureWindowsPath(str(path)).drive
    if not drive.endswith(":"):
        return ""
    kind, device = look(drive)
    if device.startswith("\\??\\"):
        real = device.removeprefix("\\??\\")
        return f"the drive {drive} stands for {real} (subst), for this account only"
    if kind == REMOTE:
        return f"the drive {drive} is mapped to a share, for this account only"
    return ""


if sys.platform == "win32":
    import pywintypes
    import win32file

    def look(drive: str) -> tuple[int, str]:
        """Return a drive's type, and the device that its letter stands for."""
        try:
            device = win32file.QueryDosDevice(drive).partition("\0")[0]
        except pywintypes.error:
            device = ""
        return win32file.GetDriveType(f"{drive}\\"), device
