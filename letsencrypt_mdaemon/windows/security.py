"""Access lists of files and folders, and who we are: pywin32's win32security."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

assert sys.platform == "win32"  # noqa: S101 - tells the type checker

import pywintypes  # noqa: E402 - Windows only
import win32api  # noqa: E402
import win32con  # noqa: E402
import win32security  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from _win32typing import PySECURITY_DESCRIPTOR

DACL = win32security.DACL_SECURITY_INFORMATION


@contextmanager
def told() -> Iterator[None]:
    """Turn pywin32's errors into Python's.

    Raises:
        OSError: With Windows' code and words.
    """
    try:
        yield
    except pywintypes.error as exc:
        text = f"{exc.strerror} ({exc.funcname})"
        raise OSError(None, text, None, exc.winerror) from exc


def as_text(descriptor: PySECURITY_DESCRIPTOR) -> str:
    """Return the access list of a security descriptor as SDDL.

    Raises:
        OSError: If it is none.
    """
    with told():
        return win32security.ConvertSecurityDescriptorToStringSecurityDescriptor(
            descriptor, win32security.SDDL_REVISION_1, DACL
        )


def from_bytes(data: bytes) -> PySECURITY_DESCRIPTOR:
    """Return a security descriptor that Windows gave as bytes.

    Raises:
        OSError: If it is none.
    """
    make: Any = pywintypes.SECURITY_DESCRIPTOR  # its stub takes no arguments
    with told():
        descriptor: PySECURITY_DESCRIPTOR = make(data)
    return descriptor


def from_text(text: str) -> PySECURITY_DESCRIPTOR:
    """Return a security descriptor.

    Raises:
        OSError: If the text is no SDDL.
    """
    with told():
        return win32security.ConvertStringSecurityDescriptorToSecurityDescriptor(
            text, win32security.SDDL_REVISION_1
        )


def as_bytes(text: str) -> bytes:
    """Return a security descriptor as Windows wants it in bytes.

    Raises:
        OSError: If the text is no SDDL.
    """
    descriptor: Any = from_text(text)  # its stub does not know that it is a buffer
    return bytes(memoryview(descriptor))


class Folder:
    """A file or a folder, and its access list: `access.Guarded`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def access_list(self) -> str:
        """Return it as SDDL.

        Raises:
            OSError: If it cannot be read.
        """
        with told():
            found = win32security.GetNamedSecurityInfo(
                str(self.path), win32security.SE_FILE_OBJECT, DACL
            )
        return as_text(found)

    def set_access_list(self, text: str) -> None:
        """Give it a list of its own, that inherits nothing from the folder above.

        Raises:
            OSError: If it cannot be set.
        """
        wanted = from_text(text).GetSecurityDescriptorDacl()
        with told():
            win32security.SetNamedSecurityInfo(
                str(self.path),
                win32security.SE_FILE_OBJECT,
                DACL | win32security.PROTECTED_DACL_SECURITY_INFORMATION,
                None,
                None,
                wanted,
                None,
            )


def own_sid() -> str:
    """Return who runs this process: `S-1-…`.

    Raises:
        OSError: If Windows does not say.
    """
    with told():
        token = win32security.OpenProcessToken(
            win32api.GetCurrentProcess(), win32con.TOKEN_QUERY
        )
        sid, _ = win32security.GetTokenInformation(token, win32security.TokenUser)
        return win32security.ConvertSidToStringSid(sid)


def sid_of(account: str) -> str:
    r"""Return an account's SID; of a service's `LocalSystem` and `.\name`, too.

    Raises:
        OSError: If there is no such account.
    """
    known = {"localsystem": "SYSTEM"}
    name = known.get(account.lower(), account)
    if name.startswith(".\\"):
        name = win32api.GetComputerName() + name[1:]
    with told():
        sid, _, _ = win32security.LookupAccountName(None, name)
        return win32security.ConvertSidToStringSid(sid)


def name_of(sid: str) -> str:
    """Return the name of who has a SID; the SID itself if nobody does."""
    try:
        with told():
            found = win32security.LookupAccountSid(
                None, win32security.ConvertStringSidToSid(sid)
            )
    except OSError:
        return sid
    name, domain, _ = found
    return f"{domain}\\{name}" if domain else name
