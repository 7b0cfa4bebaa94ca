"""Put a certificate into use and prove it at every port; or put everything back."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

from letsencrypt_mdaemon.errors import DeployError
from letsencrypt_mdaemon.pki.certificate import OURS, dns_names, thumbprint
from letsencrypt_mdaemon.renewal import lifetime
from letsencrypt_mdaemon.renewal.adapters import Outcome, Ports, Proof, Server, Verifier
from letsencrypt_mdaemon.state.memory import Attempt, utc

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from datetime import datetime

    from cryptography import x509

    from letsencrypt_mdaemon.renewal.adapters import Adapters, Request
    from letsencrypt_mdaemon.state.memory import Change


_log = logging.getLogger(__name__)


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


def put_into_use(
    order: Request, reason: str, leaf: x509.Certificate, parts: Adapters, now: datetime
) -> Outcome:
    """Put a certificate of the store into use, prove it, or roll back."""
    attempt = parts.state.attempt()
    if attempt is not None and attempt.failed is None:
        # A run that was killed, or that left ports on the old certificate.
        before, changes = attempt.before, attempt.changes
    else:
        before, changes = _before(order, parts), ()
    changes += tuple(parts.server.bind(leaf, now=now, dry_run=True))
    attempt = Attempt(thumbprint(leaf), before, changes)
    parts.state.save_attempt(attempt)
    deploying = Deployment(
        parts.server, parts.verifier, before, patience=order.patience
    )
    deployed = deploying.carry_out(leaf, now=now)
    proof = deployed.proof
    if proof is not None and proof.broken:
        undo(order, attempt, proof.broken, parts, now)
    if proof is not None and proof.old:
        raise DeployError(
            f"The new certificate is issued and written into the server's files, but "
            f"these ports still serve the old one: {', '.join(proof.old)}.",
            hint="Restart MDaemon (or let this program: allow-restart = yes). The next "
            "run looks again, and orders nothing.",
        )
    if proof is None:
        kept = "; superseded certificates stay" if order.remove_old else ""
        _log.warning(
            "No port that serves TLS was seen: nothing could be proven%s.", kept
        )
    memory = parts.state.load()
    if proof is not None and (issued := memory.find(thumbprint(leaf))):
        memory = memory.remember(replace(issued, verified=utc(now)))
    parts.state.save(replace(memory, in_use=thumbprint(leaf)))
    # In this order: an attempt that outlives its certificate would spoil the next one.
    parts.state.forget_attempt()
    parts.ca.forget_pending()
    next_at = lifetime.backstop(leaf)
    _log.info(
        "In use%s: %s, until %s; due again about %s",
        f" at {len(proof.new)} ports" if proof else "",
        thumbprint(leaf),
        f"{leaf.not_valid_after_utc:%Y-%m-%d}",
        f"{next_at:%Y-%m-%d}",
    )
    return Outcome(
        renewed=True,
        reason=reason,
        names=order.names,
        certificate=leaf,
        next_at=next_at,
        changes=deployed.changes,
        reloaded=deployed.reloaded,
        proof=proof,
        dropped=memory.dropped,
        removed=_remove_old(order, leaf, parts) if proof is not None else (),
    )


def _before(order: Request, parts: Adapters) -> dict[str, str]:
    """Return what the ports serve that are ours to change."""
    if not order.reload:
        return {}
    named = {
        thumbprint(leaf) for leaf in parts.server.named(order.names).values() if leaf
    }
    issued = {item.thumbprint for item in parts.state.load().issued}
    observed = parts.verifier.observe()
    return baseline(observed, named | issued, given=order.given)


def undo(
    order: Request,
    attempt: Attempt,
    broken: Sequence[str],
    parts: Adapters,
    now: datetime,
) -> NoReturn:
    """Put everything back and say so; whatever happens, the run has failed."""
    what = (
        f"The new certificate broke {', '.join(broken)}"
        if broken
        else ("An earlier run was interrupted while it was rolling back")
    )
    _log.warning("%s: rolling back.", what)
    parts.state.save_attempt(replace(attempt, undoing=True))
    deploying = Deployment(
        parts.server, parts.verifier, attempt.before, patience=order.patience
    )
    lost = deploying.roll_back(attempt.changes, now=now)
    done = Attempt(attempt.thumbprint, {}, (), failed=utc(now))
    parts.state.save_attempt(done)
    if lost:
        message = f"{what}; the files are as they were, but these ports do not serve "
        message += f"what they did: {', '.join(lost)}."
        raise DeployError(message, hint="Restart MDaemon, and look at these ports.")
    served = ", ".join(attempt.before)
    raise DeployError(
        f"{what}; it was rolled back, and every port serves again what it served "
        f"before: {served}.",
        hint="The new certificate is kept and tried again in a day. See why the server "
        "does not take it: its key (key-type), its chain, the log of the server.",
    )


def _remove_old(
    order: Request, new: x509.Certificate, parts: Adapters
) -> tuple[str, ...]:
    """Remove certificates of ours that this one supersedes and that nothing names.

    A failure is a warning: the new certificate is in use.
    """
    if not order.remove_old:
        return ()
    memory = parts.state.load()
    removed = []
    try:
        referenced = parts.server.references()
        for leaf, name in list(parts.store.certificates()):
            digest = thumbprint(leaf)
            ours = memory.find(digest) is not None or name.startswith(f"{OURS} ")
            older = leaf.not_valid_before_utc <= new.not_valid_before_utc
            superseded = older and bool(set(dns_names(leaf)) & set(dns_names(new)))
            if ours and superseded and leaf != new and digest not in referenced:
                parts.store.remove(digest)
                _log.info("Removed the superseded certificate %s", name)
                removed.append(digest)
    except DeployError as exc:
        _log.warning("%s %s", exc.message, exc.hint)
    return tuple(removed)
