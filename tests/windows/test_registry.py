"""Where Windows' registry says that MDaemon is, as an installation writes it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from letsencrypt_mdaemon.app import build
from letsencrypt_mdaemon.config.parsers import parse_path
from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.mdaemon import folders
from letsencrypt_mdaemon.windows import access

assert sys.platform == "win32"  # tells the type checker

import winreg  # noqa: E402 - Windows only

from letsencrypt_mdaemon.windows import registry, security  # noqa: E402

NATIVE, OF_32_BITS = registry.KEYS
Value = int | str | bytes | list[str]
Write = Callable[..., None]


@pytest.fixture
def write() -> Iterator[Write]:
    """Return what writes a value below HKLM; in the end the keys are gone."""
    access = winreg.KEY_ALL_ACCESS | winreg.KEY_WOW64_64KEY

    def put(key: str, name: str, value: Value, kind: int = winreg.REG_SZ) -> None:
        with winreg.CreateKeyEx(
            winreg.HKEY_LOCAL_MACHINE, key, access=access
        ) as handle:
            winreg.SetValueEx(handle, name, 0, kind, value)

    yield put
    for key in (NATIVE, OF_32_BITS):
        with suppress(FileNotFoundError):
            winreg.DeleteKeyEx(winreg.HKEY_LOCAL_MACHINE, key, access)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return the folder of an MDaemon."""
    (tmp_path / "Mail Server" / "APP").mkdir(parents=True)
    (tmp_path / "Mail Server" / "APP" / "MDaemon.ini").write_bytes(b"")
    return tmp_path / "Mail Server"


def found() -> Path:
    return folders.find(folders.places(None, ""))


def test_the_demo_refuses_system_where_the_registry_has_an_mdaemon(
    root: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(NATIVE, "AppPath", f"{root}\\APP\\")
    build.refuse_demo(None)  # an administrator
    monkeypatch.setattr(security, "own_sid", lambda: access.SYSTEM)

    with pytest.raises(ConfigError, match="does not run as SYSTEM"):
        build.refuse_demo(None)


def test_the_folder_of_app_ends_in_a_backslash(root: Path, write: Write) -> None:
    write(NATIVE, "AppPath", f"{root}\\APP\\")

    assert found() == root
    assert list(registry.installations()) == [(root / "APP", rf"HKLM\{NATIVE} AppPath")]


def test_the_ini_file_tells_the_folder_too(root: Path, write: Write) -> None:
    write(NATIVE, "IniPath", f"{root}\\App\\MDaemon.ini")

    assert found() == root


def test_an_old_mdaemon_of_32_bits_is_found(root: Path, write: Write) -> None:
    write(OF_32_BITS, "AppPath", f"{root}\\App\\")

    assert found() == root


def test_a_variable_in_a_path_is_expanded(
    root: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAIL_SERVER", str(root))

    write(NATIVE, "AppPath", "%MAIL_SERVER%\\App\\", winreg.REG_EXPAND_SZ)

    assert found() == root


def test_quotes_around_a_path_are_no_part_of_it(root: Path, write: Write) -> None:
    write(NATIVE, "AppPath", f'"{root}\\App\\"')

    assert found() == root


def test_one_that_is_gone_is_passed_over(root: Path, write: Write) -> None:
    write(NATIVE, "AppPath", "D:\\Former\\App\\")
    write(OF_32_BITS, "AppPath", f"{root}\\App\\")

    assert found() == root


def test_without_any_key_only_the_default_folder_is_left() -> None:
    assert folders.places(None, "") == [
        folders.Place(folders.DEFAULT, "the default folder")
    ]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("", winreg.REG_SZ),
        ("  ", winreg.REG_SZ),
        ('""', winreg.REG_SZ),
        (7, winreg.REG_DWORD),
        (b"C:\\", winreg.REG_BINARY),
        (["C:\\MDaemon"], winreg.REG_MULTI_SZ),
    ],
)
def test_a_value_that_is_no_path_is_none(write: Write, value: Value, kind: int) -> None:
    write(NATIVE, "AppPath", value, kind)

    assert list(registry.installations()) == []


@pytest.mark.parametrize("value", ["<>|?*", "x" * 5000, "C:\\a\0b", "\\\\"])
def test_a_path_that_cannot_be_is_told_with_the_value_that_names_it(
    write: Write, value: str
) -> None:
    write(NATIVE, "AppPath", value)

    with pytest.raises(ConfigError, match="Could not find MDaemon") as caught:
        found()

    assert rf"HKLM\{NATIVE} AppPath" in caught.value.message


def test_the_main_file_may_be_elsewhere(
    root: Path, tmp_path: Path, write: Write
) -> None:
    elsewhere = tmp_path / "Config" / "MDaemon.ini"
    elsewhere.parent.mkdir()
    write(NATIVE, "AppPath", f"{root}\\App\\")
    write(NATIVE, "IniPath", str(elsewhere))
    assert folders.main_ini(root) == root / "App" / "MDaemon.ini"

    elsewhere.write_bytes(b"")

    assert folders.main_ini(root) == elsewhere
    assert folders.file_below(root, elsewhere.as_posix()) == elsewhere
    assert found() == root


@pytest.mark.parametrize("text", ["C:MDaemon", 'C:\\MDaemon"', "C:\\MDaemon"])
def test_a_path_may_be_written_as_a_prompt_leaves_it(text: str) -> None:
    assert parse_path(text, Path("D:/elsewhere")) == Path("C:/MDaemon")


HASH = "AB" * 20
RDP = r"SYSTEM\CurrentControlSet\Control\Terminal Server\WinStations"
WSMAN = r"SOFTWARE\Microsoft\Windows\CurrentVersion\WSMAN"


@pytest.fixture
def services() -> Iterator[Write]:
    """Return what writes a value of a service; in the end the new keys are gone."""
    access = winreg.KEY_ALL_ACCESS | winreg.KEY_WOW64_64KEY
    made: list[str] = []

    def put(key: str, name: str, value: Value, kind: int) -> None:
        made.append(key)
        with winreg.CreateKeyEx(
            winreg.HKEY_LOCAL_MACHINE, key, access=access
        ) as handle:
            winreg.SetValueEx(handle, name, 0, kind, value)

    yield put
    for key in made:
        winreg.DeleteKeyEx(winreg.HKEY_LOCAL_MACHINE, key, access)


@pytest.mark.parametrize(
    ("place", "value", "service"),
    [
        (rf"{RDP}\Test-Tcp SSLCertificateSHA1Hash", b"\xab" * 20, "Remote Desktop"),
        (rf"{WSMAN}\Listener\*+TEST certThumbprint", "ab " * 20, "WinRM"),
    ],
)
def test_certificates_of_other_services_are_found(
    services: Write, place: str, value: str | bytes, service: str
) -> None:
    key, _, name = place.rpartition(" ")
    assert HASH not in registry.certificates()
    is_text = isinstance(value, str)
    services(key, name, value, winreg.REG_SZ if is_text else winreg.REG_BINARY)
    assert registry.certificates()[HASH] == service
    # Whatever the settings: netsh is asked besides, and has nothing here.
    assert build.other_users()[HASH] == service
