"""A mode as Windows' access list, and paths of any length."""

from __future__ import annotations

import pytest

from letsencrypt_mdaemon.system import identity
from letsencrypt_mdaemon.windows import access
from letsencrypt_mdaemon.windows.access import ADMINISTRATORS, READ, SYSTEM

SERVICE = "S-1-5-21-1-2-3-1107"
USERS = "S-1-5-32-545"


@pytest.mark.parametrize("readers", [[], [SERVICE]])
def test_a_private_folder_is_for_system_administrators_and_those_named(
    readers: list[str],
) -> None:
    listed = identity.folder_list(0o700, readers)
    assert access.is_private(listed, readers)
    assert access.strangers(listed) == []
    for sid in (SYSTEM, ADMINISTRATORS, *readers):
        assert access.may(listed, sid, READ)
    inherited = access.entries(listed, inherited=True)
    assert inherited == access.entries(listed), "a file in it has the same"
    assert listed.startswith("D:P"), "it inherits nothing"


def test_a_folder_that_all_may_read_can_be_changed_by_nobody_else() -> None:
    listed = identity.folder_list(0o755)
    assert access.may(listed, USERS, READ)
    assert access.strangers(listed) == []


LONG = "\\".join(["folder"] * 40)


@pytest.mark.parametrize(
    ("path", "room", "found"),
    [
        (r"C:\MDaemon\App", 0, r"C:\MDaemon\App"),
        (r"C:\MDaemon\App", 300, "\\\\?\\C:\\MDaemon\\App"),
        (f"C:\\{LONG}", 0, f"\\\\?\\C:\\{LONG}"),
        (f"\\\\server\\share\\{LONG}", 0, f"\\\\?\\UNC\\server\\share\\{LONG}"),
        (f"\\\\?\\C:\\{LONG}", 0, f"\\\\?\\C:\\{LONG}"),
        (LONG, 0, LONG),
    ],
)
def test_a_path_that_is_too_long_for_windows_gets_the_form_without_limit(
    path: str, room: int, found: str
) -> None:
    assert identity.extended(path, room) == found
