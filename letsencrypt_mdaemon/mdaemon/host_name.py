"""Find the SMTP host name of the default domain in the files and the greeting."""

from __future__ import annotations

import logging
import re
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.mdaemon.folders import main_ini
from letsencrypt_mdaemon.pki.names import normalise
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from letsencrypt_mdaemon.mdaemon import ini
    from letsencrypt_mdaemon.mdaemon.folders import IniFiles

_log = logging.getLogger(__name__)

MAX_GREETING_BYTES = 4096
"""The longest greeting; a line has at most 512 (RFC 5321, 4.5.3.1.5)."""

# The last line of a greeting has a space after the code; another code ends it too.
_LAST_LINE = re.compile(rb"^220[ \r].*\n|\A(?!220).*\n", re.MULTILINE)

# After the code comes a domain or an address literal (RFC 5321, 4.2).
_HOST = re.compile(rb"220[ -](\[[\w.:]+\]|[\w-]+(?:\.[\w-]+)+\.?)[ \r\n]")


class Source(NamedTuple):
    """A place that gives a host name, and the name."""

    where: str
    value: str

    def name(self) -> str | None:
        """Return the host name; None if no CA can certify the value."""
        try:
            return normalise(self.value)
        except ValueError:
            return None

    def __str__(self) -> str:
        """Return the source as messages show it."""
        try:
            normalise(self.value)
        except ValueError as exc:
            return f"{self.where} gives {printable(self.value, 300)!r}, which {exc}"
        return f"{self.where} gives {printable(self.value, 300)}"


def greeting(address: tuple[str, int] | None, timeout: float = 3.0) -> Source | None:
    """Return the name in the mail server's greeting (RFC 5321, 4.2 and 4.3.1).

    None if the server does not answer in time, or its greeting has no name.

    Args:
        address: Host and port; None to skip the connection.
        timeout: Seconds for the whole conversation.
    """
    if address is None:
        return None
    host, port = address
    deadline = time.monotonic() + timeout
    try:
        with socket.create_connection(address, timeout) as connection:
            text = _greeting(connection, deadline)
            # A server may treat clients that leave without QUIT as attackers.
            with suppress(OSError):
                connection.sendall(b"QUIT\r\n")
    except (OSError, UnicodeError) as exc:  # UnicodeError: a name that DNS cannot hold
        _log.debug("No SMTP greeting from %s port %d: %s", host, port, exc)
        return None
    match = _HOST.match(text)
    if match is None:
        return None
    return Source(f"the SMTP greeting at {host} port {port}", match[1].decode("ascii"))


def _greeting(connection: socket.socket, deadline: float) -> bytes:
    """Return a greeting of one or more lines, or the answer in its place."""
    text = b""
    while not _LAST_LINE.search(text):
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        piece = connection.recv(MAX_GREETING_BYTES)
        text += piece
        if not piece or len(text) > MAX_GREETING_BYTES:
            message = "the greeting has no end"
            raise ConnectionError(message)
    return text


def configured_names(files: IniFiles) -> list[Source]:
    """Return the default domain's SMTP host names in the server's files.

    The key's place is not documented. Keys named FQDN in App/MDaemon.ini count; without
    any, those in the other INI-style files of App, in the section of the default
    domain. A value in `[Domain]` of MDaemon.ini names that section; without one, every
    section counts.

    Raises:
        ConfigError: If MDaemon.ini cannot be read.
    """
    path = main_ini(files.root)
    own = files.entries(path)
    if found := _sources(files.root, path, own):
        return found
    named = {entry.value.lower() for entry in own if entry.section.lower() == "domain"}
    for other in sorted(path.parent.glob("*")):
        if other == path or other.suffix.lower() not in {".ini", ".dat"}:
            continue
        try:
            entries = files.entries(other)
        except ConfigError as exc:
            _log.debug("%s", exc)
            continue
        default = [entry for entry in entries if entry.section.lower() in named]
        found += _sources(files.root, other, default) or _sources(
            files.root, other, entries
        )
    return found


def host_name(configured: Sequence[Source], greeted: Source | None) -> str:
    """Return the name that all sources give.

    If the files give several names, because the default domain is unknown, the greeting
    chooses among them.

    Raises:
        ConfigError: If the sources give no usable name, or different names.
    """
    hint = "Set the right name: --host-name NAME (host-name in the config file)."
    names = {source.name() for source in configured}
    if greeted is not None and greeted.name() in names - {None}:
        return normalise(greeted.value)
    sources = [*configured, *([greeted] if greeted else [])]
    names = {source.name() for source in sources}
    if len(names) == 1 and (name := names.pop()):
        return name
    listed = "".join(f"\n  - {source}" for source in sources)
    if not sources:
        message = "Could not find the SMTP host name of the default domain: the files "
        message += "of App have no key FQDN, and no SMTP greeting has a name."
    elif len(sources) == 1 or not names - {None}:
        message = f"Cannot use the SMTP host name of the default domain:{listed}"
        hint = f"Correct it in the Domain Manager (Host name & IP). Or: {hint}"
    else:
        message = f"The SMTP host name of the default domain is unclear:{listed}"
    raise ConfigError(message, hint=hint)


def _sources(root: Path, path: Path, entries: Sequence[ini.Entry]) -> list[Source]:
    file = path.relative_to(root)
    return [
        Source(f"{file} [{printable(entry.section, 80)}] {entry.key}", entry.value)
        for entry in entries
        if entry.key.lower() == "fqdn" and entry.value
    ]
