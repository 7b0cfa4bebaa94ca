"""Show, as JSON, what a setup program writes into the registry; Windows runs this.

With an argument, first make it the machine's PATH, as text with names to expand.
"""

from __future__ import annotations

import json
import sys

assert sys.platform == "win32"

import winreg  # noqa: E402 - Windows only

MACHINE = winreg.HKEY_LOCAL_MACHINE
CONTROL = r"SYSTEM\CurrentControlSet"
PATH = rf"{CONTROL}\Control\Session Manager\Environment"
SOURCE = rf"{CONTROL}\Services\EventLog\Application\letsencrypt-mdaemon"
ENTRY = r"Software\Microsoft\Windows\CurrentVersion\Uninstall\letsencrypt-mdaemon"


def values(name: str) -> dict[str, tuple[object, int]] | None:
    """Return the values of a key, each with its kind; None if there is no such key."""
    try:
        key = winreg.OpenKey(MACHINE, name)
    except FileNotFoundError:
        return None
    with key:
        rows = [winreg.EnumValue(key, at) for at in range(winreg.QueryInfoKey(key)[1])]
    return {name: (value, kind) for name, value, kind in rows}


if sys.argv[1:]:
    with winreg.OpenKey(MACHINE, PATH, access=winreg.KEY_SET_VALUE) as environment:
        winreg.SetValueEx(environment, "Path", 0, winreg.REG_EXPAND_SZ, sys.argv[1])
path = {name.lower(): row for name, row in (values(PATH) or {}).items()}["path"]
shown = {"path": path, "entry": values(ENTRY), "source": values(SOURCE) is not None}
print(json.dumps(shown))  # noqa: T201
