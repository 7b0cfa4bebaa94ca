"""Describe errors, accounts, access lists and addresses without naming anybody."""

from __future__ import annotations

import ipaddress
import re
import stat
import sys
from typing import TYPE_CHECKING, Any

from letsencrypt_mdaemon.windows import access

if TYPE_CHECKING:
    from pathlib import Path

ACCOUNT = "<account or group>"

# Groups and accounts that are the same on every machine ([MS-DTYP], 2.4.2.4), and
# those that have the same number in every domain.
_WELL_KNOWN = re.compile(
    r"S-1-(?:0-0|1-0|2-[01]|3-[0-4]|5-\d{1,2}|5-32-\d{3}|16-\d{1,5})"
)
_OF_A_DOMAIN = re.compile(r"S-1-5-21-\d+-\d+-\d+-(\d{3})")
_CODE = re.compile(
    r"\b0x[0-9A-Fa-f]{4,8}\b"
    r"|(?i:\b(?:Win(?:dows )?Error|errno|exited with|exit code)) -?\d{1,10}\b"
)


def codes(error: BaseException | None) -> list[str]:
    """Return kinds and numbers of an error and its causes, but none of their words."""
    found: list[str] = []
    while error is not None:
        found.append(type(error).__name__)
        found += _CODE.findall(str(error))
        error = error.__cause__
    return list(dict.fromkeys(found))


def sid(text: str) -> str:
    """Return a SID that is the same everywhere; in place of another, what it is."""
    if text == access.TRUSTED_INSTALLER or _WELL_KNOWN.fullmatch(text):
        return text
    if match := _OF_A_DOMAIN.fullmatch(text):
        return f"S-1-5-21-<domain>-{match[1]}"
    return "<service>" if text.startswith("S-1-5-80-") else ACCOUNT


def address(host: str) -> str:
    """Return what kind of address a host is, or that it is a name."""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return "name"
    kind = "loopback" if found.is_loopback else "public"
    kind = "private" if found.is_private and not found.is_loopback else kind
    return f"{kind}, IPv{found.version}"


def entries(descriptor: str) -> list[dict[str, Any]]:
    """Return the entries of an access list.

    Raises:
        ValueError: If it cannot be read.
    """
    return [
        {
            "allows": entry.allows,
            "rights": f"0x{entry.rights:x}",
            "sid": sid(entry.sid),
            "for_content": for_content,
        }
        for for_content in (False, True)
        for entry in access.entries(descriptor, inherited=for_content)
    ]


if sys.platform == "win32":

    def permissions(path: Path) -> dict[str, Any]:
        """Return owner and access list of a file or a folder.

        Raises:
            OSError: If they cannot be read.
            ValueError: If they cannot be understood.
        """
        from letsencrypt_mdaemon.windows import security  # noqa: PLC0415

        listed = security.Folder(path).access_list()
        return {"owner": sid(access.owner(listed)), "entries": entries(listed)}

    def windows() -> dict[str, Any] | None:
        """Return this account, the code pages and the language; None elsewhere."""
        import ctypes  # noqa: PLC0415 - Windows only

        from letsencrypt_mdaemon.windows import security  # noqa: PLC0415

        kernel = ctypes.windll.kernel32
        return {
            "account": sid(security.own_sid()),
            "administrator": security.is_administrator(),
            "ansi": kernel.GetACP(),
            "oem": kernel.GetOEMCP(),
            "language": kernel.GetUserDefaultUILanguage(),
        }

else:
    import os

    def permissions(path: Path) -> dict[str, Any]:
        """Return owner and mode of a file or a folder.

        Raises:
            OSError: If they cannot be read.
        """
        status = path.stat()
        owner = {0: "root", os.geteuid(): "this account"}.get(status.st_uid, "another")
        return {"owner": owner, "mode": f"{stat.S_IMODE(status.st_mode):o}"}

    def windows() -> dict[str, Any] | None:
        """Return this account, the code pages and the language; None elsewhere."""
        return None
