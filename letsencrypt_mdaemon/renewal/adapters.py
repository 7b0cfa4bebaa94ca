"""What a run is asked for, what it works with, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from letsencrypt_mdaemon.renewal import lifetime

if TYPE_CHECKING:
    from collections.abc import (
        Callable,
        Collection,
        Iterable,
        Iterator,
        Mapping,
        Sequence,
    )
    from datetime import datetime, timedelta

    from cryptography import x509

    from letsencrypt_mdaemon.authorities import Limits
    from letsencrypt_mdaemon.pki.certificate import Certificate, PrivateKey
    from letsencrypt_mdaemon.state.advice import Window
    from letsencrypt_mdaemon.state.folder import CaState, State
    from letsencrypt_mdaemon.state.memory import Change, Dropped, Target


class Verifier(Protocol):
    """Looks at the server's ports."""

    def observe(self) -> Mapping[str, str]:
        """Return the thumbprint that each endpoint serves now; "" for none."""
        ...


class Issuer(Protocol):
    """Obtains certificates from the CA, and revokes them."""

    def suggested_window(
        self, certificate: x509.Certificate
    ) -> tuple[Window | None, float]:
        """Return the CA's suggested window, and the seconds until the next query.

        Raises:
            AcmeError: If the CA cannot be reached, or refuses.
        """
        ...

    def obtain(
        self,
        names: Sequence[str],
        replaces: x509.Certificate | None,
        key: PrivateKey | None,
    ) -> Certificate:
        """Return a new, checked certificate; for the key, if one is given.

        Raises:
            ChallengeError: If the CA cannot validate a name.
            AcmeError: If the CA does not issue for another reason.
        """
        ...

    def revoke(
        self, certificate: x509.Certificate, reason: int, key: PrivateKey | None
    ) -> None:
        """Make sure that a certificate is revoked.

        Raises:
            AcmeError: If the CA refuses.
        """
        ...


class Store(Protocol):
    """Keeps certificates where the server's programs find them."""

    def certificates(self) -> Iterable[tuple[x509.Certificate, str]]:
        """Return each certificate with its friendly name."""
        ...

    def chain(self, wanted: str) -> tuple[x509.Certificate, ...]:
        """Return the certificate with this thumbprint and its known issuers."""
        ...

    def key(self, wanted: str) -> PrivateKey | None:
        """Return a certificate's private key, or None if the store keeps it."""
        ...

    def key_readers(self, wanted: str) -> list[str] | None:
        """Return the accounts that may read a certificate's key; None if unknown."""
        ...

    def install(self, certificate: Certificate) -> None:
        """Make sure that a certificate is there, with key and friendly name."""
        ...

    def remove(self, wanted: str) -> None:
        """Make sure that the certificate with this thumbprint is not there."""
        ...


class Server(Protocol):
    """The mail server: its files, and how it is told to reload them."""

    def named(self, names: Collection[str]) -> Mapping[Target, x509.Certificate | None]:
        """Return the certificate that each target names; None if it is unknown."""
        ...

    def planned(self, certificate: x509.Certificate) -> Sequence[Change]:
        """Return the changes that `bind` would make."""
        ...

    def bind(
        self,
        certificate: x509.Certificate,
        *,
        now: datetime,
        announce: Callable[[Sequence[Change]], None],
    ) -> Sequence[Change]:
        """Make every target name a certificate, and return the changes.

        Args:
            announce: Called once with the changes, before the first of them is made.
        """
        ...

    def restore(self, changes: Sequence[Change], *, now: datetime) -> None:
        """Take changes back, as far as the values are still what they became."""
        ...

    def reload(self) -> Iterator[str]:
        """Ask the server to reload, gentlest rung first; yield each rung it took."""
        ...

    def restart_service(self) -> Iterator[str]:
        """Restart the server's service, if that is allowed; yield that rung."""
        ...

    def references(self) -> Collection[str]:
        """Return the thumbprints that the server's files name now."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What an administrator wants of a run.

    Args:
        names: The names of the certificate, the first one first.
        key_type: The kind of key.
        directory_url: The CA.
        reuse_key: Keep the private key in use, which a TLSA record pins.
        days_left: Renew when no more days than these are left; 0 = the usual rules.
        interval: Time until the next scheduled run.
        limits: What the CA allows, if it publishes that.
        force: Order even if nothing is due, and even if it is too early to try again.
        dry_run: Only report what would be done.
        drop: Leave out names that fail, rather than go without a certificate.
        rehearse: Obtain a certificate, and do not install it.
        issue_only: Install a certificate, and leave it to a later run to bind it.
        activate_only: Only bind what an earlier run obtained.
        reload: Whether to reload the server and look at its ports.
        given: Whether the administrator named the endpoints.
        timeout: Seconds that the ports have to change after each rung.
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
    timeout: float = 60.0
    remove_old: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapters:
    """What a run works with.

    Args:
        issuer: Returns the way to the CA, always the same. It is slow to import, and a
            run with nothing due may need none.
    """

    store: Store
    server: Server
    verifier: Verifier
    state: State
    ca: CaState
    issuer: Callable[[], Issuer]


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
        """Whether every port serves the new certificate."""
        return not self.old and not self.broken


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run did, or would do.

    Args:
        renewed: Whether another certificate is in use than before.
        reason: Why, or why not.
        names: The names that were wanted.
        certificate: The one in use afterwards; in a rehearsal the one obtained.
        next_at: When the certificate will be due.
        waits_until: When the next try is allowed, if it is due and failed before.
        changes: What was changed in the server's files; in a dry run, what would be.
        reloaded: The rungs that the server took.
        proof: What its ports serve; None if nothing could be verified.
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
