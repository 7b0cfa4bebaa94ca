"""Access lists: of fakes everywhere, of folders and keys on Windows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from letsencrypt_mdaemon.errors import DeployError
from letsencrypt_mdaemon.pki.certificate import new_key, thumbprint
from letsencrypt_mdaemon.windows import access
from letsencrypt_mdaemon.windows.access import ADMINISTRATORS, READ, SYSTEM, Guarded
from tests.wine import expect_difference

SOMEBODY = "S-1-5-21-1-2-3-1001"
OPEN = "D:AI(A;OICIID;FA;;;SY)(A;OICIID;FA;;;BA)(A;OICIID;0x1301bf;;;AU)"
MACHINE_KEY = "D:PAI(A;;GAGR;;;SY)(A;;GAGR;;;BA)"


class Listed:
    """Something with an access list: `access.Guarded`.

    Args:
        deaf: Whether it takes a new list and keeps the old one.
    """

    def __init__(self, text: str, *, deaf: bool = False) -> None:
        self.text = text
        self.deaf = deaf

    def access_list(self) -> str:
        """Return it."""
        return self.text

    def set_access_list(self, text: str) -> None:
        """Replace it."""
        if not self.deaf:
            self.text = text


Make = Callable[[Path], Guarded]


def a_fake_folder(_: Path) -> Guarded:
    return Listed(OPEN)


def a_fake_key(_: Path) -> Guarded:
    return Listed(MACHINE_KEY)


FOLDERS: list[Make] = [a_fake_folder]
KEYS: list[Make] = [a_fake_key]

if sys.platform == "win32":
    from letsencrypt_mdaemon.stores.windows import WindowsStore
    from letsencrypt_mdaemon.windows.key_access import Key
    from letsencrypt_mdaemon.windows.security import Folder
    from tests.certificates import certificate

    def a_real_folder(folder: Path) -> Guarded:
        return Folder(folder)

    def a_real_key(_: Path) -> Guarded:
        own = certificate(own_key=new_key("rsa2048"))
        WindowsStore(readers=[]).install(own)
        place = WindowsStore().key_place(own.thumbprint)
        assert place is not None
        return Key(place)

    FOLDERS.append(a_real_folder)
    KEYS.append(a_real_key)


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    if sys.platform == "win32":
        for leaf, name in list(WindowsStore().certificates()):
            if name.startswith("letsencrypt-mdaemon"):
                WindowsStore().remove(thumbprint(leaf))


@pytest.mark.parametrize("make", FOLDERS)
def test_a_folder_of_ours_becomes_private_and_stays_so(
    request: pytest.FixtureRequest, make: Make, tmp_path: Path
) -> None:
    if "real" in make.__name__:
        expect_difference(request, "Wine takes a new list and keeps the old one")
    folder = make(tmp_path)
    access.keep_private(folder, [SOMEBODY], ADMINISTRATORS)
    listed = folder.access_list()
    assert access.is_private(listed, [SOMEBODY])
    assert access.may(listed, SOMEBODY, READ)
    assert not access.strangers(listed, [SOMEBODY])
    assert access.owner(listed) == ADMINISTRATORS
    access.keep_private(folder, [SOMEBODY], ADMINISTRATORS)
    assert folder.access_list() == listed


@pytest.mark.parametrize("make", KEYS)
def test_who_has_to_read_a_key_can_and_the_others_still_can(
    make: Make, tmp_path: Path
) -> None:
    key = make(tmp_path)
    access.let_read(key, [SYSTEM, ADMINISTRATORS, SOMEBODY])
    for sid in (SYSTEM, ADMINISTRATORS, SOMEBODY):
        assert access.may(key.access_list(), sid, READ)
    listed = key.access_list()
    access.let_read(key, [SYSTEM, SOMEBODY])
    assert key.access_list() == listed


def test_a_list_that_is_not_kept_is_an_error_and_not_believed() -> None:
    with pytest.raises(DeployError, match=SOMEBODY):
        access.let_read(Listed(MACHINE_KEY, deaf=True), [SOMEBODY])
    with pytest.raises(DeployError, match="Others may still"):
        access.keep_private(Listed(OPEN, deaf=True), [], ADMINISTRATORS)
