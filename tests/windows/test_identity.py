"""Owner, access list and attributes are kept; Windows' answers stand for Wine's."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from letsencrypt_mdaemon.app import setup
from letsencrypt_mdaemon.stores.pem import PemStore
from letsencrypt_mdaemon.system import disk, files, handles, identity
from letsencrypt_mdaemon.windows import access
from tests.certificates import certificate
from tests.wine import wine_differs

assert sys.platform == "win32"

import win32con  # noqa: E402 - Windows only
import win32file  # noqa: E402
import win32security  # noqa: E402

from letsencrypt_mdaemon.windows import security  # noqa: E402

SERVICE = "S-1-5-21-9-9-9-1107"
OWN_LIST = f"O:{SERVICE}D:PAI(A;;FA;;;SY)(A;;FA;;;BA)(A;;0x1301bf;;;{SERVICE})"
MIXED = f"O:BAD:AI(A;;0x1301bf;;;{SERVICE})(A;ID;FA;;;SY)(A;ID;0x1200a9;;;BU)"
INHERITED = "O:BAD:AI(A;ID;FA;;;SY)(A;ID;FA;;;BA)(A;ID;0x1200a9;;;BU)"
WITHOUT = "O:BAD:NO_ACCESS_CONTROL"
Write = Callable[[Path], None]
_OWNER = win32security.OWNER_SECURITY_INFORMATION
_LIST = win32security.DACL_SECURITY_INFORMATION


class Lists:
    """What Windows is told about access lists, and what it answers.

    Args:
        shown: The owner and list of every file, as SDDL.
    """

    def __init__(self, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shown = shown
        self.given: list[tuple[str, int, str]] = []
        self.refuses = False
        monkeypatch.setattr(win32security, "GetSecurityInfo", self.show)
        monkeypatch.setattr(win32security, "SetNamedSecurityInfo", self.take)

    def show(self, *_: object) -> Any:  # noqa: ANN401
        return security.from_text(self.shown)

    def take(self, path: str, kind: int, parts: int, *what: Any) -> None:  # noqa: ANN401
        owner, group, listed, audit = what
        assert (kind, group, audit) == (win32security.SE_FILE_OBJECT, None, None)
        if self.refuses:
            raise win32security.error(5, "SetNamedSecurityInfo", "Access is denied.")
        assert Path(path).exists()
        made = win32security.SECURITY_DESCRIPTOR()
        if owner is not None:
            made.SetSecurityDescriptorOwner(owner, False)  # noqa: FBT003
        if listed is not None:
            made.SetSecurityDescriptorDacl(True, listed, False)  # noqa: FBT003
        text = security.as_text(made, parts & (_OWNER | _LIST))
        self.given.append((Path(path).name, parts, text))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "MDaemon.ini"
    path.write_bytes(b"old")
    return path


def replace(file: Path) -> None:
    """Replace what a file holds, as INI files are."""
    edits = files.Edits(
        {file: lambda _: b"new"},
        read=lambda path: disk.read_limited(path, 1 << 20),
        merge=lambda *contents: contents[-1],
    )
    edits.make()
    edits.settle()


def configure(file: Path) -> None:
    """Replace what a file holds, as `setup` does."""
    setup.write_config(file, b"new")


WAYS = pytest.mark.parametrize("write", [replace, configure])


@WAYS
@pytest.mark.parametrize(
    ("shown", "how"),
    [
        (OWN_LIST, win32security.PROTECTED_DACL_SECURITY_INFORMATION),
        (MIXED, win32security.UNPROTECTED_DACL_SECURITY_INFORMATION),
        (INHERITED, 0),
        (WITHOUT, 0),
    ],
)
def test_a_replaced_file_keeps_its_owner_and_its_own_list(
    file: Path, monkeypatch: pytest.MonkeyPatch, write: Write, shown: str, how: int
) -> None:
    lists = Lists(shown, monkeypatch)

    write(file)

    assert file.read_bytes() == b"new"
    rows = {parts: text for _, parts, text in lists.given}
    assert all(name.endswith(".tmp") for name, _, _ in lists.given), "before the swap"
    owner = rows.pop(_OWNER)
    assert access.owner(owner) == access.owner(shown)
    assert set(rows) == ({_LIST | how} if how else set())
    for text in rows.values():
        assert access.entries(text) == access.entries(shown)


@WAYS
def test_a_file_whose_list_cannot_be_kept_is_not_replaced(
    file: Path, monkeypatch: pytest.MonkeyPatch, write: Write
) -> None:
    lists = Lists(OWN_LIST, monkeypatch)
    lists.refuses = True

    with pytest.raises(Exception, match=r"Could not write .*Access is denied"):
        write(file)

    assert file.read_bytes() == b"old"
    assert list(file.parent.iterdir()) == [file]


@WAYS
def test_a_replaced_file_stays_hidden(file: Path, write: Write) -> None:
    hidden = win32con.FILE_ATTRIBUTE_HIDDEN | win32con.FILE_ATTRIBUTE_SYSTEM
    win32file.SetFileAttributes(str(file), hidden)

    write(file)

    assert file.read_bytes() == b"new"
    assert win32file.GetFileAttributes(str(file)) & hidden == hidden


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return the access list with which each folder is made, by its name."""
    made: dict[str, str] = {}
    make = identity.make_folder

    def note(path: str, listed: str) -> None:
        made[Path(path).name] = listed
        make(path, listed)

    monkeypatch.setattr(identity, "make_folder", note)
    return made


def test_a_folder_for_private_keys_is_private_and_the_service_can_read_it(
    tmp_path: Path, made: dict[str, str]
) -> None:
    own = certificate()
    store = PemStore(tmp_path / "keys", readers=[SERVICE])

    store.install(own)

    assert store.is_key_usable(own.thumbprint)
    assert made.keys() == {"keys", f".unfinished {own.friendly_name}"}
    for listed in made.values():
        assert access.is_private(listed, [SERVICE])
        assert access.may(listed, SERVICE, access.READ)
        assert access.strangers(listed) == []


def test_a_private_folder_is_made_at_once_and_a_file_in_its_place_is_told(
    tmp_path: Path, made: dict[str, str]
) -> None:
    disk.make_private_folder(tmp_path / "one" / "two")
    disk.make_private_folder(tmp_path / "one" / "two")
    assert (tmp_path / "one" / "two").is_dir()
    assert made.keys() == {"one", "two"}
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        disk.make_private_folder(tmp_path / "file")


def test_who_can_read_a_key_in_a_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = "O:BAD:AI(A;ID;FA;;;SY)(A;ID;FA;;;BA)(A;ID;0x1200a9;;;BU)"
    monkeypatch.setattr(security.Folder, "access_list", lambda _: listed)
    own = certificate()
    store = PemStore(tmp_path, readers_of=security.readers_of)
    store.install(own)

    found = store.key_readers(own.thumbprint)

    assert found is not None
    assert "Users" in found
    assert len(found) == 3


@pytest.mark.parametrize(
    ("account", "sid"),
    [
        ("LocalSystem", "S-1-5-18"),
        (r".\LocalSystem", "S-1-5-18"),
        (r"NT AUTHORITY\LocalService", "S-1-5-19"),
        (r"NT Authority\NetworkService", "S-1-5-20"),
    ],
)
def test_an_account_of_windows_is_known_in_any_language(
    account: str, sid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object) -> None:
        raise win32security.error(1332, "LookupAccountName", "No mapping was done.")

    monkeypatch.setattr(win32security, "LookupAccountName", unknown)
    assert security.sid_of(account) == sid
    with pytest.raises(OSError, match="No mapping"):
        security.sid_of("SYSTEM2")


@wine_differs("Wine does not return the final path of a long one")
def test_a_path_longer_than_windows_usually_takes_is_written_and_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []
    opening = os.open

    def noting(path: Any, *more: Any, **named: Any) -> int:  # noqa: ANN401
        used.append(str(path))
        return opening(path, *more, **named)

    monkeypatch.setattr(os, "open", noting)
    folder = tmp_path.joinpath(*["a folder with a long name"] * 12)
    assert len(str(folder)) > 260
    disk.make_private_folder(folder)
    disk.write_private(folder / "file", b"new")
    assert disk.read_limited(folder / "file", 10) == b"new"
    assert all(path.startswith("\\\\?\\") for path in used if "file" in path)
    (handles.extended(folder) / f".file.{'0' * 12}.tmp").touch()
    disk.sweep(tmp_path)
    assert [path.name for path in handles.extended(folder).iterdir()] == ["file"]
