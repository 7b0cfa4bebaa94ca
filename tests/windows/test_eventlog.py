"""A failure is found in Windows' Application log."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.wine import wine_differs

assert sys.platform == "win32"  # tells the type checker

import winreg  # noqa: E402 - Windows only

import pywintypes  # noqa: E402
import win32con  # noqa: E402
import win32evtlog  # noqa: E402
import win32evtlogutil  # noqa: E402

from letsencrypt_mdaemon.windows import eventlog  # noqa: E402

KEY = rf"SYSTEM\CurrentControlSet\Services\EventLog\Application\{eventlog.SOURCE}"
TEXT = "Größe – ✓ was not taken.\r\nTry again."


@pytest.fixture(autouse=True)
def source() -> Iterator[None]:
    yield
    win32evtlogutil.RemoveSourceFromRegistry(eventlog.SOURCE)


def test_the_source_shows_its_events_by_a_program_of_windows() -> None:
    eventlog.EventLog().error(5, TEXT)

    with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, KEY) as key:
        value, kind = winreg.QueryValueEx(key, "EventMessageFile")
    assert kind == winreg.REG_EXPAND_SZ
    assert value == r"%SystemRoot%\System32\EventCreate.exe"


def test_an_entry_is_written_though_the_source_cannot_be_registered(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise pywintypes.error(5, "RegCreateKey", "Access is denied.")

    monkeypatch.setattr(win32evtlogutil, "AddSourceToRegistry", refuse)
    caplog.set_level("DEBUG")

    eventlog.EventLog().error(5, TEXT)

    assert "Could not register letsencrypt-mdaemon: Access is denied." in caplog.text


def test_a_log_that_takes_nothing_is_an_error_of_the_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise pywintypes.error(1502, "ReportEvent", "The event log file is full.")

    monkeypatch.setattr(win32evtlogutil, "ReportEvent", refuse)

    with pytest.raises(OSError, match="is full"):
        eventlog.EventLog().error(5, TEXT)


@wine_differs("its event log takes entries, and gives none back")
def test_the_entry_is_an_error_with_our_number_and_text() -> None:
    eventlog.EventLog().error(5, TEXT)

    handle = win32evtlog.OpenEventLog(None, "Application")
    flags = win32con.EVENTLOG_BACKWARDS_READ | win32con.EVENTLOG_SEQUENTIAL_READ
    newest = next(
        entry
        for entry in win32evtlog.ReadEventLog(handle, flags, 0)
        if entry.SourceName == eventlog.SOURCE
    )
    win32evtlog.CloseEventLog(handle)
    assert newest.EventType == win32evtlog.EVENTLOG_ERROR_TYPE
    assert newest.EventID & 0xFFFF == 5
    assert list(newest.StringInserts) == [TEXT]
