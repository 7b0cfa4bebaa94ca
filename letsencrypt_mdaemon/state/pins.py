"""What is remembered of TLSA records, and the key that the next certificate gets."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from letsencrypt_mdaemon.pki.tlsa import Tlsa  # noqa: TC001 - read back by its type

KEPT = timedelta(days=7)
"""How long the last answer counts while DNS fails."""


class Seen(NamedTuple):
    """A TLSA record that every server of its zone has.

    Args:
        counts: From when no cache holds an answer without it.
    """

    record: Tlsa
    counts: datetime


class Pin(NamedTuple):
    """The TLSA records of a port, as they were last validated.

    Args:
        owner: The name of the records.
        host: The name that clients look for in the certificate.
        partly: The records that only some servers of the zone have.
        ttl: Seconds that caches may keep them.
    """

    owner: str
    host: str
    port: int
    records: tuple[Seen, ...]
    partly: tuple[Tlsa, ...]
    ttl: int
    at: datetime


class Pins(NamedTuple):
    """The TLSA records of the server's ports."""

    pins: tuple[Pin, ...] = ()


class NextKey(NamedTuple):
    """The key that the next certificate gets; it exists before it is used.

    Args:
        key_pem: Unencrypted; the file is sealed.
    """

    key_pem: str
    key_type: str
    made: datetime

    def __repr__(self) -> str:
        """Hide the key."""
        return f"NextKey(key_type={self.key_type!r})"


class MailProblem(NamedTuple):
    """What would lose mail, or may.

    Args:
        subject: A domain or a name.
        code: Such as `sts-name-missing`.
        loses: Whether mail is lost, now or soon.
    """

    subject: str
    code: str
    seen: str
    loses: bool


class MailLook(NamedTuple):
    """What was seen last of the domains' mail policies.

    Args:
        policies: The id and the content of each MTA-STS policy, by domain.
        needed: The MX hosts that an enforced policy lists.
    """

    at: datetime
    problems: tuple[MailProblem, ...] = ()
    policies: tuple[tuple[str, str, str], ...] = ()
    needed: tuple[str, ...] = ()
