"""The machine's PATH in the registry, and the event source."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

assert sys.platform == "win32"  # tells the type checker

import winreg  # noqa: E402 - Windows only

from letsencrypt_mdaemon.app import footprint  # noqa: E402
from letsencrypt_mdaemon.errors import Error  # noqa: E402
from letsencrypt_mdaemon.windows import environment, eventlog  # noqa: E402

OURS = Path(r"C:\Program Files\letsencrypt-mdaemon")
LONG = ";".join(rf"%SystemRoot%\folder {number}" for number in range(200))
Value = str | bytes
Read = Callable[[], tuple[Value, int]]
Write = Callable[[Value, int], None]


def read() -> tuple[Value, int]:
    with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, environment.KEY) as key:
        value, kind = winreg.QueryValueEx(key, "Path")
        return value, kind


@pytest.fixture
def write() -> Iterator[Write]:
    """Return what sets PATH; in the end it is what it was."""
    before, kind = read()
    key = winreg.OpenKey(
        winreg.HKEY_LOCAL_MACHINE, environment.KEY, access=winreg.KEY_SET_VALUE
    )
    with key:
        yield lambda value, kind: winreg.SetValueEx(key, "Path", 0, kind, value)
        winreg.SetValueEx(key, "Path", 0, kind, before)


@pytest.mark.parametrize("kind", [winreg.REG_SZ, winreg.REG_EXPAND_SZ])
def test_a_long_path_keeps_its_entries_and_its_kind(write: Write, kind: int) -> None:
    assert len(LONG) > 4000
    write(LONG, kind)

    assert footprint.add_to_path(OURS) == [f"added {OURS} to PATH"]
    assert read() == (f"{LONG};{OURS}", kind)
    assert footprint.add_to_path(OURS) == []
    assert footprint.remove_from_path(OURS) == [f"removed {OURS} from PATH"]
    assert footprint.remove_from_path(OURS) == []

    assert read() == (LONG, kind)


def test_a_path_that_is_no_text_is_left_alone(write: Write) -> None:
    write(b"C:\\\0", winreg.REG_BINARY)

    with pytest.raises(Error, match="Could not change PATH: PATH is no text"):
        footprint.add_to_path(OURS)

    assert read() == (b"C:\\\0", winreg.REG_BINARY)


def test_the_event_source_is_removed_and_no_other() -> None:
    eventlog.EventLog().error(5, "text")
    other = rf"{eventlog.SOURCES}\{eventlog.SOURCE}-2"
    winreg.CreateKey(winreg.HKEY_LOCAL_MACHINE, other)

    assert footprint.remove_event_source() == ["removed the event source"]
    assert footprint.remove_event_source() == []

    winreg.DeleteKey(winreg.HKEY_LOCAL_MACHINE, other)
