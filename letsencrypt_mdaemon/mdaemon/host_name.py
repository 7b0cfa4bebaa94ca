"""The SMTP host name of the default domain, from the files and the greeting."""

from __future__ import annotations

import logging
import re
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.mdaemon.folders import child
from letsencrypt_mdaemon.pki.names import normalise
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from letsencrypt_mdaemon.mdaemon import ini
    from letsencrypt_mdaemon.mdaemon.folders import IniFiles

_log = logging.getLogger(__name__)


MAX_GREETING_BYTES = 4096
"""A line of a greeting has at most 512 (RFC 5321, 4.5.3.1.5)."""


# Of a greeting's lines the last has a blank after the code; another code ends it too.
_LAST_LINE = re.compile(rb"^220[ \r].*\n|\A(?!220).*\n", re.MULTILINE)


# What follows is a domain or an address literal (RFC 5321, 4.2).
_HOST = re.compile(rb"220[ -](\[[\w.:]+\]|[\w-]+(?:\.[\w-]+)+\.?)[ \r\n]")


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
            return f"{self.where} says {printable(self.value, 300)!r}, which {exc}"
        return f"{self.where} says {printable(self.value, 300)}"


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
        piece = connection.recv(MAX_GREETING_BYTES)
        text += piece
        if not piece or len(text) > MAX_GREETING_BYTES:
            message = "the greeting has no end"
            raise ConnectionError(message)
    return text


def configured_names(files: IniFiles) -> list[Source]:
    """Return what the server's files tell of the default domain's SMTP host name.

    The key's place is not documented. Looked at are the keys named FQDN in
    App/MDaemon.ini; else, in the other INI-style files of App, in the section of the
    default domain: the one that a value in `[Domain]` of MDaemon.ini names, or in every
    section if there is none.

    Raises:
        ConfigError: If MDaemon.ini cannot be read.
    """
    path = child(files.root, "App", "MDaemon.ini")
    own = files.entries(path)
    found = [_source(files.root, path, entry) for entry in own if _is_fqdn(entry)]
    if found:
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
        names = [entry for entry in entries if _is_fqdn(entry)]
        default = [entry for entry in names if entry.section.lower() in named]
        found += [_source(files.root, other, entry) for entry in default or names]
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
    where = f"{path.relative_to(root)} [{printable(entry.section, 80)}] {entry.key}"
    return Source(where, entry.value)
