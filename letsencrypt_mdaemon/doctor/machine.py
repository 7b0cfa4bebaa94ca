"""What else a renewal needs of this machine: the clock, and clients' usage."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from letsencrypt_mdaemon.doctor.findings import Code, Finding
from letsencrypt_mdaemon.text import when

if TYPE_CHECKING:
    from datetime import datetime

MAX_CLOCK_SKEW = timedelta(minutes=5)
"""How wrong a clock may be; CAs date certificates back by an hour."""


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
