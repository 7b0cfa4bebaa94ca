"""Whom this program trusts: the accounts that can change what it reads and runs.

The state folder is checked before anything in it is read or locked. The owner of
MDaemon's folder is trusted with what is below it: he decides about the server anyway,
and a mounted folder may show the same owner for every file.
"""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.errors import ConfigError, DeployError, Doubt, Error
from letsencrypt_mdaemon.mdaemon import folders
from letsencrypt_mdaemon.system import disk
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import AbstractContextManager

    from letsencrypt_mdaemon.windows.trust import Examiner

_log = logging.getLogger(__name__)

MAX_SHOWN = 10
"""How many files and folders a message lists."""


def require_state(folder: Path, root: Path) -> None:
    """Refuse a state folder that others made, or can change or exchange.

    Raises:
        ConfigError: If it, its content or a parent is not trusted, or cannot be seen.
    """
    with _explained(folder):
        if sys.platform == "win32":
            found = examine_state(_examiner(), folder, root)
        else:
            from letsencrypt_mdaemon.system import owners  # noqa: PLC0415 - POSIX only

            trusted = _owners(folder, root)
            # Only what nobody can exchange is looked into.
            found = owners.doubts(folder, trusted)
            found = found or owners.content_doubts(folder, trusted)
    if found:
        mend = f"Then keep others out: {commands(found)}. " if commands(found) else ""
        raise _refused(
            f"The state folder {folder} is not trusted: others made or can change it",
            found,
            hint=f"If you did not make it, rename {folder}, and use nothing of it. "
            f"{mend}Or choose another folder: --state-dir DIR.",
        )


def examine_state(examiner: Examiner, folder: Path, root: Path) -> list[Doubt]:
    """Return who else can change or exchange a folder, else what is in it (Windows)."""
    from letsencrypt_mdaemon.windows import trust  # noqa: PLC0415 - Windows only

    return (
        trust.links([folder, *folder.parents])
        or _within(examiner.places([folder]), folder, root)
        # Only what nobody can exchange is looked into.
        or _within(examiner.content(folder), folder, root)
    )


def make_state(folder: Path, root: Path) -> None:
    """Make the state folder if it is missing, and check it before it is used.

    Raises:
        ConfigError: As `require_state` does.
        Error: If it cannot be made.
    """
    require_state(folder, root)
    with disk.explained(f"make {folder}"):
        if sys.platform == "win32":
            from letsencrypt_mdaemon.windows import access, security  # noqa: PLC0415

            us, owner = [], access.ADMINISTRATORS
            if not security.is_administrator():
                owner = security.own_sid()
                us = [owner]
            security.make_folder(folder, access.private(us, owner))
        else:
            disk.make_private_folder(folder)
    # Between the check and now others may have made it.
    require_state(folder, root)
    if sys.platform == "win32":
        try:
            access.keep_private(security.Folder(folder), us, owner)
        except (DeployError, OSError, ValueError) as exc:
            _log.warning("Others can read the folder %s: %s", folder, exc)


def is_system() -> bool:
    """Whether this account is SYSTEM on Windows, which must trust few others."""
    if sys.platform == "win32":
        from letsencrypt_mdaemon.windows import access, security  # noqa: PLC0415

        return security.own_sid() == access.SYSTEM
    return False


def require_settings(config_file: Path) -> None:
    """As SYSTEM, refuse to read settings that others made or can change.

    Raises:
        ConfigError: If others own the file, or can change it.
    """
    if is_system() and (doubt := _examiner(us=False).doubt(config_file)):
        hint = f"Run as an administrator: {commands([doubt])}."
        raise _refused("SYSTEM must not follow these settings", [doubt], hint=hint)


def require_program(config_file: Path | None, root: Path, *more: Path) -> None:
    """Refuse that SYSTEM runs a program, or follows settings, that others can change.

    Args:
        more: What else SYSTEM runs, or the folder in which it will be.

    Raises:
        ConfigError: If there are such files, on Windows.
    """
    found = program_doubts(config_file, root, *more)
    if not found:
        return
    hints = [f"Run as an administrator: {commands(found)}."] if commands(found) else []
    if not all(row.commands for row in found):
        what = "Python for all users, and this program with it"
        if getattr(sys, "frozen", False):
            what = "the program"
        hints.append(rf"Install {what}, below C:\Program Files.")
    what = "SYSTEM must not run programs, or follow settings, that others can change"
    raise _refused(what, found, hint=" ".join(hints))


def require_hook(path: Path, root: Path) -> None:
    """Refuse a program of the administrator's that others can change or exchange.

    Its folder counts, too: a program may load from there what others put beside it.

    Raises:
        ConfigError: If there are others, or they cannot be seen.
    """
    with _explained(path):
        if sys.platform == "win32":
            found = examine_hook(_examiner(us=not is_system()), path, root)
        else:
            from letsencrypt_mdaemon.system import owners  # noqa: PLC0415 - POSIX only

            places, trusted = _with_folders(path), _owners(path, root)
            rows = [row for place in places for row in owners.doubts(place, trusted)]
            found = list(dict.fromkeys(rows))
    if found:
        mend = f"Keep others out: {commands(found)}. " if commands(found) else ""
        what = f"The hook {path} is not trusted: others made or can change it"
        hint = f"{mend}Or move it to a folder that only administrators can change."
        raise _refused(what, found, hint=hint)


def examine_hook(examiner: Examiner, path: Path, root: Path) -> list[Doubt]:
    """Return who else can change a hook or its folder, or exchange them (Windows)."""
    return _within(examiner.places(_with_folders(path)), path, root)


def _with_folders(path: Path) -> list[Path]:
    """Return a file and the folders where it seems to be, and is."""
    real = Path(os.path.realpath(path))
    return list(dict.fromkeys([path, path.parent, real.parent]))


def require_script(file: Path, root: Path) -> None:
    """Refuse to put back a script for SYSTEM that others made or can change.

    Raises:
        ConfigError: If they did or can, on Windows.
    """
    if sys.platform != "win32":
        return
    found = _within(_examiner(us=False).places([file]), file, root)
    if found:
        hint = f"Delete {file} if MDaemon did not come with it."
        if mends := commands(found):
            hint += f" Otherwise run as an administrator: {mends}."
        raise _refused("SYSTEM must not run a script of others", found, hint=hint)


def program_doubts(config_file: Path | None, root: Path, *more: Path) -> list[Doubt]:
    """Return who else can change the program or its config file, on Windows."""
    if sys.platform != "win32":
        return []
    examiner = _examiner(us=False)
    return examine_program(examiner, program_folders(), config_file, root, *more)


def examine_program(
    examiner: Examiner,
    program: Sequence[Path],
    config_file: Path | None,
    root: Path,
    *more: Path,
) -> list[Doubt]:
    """Return who else can change the program's folders, its config file, or more."""
    seen = examiner.places(program)
    found = [row._replace(commands=()) for row in _within(seen, root, root)]
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - no error if it is unknown
    found += [
        Doubt(path, "is below one user's own folder")
        for path in program
        if path.is_relative_to(home)
    ]
    files = [config_file.absolute(), *more] if config_file is not None else more
    for file in files:
        rows = examiner.places([file])
        found += _within(rows, file, root)
        seen += rows
    for row in {row.path: row for row in seen if row.path == root}.values():
        _log.warning("MDaemon's own folder is not safe: %s %s.", root, row.why)
    return list({row.path: row for row in found}.values())


def program_folders() -> list[Path]:
    """Return the folders of this program, of Python, and of the libraries."""
    program = Path(sys.executable).parent
    if getattr(sys, "frozen", False):
        # A frozen program holds its modules; its libraries are beside it.
        return [program, program / "_internal"]
    here = Path.cwd()  # `python -I`, which is scheduled, does not look there
    libraries = [Path(entry) for entry in sys.path if entry]
    return [
        *(program, Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[1]),
        *(folder for folder in libraries if folder != here),
    ]


def raw_queue(root: Path) -> Path:
    """Return the folder of MDaemon's RAW queue, which may be anywhere.

    Raises:
        ConfigError: If there is none; or if it is outside MDaemon's folder, and others
            can change it.
    """
    queue = folders.raw_queue(root)
    if folders.is_below(queue, root):
        return queue
    with _explained(queue):
        if sys.platform == "win32":
            found = _examiner().places([queue])
        else:
            from letsencrypt_mdaemon.system import owners  # noqa: PLC0415 - POSIX only

            found = owners.doubts(queue, _owners(root, root))
    if found:
        raise _refused(
            f"The RAW queue {queue} is outside of {root}, and others can change it",
            found,
            hint="Keep others out, correct [Directories] Raw in MDaemon.ini, or send "
            "mail by SMTP: mail-server = smtp://HOST:PORT.",
        )
    return queue


def commands(found: Iterable[Doubt]) -> str:
    """Return what mends the doubts, as it is typed."""
    join = subprocess.list2cmdline if sys.platform == "win32" else shlex.join
    rows = [join(command) for doubt in found for command in doubt.commands]
    return "; ".join(dict.fromkeys(rows))


def mend(found: Iterable[Doubt]) -> None:
    """Run what mends the doubts.

    Raises:
        Error: If one of the commands fails.
    """
    from letsencrypt_mdaemon.system import process  # noqa: PLC0415 - seldom needed

    for doubt in found:
        for name, *arguments in doubt.commands:
            ended = process.run(process.system_program(name), *arguments)
            if ended.code:
                message = f"Could not change who can write to {doubt.path}: "
                raise Error(message + printable(ended.output.strip(), 500))


def _explained(folder: Path) -> AbstractContextManager[None]:
    doing = f"check who can change {folder}"
    hint = "Let this account enter the folders above it."
    return disk.explained(doing, failure=ConfigError, hint=hint)


def _refused(what: str, found: Sequence[Doubt], *, hint: str) -> ConfigError:
    lines = [
        f"\n  - {printable(row.path, 1000)}: {row.why}" for row in found[:MAX_SHOWN]
    ]
    if len(found) > MAX_SHOWN:
        lines.append(f"\n  - and {len(found) - MAX_SHOWN} more")
    return ConfigError(f"{what}:{''.join(lines)}", hint=hint)


def _owners(folder: Path, root: Path) -> set[int]:
    """Return the users that are trusted with a folder, besides root (POSIX)."""
    ours: set[int] = set()
    if sys.platform != "win32":
        ours = {os.geteuid()}
    return ours | {root.stat().st_uid} if folders.is_below(folder, root) else ours


def _within(found: Iterable[Doubt], own: Path, root: Path) -> list[Doubt]:
    """Return the doubts, with commands only for what is this program's own.

    MDaemon's own folder is left out: whoever can change it can change the programs that
    its service runs.

    Args:
        own: The file or folder of ours.
    """
    kept, ours = [], (own, folders.child(root, "LetsEncrypt"))
    for row in found:
        if row.path == root:
            continue
        if any(row.path.is_relative_to(path) for path in ours):
            kept.append(row)
        else:
            kept.append(row._replace(commands=()))
    return kept


def _examiner(*, us: bool = True) -> Examiner:
    """Return what looks at access lists.

    Args:
        us: Trust this account, too.
    """
    if sys.platform == "win32":
        from letsencrypt_mdaemon.windows import security  # noqa: PLC0415 - Windows only
        from letsencrypt_mdaemon.windows.trust import Examiner  # noqa: PLC0415

        trusted = [security.own_sid()] if us else []
        return Examiner(security.Folder, security.name_of, trusted)
    raise AssertionError("elsewhere system.owners looks, and nobody asks for this")
