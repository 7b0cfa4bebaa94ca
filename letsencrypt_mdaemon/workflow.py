"""One run: decide, obtain, keep, install, bind, reload, prove, remove – in this order.

Each step is "make it so": done twice it does nothing the second time. Whatever a run
leaves undone, because it failed or was killed, the next one finishes.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

from letsencrypt_mdaemon import deployment, obtaining, planning, renewal
from letsencrypt_mdaemon.errors import AcmeError, ConfigError, DeployError
from letsencrypt_mdaemon.pki.certificate import OURS, Certificate, dns_names, thumbprint
from letsencrypt_mdaemon.state.memory import Attempt, Dropped, Issued, utc

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cryptography import x509

    from letsencrypt_mdaemon.parts import Issuer, Order, Parts
    from letsencrypt_mdaemon.planning import Situation
    from letsencrypt_mdaemon.renewal import Due
    from letsencrypt_mdaemon.state.ledger import Wait
    from letsencrypt_mdaemon.state.memory import Change

_log = logging.getLogger(__name__)


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
    proof: deployment.Proof | None = None
    removed: tuple[str, ...] = ()
    dropped: tuple[Dropped, ...] = ()


def renew(order: Order, parts: Parts, issuer: Issuer, *, now: datetime) -> Outcome:
    """Make sure that the server uses a good certificate for the names.

    Raises:
        AcmeError: The CA did not issue; nothing is changed.
        DeployError: It issued, but the certificate is not in use everywhere; it is
            kept, and the next run continues with it.
        ConfigError: The server's files or the settings do not allow it.
    """
    if order.rehearse:
        return _rehearse(order, parts, issuer, now)
    attempt = parts.state.attempt()
    if attempt is not None and attempt.undoing and not order.dry_run:
        _roll_back(order, attempt, (), parts, now)
    found = planning.look(order, parts, now)
    due = planning.decide(order, found, parts, issuer, now)
    _log.info("%s: %s", "Due" if due.due else "Nothing is due", due.reason)
    if (
        due.due
        and not order.force
        and (wait := planning.wait(order, found, parts, now))
    ):
        return _postponed(order, found, due, wait)
    if order.dry_run or not due.due:
        return _nothing_done(order, found, due, parts, now)
    pending = found.pending or obtaining.obtain(order, found, parts, issuer, now)
    if pending is None:
        found = planning.look(order, parts, now)
        due = planning.by_rule(order, found, parts, now)
        return _nothing_done(order, found, due, parts, now)
    # A run may have died between keeping the certificate and this.
    parts.ca.forget_order()
    _remember(pending, order, parts, now)
    parts.store.install(pending)
    if order.issue_only:
        reason = f"{due.reason}; issued, and kept until `activate` puts it into use"
        return Outcome(
            renewed=False, reason=reason, names=order.names, certificate=found.in_use
        )
    return _deploy(order, due.reason, pending.leaf, parts, now)


def due(
    order: Order, parts: Parts, *, now: datetime
) -> tuple[Due, Wait | None, x509.Certificate | None]:
    """Return whether it is due, why it waits, and what is in use; ask no CA."""
    found = planning.look(order, parts, now)
    due = planning.decide(order, found, parts, None, now)
    return (
        due,
        planning.wait(order, found, parts, now) if due.due else None,
        found.in_use,
    )


def roll_back(order: Order, parts: Parts, *, now: datetime) -> Outcome:
    """Go back to the last certificate that was seen to work, and prove it.

    Raises:
        ConfigError: If there is none that is still valid and in the store.
        DeployError: If it is not in use everywhere afterwards.
    """
    in_use = set(parts.server.named(order.names).values())
    stored = {thumbprint(leaf): leaf for leaf, _ in parts.store.certificates()}
    memory = parts.state.load()
    for issued in reversed(memory.issued):
        leaf = stored.get(issued.thumbprint)
        good = issued.verified is not None and issued.revoked is None
        if leaf is None or not good or in_use == {leaf}:
            continue
        if planning.is_compromised(leaf, memory):
            continue
        if leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc:
            reason = (
                f"rolled back to the certificate verified on {issued.verified:%Y-%m-%d}"
            )
            parts.ca.forget_pending()
            return _deploy(order, reason, leaf, parts, now)
    raise ConfigError(
        "There is no certificate to go back to: none that was verified on every port "
        "is still valid and in the store.",
        hint="`renew --force` obtains a new one.",
    )


def _nothing_done(
    order: Order, found: Situation, due: Due, parts: Parts, now: datetime
) -> Outcome:
    """Return that nothing is due; or, in a dry run, what would be changed."""
    changes: Sequence[Change] = ()
    if due.due and found.pending is not None:
        changes = parts.server.bind(found.pending.leaf, now=now, dry_run=True)
    return Outcome(
        renewed=False,
        reason=due.reason,
        names=order.names,
        certificate=found.in_use,
        next_at=due.at,
        changes=tuple(changes),
        dropped=found.dropped,
    )


def _postponed(order: Order, found: Situation, due: Due, wait: Wait) -> Outcome:
    """Return that it is due, and too early to try again.

    Raises:
        AcmeError: If nothing happens until somebody acts.
    """
    if wait.until is None:
        raise AcmeError(
            f"A certificate is due ({due.reason}), but {wait.reason}",
            hint=f"Open {wait.paused} to resume, then `renew --force`.",
            paused=wait.paused,
        )
    when = f"{wait.until:%Y-%m-%d %H:%M} UTC"
    _log.warning("%s. The next try is after %s; --force tries now.", wait.reason, when)
    return Outcome(
        renewed=False,
        reason=due.reason,
        names=order.names,
        certificate=found.in_use,
        next_at=due.at,
        waits_until=wait.until,
        dropped=found.dropped,
    )


def _rehearse(order: Order, parts: Parts, issuer: Issuer, now: datetime) -> Outcome:
    """Obtain a certificate and put it to no use."""
    pending = None
    if not order.force:
        pending = planning.usable(parts.ca.pending(), [order.names], order, now)
    if pending is not None:
        reason = "rehearsed before: that certificate is still good; --force repeats it"
    elif order.dry_run:
        reason = "a rehearsal would obtain a certificate and put it to no use"
    else:
        pending = issuer.obtain(order.names, None, None)
        parts.ca.keep(pending)
        reason = "rehearsed: the CA issued a certificate; it is put to no use"
    return Outcome(
        renewed=False,
        reason=reason,
        names=order.names,
        certificate=pending.leaf if pending else None,
    )


def _remember(
    certificate: Certificate, order: Order, parts: Parts, now: datetime
) -> None:
    memory = parts.state.load()
    if memory.find(certificate.thumbprint) is None:
        issued = Issued(
            thumbprint=certificate.thumbprint,
            directory_url=order.directory_url,
            names=certificate.names,
            obtained=utc(now),
        )
        parts.state.save(memory.remember(issued))


def _deploy(
    order: Order, reason: str, leaf: x509.Certificate, parts: Parts, now: datetime
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
    deploying = deployment.Deployment(
        parts.server, parts.verifier, before, patience=order.patience
    )
    deployed = deploying.carry_out(leaf, now=now)
    proof = deployed.proof
    if proof is not None and proof.broken:
        _roll_back(order, attempt, proof.broken, parts, now)
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
    next_at = renewal.backstop(leaf)
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


def _before(order: Order, parts: Parts) -> dict[str, str]:
    """Return what the ports serve that are ours to change."""
    if not order.reload:
        return {}
    named = {
        thumbprint(leaf) for leaf in parts.server.named(order.names).values() if leaf
    }
    issued = {item.thumbprint for item in parts.state.load().issued}
    observed = parts.verifier.observe()
    return deployment.baseline(observed, named | issued, given=order.given)


def _roll_back(
    order: Order,
    attempt: Attempt,
    broken: Sequence[str],
    parts: Parts,
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
    deploying = deployment.Deployment(
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


def _remove_old(order: Order, new: x509.Certificate, parts: Parts) -> tuple[str, ...]:
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
            print_ = thumbprint(leaf)
            ours = memory.find(print_) is not None or name.startswith(f"{OURS} ")
            older = leaf.not_valid_before_utc <= new.not_valid_before_utc
            superseded = older and bool(set(dns_names(leaf)) & set(dns_names(new)))
            if ours and superseded and leaf != new and print_ not in referenced:
                parts.store.remove(print_)
                _log.info("Removed the superseded certificate %s", name)
                removed.append(print_)
    except DeployError as exc:
        _log.warning("%s %s", exc.message, exc.hint)
    return tuple(removed)
