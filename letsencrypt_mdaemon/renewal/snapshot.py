"""What a run finds, and so what is due, or why it waits."""

from __future__ import annotations

import logging
import random
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.errors import AcmeError
from letsencrypt_mdaemon.pki.certificate import OURS, thumbprint
from letsencrypt_mdaemon.renewal import due as renewal
from letsencrypt_mdaemon.renewal.due import (
    Situation,
    by_rule,
    is_compromised,
    resume,
    usable,
)
from letsencrypt_mdaemon.state.advice import Draw
from letsencrypt_mdaemon.state.ledger import NEARLY_A_DAY
from letsencrypt_mdaemon.state.memory import utc

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography import x509

    from letsencrypt_mdaemon.renewal.adapters import Adapters, Issuer, Request
    from letsencrypt_mdaemon.renewal.due import Due
    from letsencrypt_mdaemon.state.folder import CaState


_log = logging.getLogger(__name__)


def look(order: Request, parts: Adapters, now: datetime) -> Situation:
    """Look at what is in use, and at what earlier runs left."""
    named = tuple(parts.server.named(order.names).values())
    in_use = named[0] if len(set(named)) == 1 else None
    memory = parts.state.load()
    dropped = memory.dropped if order.drop else ()
    dropped = tuple(item for item in dropped if item.name in order.names[1:])
    without = {item.name for item in dropped}
    names = tuple(name for name in order.names if name not in without)
    pending = None
    if not order.force:
        pending = usable(parts.ca.pending(), [names, order.names], order, now)
    if pending is not None and is_compromised(pending.leaf, memory):
        pending = None
    return Situation(
        names=names,
        dropped=dropped,
        named=named,
        in_use=in_use,
        ours=in_use is not None and is_ours(in_use, order, parts),
        pending=pending,
        attempt=parts.state.attempt(),
    )


def decide(
    order: Request,
    found: Situation,
    parts: Adapters,
    issuer: Issuer | None,
    now: datetime,
) -> Due:
    """Return what is due; the CA is asked for its advice only if there is an issuer."""
    if found.pending is not None:
        return resume(order, found, found.pending, now)
    if order.activate_only:
        reason = "no certificate waits to be put into use"
        return renewal.Due(due=False, reason=reason, at=now)
    drawn, why = None, ""
    if found.in_use is not None and found.ours and not order.force:
        draw = _advice(order, found.in_use, parts.ca, issuer, now)
        drawn, why = draw.moment(now, order.interval), draw.explanation_url
    due = by_rule(order, found, parts, now, drawn=drawn)
    if due.due and due.at == drawn and why:
        due = replace(due, reason=f"{due.reason}; the CA says why: {why}")
    again = [item.name for item in found.dropped if item.tried + NEARLY_A_DAY <= now]
    if again and not due.due:
        reason = f"{', '.join(again)} could not be validated before, and is tried again"
        return renewal.Due(due=True, reason=reason, at=now)
    return due


def _advice(
    order: Request,
    certificate: x509.Certificate,
    ca: CaState,
    issuer: Issuer | None,
    now: datetime,
) -> Draw:
    """Return the moment drawn from the CA's suggested window (RFC 9773, 4.2 and 4.3).

    Drawn once for each window and kept; asked again when the CA wants to be asked.
    """
    digest = thumbprint(certificate)
    kept = ca.draw()
    if kept is None or kept.thumbprint != digest:
        kept = Draw(digest, None, None, None, ask_again=now)
    if issuer is None or kept.holds(now):
        return kept
    try:
        window, seconds = issuer.suggested_window(certificate)
    except AcmeError as exc:
        # Whether it is due can be told without the CA.
        _log.warning("The CA could not be asked when to renew: %s", exc)
        window, seconds = None, 3600.0
    again = utc(now) + timedelta(seconds=seconds)
    draw = kept.asked(window, again, random.SystemRandom())
    if draw.at is not None and draw.at != kept.at:
        url = draw.explanation_url
        _log.info(
            "The CA suggests to renew between %s and %s; drawn: %s UTC%s",
            f"{draw.start:%Y-%m-%d %H:%M}",
            f"{draw.end:%Y-%m-%d %H:%M}",
            f"{draw.at:%Y-%m-%d %H:%M}",
            f"; why: {url}" if url else "",
        )
    if not order.dry_run:
        ca.save_draw(draw)
    return draw


def is_ours(certificate: x509.Certificate, order: Request, parts: Adapters) -> bool:
    """Whether this program obtained a certificate from this CA.

    When that is not remembered, the friendly name tells, though not of which CA.
    """
    remembered = parts.state.load().find(thumbprint(certificate))
    if remembered is not None:
        return remembered.directory_url == order.directory_url
    return any(
        leaf == certificate and name.startswith(f"{OURS} ")
        for leaf, name in parts.store.certificates()
    )
