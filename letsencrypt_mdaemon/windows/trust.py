"""Which folders other accounts can change or exchange, on Windows.

Pure: the access lists are those that the caller reads. A folder that has to be trusted
is looked at with everything that lets others change it or what will be made in it; its
parents only with what lets others delete, rename or take it over.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.errors import Doubt
from letsencrypt_mdaemon.windows import access

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from letsencrypt_mdaemon.windows.access import Guarded

    Read = Callable[[Path], Guarded]
    NameOf = Callable[[str], str]


class Examiner:
    """Looks at the owners and access lists of files and folders.

    Args:
        read: Returns a path's access list with its owner.
        name_of: Returns the name of a SID.
        trusted: SIDs that are trusted besides SYSTEM, Administrators and Windows' own.
    """

    def __init__(
        self, read: Read, name_of: NameOf, trusted: Sequence[str] = ()
    ) -> None:
        self._read = read
        self._name_of = name_of
        self._trusted = trusted

    def places(self, paths: Iterable[Path]) -> list[Doubt]:
        """Return who else can change these files and folders, or exchange them."""
        given = list(paths)
        real = [Path(os.path.realpath(path)) for path in given]
        places = dict.fromkeys([*given, *real])
        above = dict.fromkeys(parent for path in places for parent in path.parents)
        rows = [(path, False) for path in places]
        rows += [(path, True) for path in above if path not in places]
        found = [self.doubt(path, is_parent=parent) for path, parent in rows]
        return [doubt for doubt in found if doubt is not None]

    def content(self, folder: Path) -> list[Doubt]:
        """Return who else can change what is in a folder, and links in it."""
        paths = [
            Path(parent, name)
            for parent, folders, files in os.walk(folder)
            for name in (*folders, *files)
        ]
        found = [self.doubt(path) for path in paths]
        return links(paths) + [doubt for doubt in found if doubt is not None]

    def doubt(self, path: Path, *, is_parent: bool = False) -> Doubt | None:
        """Return who else can change a path, or exchange it as a parent."""
        if not path.exists():
            return None
        try:
            listed = self._read(path).access_list()
            owner = access.owner(listed)
            sids = access.strangers(listed, self._trusted, is_parent=is_parent)
        except (OSError, ValueError) as exc:
            return Doubt(path, f"could not read who can change it: {exc}")
        whys = []
        if not access.is_trusted(owner, self._trusted):
            whys.append(f"belongs to {self._name(owner)}")
        if sids:
            names = ", ".join(map(self._name, sids))
            doing = "delete, rename or take it over" if is_parent else "change it"
            whys.append(f"{names} can {doing}")
        if not whys:
            return None
        return Doubt(path, "; ".join(whys), mending(path, sids))

    def _name(self, sid: str) -> str:
        return access.EVERYBODY.get(sid) or self._name_of(sid)


def links(paths: Iterable[Path]) -> list[Doubt]:
    """Return which of these paths are reparse points, which lead elsewhere."""
    return [
        Doubt(path, f"is a link or a mount point, to {os.path.realpath(path)}")
        for path in paths
        if is_reparse_point(path)
    ]


def is_reparse_point(path: Path) -> bool:
    """Whether a path is a link, a junction or a mount point."""
    try:
        attributes: int = getattr(path.lstat(), "st_file_attributes", 0)
    except FileNotFoundError:
        return False
    return bool(attributes & stat.FILE_ATTRIBUTE_REPARSE_POINT)


def mending(path: Path, sids: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Return the commands that leave a path to SYSTEM and Administrators."""
    inherit = "(OI)(CI)" if path.is_dir() else ""
    both = [f"*{sid}:{inherit}F" for sid in (access.SYSTEM, access.ADMINISTRATORS)]
    others = [f"*{sid}" for sid in sids]
    remove = ["/remove:g", *others] if others else []
    return (
        ("icacls", str(path), "/setowner", f"*{access.ADMINISTRATORS}"),
        ("icacls", str(path), "/inheritance:r", *remove, "/grant:r", *both),
    )
