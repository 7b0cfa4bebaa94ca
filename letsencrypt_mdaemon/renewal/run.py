"""One run: look, decide, choose, act, check, remember.

Each step is "make it so": done twice it does nothing the second time. Whatever a run
leaves undone, because it failed or was killed, the next one finishes.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.errors import AcmeError, ConfigError
from letsencrypt_mdaemon.renewal import due as rules
from letsencrypt_mdaemon.renewal.adapters import Outcome
from letsencrypt_mdaemon.renewal.deploy import put_into_use, undo
from letsencrypt_mdaemon.renewal.obtain import obtain, with_advice
from letsencrypt_mdaemon.renewal.snapshot import Snapshot, take_snapshot
from letsencrypt_mdaemon.state.memory import Issued

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from letsencrypt_mdaemon.pki.certificate import Certificate
    from letsencrypt_mdaemon.renewal.adapters import Adapters, Request
    from letsencrypt_mdaemon.renewal.due import Due
    from letsencrypt_mdaemon.state.ledger import Wait
    from letsencrypt_mdaemon.state.memory import Change, Memory


_log = logging.getLogger(__name__)


def renew(
    request: Request, adapters: Adapters, memory: Memory, *, now: datetime
) -> Outcome:
    """Make sure that the server uses a good certificate for the names.

    Args:
        memory: What is remembered of the installation.

    Raises:
        AcmeError: The CA did not issue; nothing is changed.
        DeployError: It issued, but the certificate is not in use everywhere; it is
            kept, and the next run continues with it.
        ConfigError: The server's files or the settings do not allow it.
    """
    snapshot = take_snapshot(request, adapters, memory, now)
    if request.rehearse:
        return _rehearse(snapshot, adapters)
    attempt = snapshot.attempt
    if attempt is not None and attempt.undoing and not request.dry_run:
        undo(snapshot, attempt, (), adapters)
    snapshot = with_advice(snapshot, adapters)
    due, wait = assess(snapshot)
    _log.info("%s: %s", "Due" if due.due else "Nothing is due", due.reason)
    if wait is not None and not request.force:
        return _postponed(snapshot, due, wait)
    if request.dry_run or not due.due:
        return _nothing_done(snapshot, due, adapters)
    if snapshot.pending is None:
        snapshot = obtain(snapshot, adapters)
    pending = snapshot.pending
    if pending is None:
        return _nothing_done(
            snapshot, rules.by_rule(snapshot, snapshot.names), adapters
        )
    snapshot = _keep(snapshot, pending, adapters)
    if request.issue_only:
        reason = f"{due.reason}; issued, and kept until `activate` puts it into use"
        return Outcome(
            renewed=False,
            reason=reason,
            names=request.names,
            certificate=snapshot.in_use,
        )
    return put_into_use(snapshot, pending.leaf, due.reason, adapters)


def assess(snapshot: Snapshot) -> tuple[Due, Wait | None]:
    """Return whether a certificate is due, and if so why it has to wait."""
    due = rules.decide(snapshot)
    if snapshot.pending is not None and not due.due:
        when = f"{due.at:%Y-%m-%d %H:%M} UTC"
        _log.warning("%s; it is tried again after %s", due.reason, when)
    return due, rules.wait(snapshot) if due.due else None


def roll_back(
    request: Request, adapters: Adapters, memory: Memory, *, now: datetime
) -> Outcome:
    """Go back to the last certificate that every port served, and verify it.

    Args:
        memory: What is remembered of the installation.

    Raises:
        ConfigError: If there is none that is still valid and in the store.
        DeployError: If it is not in use everywhere afterwards.
    """
    snapshot = take_snapshot(request, adapters, memory, now)
    found = rules.last_verified(snapshot)
    if found is None:
        raise ConfigError(
            "There is no certificate to go back to: none that was verified on every "
            "port is still valid and in the store.",
            hint="`renew --force` obtains a new one.",
        )
    leaf, verified = found
    adapters.ca.forget_pending()
    reason = f"rolled back to the certificate verified on {verified:%Y-%m-%d}"
    return put_into_use(snapshot, leaf, reason, adapters)


def _keep(snapshot: Snapshot, pending: Certificate, adapters: Adapters) -> Snapshot:
    """Remember a certificate that was issued, and install it into the store."""
    # A run may have died between keeping the certificate and this.
    adapters.ca.forget_order()
    memory = snapshot.memory
    if memory.find(pending.thumbprint) is None:
        issued = Issued(
            thumbprint=pending.thumbprint,
            directory_url=snapshot.request.directory_url,
            names=pending.names,
        )
        memory = memory.remember(issued)
        adapters.state.save(memory)
    adapters.store.install(pending)
    return replace(snapshot, memory=memory)


def _nothing_done(snapshot: Snapshot, due: Due, adapters: Adapters) -> Outcome:
    """Return that nothing is due; or, in a dry run, what would be changed."""
    changes: Sequence[Change] = ()
    if due.due and snapshot.pending is not None:
        changes = adapters.server.planned(snapshot.pending.leaf)
    return Outcome(
        renewed=False,
        reason=due.reason,
        names=snapshot.request.names,
        certificate=snapshot.in_use,
        next_at=due.at,
        changes=tuple(changes),
        dropped=snapshot.dropped,
    )


def _postponed(snapshot: Snapshot, due: Due, wait: Wait) -> Outcome:
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
        names=snapshot.request.names,
        certificate=snapshot.in_use,
        next_at=due.at,
        waits_until=wait.until,
        dropped=snapshot.dropped,
    )


def _rehearse(snapshot: Snapshot, adapters: Adapters) -> Outcome:
    """Obtain a certificate from the staging CA, and do not install it."""
    request, pending = snapshot.request, snapshot.pending
    if pending is not None:
        reason = "rehearsed before: that certificate is still good; --force repeats it"
    elif request.dry_run:
        reason = "a rehearsal would obtain a certificate and put it to no use"
    else:
        pending = adapters.issuer().obtain(request.names, None, None)
        adapters.ca.keep(pending)
        reason = "rehearsed: the CA issued a certificate; it is put to no use"
    return Outcome(
        renewed=False,
        reason=reason,
        names=request.names,
        certificate=pending.leaf if pending else None,
    )
