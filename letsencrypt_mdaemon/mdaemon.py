"""The installation: where it is, its host name, and how it is told to reload."""

from __future__ import annotations

import logging
import math
import os.path
import re
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING

from letsencrypt_mdaemon import ini
from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.pki.names import normalise
from letsencrypt_mdaemon.system.disk import read_limited
from letsencrypt_mdaemon.text import words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_log = logging.getLogger(__name__)

DEFAULT = Path("C:/MDaemon")
INI_LIMIT = 16 << 20
"""Bytes; the server's INI files have some hundred thousand."""
PAUSE = 0.1
"""Seconds between two looks for a semaphore."""
GREETING_LIMIT = 4096
"""Bytes of an SMTP greeting; a line of it has at most 512 (RFC 5321, 4.5.3.1.5)."""

# Of a greeting's lines the last has a blank after the code; another code ends it too.
_LAST_LINE = re.compile(rb"^220[ \r].*\n|\A(?!220).*\n", re.MULTILINE)
# What follows is a domain or an address literal (RFC 5321, 4.2).
_HOST = re.compile(rb"220[ -](\[[\w.:]+\]|[\w-]+(?:\.[\w-]+)+\.?)[ \r\n]")


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
        return read_limited(path, INI_LIMIT)
    except FileNotFoundError:
        message = f"{path} is not there."
    except ValueError as exc:
        message = f"{path} cannot be read as an INI file: {exc}."
    except OSError as exc:
        message = f"{path} cannot be read: {exc.strerror or exc}."
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

    Args:
        address: Host and port; None if there is nobody to ask.
        timeout: Seconds, for all of it.
    """
    if address is None:
        return None
    host, port = address
    deadline = time.monotonic() + timeout
    try:
        with socket.create_connection(address, timeout) as connection:
            text = _greeting(connection, deadline)
            # Those who leave without a word may be taken for attackers.
            with suppress(OSError):
                connection.sendall(b"QUIT\r\n")
    except (OSError, UnicodeError) as exc:  # the latter from names no DNS can hold
        _log.debug("No SMTP greeting from %s port %d: %s", host, port, exc)
        return None
    match = _HOST.match(text)
    if match is None:
        return None
    return Source(f"the SMTP greeting at {host} port {port}", match[1].decode("ascii"))


def _greeting(connection: socket.socket, deadline: float) -> bytes:
    """Return a greeting of one or more lines, or whatever came in its place."""
    text = b""
    while not _LAST_LINE.search(text):
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        piece = connection.recv(GREETING_LIMIT)
        text += piece
        if not piece or len(text) > GREETING_LIMIT:
            message = "the greeting has no end"
            raise ConnectionError(message)
    return text


def configured_names(root: Path) -> list[Source]:
    """Return what the server's files tell of the default domain's SMTP host name.

    The key's place is not documented. Looked at are the keys named FQDN in
    App/MDaemon.ini; else, in the other INI-style files of App, in the section of the
    default domain: the one that a value in `[Domain]` of MDaemon.ini names, or in every
    section if there is none.

    Raises:
        ConfigError: If MDaemon.ini cannot be read.
    """
    path = child(root, "App", "MDaemon.ini")
    own = ini.entries(read_ini(path))
    found = [_source(root, path, entry) for entry in own if _is_fqdn(entry)]
    if found:
        return found
    named = {entry.value.lower() for entry in own if entry.section.lower() == "domain"}
    for other in sorted(path.parent.glob("*")):
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
    hint = "Say which name is right: --host-name NAME (host-name in the config file)."
    names = {source.name() for source in configured}
    if greeted is not None and greeted.name() in names - {None}:
        return normalise(greeted.value)
    sources = [*configured, *([greeted] if greeted else [])]
    names = {source.name() for source in sources}
    if len(names) == 1 and (name := names.pop()):
        return name
    listed = "".join(f"\n  - {source}" for source in sources)
    if not sources:
        message = "The SMTP host name of the default domain was not found: no key FQDN "
        message += "in the files of App, and no SMTP greeting with a name."
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

        Nothing is asked of a server that does not run: it would act on the files when
        it starts, maybe weeks later. Whatever was not taken up in time is withdrawn,
        with a warning that says what to do.

        Args:
            running: Whether the server is known to run; if not, the semaphore that does
                nothing but vanish tells.
        """
        probe = () if running else (self.PROBE,)
        for name in (*probe, *self.names):
            if reason := self._why_not_taken_up(name):
                _log.warning(
                    "%s. MDaemon uses the new certificate when it starts: restart it "
                    "if it runs.",
                    reason,
                )
                return
            if name in self.names:
                yield name

    def deaf(self) -> str:
        """Return why the server takes up no semaphore; "" if it does.

        Asked is the one that does nothing but vanish.
        """
        return self._why_not_taken_up(self.PROBE)

    def _why_not_taken_up(self, name: str) -> str:
        """Ask for something and wait; return why it was not taken up, if it was not."""
        lock, path = child(self.app, self.LOCK), child(self.app, name)
        if lock.exists():
            return f"{lock} forbids semaphores, so {name} was not asked for"
        # One that somebody else put there may have been read before our files were.
        others = path.exists()
        if others and not self._vanishes(path):
            return f"{path} was there before, and MDaemon does not take it up"
        try:
            path.open("xb").close()
        except FileExistsError:
            return f"{path} was put there by another program at the same time"
        except OSError as exc:
            return f"{path} cannot be written: {exc.strerror or exc}"
        vanished = False
        try:
            vanished = self._vanishes(path)
        finally:  # also when interrupted
            vanished = vanished or not _withdraw(path)
        if vanished:
            return ""
        return (
            f"MDaemon did not take up {name} in {self.patience:.0f} s; it was withdrawn"
        )

    def _vanishes(self, path: Path) -> bool:
        """Wait until the file is gone, or until patience is."""
        for _ in range(math.ceil(self.patience / PAUSE)):
            if not path.exists():
                return True
            text = "waiting for MDaemon to take up %s"
            _log.info(text, path.name, extra={"progress": True})
            self._sleep(PAUSE)
        return not path.exists()


def _withdraw(path: Path) -> bool:
    """Remove a semaphore of ours; return whether it was still there."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as exc:
        _log.warning("%s cannot be withdrawn: %s", path, exc.strerror or exc)
    return True


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
