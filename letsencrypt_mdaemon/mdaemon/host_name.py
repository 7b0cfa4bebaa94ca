"""Decide which SMTP host name the default domain has, by what the server shows."""

from __future__ import annotations

import logging
import re
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.mdaemon.folders import child, main_ini
from letsencrypt_mdaemon.pki.names import normalise
from letsencrypt_mdaemon.system.disk import reason
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from letsencrypt_mdaemon.mdaemon import ini
    from letsencrypt_mdaemon.mdaemon.folders import IniFiles

_log = logging.getLogger(__name__)

CONNECT_SECONDS = 3.0
GREETING_SECONDS = 35.0
"""For a greeting on a connection that stands; a server may delay it against spam."""
MAX_GREETING_BYTES = 4096
"""The longest greeting; a line has at most 512 (RFC 5321, 4.5.3.1.5)."""

# The last line of a greeting has a space after the code; another code ends it too.
_LAST_LINE = re.compile(rb"^220[ \r].*\n|\A(?!220).*\n", re.MULTILINE)

# After the code comes a domain or an address literal (RFC 5321, 4.2).
_HOST = re.compile(rb"220[ -](\[[\w.:]+\]|[\w-]+(?:\.[\w-]+)+\.?)[ \r\n]")

# MDaemon's built-in aliases lead to the system account of the default domain.
_ALIAS = re.compile(
    rb"\b(?:MDaemon|listserv|listserver|list-serv)@\$LOCALDOMAIN\$[\s=:,;|\"'<>]+"
    rb"MDaemon@([\w.-]+)",
    re.IGNORECASE,
)


class Source(NamedTuple):
    """A place that gives a host name, and the name.

    Args:
        value: Empty if the place gives none; then `where` says why.
        domain: The domain whose section holds it, in lower case; else empty.
    """

    where: str
    value: str
    domain: str = ""

    def name(self) -> str | None:
        """Return the host name; None if no CA can certify the value."""
        try:
            return normalise(self.value)
        except ValueError:
            return None

    def __str__(self) -> str:
        """Return the source as messages show it."""
        if not self.value:
            return self.where
        try:
            normalise(self.value)
        except ValueError as exc:
            return f"{self.where} gives {printable(self.value, 300)!r}, which {exc}"
        return f"{self.where} gives {printable(self.value, 300)}"


class Domain(NamedTuple):
    """A place that shows which domain is the default one, and its name in lower case.

    Args:
        kind: Of the place; places of one kind may show several domains.
    """

    kind: str
    where: str
    value: str

    def __str__(self) -> str:
        """Return the place as messages show it."""
        return f"{self.where} shows the default domain {printable(self.value, 300)}"


class Witnesses(NamedTuple):
    """Everything that shows the SMTP host name of the default domain.

    Args:
        server: The FQDN in MDaemon.ini, if it has one.
        domains: The default domain.
        hosts: The FQDN of each domain.
        in_use: The first name of our certificate in use.
    """

    server: tuple[Source, ...] = ()
    domains: tuple[Domain, ...] = ()
    hosts: tuple[Source, ...] = ()
    in_use: Source | None = None

    def default_domains(self) -> set[str]:
        """Return the domains that can be the default one, as far as it is shown."""
        kinds: dict[str, set[str]] = {}
        for item in self.domains:
            kinds.setdefault(item.kind, set()).add(item.value)
        sets = list(kinds.values())
        return (set.intersection(*sets) or set.union(*sets)) if sets else set()

    def decide(self) -> str | None:
        """Return the host name; None if it is unclear, or no CA can certify it.

        A single value in the files decides. Else the name of our certificate decides,
        unless the files give only other names. A name from the section of a domain that
        is not the default one never decides.

        The SMTP greeting is not asked: if several domains share an address, it is that
        of the first domain in the alphabet.
        """
        domains = self.default_domains()
        names = {source.name() for source in self._of(domains)}
        if len(names) == 1 and (self.server or len(domains) < 2):  # noqa: PLR2004 - several
            return names.pop()
        ours = self.in_use.name() if self.in_use else None
        return ours if ours in names or not names else None

    def _of(self, domains: set[str]) -> list[Source]:
        hosts = self.server or self.hosts
        if self.server or not domains:
            return list(hosts)
        return [source for source in hosts if source.domain in domains]


def host_name(found: Witnesses, greeted: Callable[[], Source | None]) -> str:
    """Return the name that the witnesses give (`Witnesses.decide`).

    Args:
        greeted: Returns the SMTP greeting, which an error shows.

    Raises:
        ConfigError: If the name is unclear, or no CA can certify it.
    """
    name = found.decide()
    domains = found.default_domains()
    if name is not None:
        other = [x for x in found.hosts if x.name() == name and not found.server]
        if len(domains) == 1 and other and domains.isdisjoint(x.domain for x in other):
            _log.warning(
                "%s, but the default domain is %s. The certificate keeps its name. If "
                "it is wrong, set the right one: --host-name NAME.",
                other[0],
                printable(min(domains), 300),
            )
        return name
    hint = "Set the right name: --host-name NAME (host-name in the config file)."
    sources = found.server or found.hosts
    shown = [*found.domains, *sources, *([found.in_use] if found.in_use else [])]
    if (greeting := greeted()) is not None:
        shown.append(greeting)
    listed = "".join(f"\n  - {item}" for item in shown)
    names = {source.name() for source in sources}
    if not any(source.domain in domains for source in sources) and len(domains) == 1:
        message = f"The default domain {printable(min(domains), 300)} has no SMTP host "
        message += f"name in the files of App:{listed}"
    elif not sources:
        message = "Could not find the SMTP host name of the default domain: the files "
        message += f"of App have no key FQDN.{listed}"
    elif names == {None}:
        message = f"Cannot use the SMTP host name of the default domain:{listed}"
        hint = f"Correct it in the Domain Manager (Host name & IP). Or: {hint}"
    else:
        message = f"The SMTP host name of the default domain is unclear:{listed}"
    raise ConfigError(message, hint=hint)


def greeting(
    address: tuple[str, int] | None, timeout: float = GREETING_SECONDS
) -> Source | None:
    """Return the name in the mail server's greeting (RFC 5321, 4.2 and 4.3.1).

    The source has no value if there is no such name; its place says why.

    Args:
        address: Host and port; None to skip the connection.
        timeout: Seconds for the greeting, once the connection stands.
    """
    if address is None:
        return None
    host, port = address
    at = f"{host} port {port}"
    try:
        connection = socket.create_connection(address, min(timeout, CONNECT_SECONDS))
    except (OSError, UnicodeError) as exc:  # UnicodeError: a name that DNS cannot hold
        said = reason(exc) if isinstance(exc, OSError) else exc
        return Source(f"nobody listens at {at}: {printable(said, 200)}", "")
    try:
        with connection:
            text = _greeting(connection, time.monotonic() + timeout)
            # A server may treat clients that leave without QUIT as attackers.
            with suppress(OSError):
                connection.sendall(b"QUIT\r\n")
    except TimeoutError:
        return Source(f"{at} connected, but sent no greeting in {timeout:g} s", "")
    except OSError as exc:
        said = f"connected, but sent no whole greeting: {printable(reason(exc), 200)}"
        return Source(f"{at} {said}", "")
    match = _HOST.match(text)
    if match is None:
        shown = printable(text[:200].decode("ascii", "replace").strip())
        return Source(f"the SMTP greeting at {at} has no host name: {shown!r}", "")
    return Source(f"the SMTP greeting at {at}", match[1].decode("ascii"))


def _greeting(connection: socket.socket, deadline: float) -> bytes:
    """Return a greeting of one or more lines, or the answer in its place."""
    text = b""
    while not _LAST_LINE.search(text):
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        piece = connection.recv(MAX_GREETING_BYTES)
        text += piece
        if not piece or len(text) > MAX_GREETING_BYTES:
            message = "the greeting has no end" if piece else "it hung up"
            raise ConnectionError(message)
    return text


def witnesses(files: IniFiles, in_use: str = "") -> Witnesses:
    """Return what the server's files show.

    No place is documented. A key FQDN in App/MDaemon.ini is the server's, or of the
    domain that its section names. Without the server's own, the other INI-style files
    of App count, too. The default domain is a value in `[Domain]` of MDaemon.ini, the
    one with the folder of the system account (Users/DOMAIN/MDaemon), and the target of
    the built-in aliases.

    Args:
        in_use: The first name of our certificate in use, if it is known.

    Raises:
        ConfigError: If MDaemon.ini cannot be read.
    """
    path = main_ini(files.root)
    own = files.entries(path)
    # Its sections are the server's, unless they are named like a domain.
    hosts = [
        source if _is_domain(source.domain) else source._replace(domain="")
        for source in _sources(_shown(path, files.root), own)
    ]
    ours = Source("our certificate in use", in_use) if in_use else None
    if server := tuple(source for source in hosts if not source.domain):
        return Witnesses(server=server, in_use=ours)
    sections: set[str] = set()
    domains: list[Domain] = []
    beside = {*child(files.root, "App").glob("*"), *path.parent.glob("*")}
    for other in sorted(beside):
        if other == path or other.suffix.lower() not in {".ini", ".dat"}:
            continue
        try:
            entries, data = files.entries(other), files.data(other)
        except ConfigError as exc:
            _log.debug("%s", exc)
            continue
        sections |= {entry.section.lower() for entry in entries}
        hosts += _sources(_shown(other, files.root), entries)
        where = f"{_shown(other, files.root)} (built-in alias)"
        targets = {match.lower() for match in _ALIAS.findall(data.replace(b"\0", b""))}
        domains += [
            Domain("alias", where, target.decode("ascii", "replace"))
            for target in sorted(targets)
        ]
    domains += [
        Domain("file", f"{_shown(path, files.root)} [Domain] {entry.key}", value)
        for entry in own
        if entry.section.lower() == "domain" and (value := entry.value.lower())
        if value in sections or (_names_domain(entry.key) and _is_domain(value))
    ]
    domains += [Domain("folder", *found) for found in _system_accounts(files.root)]
    return Witnesses(domains=tuple(domains), hosts=tuple(hosts), in_use=ours)


def mail_domains(files: IniFiles) -> tuple[str, ...]:
    """Return the domains that the server's files show, in lower case.

    Each has a folder below Users, or a section with its FQDN.
    """
    users = child(files.root, "Users")
    try:
        found = {path.name.lower() for path in users.iterdir() if path.is_dir()}
    except OSError as exc:
        _log.debug("%s: %s", users, reason(exc))
        found = set()
    shown = witnesses(files)
    found |= {item.domain for item in shown.hosts} | shown.default_domains()
    return tuple(sorted(name for name in found if name and _is_domain(name)))


def _system_accounts(root: Path) -> list[tuple[str, str]]:
    """Return each folder of a system account, and its domain."""
    users = child(root, "Users")
    try:
        folders = sorted(users.iterdir())
    except OSError as exc:
        _log.debug("%s: %s", users, reason(exc))
        return []
    found = [child(folder, "MDaemon") for folder in folders]
    return [
        (_shown(path, root), path.parent.name.lower())
        for path in found
        if path.is_dir()
    ]


def _names_domain(key: str) -> bool:
    return any(word in key.lower() for word in ("name", "domain"))


def _is_domain(text: str) -> bool:
    return Source("", text).name() is not None


def _shown(path: Path, root: Path) -> str:
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def _sources(file: str, entries: Sequence[ini.Entry]) -> list[Source]:
    return [
        Source(
            f"{file} [{printable(entry.section, 80)}] {entry.key}",
            entry.value,
            entry.section.lower(),
        )
        for entry in entries
        if entry.key.lower() == "fqdn" and entry.value
    ]
