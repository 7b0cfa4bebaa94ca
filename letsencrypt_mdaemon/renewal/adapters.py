"""What a run is told, and what it works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from letsencrypt_mdaemon.renewal import lifetime

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime, timedelta

    from cryptography import x509

    from letsencrypt_mdaemon.authorities import Limits
    from letsencrypt_mdaemon.pki.certificate import Certificate, PrivateKey
    from letsencrypt_mdaemon.state.advice import Window
    from letsencrypt_mdaemon.state.folder import CaState, State
    from letsencrypt_mdaemon.state.memory import Change, Dropped, Target


Ports = dict[str, str]
"""Endpoint → thumbprint of the certificate it serves; empty if it serves none."""


class Verifier(Protocol):
    """Looks at the server's ports."""

    def observe(self) -> Ports:
        """Return which certificate each endpoint serves now."""
        ...


@dataclass(frozen=True, slots=True)
class Proof:
    """How the ports that served TLS before serve it now.

    Args:
        new: They serve the new certificate.
        old: They still serve the one they served before.
        broken: They serve another one, or none any more.
    """

    new: tuple[str, ...] = ()
    old: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether all of them serve the new one."""
        return not self.old and not self.broken


class Issuer(Protocol):
    """Obtains certificates."""

    def suggested_window(
        self, certificate: x509.Certificate
    ) -> tuple[Window | None, float]:
        """Return the CA's advice, and the seconds until it may be asked again."""
        ...

    def obtain(
        self,
        names: Sequence[str],
        replaces: x509.Certificate | None,
        key: PrivateKey | None,
    ) -> Certificate:
        """Return a new certificate, checked; for the key, if one is given."""
        ...

    def revoke(
        self, certificate: x509.Certificate, reason: int, key: PrivateKey | None
    ) -> None:
        """Make sure that a certificate is revoked."""
        ...


class Store(Protocol):
    """Keeps certificates where the server's programs find them."""

    def certificates(self) -> Iterable[tuple[x509.Certificate, str]]:
        """Return each certificate with its friendly name."""
        ...

    def chain(self, wanted: str) -> tuple[x509.Certificate, ...]:
        """Return the one with this thumbprint and its issuers, as far as it can."""
        ...

    def key(self, wanted: str) -> PrivateKey | None:
        """Return the private key of the one with this thumbprint, if it can be had."""
        ...

    def key_readers(self, wanted: str) -> list[str] | None:
        """Return the accounts that may read its key; None where that is not known."""
        ...

    def install(self, certificate: Certificate) -> None:
        """Make sure that it is there, with its key, under its friendly name."""
        ...

    def remove(self, wanted: str) -> None:
        """Make sure that the one with this thumbprint is not there."""
        ...


class Server(Protocol):
    """The mail server's files, and its ear for changes."""

    def named(self, names: Collection[str]) -> Mapping[Target, x509.Certificate | None]:
        """Return which certificate each target names."""
        ...

    def bind(
        self, certificate: x509.Certificate, *, now: datetime, dry_run: bool = False
    ) -> Sequence[Change]:
        """Make every target name it; with `dry_run` only return what would change."""
        ...

    def restore(self, changes: Sequence[Change], *, now: datetime) -> None:
        """Take changes back, as far as the values are still what they became."""
        ...

    def reload(self) -> Iterator[str]:
        """Ask the server to use it, gentlest first, and yield what it took up."""
        ...

    def restart_service(self) -> Iterator[str]:
        """Restart its service, if that may be done, and yield that it was."""
        ...

    def references(self) -> Collection[str]:
        """Return the thumbprints that any of the server's INI values names."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a certificate should be, and how far a run may go.

    Args:
        names: The names, the first one first.
        key_type: The kind of key.
        directory_url: The CA.
        reuse_key: Go on with the private key in use, which a TLSA record pins.
        days_left: Renew when no more days than these are left; 0 = the usual rules.
        interval: Until the next scheduled run.
        limits: What the CA allows, if it says so.
        force: Order even if none is due, and even if it is too early to try again.
        dry_run: Only say what would be done.
        drop: Rather go without names that fail than without a certificate.
        rehearse: Obtain it, and put it to no use.
        issue_only: Leave the cut-over to a later run.
        activate_only: Only put into use what an earlier run obtained.
        reload: Whether the server is told, and its ports are looked at.
        given: Whether the administrator named the endpoints.
        patience: Seconds that the ports have to change after each step of a reload.
        remove_old: Remove superseded certificates of ours.
    """

    names: tuple[str, ...]
    key_type: str
    directory_url: str
    reuse_key: bool = False
    days_left: int = 0
    interval: timedelta = lifetime.INTERVAL
    limits: Limits | None = None
    force: bool = False
    dry_run: bool = False
    drop: bool = False
    rehearse: bool = False
    issue_only: bool = False
    activate_only: bool = False
    reload: bool = True
    given: bool = False
    patience: float = 60.0
    remove_old: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapters:
    """What a run works with, beside the CA."""

    store: Store
    server: Server
    verifier: Verifier
    state: State
    ca: CaState


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run did, or would do.

    Args:
        renewed: Whether another certificate is in use than before.
        reason: Why, or why not.
        certificate: The one in use afterwards; in a rehearsal the one obtained.
        next_at: When it will be due.
        reloaded: The semaphores that the server took up.
        waits_until: When it is tried again, if it is due and failed before.
        proof: What its ports serve; None if nothing could be proven.
        removed: Thumbprints of the certificates removed.
        dropped: The names that the certificate goes without for now.
    """

    renewed: bool
    reason: str
    names: tuple[str, ...]
    certificate: x509.Certificate | None = None
    next_at: datetime | None = None
    waits_until: datetime | None = None
    changes: tuple[Change, ...] = ()
    reloaded: tuple[str, ...] = ()
    proof: Proof | None = None
    removed: tuple[str, ...] = ()
    dropped: tuple[Dropped, ...] = ()
