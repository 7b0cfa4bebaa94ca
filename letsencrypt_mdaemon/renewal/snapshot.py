"""Take a snapshot of an installation for a run."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.errors import AcmeError
from letsencrypt_mdaemon.pki.certificate import OURS, crl_urls, thumbprint
from letsencrypt_mdaemon.renewal import dane, due, hold
from letsencrypt_mdaemon.renewal.dane import Dane
from letsencrypt_mdaemon.renewal.revoke import forget_key, without_key
from letsencrypt_mdaemon.renewal.spare import spares
from letsencrypt_mdaemon.state.memory import Checked, utc

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cryptography import x509

    from letsencrypt_mdaemon.pki.certificate import Certificate
    from letsencrypt_mdaemon.renewal.adapters import Adapters, Request
    from letsencrypt_mdaemon.state.ledger import Ledger
    from letsencrypt_mdaemon.state.memory import (
        Attempt,
        Draw,
        Dropped,
        Memory,
        OpenOrder,
        Target,
    )

_log = logging.getLogger(__name__)

DAY = timedelta(days=1)
"""Between two questions about a certificate."""

MAX_CHECKED = 20
"""The CRLs' answers that are kept."""


class Snapshot(NamedTuple):
    """The request of a run, and the state of the installation.

    Args:
        attempt: The attempt that an earlier run left unfinished, or rolled back.
        ledger: The ledger at the CA, without entries from a wrong clock.
        order: The order that an earlier run left open.
        draw: The moment drawn from the CA's suggested window.
        pending: An issued certificate that is not in use yet and fits the settings.
        named: The certificate that each target names; None if it is unknown.
        stored: Thumbprint -> certificate and friendly name.
        spare: Our certificate of the store to use instead of an order.
        dane: What is known of the TLSA records of the server's ports.
    """

    request: Request
    now: datetime
    memory: Memory
    attempt: Attempt | None
    ledger: Ledger
    order: OpenOrder | None
    draw: Draw | None
    pending: Certificate | None
    named: Mapping[Target, x509.Certificate | None]
    stored: Mapping[str, tuple[x509.Certificate, str]]
    spare: x509.Certificate | None = None
    dane: Dane = Dane()

    def searched(self, adapters: Adapters) -> Snapshot:
        """Return the snapshot with every target, also those unknown until now."""
        targets = adapters.server.search() or self.memory.targets
        named = adapters.server.named(self.request.names)
        return self._replace(memory=self.memory._replace(targets=targets), named=named)

    @property
    def in_use(self) -> x509.Certificate | None:
        """The certificate that every target names; None if they differ."""
        found = set(self.named.values())
        return found.pop() if len(found) == 1 else None

    @property
    def ours(self) -> x509.Certificate | None:
        """The certificate in use, if this program obtained it from this CA.

        Without an entry in the memory, the friendly name decides, whichever the CA.
        """
        leaf = self.in_use
        if leaf is None:
            return None
        digest = thumbprint(leaf)
        if known := self.memory.find(digest):
            return leaf if known.directory_url == self.request.directory_url else None
        _, name = self.stored.get(digest, (leaf, ""))
        return leaf if name.startswith(f"{OURS} ") else None

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """The names that the certificate may lack for now."""
        optional = self.request.names[1:] if self.request.drop else ()
        return tuple(item for item in self.memory.dropped if item.name in optional)

    @property
    def names(self) -> tuple[str, ...]:
        """The names that the certificate should have now: without the dropped ones."""
        without = {item.name for item in self.dropped}
        return tuple(name for name in self.request.names if name not in without)


def take_snapshot(
    request: Request, adapters: Adapters, memory: Memory, now: datetime
) -> Snapshot:
    """Read the server's files, the store and the saved state once.

    Raises:
        ConfigError: If the server's files or the store cannot be read.
        Error: If a state file cannot be read.
    """
    ca = adapters.ca
    snapshot = Snapshot(
        request=request,
        now=now,
        memory=memory,
        attempt=adapters.state.attempt(),
        ledger=ca.ledger().settled(now),
        order=ca.order(),
        draw=ca.draw(),
        pending=None if request.force else ca.pending(),
        named=adapters.server.named(request.names),
        stored={
            thumbprint(leaf): (leaf, name)
            for leaf, name in adapters.store.certificates()
        },
    )
    pending = snapshot.pending
    if pending is not None and not due.is_wanted(snapshot, pending):
        _log.info("The pending certificate %s is obsolete", pending.thumbprint)
        snapshot = snapshot._replace(pending=None)
    return with_spare(snapshot, adapters)


def with_revocations(snapshot: Snapshot, adapters: Adapters) -> Snapshot:
    """Return the snapshot with the CRLs' answers; each certificate is asked for daily.

    With `--ask-ca`, also more often.

    The certificates in use are looked up, and the spare one before it is used.
    """
    for leaf in dict.fromkeys(snapshot.named.values()):
        if leaf is not None:
            snapshot = _checked(snapshot, leaf, adapters)
    snapshot = with_spare(snapshot, adapters)
    while snapshot.spare is not None:
        leaf = snapshot.spare
        snapshot = with_spare(_checked(snapshot, leaf, adapters), adapters)
        if snapshot.spare == leaf:
            break
    return snapshot


def _checked(
    snapshot: Snapshot, leaf: x509.Certificate, adapters: Adapters
) -> Snapshot:
    memory, now, digest = snapshot.memory, snapshot.now, thumbprint(leaf)
    fresh = [row for row in memory.checked if timedelta() <= now - row.at < DAY]
    is_fresh = any(row.thumbprint == digest for row in fresh)
    known = memory.revoked(digest) or (is_fresh and not snapshot.request.ask_ca)
    issuers = adapters.store.chain(digest)[1:]
    if known or not issuers or not crl_urls(leaf) or leaf.not_valid_after_utc <= now:
        return snapshot
    try:
        found = adapters.revocation(leaf, issuers[0])
    except AcmeError as exc:
        text = "Could not check whether the certificate %s is revoked: %s"
        _log.warning(text, digest, exc)
        found = None
    others = [row for row in memory.checked if row.thumbprint != digest]
    rows = [*others, Checked(digest, utc(now), found.at if found else None)]
    memory = memory._replace(checked=tuple(rows[-MAX_CHECKED:]))
    pending, dry_run = snapshot.pending, snapshot.request.dry_run
    if found is not None and found.is_compromised:
        text = "The CA revoked the certificate %s because its key is compromised. "
        _log.warning(f"{text}That key is not used again.", digest)
        memory = without_key(leaf, memory)
        if pending is not None and due.is_compromised(pending.leaf, memory):
            pending = None
        if not dry_run:
            forget_key(leaf, adapters)
    if not dry_run:
        # At last: from now on, the CA is not asked for a day.
        adapters.state.save(memory)
    return snapshot._replace(memory=memory, pending=pending)


def with_spare(snapshot: Snapshot, adapters: Adapters) -> Snapshot:
    """Return the snapshot with the best spare certificate whose key can be used.

    It takes the place of a pending certificate that has to wait. So does a certificate
    that is held, and has to be put into use again.
    """
    held = hold.unfinished(snapshot)
    asked = held is not None or snapshot.request.activate_only
    usable = (
        leaf
        for leaf in ([held] if held is not None else spares(snapshot))
        if adapters.store.is_key_usable(thumbprint(leaf))
        and (asked or dane.may_use(snapshot, _chain(leaf, adapters)))
    )
    spare = next(usable, None)
    return snapshot._replace(
        spare=spare, pending=snapshot.pending if spare is None else None
    )


def _chain(leaf: x509.Certificate, adapters: Adapters) -> tuple[x509.Certificate, ...]:
    return adapters.store.chain(thumbprint(leaf)) or (leaf,)
