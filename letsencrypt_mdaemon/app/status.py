"""Read the certificate in use, when it is due, and what may prevent its renewal."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon import authorities
from letsencrypt_mdaemon.app import adapters, rehearsal
from letsencrypt_mdaemon.pki.certificate import thumbprint, tlsa
from letsencrypt_mdaemon.pki.tlsa import of_key
from letsencrypt_mdaemon.renewal import dane, guard, run
from letsencrypt_mdaemon.renewal import due as rules
from letsencrypt_mdaemon.renewal.proof import Judge
from letsencrypt_mdaemon.renewal.snapshot import take_snapshot
from letsencrypt_mdaemon.text import days

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import date, datetime

    from cryptography import x509

    from letsencrypt_mdaemon.app.installation import Installation
    from letsencrypt_mdaemon.pki.tlsa import Tlsa
    from letsencrypt_mdaemon.renewal.adapters import Proof, Request
    from letsencrypt_mdaemon.renewal.due import Due
    from letsencrypt_mdaemon.renewal.snapshot import Snapshot
    from letsencrypt_mdaemon.state.ledger import Wait
    from letsencrypt_mdaemon.state.memory import Draw
    from letsencrypt_mdaemon.state.told import WouldFail

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


class TlsaPort(NamedTuple):
    """A port with TLSA records.

    Args:
        owner: The name of the records.
        matches: Whether one of them matches the certificate in use.
    """

    owner: str
    records: Sequence[Tlsa]
    matches: bool


class NextRecord(NamedTuple):
    """The TLSA record of the next key.

    Args:
        record: As a zone file has it, for the first name.
        counts: From when the next certificate may be used: every server of the zone has
            the record, and no cache an answer without it. None = not published.
    """

    record: str
    counts: datetime | None


class Status(NamedTuple):
    """The certificate in use, and the next renewal.

    Args:
        wait: Why and until when a due renewal waits.
        draw: The CA's suggested window for that certificate, and the moment drawn.
        key_provider: Who keeps its key; None for a file.
        key_readers: The accounts that can read its key; None if unknown.
        tlsa: Its TLSA record, if the key is reused or the next one exists already.
        next_tlsa: The record of the next key, if that exists.
        tlsa_ports: The ports with TLSA records, if they were looked up.
        pending: The issued certificate that is not in use yet.
        rolled_back: When that was rolled back; None if it was not.
        proof: What the ports show of it; None if the targets differ.
        failing: The names that failed when the next renewal was rehearsed.
        sparse: A warning that the runs are too infrequent; empty if they are not.
    """

    snapshot: Snapshot
    due: Due
    wait: Wait | None
    draw: Draw | None
    key_provider: str | None
    key_readers: Sequence[str] | None
    tlsa: str | None
    next_tlsa: NextRecord | None
    tlsa_ports: Sequence[TlsaPort] | None
    pending: x509.Certificate | None
    rolled_back: datetime | None
    proof: Proof | None
    failing: Sequence[WouldFail]
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
    is_looked = request.key_policy == "next" or bool(installation.state.pins().pins)
    if is_looked:
        snapshot = guard.look(snapshot, tools, keep=False)
    due, wait = run.plan(snapshot)
    leaf, draw, pending = snapshot.in_use, snapshot.draw, installation.ca.pending()
    is_drawn = leaf and draw and draw.thumbprint == thumbprint(leaf)
    return Status(
        snapshot=snapshot,
        due=due,
        wait=wait,
        draw=draw if is_drawn else None,
        key_provider=installation.store.key_provider(thumbprint(leaf))
        if leaf
        else None,
        key_readers=installation.store.key_readers(thumbprint(leaf)) if leaf else None,
        tlsa=tlsa(leaf, names[0]) if request.key_policy != "new" and leaf else None,
        next_tlsa=_next_record(snapshot),
        tlsa_ports=_tlsa_ports(snapshot) if is_looked else None,
        pending=pending.leaf if pending else None,
        rolled_back=_rolled_back(snapshot, pending.leaf) if pending else None,
        proof=_proof(installation, snapshot),
        failing=rehearsal.failing(
            installation.memory, installation.config, names, [leaf] if leaf else []
        ),
        sparse=_sparse(request.interval, leaf),
        outlook=list(_outlook(request, leaf)),
    )


def _rolled_back(snapshot: Snapshot, pending: x509.Certificate) -> datetime | None:
    digest, attempt = thumbprint(pending), snapshot.attempt
    if attempt is not None and attempt.thumbprint == digest and attempt.failed:
        return attempt.failed
    issued = snapshot.memory.find(digest)
    return issued.rolled_back if issued else None


def _next_record(snapshot: Snapshot) -> NextRecord | None:
    key = snapshot.dane.next_key
    if key is None:
        return None
    record = f"_25._tcp.{snapshot.request.names[0]}. IN TLSA {of_key(key)}"
    return NextRecord(record, dane.counts_from(snapshot, key))


def _tlsa_ports(snapshot: Snapshot) -> list[TlsaPort]:
    fine = {port.pin.owner for port in snapshot.dane.pinned}
    return [
        TlsaPort(pin.owner, [row.record for row in pin.records], pin.owner in fine)
        for pin in snapshot.dane.pins
    ]


def _proof(installation: Installation, snapshot: Snapshot) -> Proof | None:
    """Return what the ports show of the certificate in use."""
    leaf, given = snapshot.in_use, snapshot.request.given
    if leaf is None:
        return None
    attempt, new = snapshot.attempt, thumbprint(leaf)
    before = attempt.before if attempt and attempt.thumbprint == new else {}
    judge = Judge(before, new, installation.ours, given=given, now=snapshot.now)
    return judge(installation.observed)


def warn(installation: Installation, in_use: Iterable[x509.Certificate | None]) -> None:
    """Warn if scheduled runs are too infrequent for the certificates in use."""
    interval = rules.interval(installation.memory.runs)
    for leaf in dict.fromkeys(in_use):
        if text := _sparse(interval, leaf):
            _log.warning("%s", text)


def _sparse(interval: timedelta | None, leaf: x509.Certificate | None) -> str:
    if interval is None or leaf is None:
        return ""
    span = rules.lifetime(leaf)
    if not rules.is_sparse(interval, span):
        return ""
    return (
        f"Scheduled runs are {days(interval)} apart, too infrequent for a "
        f"certificate valid for {days(span)}; run twice a day."
    )


def _outlook(request: Request, leaf: x509.Certificate | None) -> Iterable[Outlook]:
    """Yield the CA's future lifetimes that are shorter than a certificate's."""
    every = request.interval
    for starts, length in authorities.at(request.directory_url).lifetimes:
        span = timedelta(days=length)
        if leaf is None or span < rules.lifetime(leaf):
            sparse = None if every is None else rules.is_sparse(every, span)
            yield Outlook(length, starts, rules.slack(span), sparse)
