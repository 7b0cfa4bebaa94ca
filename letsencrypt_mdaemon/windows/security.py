"""Access lists of files and folders, accounts, and encryption (DPAPI), by pywin32.

Whatever Windows refuses raises `OSError`, with its code and message.
"""

from __future__ import annotations

import logging
import re
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

assert sys.platform == "win32"  # noqa: S101 - tells the type checker

import pywintypes  # noqa: E402 - Windows only
import win32api  # noqa: E402
import win32con  # noqa: E402
import win32crypt  # noqa: E402
import win32file  # noqa: E402
import win32security  # noqa: E402

from letsencrypt_mdaemon.windows import access  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from _win32typing import PySECURITY_DESCRIPTOR

_log = logging.getLogger(__name__)

DACL = win32security.DACL_SECURITY_INFORMATION
OWNER = win32security.OWNER_SECURITY_INFORMATION
_ALREADY_EXISTS = 183
# dpapi.h: every account that runs the program has to read it, without a dialog.
UI_FORBIDDEN, LOCAL_MACHINE = 0x1, 0x4


@contextmanager
def as_os_errors() -> Iterator[None]:
    """Turn pywin32's errors into Python's."""
    try:
        yield
    except pywintypes.error as exc:
        text = f"{exc.strerror} ({exc.funcname})"
        raise OSError(None, text, None, exc.winerror) from exc


def as_text(descriptor: PySECURITY_DESCRIPTOR | bytes, parts: int = DACL) -> str:
    """Return the access list of a security descriptor, or of its bytes, as SDDL.

    Windows writes some SIDs as two letters, of which a few name another account on each
    machine and in each domain, such as `LA`. They are replaced by the SIDs.

    Args:
        parts: What to return of it.
    """
    make: Any = pywintypes.SECURITY_DESCRIPTOR  # its stub takes no arguments
    with as_os_errors():
        found = make(descriptor) if isinstance(descriptor, bytes) else descriptor
        text = win32security.ConvertSecurityDescriptorToStringSecurityDescriptor(
            found, win32security.SDDL_REVISION_1, parts
        )
    return re.sub(r"(?<=;)[A-Z]{2}(?=\))|(?<=\AO:)[A-Z]{2}", _without_alias, text)


def _without_alias(match: re.Match[str]) -> str:
    with suppress(pywintypes.error):
        sid = win32security.ConvertStringSidToSid(match[0])
        return win32security.ConvertSidToStringSid(sid)
    return match[0]


def from_text(text: str) -> PySECURITY_DESCRIPTOR:
    """Return the security descriptor of a text in SDDL."""
    with as_os_errors():
        return win32security.ConvertStringSecurityDescriptorToSecurityDescriptor(
            text, win32security.SDDL_REVISION_1
        )


def as_bytes(text: str) -> bytes:
    """Return the security descriptor of a text in SDDL, as bytes for Windows."""
    descriptor: Any = from_text(text)  # its stub does not know that it is a buffer
    return bytes(memoryview(descriptor))


class Folder:
    """The access list of a file or a folder: `access.Guarded`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def access_list(self) -> str:
        """Return owner and access list as SDDL."""
        with as_os_errors():
            found = win32security.GetNamedSecurityInfo(
                str(self.path), win32security.SE_FILE_OBJECT, OWNER | DACL
            )
        return as_text(found, OWNER | DACL)

    def set_access_list(self, text: str) -> None:
        """Replace owner and list; it inherits nothing from the folder above."""
        wanted = from_text(text)
        with as_os_errors():
            win32security.SetNamedSecurityInfo(
                str(self.path),
                win32security.SE_FILE_OBJECT,
                OWNER | DACL | win32security.PROTECTED_DACL_SECURITY_INFORMATION,
                wanted.GetSecurityDescriptorOwner(),
                None,
                wanted.GetSecurityDescriptorDacl(),
                None,
            )


def make_folder(path: Path, text: str) -> None:
    """Make a folder, and missing ones above it, with owner and list from the start."""
    if path.is_dir():
        return
    make_folder(path.parent, text)
    attributes = win32security.SECURITY_ATTRIBUTES()
    attributes.SECURITY_DESCRIPTOR = from_text(text)
    try:
        with as_os_errors():
            win32file.CreateDirectory(str(path), attributes)
    except OSError as exc:
        if exc.winerror != _ALREADY_EXISTS:
            raise


def is_administrator() -> bool:
    """Whether this process has the rights of the administrators."""
    with as_os_errors():
        sid = win32security.ConvertStringSidToSid(access.ADMINISTRATORS)
        return bool(win32security.CheckTokenMembership(0, sid))


def own_sid() -> str:
    """Return the SID of the account that runs this process: `S-1-...`."""
    with as_os_errors():
        token = win32security.OpenProcessToken(
            win32api.GetCurrentProcess(), win32con.TOKEN_QUERY
        )
        sid, _ = win32security.GetTokenInformation(token, win32security.TokenUser)
        return win32security.ConvertSidToStringSid(sid)


def sid_of(account: str) -> str:
    r"""Return an account's SID, also of `LocalSystem` and `.\name` as services have.

    Raises:
        OSError: If there is no such account.
    """
    if known := access.SERVICE_ACCOUNTS.get(account.lower()):
        return known
    name = account
    if name.startswith(".\\"):
        name = win32api.GetComputerName() + name[1:]
    with as_os_errors():
        sid, _, _ = win32security.LookupAccountName(None, name)
        return win32security.ConvertSidToStringSid(sid)


def name_of(sid: str) -> str:
    """Return the account name of a SID; the SID itself if there is none."""
    try:
        with as_os_errors():
            found = win32security.LookupAccountSid(
                None, win32security.ConvertStringSidToSid(sid)
            )
    except OSError:
        return sid
    name, domain, _ = found
    return f"{domain}\\{name}" if domain else name


def readers_of(path: Path) -> list[str] | None:
    """Return the names of the accounts that can read a file; None if it is unknown."""
    try:
        listed = Folder(path).access_list()
        return [
            access.EVERYBODY.get(sid) or name_of(sid) for sid in access.readers(listed)
        ]
    except (OSError, ValueError) as exc:
        _log.debug("Could not read who can read %s: %s", path, exc)
        return None


class MachineSeal:
    """Encrypts for this machine, whatever the account: `state.folder.Seal`."""

    def close(self, data: bytes) -> bytes:
        """Return the data encrypted."""
        flags = UI_FORBIDDEN | LOCAL_MACHINE
        with as_os_errors():
            return win32crypt.CryptProtectData(data, "", None, None, None, flags)

    def open(self, data: bytes) -> bytes:
        """Return what `close` was given.

        Raises:
            ValueError: If another machine encrypted it, or it is damaged.
        """
        flags = UI_FORBIDDEN
        try:
            _, found = win32crypt.CryptUnprotectData(data, None, None, None, flags)
        except pywintypes.error as exc:
            raise ValueError(f"it cannot be decrypted: {exc.strerror}") from exc
        return found
