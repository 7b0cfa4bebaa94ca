"""Access lists of files, folders and keys, in Windows' text form: SDDL.

A descriptor such as `D:PAI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)` lists who is allowed and
who is denied what ([MS-DTYP], 2.5.1). Members of groups are not looked up. A function
that is given a descriptor raises `ValueError` if it cannot read it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple, Protocol

from letsencrypt_mdaemon.errors import DeployError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

SYSTEM, ADMINISTRATORS, EVERYONE = "S-1-5-18", "S-1-5-32-544", "S-1-1-0"
CREATOR_OWNER, OWNER_RIGHTS = "S-1-3-0", "S-1-3-4"
TRUSTED_INSTALLER = "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464"
_TRUSTED = {SYSTEM, ADMINISTRATORS, TRUSTED_INSTALLER}

_ALIASES = {
    "SY": SYSTEM,
    "BA": ADMINISTRATORS,
    "LS": "S-1-5-19",
    "NS": "S-1-5-20",
    "WD": EVERYONE,
    "AU": "S-1-5-11",
    "IU": "S-1-5-4",
    "NU": "S-1-5-2",
    "AN": "S-1-5-7",
    "BU": "S-1-5-32-545",
    "BG": "S-1-5-32-546",
    "SU": "S-1-5-6",
    "CO": CREATOR_OWNER,
    "OW": OWNER_RIGHTS,
}
SERVICE_ACCOUNTS = {
    "localsystem": SYSTEM,
    r".\localsystem": SYSTEM,
    r"nt authority\system": SYSTEM,
    r"nt authority\localservice": "S-1-5-19",
    r"nt authority\networkservice": "S-1-5-20",
}
"""Windows' own accounts as services name them, in any language, in lower case.

To look such a name up fails where Windows calls the account something else.
"""
EVERYBODY = {
    EVERYONE: "Everyone",
    "S-1-5-11": "Authenticated Users",
    "S-1-5-32-545": "Users",
    "S-1-5-4": "INTERACTIVE",
    "S-1-5-2": "NETWORK",
    "S-1-5-7": "ANONYMOUS LOGON",
    "S-1-5-32-546": "Guests",
}
"""Groups whose names are the same in any language of Windows."""

# The names of single rights, from this bit upwards, and of several together.
_BITS = {0: "CC DC LC SW RP WP DT LO CR", 16: "SD RC WD WO", 28: "GA GX GW GR"}
_RIGHTS = {
    **{
        name: 1 << bit
        for first, names in _BITS.items()
        for bit, name in enumerate(names.split(), first)
    },
    "FA": 0x1F01FF,
    "FR": 0x120089,
    "FW": 0x120116,
    "FX": 0x1200A0,
    "KA": 0xF003F,
    "KR": 0x20019,
    "KW": 0x20006,
    "KX": 0x20019,
}
READ = 0x1
"""The right to read a file's or a private key's content."""
# The rights to add files and folders, to remove its content or the folder itself, and
# to change its access list and owner.
CHANGE = (0x2, 0x4, 0x40, 0x10000, 0x40000, 0x80000)
EXCHANGE = CHANGE[2:]
"""Those of a parent that let others put another folder in its place."""
_GENERIC = {0x10000000: 0x1F01FF, 0x40000000: 0x120116, 0x80000000: 0x120089}
_OWNER = re.compile(r"O:(S-1-[0-9-]+|[A-Z]{2})")
# Each step leaves one way to go on: a list that a stranger made may be long.
_LIST = re.compile(
    r"(?:[OG]:[^:()]*)*D:([A-Z_]*)((?:\([^()]*\))*)(?:S:.*)?\Z", re.DOTALL
)
_ENTRY = re.compile(r"\(([A-Z]+);([A-Z]*);([^;()]*);[^;()]*;[^;()]*;([^;()]+)\)")


class Guarded(Protocol):
    """A folder or a key with an access list."""

    def access_list(self) -> str:
        """Return the access list as SDDL."""
        ...

    def set_access_list(self, text: str) -> None:
        """Replace the access list."""
        ...


class Entry(NamedTuple):
    """An entry of an access list.

    Args:
        allows: Whether it allows; otherwise it denies.
        rights: A mask, with generic rights replaced by the rights they stand for.
        sid: The account or group; `S-1-...`.
    """

    allows: bool
    rights: int
    sid: str


def entries(descriptor: str, *, inherited: bool = False) -> list[Entry]:
    """Return the entries that apply to the object itself.

    Args:
        inherited: Return those that files and folders made in it get.

    Raises:
        ValueError: If it is not a descriptor, or has entries of an unknown kind.
    """
    general, listed = _split(descriptor)
    if general == "NO_ACCESS_CONTROL":
        return [Entry(allows=True, rights=0xFFFFFFFF, sid=EVERYONE)]
    if _ENTRY.sub("", listed):
        raise ValueError(f"{descriptor!r} has entries of an unknown kind")
    found = []
    for kind, flags, rights, sid in _ENTRY.findall(listed):
        if kind not in {"A", "D"}:
            raise ValueError(f"{descriptor!r} has entries of the kind {kind}")
        marks = set(re.findall("..", flags))
        if marks & {"OI", "CI"} if inherited else "IO" not in marks:
            found.append(Entry(kind == "A", _mask(rights), _ALIASES.get(sid, sid)))
    return found


def _split(descriptor: str) -> tuple[str, str]:
    """Return the flags of an access list, and its entries."""
    match = _LIST.match(descriptor)
    if match is None:
        raise ValueError(f"{descriptor!r} has no access list")
    return match[1], match[2]


def _mask(text: str) -> int:
    if re.fullmatch(r"0x[0-9a-fA-F]{1,8}", text):
        mask = int(text, 16)
    else:
        mask = 0
        for name in re.findall(r"..?", text):
            if name not in _RIGHTS:
                raise ValueError(f"{text!r} are not rights")
            mask |= _RIGHTS[name]
    for generic, rights in _GENERIC.items():
        if mask & generic:
            mask |= rights
    return mask


def may(descriptor: str, sid: str, right: int) -> bool:
    """Whether an account or group has a right; the first entry about it decides.

    Args:
        right: One bit of a mask.
    """
    return _may(entries(descriptor), sid, right)


def _may(listed: Iterable[Entry], sid: str, right: int) -> bool:
    for entry in listed:
        if entry.sid in {sid, EVERYONE} and entry.rights & right:
            return entry.allows
    return False


def owner(descriptor: str) -> str:
    """Return the owner's SID.

    Raises:
        ValueError: If it names none.
    """
    match = _OWNER.match(descriptor)
    if match is None:
        raise ValueError(f"{descriptor!r} has no owner")
    return _ALIASES.get(match[1], match[1])


def is_trusted(sid: str, others: Collection[str] = ()) -> bool:
    """Whether it is SYSTEM, Administrators, Windows' installer, or one of others."""
    return sid in _TRUSTED or sid in others


def strangers(
    descriptor: str, trusted: Collection[str] = (), *, is_parent: bool = False
) -> list[str]:
    """Return the SIDs that may change a folder, or what will be made in it.

    Args:
        trusted: SIDs besides those of `is_trusted`.
        is_parent: Return only who may delete, rename or take over the folder.
    """
    # The owner is looked at by whom he is; whoever makes a file here, is listed.
    known = {OWNER_RIGHTS, *trusted}
    rights, found = EXCHANGE if is_parent else CHANGE, {}
    for inherited in (False,) if is_parent else (False, True):
        listed = entries(descriptor, inherited=inherited)
        spared = {*known, CREATOR_OWNER} if inherited else known
        for sid in dict.fromkeys(entry.sid for entry in listed if entry.allows):
            if is_trusted(sid, spared):
                continue
            if any(_may(listed, sid, right) for right in rights):
                found[sid] = True
    return list(found)


def readers(descriptor: str) -> list[str]:
    """Return the SIDs that may read."""
    sids = dict.fromkeys(entry.sid for entry in entries(descriptor))
    return [sid for sid in sids if may(descriptor, sid, READ)]


def private(sids: Collection[str], owner: str = ADMINISTRATORS) -> str:
    """Return owner and access list for SYSTEM, administrators and these SIDs only."""
    allowed = dict.fromkeys([SYSTEM, ADMINISTRATORS, *sids])
    listed = "".join(f"(A;OICI;FA;;;{sid})" for sid in allowed)
    return f"O:{owner}D:PAI{listed}"


def is_private(descriptor: str, sids: Collection[str]) -> bool:
    """Whether an access list allows nothing to anybody else."""
    allowed = {SYSTEM, ADMINISTRATORS, OWNER_RIGHTS, *sids}
    return all(entry.sid in allowed for entry in entries(descriptor) if entry.allows)


def with_reader(descriptor: str, sid: str) -> str:
    """Return the access list with the right to read for one more SID."""
    # By Windows' own rule denials come first, so an entry at the end cannot undo one.
    return "D:{}{}(A;;FR;;;{})".format(*_split(descriptor), sid)


def let_read(key: Guarded, sids: Collection[str]) -> None:
    """Make sure that all of them may read a key, and check the result.

    Raises:
        DeployError: If one of them still may not.
        OSError: If the access list cannot be read or replaced.
        ValueError: If the access list is malformed.
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
            f"{', '.join(still)} cannot read the new certificate's private key.",
            hint="Allow it in certlm.msc: All Tasks, Manage Private Keys.",
        )


def keep_private(folder: Guarded, sids: Collection[str], owner: str) -> None:
    """Make sure that nobody else has access to a folder, and check the result.

    Args:
        sids: Accounts besides SYSTEM and the administrators that keep their access.
        owner: The SID that it gets together with a new list.

    Raises:
        DeployError: If others still have access.
        OSError: If owner and access list cannot be read or replaced.
        ValueError: If the access list is malformed.
    """
    if is_private(folder.access_list(), sids):
        return
    folder.set_access_list(private(sids, owner))
    found = folder.access_list()
    if not is_private(found, sids):
        raise DeployError(
            f"Others may still read or write there: {found}.",
            hint="Use a file system with access lists, such as NTFS.",
        )
