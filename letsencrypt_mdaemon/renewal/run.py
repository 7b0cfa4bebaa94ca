"""Make one run: observe, decide, obtain, deploy, verify, remember.

Each step is idempotent: repeated, it changes nothing. If a run fails or is killed, the
next one finishes its work.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.errors import (
    AcmeError,
    ChallengeError,
    ConfigError,
    DeployError,
    after_issuance,
)
from letsencrypt_mdaemon.pki.certificate import thumbprint
from letsencrypt_mdaemon.renewal import dane, guard, hold, removal, spare
from letsencrypt_mdaemon.renewal import due as rules
from letsencrypt_mdaemon.renewal.adapters import Outcome
from letsencrypt_mdaemon.renewal.by_hand import holding
from letsencrypt_mdaemon.renewal.deploy import put_into_use, undo, without
from letsencrypt_mdaemon.renewal.obtain import obtain, with_advice
from letsencrypt_mdaemon.renewal.snapshot import (
    Snapshot,
    take_snapshot,
    with_revocations,
)
from letsencrypt_mdaemon.state.memory import Issued, utc
from letsencrypt_mdaemon.text import day, when

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography import x509

    from letsencrypt_mdaemon.errors import Error
    from letsencrypt_mdaemon.pki.certificate import Certificate
    from letsencrypt_mdaemon.renewal.adapters import Adapters, Request
    from letsencrypt_mdaemon.renewal.due import Due
    from letsencrypt_mdaemon.state.ledger import Wait
    from letsencrypt_mdaemon.state.memory import Memory

_log = logging.getLogger(__name__)


def renew(
    request: Request, adapters: Adapters, memory: Memory, *, now: datetime
) -> Outcome:
    """Renew the server's certificate if it is due.

    Raises:
        AcmeError: If the CA issues no certificate; nothing is changed.
        DeployError: If the new certificate is not in use everywhere; it is kept, and
            the next run continues with it.
        ConfigError: If the server's files or the settings do not allow it, or a file
            that it would have to write.
    """
    snapshot = take_snapshot(request, adapters, memory, now)
    if request.rehearse:
        return _rehearse(snapshot, adapters)
    attempt = snapshot.attempt
    if attempt is not None and attempt.undoing and not request.dry_run:
        undo(snapshot, attempt, (), adapters)
    snapshot = with_revocations(guard.look(snapshot, adapters), adapters)
    refusal = _refusal(snapshot, adapters)
    if refusal is None:
        snapshot = with_advice(snapshot, adapters)
    due, wait = plan(snapshot)
    waiting = "Nothing is due" if snapshot.pending is None else "Waiting"
    if due.due or not (request.activate_only and snapshot.pending is None):
        head = "Due" if due.due else waiting
        _log.info("%s: %s", head, due.reason, extra={"result": True})
    if request.dry_run or not due.due or (wait is not None and not request.force):
        return _idle(snapshot, due, wait, refusal, adapters)
    if refusal is not None:
        raise refusal
    return _act(snapshot, due, adapters)


def _act(snapshot: Snapshot, due: Due, adapters: Adapters) -> Outcome:
    """Obtain a certificate unless one is there, and put it into use."""
    snapshot = guard.without_misfit(snapshot, adapters)
    request, leaf, pending = snapshot.request, snapshot.spare, snapshot.pending
    if leaf is None and pending is None:
        snapshot = obtain(snapshot, adapters)
        pending = snapshot.pending
    leaf = pending.leaf if pending else leaf
    if leaf is None:
        return _unchanged(snapshot, rules.by_rule(snapshot, snapshot.names))
    with after_issuance():
        if pending is not None:
            snapshot = _keep(snapshot, pending, due, adapters)
        if request.issue_only or hold.binding(snapshot):
            outcome = _only_issued(snapshot, leaf, due, adapters)
        elif not snapshot.named:
            raise spare.unchosen(snapshot, leaf, pending)
        else:
            outcome = _put_into_use(snapshot, leaf, due, adapters)
    return outcome._replace(ordered=pending is not None)


def _refusal(snapshot: Snapshot, adapters: Adapters) -> Error | None:
    """Return what this machine does not let the run write, if anything."""
    pending = snapshot.pending
    leaf = pending.leaf if pending else snapshot.spare
    found = adapters.refusal(snapshot.request, leaf)
    if found and leaf is not None:
        return DeployError(found.message, hint=found.hint)
    return found


def _only_issued(
    snapshot: Snapshot, waiting: x509.Certificate, due: Due, adapters: Adapters
) -> Outcome:
    """Let a new certificate wait; if a person asked for that, hold the one in use."""
    if held := hold.binding(snapshot):
        return _unchanged(snapshot, hold.decide(snapshot, held))
    reason = f"{due.reason}; the new certificate waits for `activate`"
    memory, leaf = snapshot.memory, snapshot.in_use
    if leaf is not None and not snapshot.request.scheduled:
        held = hold.begin(leaf, "no-activate", snapshot.now)
        snapshot = snapshot._replace(memory=memory._replace(hold=held))
    if held := hold.in_force(snapshot):
        adapters.state.save(snapshot.memory)
        until = day(held.until, snapshot.now)
        reason += f", and runs keep the certificate in use until {until}"
    names = snapshot.request.names
    return Outcome(
        reason=reason,
        names=names,
        certificate=leaf,
        held=held,
        pending=waiting,
        fault=spare.fault(snapshot),
    )


def _put_into_use(
    snapshot: Snapshot, leaf: x509.Certificate, due: Due, adapters: Adapters
) -> Outcome:
    """Put a certificate into use, and complain of values that are put back."""
    verdict = guard.judge(snapshot, leaf, adapters)
    if verdict.refusal is not None:
        raise verdict.refusal
    if verdict.wait is not None:
        _log.warning("%s.", verdict.wait.reason)
        return _unchanged(snapshot, due, verdict.wait)
    memory = spare.noted(snapshot)
    if memory != snapshot.memory:
        adapters.state.save(memory)
    outcome = put_into_use(snapshot._replace(memory=memory), leaf, due.reason, adapters)
    guard.make_next(snapshot, adapters, used=leaf)
    error = outcome.error or spare.complaint(snapshot, memory, adapters.suspects)
    return outcome._replace(error=error or verdict.loss)


def plan(snapshot: Snapshot) -> tuple[Due, Wait | None]:
    """Return whether a certificate is due, and why the renewal has to wait, if so."""
    if held := hold.binding(snapshot):
        due = hold.decide(snapshot, held)
        return due, rules.wait(snapshot) if due.due else None
    due = spare.choose(snapshot, rules.decide(snapshot))
    if due.ignores is not None:
        _log.warning(
            "Ignoring the CA's advice to renew now (ARI): it already brought a new "
            "certificate. The next order on its advice is possible after %s.",
            when(due.ignores, snapshot.now),
        )
    if snapshot.pending is not None and not due.due:
        after = when(due.at, snapshot.now)
        _log.warning("%s; the next attempt is after %s", due.reason, after)
    return due, (rules.wait(snapshot) or dane.wait(snapshot)) if due.due else None


def roll_back(
    request: Request, adapters: Adapters, memory: Memory, *, now: datetime
) -> Outcome:
    """Restore the last certificate that every port served, verify it, and hold it.

    Raises:
        ConfigError: If no such certificate is still valid and in the store.
        DeployError: If the certificate is not in use everywhere afterwards.
    """
    snapshot = guard.look(take_snapshot(request, adapters, memory, now), adapters)
    found = spare.last_verified(snapshot)
    if found is None:
        raise ConfigError(
            "Cannot roll back: no certificate that was verified on every port is still "
            "valid and in the store.",
            hint="Run `renew --force` to obtain a new certificate.",
        )
    leaf, verified = found
    reason = f"rolled back to the certificate verified on {day(verified, now)}"
    verdict = guard.judge(snapshot, leaf, adapters, asked=True)
    refusal = _refusal(snapshot._replace(pending=None, spare=leaf), adapters)
    refusal = refusal or verdict.refusal
    if request.dry_run:
        snapshot = snapshot.searched(adapters)
        return Outcome(
            reason=reason.replace("rolled", "would roll"),
            names=request.names,
            certificate=snapshot.in_use,
            changes=tuple(adapters.server.planned(leaf)),
            error=refusal,
            pending=leaf,
        )
    if refusal is not None:
        raise refusal
    left = {thumbprint(each) for each in snapshot.named.values() if each} & {
        item.thumbprint for item in memory.issued
    }
    snapshot = snapshot._replace(memory=without(snapshot, left - {thumbprint(leaf)}))
    adapters.ca.forget_pending()
    held = hold.begin(leaf, "rollback", now)
    with holding(snapshot, leaf, held, adapters) as snapshot:
        outcome = put_into_use(snapshot, leaf, reason, adapters)
    return outcome._replace(error=outcome.error or verdict.loss)


def _keep(
    snapshot: Snapshot, pending: Certificate, due: Due, adapters: Adapters
) -> Snapshot:
    """Remember a new certificate, and install it into the store."""
    # A run may have died after it saved the certificate.
    adapters.ca.forget_order()
    memory, request = snapshot.memory, snapshot.request
    if memory.find(pending.thumbprint) is None:
        issued = Issued(
            thumbprint=pending.thumbprint,
            directory_url=request.directory_url,
            names=tuple(name for name in request.names if name in pending.names),
            advised=utc(snapshot.now) if due.is_advised else None,
        )
        memory = memory.remember(issued)
        adapters.state.save(memory)
    added = adapters.store.install(pending)
    return removal.remember_issuers(snapshot._replace(memory=memory), added, adapters)


def _idle(
    snapshot: Snapshot,
    due: Due,
    wait: Wait | None,
    refusal: Error | None,
    adapters: Adapters,
) -> Outcome:
    """Return why a run does nothing, and what it would do, without asking the CA."""
    request = snapshot.request
    if refusal is not None and not request.dry_run:
        _log.warning("The next renewal would fail. %s", refusal)
    if wait is not None and not request.force:
        outcome = _postponed(snapshot, due, wait)
    else:
        outcome = _unchanged(snapshot, due)
        leaf = snapshot.pending.leaf if snapshot.pending else snapshot.spare
        if leaf is not None and due.due:
            snapshot = snapshot.searched(adapters)
            planned = () if request.issue_only else adapters.server.planned(leaf)
            refusal = refusal or guard.judge(snapshot, leaf, adapters).refusal
            outcome = outcome._replace(changes=tuple(planned), pending=leaf)
        outcome = outcome._replace(ordered=due.due and leaf is None)
    return outcome._replace(error=refusal) if request.dry_run else outcome


def _unchanged(snapshot: Snapshot, due: Due, wait: Wait | None = None) -> Outcome:
    is_idle = snapshot.request.activate_only and snapshot.pending is None
    return Outcome(
        reason=due.reason,
        names=snapshot.request.names,
        certificate=snapshot.in_use,
        next_at=None if is_idle else due.at,
        waits_until=wait.until if wait else None,
        waits_for=wait.reason if wait else "",
        dropped=snapshot.dropped,
        held=hold.in_force(snapshot),
        error=_not_good(snapshot, due, wait),
        pending=snapshot.pending.leaf if snapshot.pending else None,
        fault=spare.fault(snapshot),
    )


def _not_good(snapshot: Snapshot, due: Due, wait: Wait | None) -> Error | None:
    """Return the error of a run that leaves a bad certificate in use, if it is bad.

    It has the exit code of the failure that it waits for.
    """
    request, bad = snapshot.request, spare.fault(snapshot) or not snapshot.named
    if not bad or request.dry_run or request.issue_only:
        return None
    message = f"The certificate in use {bad}, and it stays in use: "
    if not snapshot.named:
        message = "MDaemon uses no known certificate: "
    if wait is not None:
        hint = "Correct the cause, then run `renew --force`."
        if wait.until is not None:
            hint = f"The next attempt is after {when(wait.until)}. {hint}"
        if wait.failed:
            names = {wait.failed: wait.reason}
            return ChallengeError(message + wait.reason, hint=hint, names=names)
        kind = DeployError if wait.failed is None else AcmeError
        return kind(message + wait.reason, hint=hint)
    hint = "Check this machine's clock."
    if snapshot.pending is not None:
        hint = "Correct the cause, then run `activate`."
    elif request.activate_only:
        return DeployError(f"{message[:-2]}.", hint="Run `renew`.")
    return DeployError(f"{message}{due.reason}.", hint=hint)


def _postponed(snapshot: Snapshot, due: Due, wait: Wait) -> Outcome:
    """Return that a due renewal waits; raise if the CA waits for the administrator."""
    if wait.until is None:
        raise AcmeError(
            f"A certificate is due ({due.reason}), but {wait.reason}",
            hint=f"Open {wait.paused} to resume, then run `renew --force`.",
            paused=wait.paused,
        )
    _log.warning(
        "%s. The next attempt is after %s; --force tries now.",
        wait.reason.removesuffix("."),
        when(wait.until, snapshot.now),
    )
    return _unchanged(snapshot, due, wait)


def _rehearse(snapshot: Snapshot, adapters: Adapters) -> Outcome:
    """Obtain a certificate from the staging CA, but do not install it."""
    request, pending = snapshot.request, snapshot.pending
    refusal = None if pending else adapters.refusal(request, None)
    if refusal is not None and not request.dry_run:
        raise refusal
    if pending is not None:
        reason = "an earlier rehearsal is still valid; --force repeats it"
    elif request.dry_run:
        reason = "a rehearsal would obtain a certificate, but not install it"
    else:
        pending = adapters.issuer().obtain(request.names, None, None)
        adapters.ca.keep(pending)
        reason = "the CA issued a certificate; a rehearsal does not install it"
    leaf = pending.leaf if pending else None
    return Outcome(
        reason=reason,
        names=request.names,
        certificate=leaf,
        error=refusal,
        ordered=snapshot.pending is None,
    )
