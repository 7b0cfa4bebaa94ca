"""What a run is told, and what it works with: the ports of the workflow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from letsencrypt_mdaemon import deployment, renewal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime, timedelta

    from cryptography import x509

    from letsencrypt_mdaemon.authorities import Limits
    from letsencrypt_mdaemon.pki.certificate import Certificate, PrivateKey
    from letsencrypt_mdaemon.state.advice import Window
    from letsencrypt_mdaemon.state.folder import CaState, State
    from letsencrypt_mdaemon.state.memory import Change, Target


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


class Server(deployment.Server, Protocol):
    """The mail server's files, and its ear for changes."""

    def named(self, names: Collection[str]) -> Mapping[Target, x509.Certificate | None]:
        """Return which certificate each target names."""
        ...

    def bind(
        self, certificate: x509.Certificate, *, now: datetime, dry_run: bool = False
    ) -> Sequence[Change]:
        """Make every target name it; with `dry_run` only return what would change."""
        ...

    def references(self) -> Collection[str]:
        """Return the thumbprints that any of the server's INI values names."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
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
    interval: timedelta = renewal.INTERVAL
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
class Parts:
    """What a run works with, beside the CA."""

    store: Store
    server: Server
    verifier: deployment.Verifier
    state: State
    ca: CaState
