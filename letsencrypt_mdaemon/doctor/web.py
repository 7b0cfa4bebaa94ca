"""Ask the webmail's HTTP server for a test token, as the CA would."""

from __future__ import annotations

import secrets
import socket
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.doctor import validator
from letsencrypt_mdaemon.doctor.advice import Code
from letsencrypt_mdaemon.doctor.findings import Finding, Notes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from letsencrypt_mdaemon.doctor.validator import Fetched


GRACE = 1.0
"""Seconds more for what cannot be stopped in time."""


LOCALHOST = "127.0.0.1"


NO_CONNECTION = {Code.PORT80_REFUSED, Code.PORT80_TIMEOUT}


WRONG_CONTENT = {
    *(Code.HTTP_STATUS, Code.WEBROOT_NOT_SERVED, Code.BODY_TOO_LONG),
    *(Code.BODY_HTML_LOGIN_PAGE, Code.BODY_BOM),
}


_STATIC = (".txt", ".css", ".js", ".ico", ".png", ".gif", ".jpg", ".svg", ".html")


@dataclass(frozen=True, slots=True)
class Token:
    """A file of ours in the place of a CA's token."""

    name: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    thumbprint: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    @property
    def text(self) -> str:
        """Its content: as long as a key authorization (RFC 8555, 8.1)."""
        return f"{self.name}.{self.thumbprint}"


# MDaemon's usual ports for webmail, without and with TLS.
WEBMAIL = {3000: Code.WEBMAIL_OTHER_PORT, 443: Code.WEBMAIL_HTTPS_ONLY}


def elsewhere(finding: Finding, here: Fetched, *, lost: bool) -> Finding:
    """Return what it means at another address that this machine serves the file."""
    if here.finding is not None:
        return finding
    kind = Code.HAIRPIN_UNKNOWN if lost else Code.ADDR_NOT_OURS
    seen = f"{finding.seen}; this machine itself serves the file"
    return replace(finding, kind=kind, seen=seen)


def note_https(served: Sequence[Fetched], notes: Notes) -> None:
    """Note that a file came by a redirect to HTTPS, which is well."""
    for fetched in served:
        if fetched.urls[-1].startswith("https:"):
            seen = f"{fetched.urls[0]} redirects to HTTPS"
            notes.add(Code.WORLDCLIENT_HTTPS_REDIRECT, seen)
            return


def unfinished(seen: str) -> Fetched:
    """Return the result of a name that there was no time for."""
    return validator.Fetched(finding=Finding(kind=Code.UNFINISHED, seen=seen), urls=())


def is_own(address: str) -> bool:
    """Whether an address is this machine's."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def sample_token(webroot: Path) -> Path | None:
    """Return a small file with an extension that the web server should show."""
    try:
        files = [
            path
            for path in islice(webroot.iterdir(), 1000)
            if path.suffix.lower() in _STATIC
            and path.is_file()
            and 0 < path.stat().st_size < validator.LIMIT
        ]
    except OSError:
        return None
    return min(files, key=lambda path: _STATIC.index(path.suffix.lower()), default=None)
