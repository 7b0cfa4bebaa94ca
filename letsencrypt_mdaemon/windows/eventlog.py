"""Windows' Application log, where administrators look for failures."""

from __future__ import annotations

import logging
import sys

assert sys.platform == "win32"  # noqa: S101 - tells the type checker

import winreg  # noqa: E402 - Windows only

import pywintypes  # noqa: E402
import win32evtlog  # noqa: E402
import win32evtlogutil  # noqa: E402

from letsencrypt_mdaemon.windows.security import as_os_errors  # noqa: E402

SOURCE = "letsencrypt-mdaemon"
SOURCES = r"SYSTEM\CurrentControlSet\Services\EventLog\Application"
# A program of Windows that contains a text "%1" for each event from 1 to 1000.
MESSAGES = r"%SystemRoot%\System32\EventCreate.exe"

_log = logging.getLogger(__name__)


def remove_source() -> bool:
    """Remove what `EventLog` registers; return whether it was there.

    Raises:
        OSError: If it cannot be removed.
    """
    try:
        winreg.DeleteKeyEx(winreg.HKEY_LOCAL_MACHINE, rf"{SOURCES}\{SOURCE}")
    except FileNotFoundError:
        return False
    return True


class EventLog:
    """The Application log."""

    def error(self, event: int, text: str) -> None:
        """Write one entry.

        Raises:
            OSError: If it cannot be written.
        """
        try:
            # Without this, Windows shows the entry below a warning of a missing text.
            win32evtlogutil.AddSourceToRegistry(SOURCE, MESSAGES)
        except pywintypes.error as exc:
            _log.debug("Could not register %s: %s", SOURCE, exc.strerror)
        kind = win32evtlog.EVENTLOG_ERROR_TYPE
        with as_os_errors():
            win32evtlogutil.ReportEvent(SOURCE, event, eventType=kind, strings=[text])
