"""Remove what a verified certificate leaves behind: certificates, keys and issuers.

A failure is only a warning, because the certificate in use is good.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.errors import Error
from letsencrypt_mdaemon.pki.certificate import OURS, dns_names, thumbprint
from letsencrypt_mdaemon.renewal import due

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from cryptography import x509

    from letsencrypt_mdaemon.renewal.adapters import Adapters
    from letsencrypt_mdaemon.renewal.snapshot import Snapshot
    from letsencrypt_mdaemon.renewal.store import Store
    from letsencrypt_mdaemon.state.folder import State
    from letsencrypt_mdaemon.state.memory import Memory

_log = logging.getLogger(__name__)


def clean_up(
    snapshot: Snapshot, new: x509.Certificate, adapters: Adapters
) -> tuple[str, ...]:
    """Remove what nothing needs any more, once every port serves a new certificate.

    Revoked certificates with a compromised key, superseded ones of ours if the settings
    allow it, and issuers that this program added.

    Returns:
        The thumbprints of the removed certificates.
    """
    doomed = {
        digest: name
        for digest, (leaf, name) in snapshot.stored.items()
        if leaf != new
        and (
            is_done_with(leaf, snapshot.memory)
            or _is_superseded(leaf, name, new, snapshot)
        )
    }
    removed = remove(doomed, adapters)
    forget_issuers(snapshot.memory, adapters.store, adapters.state, now=snapshot.now)
    return removed


def _is_superseded(
    leaf: x509.Certificate, name: str, new: x509.Certificate, snapshot: Snapshot
) -> bool:
    is_ours = snapshot.memory.find(thumbprint(leaf)) or name.startswith(f"{OURS} ")
    return bool(
        snapshot.request.remove_old
        and is_ours
        and leaf.not_valid_before_utc <= new.not_valid_before_utc
        and set(dns_names(leaf)) & set(dns_names(new))
    )


def is_done_with(leaf: x509.Certificate, memory: Memory) -> bool:
    """Whether a certificate's key is compromised, and the CA was told.

    Until then the key is kept: it may be the only proof that a CA takes.
    """
    is_told = memory.revoked(thumbprint(leaf)) is not None
    return is_told and due.is_compromised(leaf, memory)


def remove(
    doomed: Mapping[str, str], adapters: Adapters, *, served: Collection[str] = ()
) -> tuple[str, ...]:
    """Remove certificates with their keys, except for those that something uses.

    Args:
        doomed: Names by thumbprint.
        served: Thumbprints that a port serves.

    Returns:
        The thumbprints of those that were removed.
    """
    removed = []
    try:
        # Read again: an administrator may have chosen one of them meanwhile.
        used = {*served, *adapters.server.references()} if doomed else set()
        for digest, name in doomed.items():
            if digest not in used:
                adapters.store.remove(digest)
                _log.info("Removed the certificate %s, which nothing uses", name)
                removed.append(digest)
    except Error as exc:
        _log.warning("%s %s", exc.message, exc.hint)
    return tuple(removed)


def remember_issuers(
    snapshot: Snapshot, added: Collection[str], adapters: Adapters
) -> Snapshot:
    """Remember the thumbprints of issuers that this program added to the store."""
    before = snapshot.memory.intermediates
    known = tuple(dict.fromkeys([*before, *added]))
    if known == before:
        return snapshot
    memory = snapshot.memory._replace(intermediates=known)
    adapters.state.save(memory)
    return snapshot._replace(memory=memory)


def forget_issuers(
    memory: Memory, store: Store, state: State, *, now: datetime
) -> None:
    """Remove issuers that this program added, if expired or needed by nothing."""
    if not memory.intermediates:
        return
    try:
        gone = store.remove_issuers(memory.intermediates, now=now)
    except Error as exc:
        _log.warning("%s %s", exc.message, exc.hint)
        return
    if gone:
        _log.info("Removed intermediates that nothing needs: %s", ", ".join(gone))
        kept = tuple(each for each in memory.intermediates if each not in gone)
        state.save(memory._replace(intermediates=kept))
