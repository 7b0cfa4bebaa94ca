"""Who may do what to a file, a folder or a key, by Windows' words for it: SDDL.

A descriptor such as `D:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)` lists who is allowed and
who is denied what ([MS-DTYP], 2.5.1). Groups count as they are written: who is a member
of them is not asked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from letsencrypt_mdaemon.errors import ConfigError, DeployError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

SYSTEM, ADMINISTRATORS = "S-1-5-18", "S-1-5-32-544"

_ALIASES = {
    "SY": SYSTEM,
    "BA": ADMINISTRATORS,
    "LS": "S-1-5-19",
    "NS": "S-1-5-20",
    "WD": "S-1-1-0",
    "AU": "S-1-5-11",
    "IU": "S-1-5-4",
    "NU": "S-1-5-2",
    "AN": "S-1-5-7",
    "BU": "S-1-5-32-545",
    "BG": "S-1-5-32-546",
    "SU": "S-1-5-6",
    "CO": "S-1-3-0",
    "OW": "S-1-3-4",
}
EVERYBODY = {
    "S-1-1-0": "Everyone",
    "S-1-5-11": "Authenticated Users",
    "S-1-5-32-545": "Users",
    "S-1-5-4": "INTERACTIVE",
    "S-1-5-2": "NETWORK",
    "S-1-5-7": "ANONYMOUS LOGON",
    "S-1-5-32-546": "Guests",
}
"""Groups that take in people who have no business here."""

_RIGHTS = {
    "GA": 0x10000000,
    "GX": 0x20000000,
    "GW": 0x40000000,
    "GR": 0x80000000,
    "FA": 0x1F01FF,
    "FR": 0x120089,
    "FW": 0x120116,
    "FX": 0x1200A0,
    "KA": 0xF003F,
    "KR": 0x20019,
    "KW": 0x20006,
    "KX": 0x20019,
    "SD": 0x10000,
    "RC": 0x20000,
    "WD": 0x40000,
    "WO": 0x80000,
    "CC": 0x1,
    "DC": 0x2,
    "LC": 0x4,
    "SW": 0x8,
    "RP": 0x10,
    "WP": 0x20,
    "DT": 0x40,
    "LO": 0x80,
    "CR": 0x100,
}
READ = 0x1
"""Of a file, and of a private key: its content."""
# New files and folders, removing what is in it or itself, and its list and owner.
CHANGE = (0x2, 0x4, 0x40, 0x10000, 0x40000, 0x80000)
_GENERIC = {0x10000000: 0x1F01FF, 0x40000000: 0x120116, 0x80000000: 0x120089}

_LIST = re.compile(r"D:([A-Z_]*?)((?:\(.*\))?)(?:S:.*)?\Z", re.DOTALL)
_ENTRY = re.compile(r"\(([A-Z]+);([A-Z]*);([^;()]*);[^;()]*;[^;()]*;([^;()]+)\)")


class Guarded(Protocol):
    """A folder or a key with a list of who may do what."""

    def access_list(self) -> str:
        """Return the list as SDDL."""
        ...

    def set_access_list(self, text: str) -> None:
        """Replace it."""
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the list.

    Args:
        allows: Or else denies.
        rights: A mask, generic rights spelled out.
        sid: Whom; `S-1-…`.
    """

    allows: bool
    rights: int
    sid: str


def entries(descriptor: str) -> tuple[Entry, ...] | None:
    """Return the entries that count for the thing itself; None = all may do all.

    Raises:
        ValueError: If it is no descriptor, or has entries of a kind not known here.
    """
    match = _LIST.search(descriptor)
    if match is None:
        raise ValueError(f"{descriptor!r} has no list of who may do what")
    if match[1] == "NO_ACCESS_CONTROL":
        return None
    if _ENTRY.sub("", match[2]):
        raise ValueError(f"{descriptor!r} has entries of another kind")
    found = []
    for kind, flags, rights, sid in _ENTRY.findall(match[2]):
        if kind not in {"A", "D"}:
            raise ValueError(f"{descriptor!r} has entries of the kind {kind}")
        if "IO" not in re.findall("..", flags):  # for what will be made in it only
            entry = Entry(kind == "A", _mask(rights), _ALIASES.get(sid, sid))
            found.append(entry)
    return tuple(found)


def _mask(text: str) -> int:
    if re.fullmatch(r"0x[0-9a-fA-F]{1,8}", text):
        mask = int(text, 16)
    else:
        mask = 0
        for name in re.findall(r"..?", text):
            if name not in _RIGHTS:
                raise ValueError(f"{text!r} are no rights")
            mask |= _RIGHTS[name]
    for generic, meant in _GENERIC.items():
        if mask & generic:
            mask |= meant
    return mask


def may(descriptor: str, sid: str, right: int) -> bool:
    """Whether somebody may do something; the first entry that says so decides.

    Args:
        right: One bit of a mask.

    Raises:
        ValueError: If the descriptor cannot be read.
    """
    listed = entries(descriptor)
    if listed is None:
        return True
    everyone = _ALIASES["WD"]
    for entry in listed:
        if entry.sid in {sid, everyone} and entry.rights & right:
            return entry.allows
    return False


def strangers(descriptor: str) -> list[str]:
    """Return the groups of just anybody that may change what is in a folder.

    Raises:
        ValueError: If the descriptor cannot be read.
    """
    return [
        name
        for sid, name in EVERYBODY.items()
        if any(may(descriptor, sid, right) for right in CHANGE)
    ]


def readers(descriptor: str) -> list[str] | None:
    """Return the SIDs that are let read; None = everybody.

    Raises:
        ValueError: If the descriptor cannot be read.
    """
    listed = entries(descriptor)
    if listed is None:
        return None
    sids = dict.fromkeys(entry.sid for entry in listed)
    return [sid for sid in sids if may(descriptor, sid, READ)]


def private(sids: Collection[str]) -> str:
    """Return the list of a folder of ours: these and nobody else, all that is in it."""
    owners = dict.fromkeys([SYSTEM, ADMINISTRATORS, *sids])
    return "D:PAI" + "".join(f"(A;OICI;FA;;;{sid})" for sid in owners)


def is_private(descriptor: str, sids: Collection[str]) -> bool:
    """Whether a folder's list allows nobody else anything.

    Raises:
        ValueError: If the descriptor cannot be read.
    """
    listed = entries(descriptor)
    owners = {SYSTEM, ADMINISTRATORS, *sids}
    return listed is not None and all(
        entry.sid in owners for entry in listed if entry.allows
    )


def with_reader(descriptor: str, sid: str) -> str:
    """Return a list that also lets somebody read.

    Raises:
        ValueError: If the descriptor cannot be read.
    """
    listed = entries(descriptor)
    if listed is None:
        return descriptor
    match = _LIST.search(descriptor)
    assert match is not None  # noqa: S101 - or there would be no entries
    # Denials come first, by Windows' own rule; then nothing we add can undo one.
    return f"D:{match[1]}{match[2]}(A;;FR;;;{sid})"


def let_read(key: Guarded, sids: Collection[str]) -> None:
    """Make sure that all of them may read a key, and look whether it is so.

    Raises:
        DeployError: If it is not.
        OSError: If the list cannot be read or replaced.
        ValueError: If it makes no sense.
    """
    listed = key.access_list()
    missing = [sid for sid in sids if not may(listed, sid, READ)]
    if not missing:
        return
    for sid in missing:
        listed = with_reader(listed, sid)
    key.set_access_list(listed)
    found = key.access_list()
    still = [sid for sid in missing if not may(found, sid, READ)]
    if still:
        raise DeployError(
            f"The new certificate's private key cannot be read by {', '.join(still)}.",
            hint="Let them in certlm.msc: All Tasks, Manage Private Keys.",
        )


def keep_private(folder: Guarded, sids: Collection[str]) -> None:
    """Make sure that a folder of ours is nobody else's business, and look.

    Args:
        sids: Who besides the system and its administrators has to do with it.

    Raises:
        DeployError: If others still may do something.
        OSError: If the list cannot be read or replaced.
        ValueError: If it makes no sense.
    """
    if is_private(folder.access_list(), sids):
        return
    folder.set_access_list(private(sids))
    found = folder.access_list()
    if not is_private(found, sids):
        raise DeployError(
            f"Others may still read or write there: {found}.",
            hint="Does this file system keep access lists? NTFS does.",
        )


def refuse_shared(places: Mapping[str, Guarded]) -> None:
    """Refuse to trust folders, by path, that just anybody may change.

    What SYSTEM runs from there, or is told there, they could be SYSTEM by.

    Raises:
        ConfigError: Naming every such folder, and who may change it.
    """
    shared = {}
    for path, folder in places.items():
        try:
            found = strangers(folder.access_list())
        except (OSError, ValueError) as exc:
            found = [f"nobody knows who ({exc})"]
        if found:
            shared[path] = found
    if not shared:
        return
    lines = "".join(f"\n  - {path}: {', '.join(who)}" for path, who in shared.items())
    only = f"*{SYSTEM}:(OI)(CI)F *{ADMINISTRATORS}:(OI)(CI)F"
    raise ConfigError(
        f"As SYSTEM nothing is run from folders that others may change:{lines}",
        hint=r"Install it below C:\Program Files, or as an administrator: icacls "
        f'"FOLDER" /inheritance:r /grant {only}',
    )
