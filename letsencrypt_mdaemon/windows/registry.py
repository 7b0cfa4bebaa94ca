"""What Windows' registry says: MDaemon's folders, services, and variables."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

assert sys.platform == "win32"  # noqa: S101 - tells the type checker

import winreg  # noqa: E402 - Windows only

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONNECTIONS = r"SYSTEM\CurrentControlSet\Control\Terminal Server\WinStations"
_WSMAN = r"SOFTWARE\Microsoft\Windows\CurrentVersion\WSMAN"

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
            key = _opened(name)
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


def certificates() -> dict[str, str]:
    """Return the service that uses a certificate, by its thumbprint.

    Remote Desktop keeps it for each connection as `SSLCertificateSHA1Hash`, WinRM for
    each listener, and for itself.

    Raises:
        OSError: If the registry cannot be read.
    """
    found = {}
    for where in [_CONNECTIONS, *_children(_CONNECTIONS)]:
        data = _value(where, "SSLCertificateSHA1Hash")
        if isinstance(data, bytes):
            found[data.hex().upper()] = "Remote Desktop"
    for where in [rf"{_WSMAN}\Service", *_children(rf"{_WSMAN}\Listener")]:
        for name in ("certThumbprint", "CertificateThumbprint"):
            if isinstance(text := _value(where, name), str):
                found["".join(text.split()).upper()] = "WinRM"
    return found


def _children(name: str) -> list[str]:
    with suppress(FileNotFoundError), _opened(name) as key:
        count, _, _ = winreg.QueryInfoKey(key)
        return [rf"{name}\{winreg.EnumKey(key, index)}" for index in range(count)]
    return []


def _value(name: str, value: str) -> object:
    with suppress(FileNotFoundError), _opened(name) as key:
        data: object = winreg.QueryValueEx(key, value)[0]
        return data
    return None


def _opened(name: str) -> winreg.HKEYType:
    access = winreg.KEY_READ | winreg.KEY_WOW64_64KEY
    return winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, name, access=access)
