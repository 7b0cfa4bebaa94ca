"""What is remembered of an installation, as values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime


def utc(moment: datetime) -> datetime:
    """Return a moment in UTC, to the second: what files and reports hold."""
    return moment.astimezone(UTC).replace(microsecond=0)


HISTORY = 50
"""Certificates remembered, newest last."""


RUNS = 10
"""Scheduled runs remembered."""


@dataclass(frozen=True, slots=True)
class Target:
    """One INI value that names the certificate, or one binding of an IIS site.

    Args:
        file: Path below the installation, with forward slashes; or `IIS`.
        form: How the value names it; see `mdaemon.forms`.
    """

    file: str
    section: str
    key: str
    form: str

    def __str__(self) -> str:
        """Return it as messages show it."""
        return f"{self.file} [{self.section}] {self.key}"


@dataclass(frozen=True, slots=True)
class Change:
    """One target, before and after.

    Args:
        line: Counted from 1; 0 if the key was not there.
    """

    target: Target
    line: int
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """A certificate being put into use: kept until it is proven, or rolled back.

    Args:
        before: What each port served before: endpoint → thumbprint.
        changes: What was changed in the server's files.
        failed: When it was rolled back; None while it is under way.
        undoing: Whether it is being rolled back.
    """

    thumbprint: str
    before: dict[str, str]
    changes: tuple[Change, ...]
    undoing: bool = False
    failed: datetime | None = None


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate this program obtained.

    Args:
        verified: When every port that spoke TLS was seen to serve it; None if never.
        revoked: When this program revoked it; None if it did not.
    """

    thumbprint: str
    directory_url: str
    names: tuple[str, ...]
    obtained: datetime
    verified: datetime | None = None
    revoked: datetime | None = None


@dataclass(frozen=True, slots=True)
class Dropped:
    """A name that is wanted, and that the certificate goes without for now.

    Args:
        since: When the CA first could not validate it.
        tried: When it was tried last.
        why: The CA's words.
    """

    name: str
    since: datetime
    tried: datetime
    why: str


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered of the installation, whatever the CA.

    Args:
        compromised: Public keys that must not be used again: SHA-256 in hex.
        runs: When the last scheduled runs began.
        in_use: The thumbprint that was put into use last; "" if it is not known.
        exit_code: How the last scheduled run ended; None if it did not, or never ran.
    """

    targets: tuple[Target, ...] = ()
    issued: tuple[Issued, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    compromised: tuple[str, ...] = ()
    runs: tuple[datetime, ...] = ()
    in_use: str = ""
    exit_code: int | None = None

    def find(self, thumbprint: str) -> Issued | None:
        """Return what is remembered of a certificate."""
        found = [item for item in self.issued if item.thumbprint == thumbprint]
        return found[-1] if found else None

    def remember(self, item: Issued) -> Memory:
        """Return the memory with a certificate added or replaced."""
        others = [old for old in self.issued if old.thumbprint != item.thumbprint]
        return replace(self, issued=tuple([*others, item][-HISTORY:]))


@dataclass(frozen=True, slots=True)
class Account:
    """Who we are to a CA.

    Args:
        key: The account key as JWK, private.
        url: The account's URL; "" until the CA has told it.
        next_key: The key that a rollover under way puts in its place; else empty.
    """

    key: dict[str, str]
    url: str
    next_key: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Leave the key out."""
        return f"Account(url={self.url!r})"


@dataclass(frozen=True, slots=True)
class OpenOrder:
    """An order that is not done: its URL, and the key it will be finalized with.

    Args:
        issued: Whether the CA has issued, and the ledger says so.
    """

    url: str
    finalize: str
    names: tuple[str, ...]
    key_type: str
    key_pem: str
    issued: bool = False

    def __repr__(self) -> str:
        """Leave the key out."""
        return f"OpenOrder(url={self.url!r}, names={self.names!r})"
