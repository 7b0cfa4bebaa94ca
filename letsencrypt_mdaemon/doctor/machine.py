"""What else a renewal needs of this machine: files, folders, the clock, the CA."""

from __future__ import annotations

import os
import tempfile
from datetime import timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from letsencrypt_mdaemon.doctor.advice import Code
from letsencrypt_mdaemon.doctor.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from pathlib import Path

SKEW = timedelta(minutes=5)
"""What a clock may be wrong; a CA's certificates are good from an hour ago."""


def ini_files(paths: Iterable[Path]) -> list[Finding]:
    """Return which of the files cannot be written; none is changed."""
    found = []
    for path in dict.fromkeys(paths):
        try:
            os.close(os.open(path, os.O_RDWR))
        except OSError as exc:
            seen = f"{path} cannot be written: {exc.strerror or exc}"
            found.append(Finding(kind=Code.INI_NOT_WRITABLE, seen=seen))
            continue
        # It is replaced by a neighbour, so the folder counts as well.
        found += folder(path.parent, Code.INI_NOT_WRITABLE)
    return list(dict.fromkeys(found))


def folder(path: Path, kind: Code) -> list[Finding]:
    """Return whether a folder, or the one it would be made in, takes no files."""
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        # It has no name, or vanishes whatever happens.
        with tempfile.TemporaryFile(dir=place) as stream:
            stream.write(b"x")
            stream.flush()
    except OSError as exc:
        seen = f"{path} takes no files: {exc.strerror or exc}"
        return [Finding(kind=kind, seen=seen)]
    return []


def clock(ours: datetime, theirs: datetime | None) -> list[Finding]:
    """Compare the clock with the CA's, if that is known; both in UTC."""
    if theirs is None or abs(ours - theirs) <= SKEW:
        return []
    seen = f"this machine's clock says {ours:%Y-%m-%d %H:%M} UTC, the CA's "
    seen += f"{theirs:%Y-%m-%d %H:%M} UTC"
    return [Finding(kind=Code.CLOCK_SKEW, seen=seen)]


def client_auth(leaf: x509.Certificate | None, *, public: bool) -> list[Finding]:
    """Say what the extended key usage of the certificate in use means for sending.

    Args:
        public: Whether the CA is a public one: since 2026 these issue for servers only.
    """
    if leaf is None:
        return []
    try:
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return []
    if ExtendedKeyUsageOID.CLIENT_AUTH not in usage:
        seen = "the certificate in use is for servers only (no clientAuth): a server "
        seen += "that asks MDaemon for a client certificate when it sends may refuse it"
    elif public:
        seen = "the certificate in use is for clients as well (clientAuth); the next "
        seen += "one will not be, as public CAs have stopped that: a server that asks "
        seen += "MDaemon for a client certificate when it sends may refuse it then"
    else:
        return []
    return [Finding(kind=Code.CLIENT_AUTH, seen=seen)]
