"""The installation: where it is, its host name, and how it is told to reload."""

from __future__ import annotations

import os.path
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.mdaemon import ini
from letsencrypt_mdaemon.system.disk import read_limited
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from letsencrypt_mdaemon.state.memory import Target


DEFAULT = Path("C:/MDaemon")


MAX_INI_BYTES = 16 << 20
"""The server's own files have some hundred thousand."""


@dataclass(frozen=True, slots=True)
class Place:
    """A folder where MDaemon may be, and who says so."""

    folder: Path
    said_by: str


def places(given: Path | None, said_by: str) -> list[Place]:
    """Return where to look: where we are told, else where it usually is.

    Args:
        given: The only place to look, if we are told one.
        said_by: Which option, variable or file gave the folder.
    """
    if given is not None:
        return [Place(given, said_by)]
    found: list[Place] = []
    if sys.platform == "win32":
        from letsencrypt_mdaemon.windows import registry  # noqa: PLC0415 - lazily

        found = [Place(folder, key) for folder, key in registry.installations()]
    return [*found, Place(DEFAULT, "the default folder")]


def find(candidates: Sequence[Place]) -> Path:
    """Return the first of the folders that is an MDaemon's.

    Raises:
        ConfigError: If none is; it lists them all.
    """
    looked = []
    for place in candidates:
        root = place.folder
        if root.name.lower() == "app" and child(root, "MDaemon.ini").is_file():
            root = root.parent  # The registry's AppPath ends in \APP\.
        app, file = child(root, "App"), child(root, "App", "MDaemon.ini")
        if file.is_file():
            return root
        missing = next((path for path in (root, app) if not path.is_dir()), file)
        looked.append(f"\n  - {place.folder} ({place.said_by}): {_lack(missing)}")
    raise ConfigError(
        f"No MDaemon was found. Looked in:{''.join(looked)}",
        hint="Name its folder, the one that holds App: --mdaemon-dir DIR.",
    )


def _lack(path: Path) -> str:
    what = "is there, but is something else" if path.exists() else "is not there"
    return f"{path} {what}"


def child(folder: Path, *names: str) -> Path:
    """Return a path below a folder; names count in any case, as on Windows.

    A part that is not there, or cannot be looked for, is returned as it was given.
    """
    for name in names:
        path = folder / name
        # What cannot be looked at is said by whoever opens it.
        with suppress(OSError):
            if not path.exists() and folder.is_dir():
                listed = {item.name.lower(): item for item in folder.iterdir()}
                path = listed.get(name.lower(), path)
        folder = path
    return folder


def read_ini(path: Path) -> bytes:
    """Return an INI file's bytes.

    Raises:
        ConfigError: If it is missing, no file, unreadable, or larger than an INI file.
    """
    try:
        return read_limited(path, MAX_INI_BYTES)
    except FileNotFoundError:
        message = f"{path} is not there."
    except ValueError as exc:
        message = f"{path} cannot be read as an INI file: {exc}."
    except OSError as exc:
        message = f"{path} cannot be read: {exc.strerror or exc}."
    raise ConfigError(message, hint="Check the path, and who may read it.")


class IniFiles:
    """The server's INI files as one look finds them: each is parsed once.

    Args:
        root: MDaemon's folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._parsed: dict[Path, tuple[bytes, list[ini.Entry]]] = {}

    def data(self, path: Path) -> bytes:
        """Return a file's bytes; only a file that was parsed is kept in memory.

        Raises:
            ConfigError: See `read_ini`.
        """
        return self._parsed[path][0] if path in self._parsed else read_ini(path)

    def entries(self, path: Path, data: bytes | None = None) -> list[ini.Entry]:
        """Return a file's entries.

        Args:
            data: The file's bytes, if they were read already.

        Raises:
            ConfigError: See `read_ini`.
        """
        if path not in self._parsed:
            data = read_ini(path) if data is None else data
            self._parsed[path] = data, ini.entries(data)
        return self._parsed[path][1]

    def lookup(self, target: Target) -> list[ini.Entry]:
        """Return every entry that a target means.

        Raises:
            ConfigError: If its file cannot be read, or is not below the root.
        """
        found = self.entries(file_below(self.root, target.file))
        return ini.matching(found, target.section, target.key)


def raw_queue(root: Path) -> Path:
    r"""Return the folder of the RAW queue: `[Directories] Raw` in App/MDaemon.ini.

    The value is a path on the server. Seen from another machine, the end of
    `C:\MDaemon\Queues\Raw` is looked up below the mounted folder.

    Raises:
        ConfigError: If the key or the folder is not there.
    """
    path = child(root, "App", "MDaemon.ini")
    hint = "Correct it, or send mail by SMTP: mail-server = smtp://HOST:PORT."
    found = ini.lookup(read_ini(path), "Directories", "Raw")
    if not found or not found[0].value:
        message = f"{path} [Directories] Raw is not there, so there is no RAW queue."
        raise ConfigError(message, hint=hint)
    value = found[0].value.strip('"')
    folder = Path(value)
    if folder.is_absolute() and folder.is_dir():
        return folder
    parts = [part for part in PureWindowsPath(value).parts if part not in {"..", "."}]
    for skip in range(len(parts)):
        folder = child(root, *(part.strip("\\/") for part in parts[skip:]))
        if folder.is_dir() and folder != root:
            return folder
    message = (
        f"{path} [Directories] Raw names {printable(value, 300)}, which is not there."
    )
    raise ConfigError(message, hint=hint)


def file_below(root: Path, name: str) -> Path:
    """Return a file below the installation, whatever slashes and case its name has.

    Raises:
        ConfigError: If the name, or a link, leads out of the installation.
    """
    path = child(root, *re.split(r"[\\/]", name))
    if not is_below(path, root):
        message = f"{path} leads out of {root}, to {os.path.realpath(path)}."
        raise ConfigError(message, hint="Name a file below MDaemon's folder.")
    return path


def is_below(path: Path, folder: Path) -> bool:
    """Whether a path is the folder or in it, links followed."""
    # `Path.resolve` does not stand links that lead in a circle.
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
