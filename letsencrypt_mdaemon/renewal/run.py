"""One run: decide, obtain, keep, install, bind, reload, prove, remove – in this order.

Each step is "make it so": done twice it does nothing the second time. Whatever a run
leaves undone, because it failed or was killed, the next one finishes.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.errors import AcmeError, ConfigError
from letsencrypt_mdaemon.pki.certificate import Certificate, thumbprint
from letsencrypt_mdaemon.renewal import due as rules
from letsencrypt_mdaemon.renewal import obtain, snapshot
from letsencrypt_mdaemon.renewal.adapters import Outcome
from letsencrypt_mdaemon.renewal.deploy import put_into_use, undo
from letsencrypt_mdaemon.state.memory import Issued

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cryptography import x509

    from letsencrypt_mdaemon.renewal.adapters import Adapters, Issuer, Request
    from letsencrypt_mdaemon.renewal.due import Due, Situation
    from letsencrypt_mdaemon.state.ledger import Wait
    from letsencrypt_mdaemon.state.memory import Change


_log = logging.getLogger(__name__)


def renew(order: Request, parts: Adapters, issuer: Issuer, *, now: datetime) -> Outcome:
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
        undo(order, attempt, (), parts, now)
    found = snapshot.look(order, parts, now)
    due = snapshot.decide(order, found, parts, issuer, now)
    _log.info("%s: %s", "Due" if due.due else "Nothing is due", due.reason)
    if due.due and not order.force and (wait := rules.wait(order, found, parts, now)):
        return _postponed(order, found, due, wait)
    if order.dry_run or not due.due:
        return _nothing_done(order, found, due, parts, now)
    pending = found.pending or obtain.obtain(order, found, parts, issuer, now)
    if pending is None:
        found = snapshot.look(order, parts, now)
        due = rules.by_rule(order, found, parts, now)
        return _nothing_done(order, found, due, parts, now)
    # A run may have died between keeping the certificate and this.
    parts.ca.forget_order()
    _remember(pending, order, parts)
    parts.store.install(pending)
    if order.issue_only:
        reason = f"{due.reason}; issued, and kept until `activate` puts it into use"
        return Outcome(
            renewed=False, reason=reason, names=order.names, certificate=found.in_use
        )
    return put_into_use(order, due.reason, pending.leaf, parts, now)


def due(
    order: Request, parts: Adapters, *, now: datetime
) -> tuple[Due, Wait | None, x509.Certificate | None]:
    """Return whether it is due, why it waits, and what is in use; ask no CA."""
    found = snapshot.look(order, parts, now)
    due = snapshot.decide(order, found, parts, None, now)
    return (
        due,
        rules.wait(order, found, parts, now) if due.due else None,
        found.in_use,
    )


def roll_back(order: Request, parts: Adapters, *, now: datetime) -> Outcome:
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
        if rules.is_compromised(leaf, memory):
            continue
        if leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc:
            reason = (
                f"rolled back to the certificate verified on {issued.verified:%Y-%m-%d}"
            )
            parts.ca.forget_pending()
            return put_into_use(order, reason, leaf, parts, now)
    raise ConfigError(
        "There is no certificate to go back to: none that was verified on every port "
        "is still valid and in the store.",
        hint="`renew --force` obtains a new one.",
    )


def _nothing_done(
    order: Request, found: Situation, due: Due, parts: Adapters, now: datetime
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


def _postponed(order: Request, found: Situation, due: Due, wait: Wait) -> Outcome:
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


def _rehearse(
    order: Request, parts: Adapters, issuer: Issuer, now: datetime
) -> Outcome:
    """Obtain a certificate and put it to no use."""
    pending = None
    if not order.force:
        pending = rules.usable(parts.ca.pending(), [order.names], order, now)
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


def _remember(certificate: Certificate, order: Request, parts: Adapters) -> None:
    memory = parts.state.load()
    if memory.find(certificate.thumbprint) is None:
        issued = Issued(
            thumbprint=certificate.thumbprint,
            directory_url=order.directory_url,
            names=certificate.names,
        )
        parts.state.save(memory.remember(issued))
