"""What Windows' registry says: MDaemon's folders, and the machine's variables."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

assert sys.platform == "win32"  # noqa: S101 - tells the type checker

import winreg  # noqa: E402 - Windows only

if TYPE_CHECKING:
    from collections.abc import Iterator

KEYS = (
    r"SOFTWARE\Alt-N Technologies\MDaemon",
    r"SOFTWARE\Wow6432Node\Alt-N Technologies\MDaemon",  # up to 21.5, 32 bit
)
VALUES = ("AppPath", "IniPath")


def installations() -> Iterator[tuple[Path, str]]:
    r"""Yield each folder that the registry names, and the value that names it.

    `AppPath` is the folder App, `IniPath` the file MDaemon.ini in it.
    """
    for key, values in _values():
        for value, path in values.items():
            folder = path.parent if path.suffix.lower() == ".ini" else path
            yield folder, rf"HKLM\{key} {value}"


def main_files() -> Iterator[tuple[Path, Path]]:
    """Yield the folder App and the file MDaemon.ini of each key that names both."""
    for _, values in _values():
        if values.keys() >= set(VALUES):
            yield values["AppPath"], values["IniPath"]


def machine_variables() -> list[str]:
    """Return the names of the environment variables that every account has."""
    path = r"SYSTEM\CurrentControlSet\Control\Session Manager\Environment"
    names: list[str] = []
    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, path) as key:
            while True:
                names.append(winreg.EnumValue(key, len(names))[0])
    except OSError:  # there is no such key, or no more value
        return names


def _values() -> Iterator[tuple[str, dict[str, Path]]]:
    for name in KEYS:
        values: dict[str, Path] = {}
        try:
            key = winreg.OpenKey(
                winreg.HKEY_LOCAL_MACHINE,
                name,
                access=winreg.KEY_READ | winreg.KEY_WOW64_64KEY,
            )
        except OSError:
            continue
        with key:
            for value in VALUES:
                try:
                    text, kind = winreg.QueryValueEx(key, value)
                except OSError:
                    continue
                if kind not in (winreg.REG_SZ, winreg.REG_EXPAND_SZ):
                    continue
                if text := text.strip(' "'):
                    values[value] = Path(winreg.ExpandEnvironmentStrings(text))
        yield name, values
