"""Put a LetsEncrypt.ps1 that runs this program in the vendor's place, and undo that.

For MDaemon's Let's Encrypt page, and for tasks that run the script by its name. What is
written here runs as SYSTEM, so the folder has to be trusted as the program is.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.app import build, scheduling, trust
from letsencrypt_mdaemon.config import load
from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.mdaemon import folders
from letsencrypt_mdaemon.system import disk, drop_in
from letsencrypt_mdaemon.system.handles import PUBLIC, Folder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from letsencrypt_mdaemon.config.load import Loaded

AGAIN = "run `letsencrypt-mdaemon script install`"


class Placed(NamedTuple):
    """The scripts in MDaemon's folder.

    Args:
        script: LetsEncrypt.ps1.
        is_ours: Whether it runs this program.
        kept: The vendor's, beside ours; None if it is not there.
        changed: Whether a file was changed, or would be.
    """

    script: Path
    is_ours: bool
    kept: Path | None
    changed: bool


def install(
    loaded: Loaded,
    root: Path,
    options: Mapping[str, Sequence[str]],
    text: Callable[[Sequence[str]], bytes],
    *,
    dry_run: bool = False,
) -> Placed:
    """Write our script, and keep the vendor's beside it.

    Args:
        options: Settings from the command line: texts by setting name.
        text: Returns the script that runs a command.

    Raises:
        ConfigError: Elsewhere than on Windows; if others can change the folder or the
            program, or something cannot be written.
    """
    _require_powershell()
    place = place_of(root)
    flags = (load.as_option(*item) for item in options.items())
    program = scheduling.program(loaded, root, *trusted(root))
    command = (*program, "renew", *flags)
    data, former = text(command), _content(place)
    is_vendors = former is not None and not drop_in.is_ours(place)
    kept = place.with_name(drop_in.KEPT)
    if not dry_run:
        with build.locked_state(loaded.config, root, loaded.file) as state:
            # Before: should the script be gone after that, `check` says so.
            state.save(state.load()._replace(script=command))
            if former != data:
                _write(place, data, kept.name if is_vendors else "")
    is_kept = kept.exists() or is_vendors
    return Placed(place, True, kept if is_kept else None, former != data)  # noqa: FBT003


def remove(loaded: Loaded, root: Path, *, dry_run: bool = False) -> Placed:
    """Put the vendor's script back, if ours is in its place, and forget ours.

    Raises:
        ConfigError: If others can change the vendor's, or something cannot be written.
    """
    place = place_of(root)
    kept = place.with_name(drop_in.KEPT)
    is_ours = drop_in.is_ours(place)
    returns = kept.exists() and (is_ours or not place.exists())
    changed = returns or is_ours
    if returns:
        # It may have been there before the folder was safe.
        trust.require_script(kept, root)
    if not dry_run:
        with build.locked_state(loaded.config, root, loaded.file) as state:
            with disk.explained(f"put {place} back", failure=ConfigError):
                if returns:
                    disk.rename(kept, place)
                elif is_ours:
                    disk.delete(place)
            state.save(state.load()._replace(script=()))
    return Placed(place, False, kept if kept.exists() else None, changed)  # noqa: FBT003


def trusted(root: Path) -> list[Path]:
    """Return what has to be trusted: what SYSTEM runs, or will after `remove`."""
    place = place_of(root)
    return [place.parent, place, place.with_name(drop_in.KEPT)]


def flaw(command: Sequence[str], root: Path) -> str:
    """Return what is wrong with the script that `install` wrote, as a clause.

    Args:
        command: What it runs, as the state has it; empty if it was not installed.
    """
    if not command:
        return ""
    place = place_of(root)
    try:
        former = _content(place)
    except ConfigError as exc:
        return f"{place} could not be checked ({exc.message.removesuffix('.')})"
    if former is None:
        return f"{place} is gone: {AGAIN}"
    if not drop_in.is_ours(place):
        return f"{place} is not this program's any more (an MDaemon update?): {AGAIN}"
    needed = [*command[:1]]
    needed += [value for name, value in pairwise(command) if name == "--config"]
    for path in (path for path in needed if disk.is_gone(Path(path))):
        return f"{place} needs {path}, which is not there: {AGAIN}"
    return ""


def _require_powershell() -> None:
    if sys.platform != "win32":
        raise ConfigError(
            f"{drop_in.NAME} is for Windows PowerShell.",
            hint="Run this on the mail server itself.",
        )


def place_of(root: Path) -> Path:
    """Return where MDaemon has its script."""
    return folders.child(root, "LetsEncrypt", drop_in.NAME)


def _content(place: Path) -> bytes | None:
    """Return the content of a script; None if there is none."""
    try:
        with disk.explained(f"read {place}", failure=ConfigError):
            return disk.read_limited(place, drop_in.MAX_BYTES, "a script")
    except ValueError as exc:
        message = f"Could not read {place}: {exc}."
        raise ConfigError(message, hint="Rename it.") from exc
    except ConfigError as exc:
        if isinstance(exc.__cause__, FileNotFoundError):
            return None
        raise


def _write(place: Path, data: bytes, keep_as: str) -> None:
    """Write a script.

    Args:
        keep_as: The new name of the one that is there; "" = replace it.
    """
    fresh = disk.neighbour(place)
    with (
        disk.explained(f"write {place}", failure=ConfigError),
        Folder(place.parent) as folder,
    ):
        folder.create(fresh.name, data, mode=PUBLIC)
        try:
            if keep_as:
                disk.when_free(lambda: folder.rename(place.name, keep_as))
            try:
                disk.when_free(lambda: folder.rename(fresh.name, place.name))
            except OSError:
                if keep_as:
                    folder.rename(keep_as, place.name)
                raise
        finally:
            disk.remove(fresh)
        folder.sync()
