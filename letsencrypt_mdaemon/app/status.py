"""Read the certificate in use, when it is due, and what may prevent its renewal."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon import authorities
from letsencrypt_mdaemon.app import adapters
from letsencrypt_mdaemon.pki.certificate import thumbprint, tlsa
from letsencrypt_mdaemon.renewal import lifetime, run
from letsencrypt_mdaemon.renewal.snapshot import take_snapshot
from letsencrypt_mdaemon.text import days

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import date, datetime

    from cryptography import x509

    from letsencrypt_mdaemon.app.installation import Installation
    from letsencrypt_mdaemon.authorities import Limits
    from letsencrypt_mdaemon.renewal.due import Due
    from letsencrypt_mdaemon.state.advice import Draw
    from letsencrypt_mdaemon.state.ledger import Failure, Wait
    from letsencrypt_mdaemon.state.memory import Target

_log = logging.getLogger(__name__)


class Outlook(NamedTuple):
    """A shorter future lifetime of the CA, and its effect on this schedule.

    Args:
        due_before_end: The time between its due date and its end.
        is_sparse: Whether the scheduled runs are too infrequent; None if unknown.
    """

    days: int
    starts: date
    due_before_end: timedelta
    is_sparse: bool | None


class Status(NamedTuple):
    """The certificate in use, and the next renewal.

    Args:
        wait: Why and until when a due renewal waits.
        in_use: The certificate that all targets name; None if they differ.
        draw: The CA's suggested window for that certificate, and the moment drawn.
        key_readers: The accounts that can read its key; None if unknown.
        tlsa: Its TLSA record, if the key is reused.
        pending: The issued certificate that is not in use yet.
        targets: The certificate that each target names; None if it is unknown.
        used: The issue times of this week's certificates for exactly these names.
        failing: The names that failed validation, with times and reasons.
        interval: The usual time between scheduled runs; None if unknown.
        sparse: A warning that the runs are too infrequent; empty if they are not.
    """

    names: tuple[str, ...]
    due: Due
    wait: Wait | None
    in_use: x509.Certificate | None
    draw: Draw | None
    key_readers: Sequence[str] | None
    tlsa: str | None
    pending: x509.Certificate | None
    targets: Mapping[Target, x509.Certificate | None]
    limits: Limits | None
    used: Sequence[datetime]
    failing: Sequence[Failure]
    interval: timedelta | None
    sparse: str
    outlook: Sequence[Outlook]


def read(installation: Installation, *, now: datetime) -> Status:
    """Return the status of an installation, without contacting the CA.

    Raises:
        ConfigError: If the names or the targets are not clear.
    """
    names = installation.names()
    request = adapters.request(installation, names)
    tools = adapters.adapters(installation, installation.targets())
    snapshot = take_snapshot(request, tools, installation.memory, now)
    due, wait = run.plan(snapshot)
    in_use, draw, pending = snapshot.in_use, snapshot.draw, installation.ca.pending()
    if draw and (in_use is None or draw.thumbprint != thumbprint(in_use)):
        draw = None
    ledger = snapshot.ledger
    interval = lifetime.interval(installation.memory.runs)
    return Status(
        names=names,
        due=due,
        wait=wait,
        in_use=in_use,
        draw=draw,
        key_readers=installation.store.key_readers(thumbprint(in_use))
        if in_use
        else None,
        tlsa=tlsa(in_use, names[0]) if request.reuse_key and in_use else None,
        pending=pending.leaf if pending else None,
        targets=snapshot.named,
        limits=request.limits,
        used=ledger.used(names, now),
        failing=ledger.failing(names),
        interval=interval,
        sparse=_sparse(interval, in_use),
        outlook=list(_outlook(installation.config.ca, interval, in_use)),
    )


def warn(installation: Installation, in_use: Iterable[x509.Certificate | None]) -> None:
    """Warn if scheduled runs are too infrequent for the certificates in use."""
    interval = lifetime.interval(installation.memory.runs)
    for leaf in dict.fromkeys(in_use):
        if text := _sparse(interval, leaf):
            _log.warning("%s", text)


def _sparse(interval: timedelta | None, leaf: x509.Certificate | None) -> str:
    if interval is None or leaf is None:
        return ""
    span = lifetime.lifetime(leaf)
    if not lifetime.is_sparse(interval, span):
        return ""
    return (
        f"Scheduled runs are {days(interval)} apart, too infrequent for a "
        f"certificate valid for {days(span)}; run twice a day."
    )


def _outlook(
    directory_url: str, interval: timedelta | None, leaf: x509.Certificate | None
) -> Iterable[Outlook]:
    """Yield the CA's future lifetimes that are shorter than a certificate's."""
    for starts, length in authorities.at(directory_url).lifetimes:
        span = timedelta(days=length)
        if leaf is None or span < lifetime.lifetime(leaf):
            sparse = None if interval is None else lifetime.is_sparse(interval, span)
            yield Outlook(length, starts, lifetime.slack(span), sparse)
