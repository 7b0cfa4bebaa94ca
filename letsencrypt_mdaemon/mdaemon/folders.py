"""Find MDaemon's folder and the files below it."""

from __future__ import annotations

import os.path
import re
import sys
import time
from contextlib import suppress
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.mdaemon import ini
from letsencrypt_mdaemon.system.disk import read_limited, reason, when_free
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from letsencrypt_mdaemon.state.memory import Target

DEFAULT = Path("C:/MDaemon")

PATIENCE_SECONDS, BELIEVED_AFTER_SECONDS, POLL_SECONDS = 3.0, 2.0, 0.05
"""For a file that looks wrong: how long it is read again, and when it is believed."""

MAX_INI_BYTES = 16 << 20
"""The largest INI file to read; the server's have some hundred thousand."""


class Place(NamedTuple):
    """A folder where MDaemon may be.

    Args:
        origin: The option, variable, file or registry key that names it.
    """

    folder: Path
    origin: str


def places(given: Path | None, origin: str) -> list[Place]:
    """Return the folder that the settings give and its origin, else the usual ones."""
    if given is not None:
        return [Place(given, origin)]
    found: list[Place] = []
    if sys.platform == "win32":
        from letsencrypt_mdaemon.windows import registry  # noqa: PLC0415 - lazily

        found = [Place(folder, key) for folder, key in registry.installations()]
    return [*found, Place(DEFAULT, "the default folder")]


def find(candidates: Sequence[Place]) -> Path:
    """Return the first folder that is MDaemon's.

    Raises:
        ConfigError: If there is none; it lists the folders.
    """
    checked = []
    for folder, origin in candidates:
        root = root_of(folder)
        app, file = child(root, "App"), child(root, "App", "MDaemon.ini")
        if file.is_file():
            return root
        missing = next((path for path in (root, app) if not path.is_dir()), file)
        what = "has the wrong type" if missing.exists() else "does not exist"
        checked.append(f"\n  - {folder} ({origin}): {missing} {what}")
    raise ConfigError(
        f"Could not find MDaemon. Checked:{''.join(checked)}",
        hint="Set its folder, the one that contains App: --mdaemon-dir DIR.",
    )


def root_of(place: Path) -> Path:
    r"""Return MDaemon's folder for a place that names it, App, or MDaemon.ini.

    The registry's AppPath ends in ``\APP\``. A place that is none of these is returned.
    """
    if place.suffix.lower() == ".ini" and place.is_file():
        place = place.parent
    in_app = place.name.lower() == "app" and child(place, "MDaemon.ini").is_file()
    return place.parent if in_app else place


def main_ini(root: Path) -> Path:
    """Return MDaemon.ini: usually in App, else where the registry's IniPath says."""
    if sys.platform == "win32":
        from letsencrypt_mdaemon.windows import registry  # noqa: PLC0415 - lazily

        for app, file in registry.main_files():
            if root_of(app) == root and file.is_file():
                return file
    return child(root, "App", "MDaemon.ini")


def child(folder: Path, *names: str) -> Path:
    """Return a path below a folder; names match in any case, as on Windows.

    A part that is missing or unreadable is returned as given.
    """
    for name in names:
        path = folder / name
        # Whoever opens the path reports the error.
        with suppress(OSError):
            if not path.exists() and folder.is_dir():
                listed = {item.name.lower(): item for item in folder.iterdir()}
                path = listed.get(name.lower(), path)
        folder = path
    return folder


def read_ini(path: Path, *, waits: bool = True) -> bytes:
    """Return an INI file's bytes.

    Args:
        waits: On Windows, wait some seconds while a program keeps others from reading.

    Raises:
        ConfigError: If the file is missing, unreadable or too large.
    """
    try:
        if not waits:
            return read_limited(path, MAX_INI_BYTES, "an INI file")
        return when_free(lambda: read_limited(path, MAX_INI_BYTES, "an INI file"))
    except FileNotFoundError:
        message = f"{path} does not exist."
    except ValueError as exc:
        message = f"Could not read {path} as an INI file: {exc}."
    except OSError as exc:
        message = f"Could not read {path}: {reason(exc)}."
    raise ConfigError(message, hint="Check the path and its permissions.")


class IniFiles:
    """The INI files below MDaemon's folder, each parsed once.

    Raises:
        ConfigError: By each method, as `read_ini` does.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._parsed: dict[Path, tuple[bytes, list[ini.Entry]]] = {}

    def data(self, path: Path) -> bytes:
        """Return a file's bytes; only parsed files are kept in memory."""
        return self._parsed[path][0] if path in self._parsed else read_ini(path)

    def entries(self, path: Path, data: bytes | None = None) -> list[ini.Entry]:
        """Return a file's entries; its bytes may be known."""
        if path not in self._parsed:
            data = read_ini(path) if data is None else data
            self._parsed[path] = data, ini.entries(data)
        return self._parsed[path][1]

    def steady(
        self, path: Path, is_wrong: Callable[[bytes, list[ini.Entry]], bool]
    ) -> list[ini.Entry]:
        """Return a file's entries; read it again while it looks wrong.

        Another program may be writing the file, or have it locked, for a moment. What
        looks wrong is believed if it is the same two seconds later.

        Raises:
            ConfigError: If it cannot be read, or changes all the time.
        """
        if path in self._parsed and not is_wrong(*self._parsed[path]):
            return self._parsed[path][1]
        seen: bytes | str | None = None
        start = since = time.monotonic()
        while True:
            error, former, now = None, seen, time.monotonic()
            try:
                seen = read_ini(path, waits=False)
                self._parsed[path] = seen, ini.entries(seen)
                if not is_wrong(*self._parsed[path]):
                    break
            except ConfigError as exc:
                seen, error = exc.message, exc
            since = since if seen == former else now
            if now - since >= BELIEVED_AFTER_SECONDS:
                break
            if now - start >= PATIENCE_SECONDS:
                message = f"{path} changes all the time, and a value is missing in it."
                hint = "Find out which program writes it, and run again."
                raise error or ConfigError(message, hint=hint)
            time.sleep(POLL_SECONDS)
        if error is not None:
            raise error
        return self._parsed[path][1]

    def lookup(self, target: Target) -> list[ini.Entry]:
        """Return every entry of a target, whose file must be below the root."""
        found = self.entries(file_below(self.root, target.file))
        return ini.matching(found, target.section, target.key)


def raw_queue(root: Path) -> Path:
    r"""Return the folder of the RAW queue: `[Directories] Raw` in App/MDaemon.ini.

    The value is a path on the server. On another machine, the end of
    `C:\MDaemon\Queues\Raw` is searched below the mounted folder.

    Raises:
        ConfigError: If the key or the folder is missing.
    """
    path = main_ini(root)
    hint = "Correct it, or send mail by SMTP: mail-server = smtp://HOST:PORT."
    found = ini.lookup(read_ini(path), "Directories", "Raw")
    if not found or not found[0].value:
        message = f"Could not find the RAW queue: {path} has no [Directories] Raw."
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
    message = f"{path} [Directories] Raw names {printable(value, 300)}, which does not "
    raise ConfigError(f"{message}exist.", hint=hint)


def file_below(root: Path, name: str) -> Path:
    """Return a file below MDaemon's folder; slashes and case make no difference.

    MDaemon.ini may be elsewhere (see `main_ini`), and is then named by its whole path.

    Raises:
        ConfigError: If the name, or a link, leads out of the folder.
    """
    if PureWindowsPath(name).drive and name == main_ini(root).as_posix():
        return Path(name)
    path = child(root, *re.split(r"[\\/]", name))
    if not is_below(path, root):
        message = f"{path} leads out of {root}, to {os.path.realpath(path)}."
        raise ConfigError(message, hint="Name a file below MDaemon's folder.")
    return path


def is_below(path: Path, folder: Path) -> bool:
    """Whether a path is the folder or in it, after following links."""
    # `Path.resolve` fails on circular links.
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
