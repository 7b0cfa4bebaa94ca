"""Which drives and variables other accounts of the machine have, as Windows says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from letsencrypt_mdaemon.app import scheduling
from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.windows import drives

assert sys.platform == "win32"

import win32file  # noqa: E402 - Windows only

from letsencrypt_mdaemon.windows import registry  # noqa: E402

_REMOVE = 2  # DDD_REMOVE_DEFINITION


def test_a_local_drive_is_everybodys() -> None:
    assert drives.lacking(Path("C:\\windows"), drives.look) == ""


def test_a_drive_that_is_not_there_is_no_reason() -> None:
    assert drives.lacking(Path("Q:\\windows"), drives.look) == ""


def test_what_is_on_a_subst_drive_is_not_scheduled() -> None:
    win32file.DefineDosDevice(0, "R:", "C:\\windows")
    try:
        with pytest.raises(
            ConfigError, match=r"R:\\App.*C:\\windows \(subst\)"
        ) as caught:
            scheduling.require_drives(
                {"MDaemon's folder": Path("R:\\App"), "Python": Path("C:\\python.exe")}
            )
    finally:
        win32file.DefineDosDevice(_REMOVE, "R:", "C:\\windows")
    assert "C:\\python.exe" not in caught.value.message


def test_the_variables_of_the_machine_are_those_of_every_account() -> None:
    names = {name.upper() for name in registry.machine_variables()}
    assert "PATH" in names
    assert "USERNAME" not in names
