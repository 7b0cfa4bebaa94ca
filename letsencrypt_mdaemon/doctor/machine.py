"""What else a renewal needs of this machine: files, folders, and the clock."""

from __future__ import annotations

import os
import tempfile
from datetime import timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from letsencrypt_mdaemon.doctor.findings import Code, Finding
from letsencrypt_mdaemon.system.disk import reason
from letsencrypt_mdaemon.system.handles import opened
from letsencrypt_mdaemon.text import when

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from pathlib import Path

MAX_CLOCK_SKEW = timedelta(minutes=5)
"""How wrong a clock may be; CAs date certificates back by an hour."""


def ini_files(paths: Iterable[Path]) -> list[Finding]:
    """Return which files cannot be written, without changing any."""
    found = []
    for path in dict.fromkeys(paths):
        try:
            with opened(path, os.O_RDWR):
                pass
        except (OSError, ValueError) as exc:
            seen = f"could not open {path} for writing: {reason(exc)}"
            found.append(Finding(kind=Code.INI_NOT_WRITABLE, seen=seen))
            continue
        # A new file beside it will replace it, so the folder counts, too.
        found += folder(path.parent, Code.INI_NOT_WRITABLE)
    return list(dict.fromkeys(found))


def folder(path: Path, kind: Code) -> list[Finding]:
    """Return why no file can be created in a folder, or in the one to create it in."""
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        # This file has no name, or disappears whatever happens.
        with tempfile.TemporaryFile(dir=place) as stream:
            stream.write(b"x")
            stream.flush()
    except OSError as exc:
        seen = f"could not create a file in {path}: {reason(exc)}"
        return [Finding(kind=kind, seen=seen)]
    return []


def clock(ours: datetime, theirs: datetime | None) -> list[Finding]:
    """Return whether our clock differs from the CA's, if that is known."""
    if theirs is None or abs(ours - theirs) <= MAX_CLOCK_SKEW:
        return []
    seen = f"this machine's clock shows {ours.astimezone():%Y-%m-%d %H:%M}, but the "
    seen += f"CA's shows {when(theirs, ours)}"
    return [Finding(kind=Code.CLOCK_SKEW, seen=seen)]


def client_auth(leaf: x509.Certificate | None, *, public: bool) -> list[Finding]:
    """Return what the extended key usage of the certificate in use means for sending.

    Args:
        public: Whether the CA is public: since 2026 those issue for servers only.
    """
    if leaf is None:
        return []
    try:
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return []
    if ExtendedKeyUsageOID.CLIENT_AUTH not in usage:
        seen = "the certificate in use is for servers only (no clientAuth): a server "
        seen += "that asks MDaemon for a client certificate may refuse its mail"
    elif public:
        seen = "the certificate in use is for clients, too (clientAuth), but the next "
        seen += "one will not be: public CAs no longer issue them. A server that asks "
        seen += "MDaemon for a client certificate may then refuse its mail"
    else:
        return []
    return [Finding(kind=Code.CLIENT_AUTH, seen=seen)]
