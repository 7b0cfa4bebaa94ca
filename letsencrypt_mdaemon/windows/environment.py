"""The machine's PATH, in which every new prompt looks for programs."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import winreg
    from typing import TYPE_CHECKING

    if TYPE_CHECKING:
        from collections.abc import Callable
        from pathlib import Path

KEY = r"SYSTEM\CurrentControlSet\Control\Session Manager\Environment"


def with_entry(value: str, entry: str) -> str:
    """Return a PATH with an entry at its end, as it was if the entry is there."""
    if any(_is_same(other, entry) for other in value.split(";")):
        return value
    if value.endswith(";"):
        return f"{value}{entry};"
    return f"{value};{entry}" if value else entry


def without_entry(value: str, entry: str) -> str:
    """Return a PATH without an entry, otherwise as it was."""
    return ";".join(other for other in value.split(";") if not _is_same(other, entry))


def _is_same(entry: str, other: str) -> bool:
    """Whether two whole entries name one folder."""
    ours, theirs = (
        (row[1:-1] if row[:1] == row[-1:] == '"' else row).rstrip("\\/").casefold()
        for row in (entry.strip(), other.strip())
    )
    return ours == theirs


if sys.platform == "win32":

    def add_to_path(folder: Path) -> bool:
        """Add a folder to the machine's PATH; return whether it was not there.

        Raises:
            OSError: If PATH cannot be read or written, or is no text.
        """
        return _change(lambda value: with_entry(value, str(folder)))

    def remove_from_path(folder: Path) -> bool:
        """Remove a folder from the machine's PATH; return whether it was there.

        Raises:
            OSError: If PATH cannot be read or written, or is no text.
        """
        return _change(lambda value: without_entry(value, str(folder)))

    def _change(edit: Callable[[str], str]) -> bool:
        """Write PATH as edited, as the kind of text that it was."""
        rights = winreg.KEY_READ | winreg.KEY_SET_VALUE | winreg.KEY_WOW64_64KEY
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, KEY, access=rights) as key:
            try:
                value, kind = winreg.QueryValueEx(key, "Path")
            except FileNotFoundError:
                value, kind = "", winreg.REG_EXPAND_SZ
            if kind not in (winreg.REG_SZ, winreg.REG_EXPAND_SZ):
                # Whoever wrote it as anything else meant something else.
                raise OSError(None, "PATH is no text", KEY)
            edited = edit(value)
            if edited != value:
                winreg.SetValueEx(key, "Path", 0, kind, edited)
        return bool(edited != value)
