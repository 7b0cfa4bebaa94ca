"""The request, the adapters and the outcome of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from datetime import datetime, timedelta

    from cryptography import x509

    from letsencrypt_mdaemon.authorities import Limits
    from letsencrypt_mdaemon.errors import Error
    from letsencrypt_mdaemon.pki.certificate import Certificate, KeyType, PrivateKey
    from letsencrypt_mdaemon.policy.dane import Found
    from letsencrypt_mdaemon.renewal.store import Store
    from letsencrypt_mdaemon.state.folder import CaState, State
    from letsencrypt_mdaemon.state.memory import (
        Change,
        Dropped,
        Hold,
        Revocation,
        Target,
        Window,
    )
    from letsencrypt_mdaemon.verify.endpoints import Endpoint
    from letsencrypt_mdaemon.verify.served import Served

    Verdict = Literal["new", "old", "broken", "silent", "unproven", "foreign"]


class Issuer(Protocol):
    """Obtains certificates from the CA, and revokes them."""

    def suggested_window(
        self, certificate: x509.Certificate
    ) -> tuple[Window | None, float]:
        """Return the CA's suggested window, and the seconds until the next query.

        Raises:
            AcmeError: If the CA cannot be reached, or refuses.
        """

    def obtain(
        self,
        names: Sequence[str],
        replaces: x509.Certificate | None,
        key: PrivateKey | None,
    ) -> Certificate:
        """Return a new, checked certificate; for the key, if one is given.

        Raises:
            ChallengeError: If the CA cannot validate a name.
            AcmeError: If the CA issues no certificate for another reason.
        """

    def revoke(
        self, certificate: x509.Certificate, reason: int, key: PrivateKey | None
    ) -> None:
        """Revoke a certificate, unless it is revoked already.

        Raises:
            AcmeError: If the CA refuses.
        """


class Server(Protocol):
    """The mail server: its files, and the reload."""

    def named(self, names: Collection[str]) -> Mapping[Target, x509.Certificate | None]:
        """Return the certificate that each target names; None if it is unknown."""

    def search(self) -> tuple[Target, ...]:
        """Search all files (slow) for targets, and return those to remember."""

    def planned(self, certificate: x509.Certificate) -> Sequence[Change]:
        """Return the changes that `bind` would make."""

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

    def settle(self, certificate: x509.Certificate | None) -> Sequence[Target]:
        """Carry over what others wrote into the files while they were replaced.

        Returns:
            The targets that do not name the certificate now.
        """
        ...

    def restore(self, changes: Sequence[Change], *, now: datetime) -> None:
        """Undo the changes whose values nobody has changed since."""

    def ladder(self) -> Sequence[str]:
        """Return the rungs that make the server reload, the gentlest first.

        Semaphores, and last the restart of its service if that is allowed.
        """

    def take(self, rung: str) -> bool:
        """Take a rung, and return whether the server did; if not, warn."""

    def references(self) -> Collection[str]:
        """Return the thumbprints that any file, or another service, names now."""


class Request(NamedTuple):
    """The settings of one run.

    Args:
        names: The certificate's names, the server's own name first.
        key_policy: new; reuse: keep the key; next: use one that was made before.
        days_left: Renew this many days before the end; 0 = the usual rules.
        interval: Usual time between scheduled runs; None if unknown.
        limits: The CA's limits, if it publishes them.
        force: Order even if nothing is due, or a retry has to wait.
        ask_ca: Ask for advice and CRLs now, even if both were asked for a moment ago.
        dry_run: Change nothing; only report.
        drop: Drop names that fail validation, instead of failing the run.
        needed: Names that are never dropped, as an enforced MTA-STS policy has them.
        rehearse: Obtain a certificate, but do not install it.
        issue_only: Install a certificate; a later run binds it.
        activate_only: Only bind the certificate that an earlier run obtained.
        reload: Whether to reload the server and check its ports.
        may_restart: Whether the settings allow a restart of the server.
        given: Whether the administrator named the endpoints.
        timeout: Seconds to wait for the ports after each rung.
        scheduled: Whether a scheduler most likely started the run.
        remove_old: Remove superseded certificates that this program obtained.
    """

    names: tuple[str, ...]
    key_type: KeyType
    directory_url: str
    key_policy: str = "new"
    days_left: int = 0
    interval: timedelta | None = None
    limits: Limits | None = None
    force: bool = False
    ask_ca: bool = False
    dry_run: bool = False
    drop: bool = False
    needed: tuple[str, ...] = ()
    rehearse: bool = False
    issue_only: bool = False
    activate_only: bool = False
    reload: bool = True
    may_restart: bool = False
    given: bool = False
    timeout: float = 60.0
    scheduled: bool = False
    remove_old: bool = False


class Observe(Protocol):
    """Asks the server's ports for their certificates."""

    def __call__(self, only: Collection[Endpoint] = ()) -> Mapping[Endpoint, Served]:
        """Return what every endpoint answers, asked for all names.

        Args:
            only: Ask only these, and only for the first name, with one connection each.
        """


class Adapters(NamedTuple):
    """The adapters that a run uses.

    Args:
        observe: Returns what each endpoint serves now.
        issuer: Returns the CA's client, always the same one. It is slow to import.
        revocation: Takes a certificate and its issuer; returns when and why the CA
            revoked it, by its CRL, or None. Raises an `AcmeError` if the CRL is no use.
        suspects: Returns the scheduled tasks that may put values back: those that run
            the old script, and those that run this program if there are several.
        refusal: Returns what this machine does not let a run write, or None. Takes the
            request, and the certificate to put into use; without one, it is ordered.
        tlsa: Returns the TLSA records of the server's ports; None without DNS.
    """

    store: Store
    server: Server
    observe: Observe
    state: State
    ca: CaState
    issuer: Callable[[], Issuer]
    revocation: Callable[[x509.Certificate, x509.Certificate], Revocation | None] = (
        lambda *_: None
    )
    suspects: Callable[[], tuple[Sequence[str], Sequence[str]]] = lambda: ((), ())
    refusal: Callable[..., Error | None] = lambda *_: None
    tlsa: Callable[[], Found | None] = lambda: None


class Row(NamedTuple):
    """An endpoint, and what it shows of the new certificate.

    Args:
        verdict: new; old: it still serves the previous certificate; broken: it served
            that one, and now answers wrongly; silent: it served that one, and nobody
            answers now; unproven: it could not be seen; foreign: its certificate is not
            ours, before and after.
        reason: As a phrase about the endpoint.
    """

    endpoint: str
    verdict: Verdict
    reason: str = ""

    def __str__(self) -> str:
        """Return the endpoint with the reason."""
        return f"{self.endpoint} ({self.reason})" if self.reason else self.endpoint


class Proof(NamedTuple):
    """What every endpoint of the server shows of the new certificate."""

    rows: tuple[Row, ...] = ()

    def of(self, *verdicts: Verdict) -> tuple[Row, ...]:
        """Return the rows with one of these verdicts."""
        return tuple(row for row in self.rows if row.verdict in verdicts)

    def _endpoints(self, verdict: Verdict) -> tuple[str, ...]:
        return tuple(row.endpoint for row in self.of(verdict))

    @property
    def new(self) -> tuple[str, ...]:
        """The endpoints that serve the new certificate, whoever asks."""
        return self._endpoints("new")

    @property
    def old(self) -> tuple[str, ...]:
        """The endpoints that still serve their previous certificate."""
        return self._endpoints("old")

    @property
    def broken(self) -> tuple[str, ...]:
        """The endpoints that answer wrongly, since the new certificate."""
        return self._endpoints("broken")

    @property
    def silent(self) -> tuple[str, ...]:
        """The endpoints where nobody answers yet, after a reload."""
        return self._endpoints("silent")

    @property
    def unproven(self) -> tuple[str, ...]:
        """The endpoints that could not be seen."""
        return self._endpoints("unproven")

    @property
    def foreign(self) -> tuple[str, ...]:
        """The endpoints that belong to other programs."""
        return self._endpoints("foreign")

    @property
    def is_complete(self) -> bool:
        """Whether every port that could be seen serves the new certificate."""
        return not self.of("old", "broken", "silent")

    @property
    def headline(self) -> str:
        """How many of our ports are proven, and which could not be seen, and why."""
        unseen = ", ".join(map(str, self.of("unproven")))
        ports = len(self.rows) - len(self.foreign)
        return (
            f"{len(self.new)} of {ports} port{'' if ports == 1 else 's'} proven"
            f"{f'; not proven: {unseen}' if unseen else ''}"
        )


class Outcome(NamedTuple):
    """What a run did, or would do.

    Args:
        names: The names in the settings.
        renewed: Whether the server uses another certificate than before.
        certificate: The certificate in use afterwards; in a rehearsal the new one.
        next_at: When the certificate will be due; None if the next run replaces it.
        waits_until: When the next attempt is allowed, after a failure.
        waits_for: Why it has to wait; "" if it has not.
        changes: The changes of the server's files; in a dry run, the planned ones.
        reloaded: The rungs that the server took.
        proof: What the ports serve; None if nothing could be verified.
        removed: The thumbprints of the removed certificates.
        dropped: The names that the certificate lacks for now.
        held: A person's choice of certificate that is in force.
        error: What is not good in spite of it; the command ends with its exit code.
        ordered: Whether it was ordered, or would be; False: one of the store is used.
        pending: The certificate that was issued and is not in use; in a dry run, the
            one of the store that would be put into use.
        fault: What is bad about the certificate in use afterwards, as a clause.
    """

    reason: str
    names: tuple[str, ...]
    renewed: bool = False
    certificate: x509.Certificate | None = None
    next_at: datetime | None = None
    waits_until: datetime | None = None
    waits_for: str = ""
    changes: tuple[Change, ...] = ()
    reloaded: tuple[str, ...] = ()
    proof: Proof | None = None
    removed: tuple[str, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    held: Hold | None = None
    error: Error | None = None
    pending: x509.Certificate | None = None
    fault: str = ""
    ordered: bool = False
