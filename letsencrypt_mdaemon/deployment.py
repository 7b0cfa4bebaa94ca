"""Put a certificate into use and prove it at every port; or put everything back."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from letsencrypt_mdaemon.pki.certificate import thumbprint

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from datetime import datetime

    from cryptography import x509

    from letsencrypt_mdaemon.state.memory import Change

_log = logging.getLogger(__name__)

Ports = dict[str, str]
"""Endpoint → thumbprint of the certificate it serves; empty if it serves none."""


class Server(Protocol):
    """The mail server's files, and its ear for changes."""

    def bind(self, certificate: x509.Certificate, *, now: datetime) -> Sequence[Change]:
        """Make the server's files name the certificate."""
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


@dataclass(frozen=True, slots=True)
class Deployed:
    """What was done to put a certificate into use.

    Args:
        proof: None if no port served TLS before, or the server was not told.
    """

    changes: tuple[Change, ...]
    reloaded: tuple[str, ...]
    proof: Proof | None


def judge(before: Mapping[str, str], after: Mapping[str, str], new: str) -> Proof:
    """Compare what each port served before with what it serves now."""
    verdicts: dict[str, list[str]] = {"new": [], "old": [], "broken": []}
    for endpoint, served in before.items():
        now = after.get(endpoint, "")
        verdict = "new" if now == new else "old" if now == served else "broken"
        verdicts[verdict].append(endpoint)
    return Proof(*(tuple(verdicts[name]) for name in ("new", "old", "broken")))


def baseline(
    observed: Mapping[str, str], ours: Collection[str], *, given: bool
) -> Ports:
    """Return the ports whose certificate is ours to change, with what they serve.

    Args:
        ours: Thumbprints that the server's files named, or that we obtained.
        given: Whether the administrator named the endpoints: then all of them count.
            Else a port with another certificate belongs to another program.
    """
    return {
        endpoint: served
        for endpoint, served in observed.items()
        if served and (given or served in ours)
    }


class Deployment:
    """One attempt to put a certificate into use.

    Args:
        before: What the ports served before anything changed.
        patience: Seconds that the ports have to change after each rung; a server that
            restarts serves nothing for a while.
    """

    def __init__(
        self,
        server: Server,
        verifier: Verifier,
        before: Mapping[str, str],
        *,
        patience: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.server = server
        self.verifier = verifier
        self.before = before
        self.patience = patience
        self._sleep = sleep

    def carry_out(self, certificate: x509.Certificate, *, now: datetime) -> Deployed:
        """Bind it, climb the reload ladder, and look after each rung.

        The ladder is left at the first rung after which every port that served TLS
        before serves the new certificate, or one of them is broken.

        Raises:
            DeployError: If the files cannot be written, or the service not restarted.
        """
        new = thumbprint(certificate)
        proof: Proof | None = None
        changes = self.server.bind(certificate, now=now)
        for change in changes:
            was = change.before or "(nothing)"
            _log.info("%s: %s → %s", change.target, was, change.after)
        if not changes and self.before:
            # An earlier run wrote the files; somebody may have restarted the server.
            proof = judge(self.before, self.verifier.observe(), new)
            if proof.is_complete:
                return Deployed((), (), proof)
        reloaded: list[str] = []
        proof = None
        for name in self._ladder(lambda: self._is_left(new)):
            _log.info("The server took up %s", name)
            reloaded.append(name)
            if self.before:
                proof = self._wait(new)
                if proof.is_complete or proof.broken:
                    break
        return Deployed(tuple(changes), tuple(reloaded), proof)

    def roll_back(self, changes: Sequence[Change], *, now: datetime) -> tuple[str, ...]:
        """Put the files back, reload, and look whether the ports serve what they did.

        Returns:
            The ports that do not.

        Raises:
            DeployError: If the files cannot be written, or the service not restarted.
        """
        self.server.restore(changes, now=now)
        lost = tuple(self.before)
        for name in self._ladder(self._lost):
            _log.info("The server took up %s", name)
            deadline = time.monotonic() + self.patience
            while lost := self._lost():
                if time.monotonic() > deadline:
                    break
                self._sleep(0.5)
            else:
                break
        return lost

    def _ladder(self, is_left: Callable[[], object]) -> Iterator[str]:
        """Yield each rung; the last one only if something is left for it to do."""
        yield from self.server.reload()
        if self.before and is_left():
            yield from self.server.restart_service()

    def _is_left(self, new: str) -> bool:
        return bool(judge(self.before, self.verifier.observe(), new).old)

    def _lost(self) -> tuple[str, ...]:
        served = self.verifier.observe()
        return tuple(
            port for port, was in self.before.items() if served.get(port) != was
        )

    def _wait(self, new: str) -> Proof:
        """Look at the ports until all serve the new certificate, or patience ends."""
        deadline = time.monotonic() + self.patience
        while True:
            proof = judge(self.before, self.verifier.observe(), new)
            if proof.is_complete or time.monotonic() > deadline:
                return proof
            waiting = ", ".join([*proof.broken, *proof.old])
            _log.info("waiting for %s", waiting, extra={"progress": True})
            self._sleep(0.5)
