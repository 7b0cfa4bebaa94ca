"""The installation: where it is, what its host name is, and how it is told to reload."""

from __future__ import annotations

import logging
import os
import re
import smtplib
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING

from letsencrypt_mdaemon import ini
from letsencrypt_mdaemon.errors import ConfigError, words
from letsencrypt_mdaemon.files import read_limited
from letsencrypt_mdaemon.names import normalise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_log = logging.getLogger(__name__)

DEFAULT = Path("C:/MDaemon")
INI_LIMIT = 16 << 20
"""Bytes; the server's INI files have some hundred thousand."""


@dataclass(frozen=True, slots=True)
class Place:
    """A folder where MDaemon may be, and who says so."""

    folder: Path
    said_by: str


def places(given: Path | None, said_by: str) -> list[Place]:
    """Return where to look: only where we are told, else the registry's and the default.

    Args:
        said_by: Which option, variable or file gave the folder.
    """
    if given is not None:
        return [Place(given, said_by)]
    found = []
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
        if root.name.lower() == "app" and child(root, "MDaemon.ini").exists():
            root = root.parent  # The registry's AppPath ends in \APP\.
        if child(root, "App", "MDaemon.ini").exists():
            return root
        missing = next(
            (path for path in (root, child(root, "App")) if not path.is_dir()),
            child(root, "App", "MDaemon.ini"),
        )
        looked.append(f"\n  - {place.folder} ({place.said_by}): {missing} is not there")
    raise ConfigError(
        f"No MDaemon was found. Looked in:{''.join(looked)}",
        hint="Name its folder, the one that holds App: --mdaemon-dir DIR.",
    )


def child(folder: Path, *names: str) -> Path:
    """Return a path below a folder; names count in any case, as on Windows.

    A part that is not there is returned as it was given.
    """
    for name in names:
        exact = folder / name
        if not exact.exists() and folder.is_dir():
            wanted = name.lower()
            with os.scandir(folder) as listing:
                exact = next(
                    (Path(item.path) for item in listing if item.name.lower() == wanted),
                    exact,
                )
        folder = exact
    return folder


def read_ini(path: Path) -> bytes:
    """Return an INI file's bytes.

    Raises:
        ConfigError: If it is missing, no file, unreadable, or larger than an INI file.
    """
    try:
        return read_limited(path, INI_LIMIT)
    except FileNotFoundError:
        message = f"{path} is not there."
    except ValueError as exc:
        message = f"{path} cannot be read as an INI file: {exc}."
    except OSError as exc:
        message = f"{path} cannot be read: {exc.strerror}."
    raise ConfigError(message, hint="Check the path, and who may read it.")


# The host name


@dataclass(frozen=True, slots=True)
class Source:
    """Something that tells a host name, and what it tells."""

    where: str
    value: str

    def name(self) -> str | None:
        """Return the host name; None if no certificate can be had for the value."""
        try:
            return normalise(self.value)
        except ValueError:
            return None

    def __str__(self) -> str:
        """Return it as the messages show it."""
        try:
            normalise(self.value)
        except ValueError as exc:
            return f"{self.where} says {words(self.value, 300)!r}, which {exc}"
        return f"{self.where} says {words(self.value, 300)}"


def greeting(address: tuple[str, int] | None, timeout: float = 3.0) -> Source | None:
    """Return the name that the mail server greets with (RFC 5321, 4.2 and 4.3.1).

    None if it does not answer in time, or greets without a name.
    """
    if address is None:
        return None
    host, port = address
    try:
        with smtplib.SMTP(timeout=timeout) as client:
            code, banner = client.connect(host, port)
    except (OSError, smtplib.SMTPException) as exc:
        _log.debug("No SMTP greeting from %s port %d: %s", host, port, exc)
        return None
    first = banner.decode("latin-1").split(maxsplit=1)[:1]
    if code != 220 or not first or "." not in first[0]:  # noqa: PLR2004 - ready
        return None
    return Source(f"the SMTP greeting at {host} port {port}", first[0])


def configured_names(root: Path) -> list[Source]:
    """Return what the server's files tell of the default domain's SMTP host name.

    The key's place is not documented. Looked at are the keys named FQDN in App/MDaemon.ini
    and, in the other INI-style files of App, in the section of the default domain: the
    one that a value in `[Domain]` of MDaemon.ini names, else in every section.
    """
    path = child(root, "App", "MDaemon.ini")
    own = ini.entries(read_ini(path))
    found = [_source(root, path, entry) for entry in own if _is_fqdn(entry)]
    if found:
        return found
    named = {entry.value.lower() for entry in own if entry.section.lower() == "domain"}
    for other in sorted(path.parent.iterdir()):
        if other == path or other.suffix.lower() not in {".ini", ".dat"}:
            continue
        try:
            entries = ini.entries(read_ini(other))
        except ConfigError as exc:
            _log.debug("%s", exc)
            continue
        names = [entry for entry in entries if _is_fqdn(entry)]
        default = [entry for entry in names if entry.section.lower() in named]
        found += [_source(root, other, entry) for entry in default or names]
    return found


def host_name(configured: Sequence[Source], greeted: Source | None) -> str:
    """Return the one name that all the sources tell.

    Where the files tell several names, because the default domain is not known, the
    greeting chooses among them.

    Raises:
        ConfigError: If they tell nothing, nothing usable, or different names.
    """
    hint = "Say which name is right: --host-name NAME (or host-name in the config file)."
    names = {source.name() for source in configured}
    if greeted is not None and len(names) > 1 and greeted.name() in names - {None}:
        return normalise(greeted.value)
    sources = [*configured, *([greeted] if greeted else [])]
    names = {source.name() for source in sources}
    if len(names) == 1 and (name := names.pop()):
        return name
    listed = "".join(f"\n  - {source}" for source in sources)
    if not sources:
        message = "The SMTP host name of the default domain was not found: no key FQDN in "
        message += "the files of App, and no SMTP greeting with a name."
    elif len(sources) == 1 or not names - {None}:
        message = f"The SMTP host name of the default domain cannot be used:{listed}"
        hint = f"Correct it in the Domain Manager (Host name & IP). Or: {hint}"
    else:
        message = f"The SMTP host name of the default domain is not clear:{listed}"
    raise ConfigError(message, hint=hint)


def _is_fqdn(entry: ini.Entry) -> bool:
    return entry.key.lower() == "fqdn" and bool(entry.value)


def _source(root: Path, path: Path, entry: ini.Entry) -> Source:
    where = f"{path.relative_to(root)} [{words(entry.section, 80)}] {entry.key}"
    return Source(where, entry.value)


# Folders


def raw_queue(root: Path) -> Path:
    r"""Return the folder of the RAW queue: `[Directories] Raw` in App/MDaemon.ini.

    The value is a path on the server. Seen from another machine, `C:\MDaemon\Queues\Raw`
    is looked up below the mounted folder.

    Raises:
        ConfigError: If the key or the folder is not there.
    """
    path = child(root, "App", "MDaemon.ini")
    hint = "Correct it, or send mail by SMTP: mail-server = smtp://HOST:PORT."
    found = ini.lookup(read_ini(path), "Directories", "Raw")
    if not found or not found[0].value:
        message = f"{path} [Directories] Raw is not there: no RAW queue to send mail by."
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
    message = f"{path} [Directories] Raw names {words(value, 300)}, which is not there."
    raise ConfigError(message, hint=hint)


# Semaphores


class Semaphores:
    """The semaphore files in App: an empty file asks the server for something.

    It looks for them every few seconds, and removes one as a sign that it took it up.

    Args:
        patience: Seconds to wait for each to be taken up.
    """

    LOCK = "LOCKSEMS.SEM"
    PROBE = "WATCHDOG.SEM"

    def __init__(
        self,
        app: Path,
        names: Sequence[str],
        *,
        patience: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.app = app
        self.names = names
        self.patience = patience
        self._sleep = sleep

    def reload(self, *, running: bool) -> Iterator[str]:
        """Ask for a reload, gentlest first, and yield each semaphore taken up.

        Nothing is asked of a server that does not run: it would act on the files when it
        starts, maybe weeks later. Whatever was not taken up in time is withdrawn, and is
        a warning that says what to do.

        Args:
            running: Whether the server is known to run; if not, the semaphore that does
                nothing but vanish tells.
        """
        todo = "The files are written; restart MDaemon to make it use them."
        if child(self.app, self.LOCK).exists():
            path = child(self.app, self.LOCK)
            _log.warning("%s forbids semaphores. %s", path, todo)
            return
        if not running and not self._is_taken_up(self.PROBE):
            _log.warning(
                "No MDaemon takes semaphores up in %s (waited %.0f s for %s): it seems "
                "not to run. It uses the new certificate when it starts.",
                self.app,
                self.patience,
                self.PROBE,
            )
            return
        for name in self.names:
            if not self._is_taken_up(name):
                _log.warning(
                    "MDaemon did not take up %s in %.0f s; it was withdrawn. %s",
                    name,
                    self.patience,
                    todo,
                )
                return
            yield name

    def _is_taken_up(self, name: str) -> bool:
        path = child(self.app, name)
        try:
            path.touch()
        except OSError as exc:
            _log.warning("%s cannot be written: %s", path, exc.strerror)
            return False
        deadline = time.monotonic() + self.patience
        while path.exists():
            if time.monotonic() > deadline:
                path.unlink(missing_ok=True)
                return False
            _log.info(
                "waiting for MDaemon to take up %s", name, extra={"progress": True}
            )
            self._sleep(0.1)
        return True


def is_below(path: Path, folder: Path) -> bool:
    """Whether a path is the folder or in it, links followed."""
    return path.resolve().is_relative_to(folder.resolve())


def file_below(root: Path, name: str) -> Path:
    """Return a file below the installation, whatever slashes and case its name has."""
    return child(root, *re.split(r"[\\/]", name))


def listens(port: int) -> bool:
    """Whether anything on this machine accepts connections on a port."""
    for host in ("127.0.0.1", "::1"):
        try:
            socket.create_connection((host, port), timeout=2).close()
        except OSError:
            continue
        return True
    return False
