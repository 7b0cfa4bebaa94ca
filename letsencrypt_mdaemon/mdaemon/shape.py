"""Describe the server's files without what they say, for anybody to publish.

A name is shown if it consists of words that settings are named with. Any other one may
be of a person, a company or a host: it is masked, as every value is.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.mdaemon import discovery, forms
from letsencrypt_mdaemon.mdaemon.folders import child

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path, PurePath

    from cryptography import x509

    from letsencrypt_mdaemon.mdaemon.folders import IniFiles

MASK, TEXT = "<name>", "<text>"

_WORDS = """
    acme active address admin administration alert algorithm alias aliases all
    allow allowed alt alternate always any api app auth auto backup bind binding
    bindings ca cache caldav cert certificate certificates certs chain check chk
    cipher client cluster common config configuration connection current custom
    dane dat data date dav days db dedicated default defaults directories
    directory disable disabled dns domain domains done email enable enabled
    encrypt encryption end error expire expires external file files finger
    fingerprint folder for force format fqdn friendly from gateway general
    global group groups handshake hash header host hosts hsts html http https id
    iis imap import inbound index info ini install internal interval ip issued
    issuer issuers items key keys language let lets letsencrypt level list
    listen local lock log logging logs machine mail md mdaemon method min minger
    mode msg mta name names number open option options out outbound page
    password path per pfx pin policy pop pop3 port ports primary private profile
    protocol provider public queue queues raw read redirect reload remote renew
    renewal report request require required restart root run script secure
    security select selected self semaphore send serial server servers service
    services session set settings setup sha sha1 sha256 show signed site sites
    smtp sni spam special ssl standalone start starttls state status std stls
    store sts sub subject sync system target task template templates test text
    thumb thumbprint time timeout tls token trust trusted type update url use
    used user users value version wc web webadmin webmail webserver wildcard
    windows with work worldclient xml xmpp yes
"""
_NAME = re.compile(
    rf"(?i)(?=.{{1,48}}\Z)(?:(?:{'|'.join(sorted(_WORDS.split(), key=len)[::-1])})"
    r"[ _-]?)+[0-9]{0,2}"
)
_SEMAPHORES = {
    *("RELOADCACHE", "RESTARTWC", "RESTART", "EXITNOW", "WATCHDOG", "LOCKSEMS"),
    *("RESTARTCF", "DNS", "LOGSETTINGS", "SCHEDULE", "TRUST", "TARPIT", "REQUIRETLS"),
    *("NOSTARTTLS", "MINGER", "MXCACHE", "USERLIST", "GATEWAYS", "ALIAS", "ALERT"),
}
"""Known to the public."""

_DIGEST = re.compile(
    r"(?i)(?<![0-9a-z])(?:[0-9a-f]{2}[ :-]?){15,63}[0-9a-f]{2}(?![0-9a-z])"
)
_KINDS = {
    "nothing": r"",
    "yes or no": r"(?i)yes|no|true|false|on|off",
    "number": r"[0-9]{1,12}",
    "GUID": r"(?i)\{?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\}?",
    "IP address": r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}|(?i:[0-9a-f]*:[0-9a-f:]+)",
    "address": r"[^\s@]+@[^\s@]+",
    "URL": r"(?i)https?://.*",
    "path": r"(?i)(?:[a-z]:|\\|/).*",
    "host name": r"(?i)[a-z0-9*-]+(?:\.[a-z0-9-]+)+",
}


class Value(NamedTuple):
    """An INI value: where it is, and its form."""

    file: str
    section: str
    key: str
    form: str


class Shape(NamedTuple):
    """What may be published of a server.

    Args:
        files: The names of INI and DAT files.
        values: Each once, however many sections look like it.
        used: The semaphores that this program uses.
        present: Those that are there now.
    """

    files: Sequence[str]
    values: Sequence[Value]
    used: Sequence[str]
    present: Sequence[str]


def describe(
    files: IniFiles,
    certificates: Collection[x509.Certificate],
    semaphores: Sequence[str],
    *,
    skip: Sequence[Path] = (),
) -> Shape:
    """Return the shape of the server's files.

    Args:
        certificates: Those known; the form of a value that names one is told.
        semaphores: Those that this program uses.
    """
    names: dict[str, None] = {}
    values: dict[Value, None] = {}
    for path in discovery.ini_files(files.root, skip, everywhere=True):
        inside = path.is_relative_to(files.root)
        name = _path(path.relative_to(files.root)) if inside else _file(path.name)
        names[name] = None
        try:
            entries = files.entries(path, files.data(path))
        except ConfigError:
            continue
        for entry in entries:
            key, form = _name(entry.key), _form(entry.value, certificates)
            if key != MASK or "<" in form:
                values[Value(name, _name(entry.section), key, form)] = None
    app = child(files.root, "App")
    present = [path.name for path in app.iterdir() if path.suffix.lower() == ".sem"]
    return Shape(
        list(names), list(values), _semaphores(semaphores), _semaphores(present)
    )


def _name(text: str) -> str:
    return text if not text or _NAME.fullmatch(text) else MASK


def _file(name: str) -> str:
    stem, dot, ending = name.rpartition(".")
    return f"{_name(stem)}{dot}{ending.lower()}"


def _path(path: PurePath) -> str:
    return "/".join([*map(_name, path.parts[:-1]), _file(path.name)])


def semaphore(name: str) -> str:
    """Return a semaphore's name, masked unless it is one of the public ones."""
    stem = name.upper().removesuffix(".SEM")
    return f"{stem if stem in _SEMAPHORES else MASK}.SEM"


def _semaphores(names: Sequence[str]) -> list[str]:
    return sorted({semaphore(name) for name in names})


def _form(value: str, certificates: Collection[x509.Certificate]) -> str:
    """Return the form of a value: its kind, or where in it certificates are named."""
    parts, done = [], 0
    for hit in forms.find(value, certificates):
        parts += [*_between(value[done : hit.start]), f"<{hit.form}>"]
        done = hit.end
    parts += _between(value[done:])
    if any(part.startswith("<") and part != TEXT for part in parts):
        return "".join(parts)
    kinds = (kind for kind, form in _KINDS.items() if re.fullmatch(form, value))
    return next(kinds, "text")


def _between(text: str) -> Iterator[str]:
    """Yield what is between names of known certificates: unknown ones, separators."""
    done = 0
    for found in _DIGEST.finditer(text):
        digits = sum(character.isalnum() for character in found[0])
        yield from (_separator(text[done : found.start()]), f"<{digits} hex digits>")
        done = found.end()
    yield _separator(text[done:])


def _separator(text: str) -> str:
    return text if re.fullmatch(r"[ ,;|]{0,2}", text) else TEXT
