"""What is in use, when and why it is due, and what the CA's account book says."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from letsencrypt_mdaemon import authorities
from letsencrypt_mdaemon.app import adapters
from letsencrypt_mdaemon.cli import document
from letsencrypt_mdaemon.pki.certificate import thumbprint, tlsa
from letsencrypt_mdaemon.renewal import lifetime, run
from letsencrypt_mdaemon.renewal.snapshot import take_snapshot
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from cryptography import x509

    from letsencrypt_mdaemon.app.installation import Installation
    from letsencrypt_mdaemon.renewal.adapters import Request

_log = logging.getLogger(__name__)

Document = dict[str, Any]


def examine(installation: Installation, *, now: datetime) -> Document:
    """Return what `status` shows; the CA is not asked.

    Raises:
        ConfigError: If the names or the targets are not clear.
    """
    names = installation.names()
    order = adapters.request(installation, names)
    tools = adapters.adapters(installation, installation.targets())
    snapshot = take_snapshot(order, tools, installation.memory, now)
    due, wait = run.assess(snapshot)
    in_use, pending = snapshot.in_use, installation.ca.pending()
    return {
        "mdaemon_dir": str(installation.root),
        "directory_url": installation.config.ca,
        "names": list(names),
        "due": due.due,
        "reason": due.reason,
        "due_at": document.iso(due.at),
        "rule": due.rule or None,
        "advice": _advice(installation, in_use),
        "waiting": wait and {"reason": wait.reason, "until": document.iso(wait.until)},
        "certificate": document.certificate(in_use),
        "key_readers": in_use and installation.store.key_readers(thumbprint(in_use)),
        "tlsa": tlsa(in_use, names[0]) if order.reuse_key and in_use else None,
        "pending": document.certificate(pending.leaf if pending else None),
        "targets": [
            document.target(item) | {"certificate": document.certificate(leaf)}
            for item, leaf in snapshot.named.items()
        ],
        "dropped": [document.dropped(item) for item in installation.memory.dropped],
        "served": installation.served,
        "ledger": _ledger(installation, order, now),
        "schedule": _schedule(installation, in_use),
    }


def warn(installation: Installation, in_use: Iterable[x509.Certificate | None]) -> None:
    """Say so if the scheduled runs are too far apart for what is in use."""
    for leaf in dict.fromkeys(in_use):
        if text := _sparse(installation, leaf):
            _log.warning("%s", text)


def _sparse(installation: Installation, leaf: x509.Certificate | None) -> str:
    every = lifetime.interval(installation.memory.runs)
    if every is None or leaf is None:
        return ""
    span = lifetime.lifetime(leaf)
    if not lifetime.is_sparse(every, span):
        return ""
    return (
        f"The scheduled runs are {lifetime.days(every)} apart, too far for a "
        f"certificate of {lifetime.days(span)}: schedule two a day."
    )


def _advice(
    installation: Installation, leaf: x509.Certificate | None
) -> Document | None:
    draw = installation.ca.draw()
    if draw is None or leaf is None or draw.thumbprint != thumbprint(leaf):
        return None
    return {
        "start": document.iso(draw.start),
        "end": document.iso(draw.end),
        "drawn": document.iso(draw.at),
        "ask_again": document.iso(draw.ask_again),
        "explanation_url": printable(draw.explanation_url) or None,
    }


def _ledger(installation: Installation, order: Request, now: datetime) -> Document:
    ledger, limits = installation.ca.ledger().settled(now), order.limits
    used = ledger.used(order.names, now)
    return {
        "issued_this_week": [document.iso(moment) for moment in used],
        "issued_this_week_limit": limits and limits.exact_set,
        "failing": [
            {
                "name": item.name or None,
                "times": len(item.times),
                "last": document.iso(item.times[-1]),
                "this_hour": sum(now - at < timedelta(hours=1) for at in item.times),
                "this_hour_limit": limits and limits.failures,
                "not_before": document.iso(item.not_before(urgent=False)),
                "why": printable(item.why),
                "paused": printable(item.paused) or None,
            }
            for item in ledger.failing(order.names)
        ],
    }


def _schedule(installation: Installation, leaf: x509.Certificate | None) -> Document:
    runs = installation.memory.runs
    every = lifetime.interval(runs)
    span = lifetime.lifetime(leaf) if leaf else None
    return {
        "last_run": document.iso(runs[-1]) if runs else None,
        "every_hours": every and round(every / timedelta(hours=1), 1),
        "warning": _sparse(installation, leaf) or None,
        "lifetimes": [
            {
                "days": days,
                "letsencrypt_from": moment.isoformat(),
                "due_days_before_end": lifetime.slack(shorter).days,
                "too_sparse": every and lifetime.is_sparse(every, shorter),
            }
            for moment, days in authorities.LIFETIMES
            for shorter in [timedelta(days=days)]
            if span is None or shorter < span
        ],
    }
