"""Ask the CA when to renew, obtain certificates, and remember failures."""

from __future__ import annotations

import logging
import random
from datetime import timedelta
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.errors import AcmeError, ChallengeError, after_issuance
from letsencrypt_mdaemon.pki.certificate import thumbprint
from letsencrypt_mdaemon.renewal import due, guard
from letsencrypt_mdaemon.state.memory import Draw, Dropped, utc
from letsencrypt_mdaemon.text import when

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from letsencrypt_mdaemon.pki.certificate import Certificate, PrivateKey
    from letsencrypt_mdaemon.renewal.adapters import Adapters
    from letsencrypt_mdaemon.renewal.snapshot import Snapshot

_log = logging.getLogger(__name__)

RESERVE = 2
"""Certificates a week for the same names to keep for an emergency."""


def with_advice(snapshot: Snapshot, adapters: Adapters) -> Snapshot:
    """Return the snapshot with the CA's current advice (RFC 9773, 4.2 and 4.3).

    One moment is drawn for each suggested window, and saved. The CA is asked only if
    its advice matters, and not before the time that it set, unless a person wants to
    know now: after a mass revocation, say.
    """
    leaf, request, now = snapshot.ours, snapshot.request, snapshot.now
    is_planned = snapshot.pending is not None or snapshot.spare is not None
    if leaf is None or is_planned or request.activate_only or request.force:
        return snapshot
    kept = snapshot.draw
    if kept is None or kept.thumbprint != thumbprint(leaf):
        kept = Draw(thumbprint(leaf), None, None, None, ask_again=now)
    if kept.holds(now) and not request.ask_ca:
        return snapshot
    try:
        window, seconds = adapters.issuer().suggested_window(leaf)
    except AcmeError as exc:
        # The other rules need no CA.
        _log.warning("Could not ask the CA when to renew: %s", exc)
        window, seconds = None, 3600.0
    again = utc(now) + timedelta(seconds=seconds)
    draw = kept.asked(window, again, random.SystemRandom())
    if draw.at is not None and draw.at != kept.at:
        at, rule = due.first(leaf, draw.at, request.days_left)
        url = draw.explanation_url
        _log.info(
            "The CA suggests renewing between %s and %s%s; %s %s",
            *(when(each, now) for each in (draw.start, draw.end) if each),
            f" (reason: {url})" if url else "",
            "renewal is planned for"
            if at == draw.at
            else f"the rule that {rule} comes first, on",
            when(at, now),
        )
    if not request.dry_run:
        adapters.ca.save(draw)
    return snapshot._replace(draw=draw)


def obtain(snapshot: Snapshot, adapters: Adapters) -> Snapshot:
    """Obtain a certificate, if need be without names that the CA cannot validate.

    Returns:
        The snapshot with the new certificate pending; without one, if an order would
        bring nothing better than the certificate in use.

    Raises:
        AcmeError: If the CA issues no certificate.
    """
    request = snapshot.request
    if request.force:
        _log_budget(snapshot)
        adapters.ca.forget_order()
    tried, key = due.tried_now(snapshot), guard.key_to_order(snapshot, adapters)
    failing = snapshot.ledger.failing(request.names)
    known = {*tried, *(item.name for item in snapshot.dropped), ""}
    failed = {item.name: item.why for item in failing if item.name not in known}
    names = tried
    while True:
        try:
            certificate = _order(snapshot, names, key, adapters)
        except AcmeError as exc:
            rest = tuple(name for name in names if name not in exc.names)
            missing = set(request.names) - set(rest)
            limited = not isinstance(exc, ChallengeError)
            may = request.drop and due.may_drop(snapshot, missing, limited=limited)
            if rest == names or not may:
                raise
            _log.warning("%s", exc)
            names, failed = rest, failed | exc.names
            snapshot = _drop(snapshot, failed, tried, adapters)
        else:
            with after_issuance():
                snapshot = _drop(snapshot, failed, tried, adapters)
                # Before anything else can fail: an issued certificate is never lost.
                if certificate is not None:
                    adapters.ca.keep(certificate)
            return snapshot._replace(pending=certificate)


def _order(
    snapshot: Snapshot,
    names: tuple[str, ...],
    key: PrivateKey | None,
    adapters: Adapters,
) -> Certificate | None:
    """Order a certificate for some names, unless the current one is as good."""
    if missing := [name for name in snapshot.request.names if name not in names]:
        if not due.by_rule(snapshot, names).due:
            return None
        _log.warning("Dropping %s from the certificate.", ", ".join(missing))
    try:
        return adapters.issuer().obtain(names, snapshot.ours, key)
    except AcmeError as exc:
        _remember_failure(exc, snapshot, adapters)
        raise


def _remember_failure(error: AcmeError, snapshot: Snapshot, adapters: Adapters) -> None:
    """Remember which names failed, or that the CA wants a pause.

    After any other failure the next run tries again: someone may have fixed the
    network, a setting or the CA. No limit counts such a failure, unless the CA issued
    an unusable certificate.
    """
    now = snapshot.now
    failed, until = error.names, None
    if error.retry_after is not None:
        until = utc(now) + timedelta(seconds=error.retry_after)
    if error.paused or error.is_limit or error.spent or until is not None:
        failed = failed or {"": error.message}
    if failed:
        # The issuer may have written to the ledger after the snapshot.
        ledger = adapters.ca.ledger().settled(now)
        ledger = ledger.failed(
            failed,
            utc(now),
            until=until,
            paused=error.paused,
            limited=not isinstance(error, ChallengeError),
        )
        adapters.ca.save(ledger)


def _log_budget(snapshot: Snapshot) -> None:
    """Log how much of the CA's limit a forced order uses."""
    ledger, request = snapshot.ledger, snapshot.request
    used = len(ledger.used(request.names, snapshot.now))
    for item in ledger.failing(request.names):
        often = "once" if len(item.times) == 1 else f"{len(item.times)} times"
        failed = f"{item.name or 'An order'} failed {often}"
        _log.info("%s, last on %s", failed, when(item.times[-1], snapshot.now))
    if request.limits is None:
        _log.info("Certificates for exactly these names in the last 7 days: %d.", used)
        return
    limit = request.limits.exact_set
    level = logging.WARNING if used >= limit - RESERVE else logging.INFO
    text = "This forced order uses number %d of the %d certificates a week that the CA "
    text += "issues for exactly these names."
    _log.log(level, text, used + 1, limit)


def _drop(
    snapshot: Snapshot,
    failed: Mapping[str, str],
    tried: Collection[str],
    adapters: Adapters,
) -> Snapshot:
    """Remember which names the certificate lacks, since when, and why."""
    memory, moment = snapshot.memory, utc(snapshot.now)
    since = {item.name: item.since for item in memory.dropped}
    kept = [item for item in memory.dropped if item.name not in tried]
    for name, why in failed.items():
        kept.append(Dropped(name, since.get(name, moment), moment, why))
    dropped = tuple(kept)
    if dropped == memory.dropped:
        return snapshot
    memory = memory._replace(dropped=dropped)
    adapters.state.save(memory)
    return snapshot._replace(memory=memory)
