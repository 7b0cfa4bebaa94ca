"""Revoke certificates, and never use a compromised key again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from letsencrypt_mdaemon.errors import AcmeError, ConfigError, Error
from letsencrypt_mdaemon.pki.certificate import dns_names, public_key_hash, thumbprint
from letsencrypt_mdaemon.renewal import removal
from letsencrypt_mdaemon.state.memory import Issued, utc

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography import x509

    from letsencrypt_mdaemon.renewal.adapters import Adapters
    from letsencrypt_mdaemon.state.memory import Memory

REASONS = {
    "unspecified": 0,
    "keyCompromise": 1,
    "affiliationChanged": 3,
    "superseded": 4,
    "cessationOfOperation": 5,
}
"""The reasons that a subscriber may give (RFC 5280, 5.3.1)."""


def revoke(
    wanted: str,
    reason: str,
    adapters: Adapters,
    *,
    directory_url: str,
    now: datetime,
) -> x509.Certificate:
    """Revoke a certificate of the store, and remember it.

    Args:
        wanted: The certificate's thumbprint.
        reason: One of `REASONS`; after keyCompromise the key is never used again.
        directory_url: The CA.

    Raises:
        AcmeError: If the CA refuses.
        ConfigError: If the store has no such certificate.
    """
    known = {thumbprint(leaf): leaf for leaf, _ in adapters.store.certificates()}
    pending = adapters.ca.pending()
    if pending is not None:
        known[pending.thumbprint] = pending.leaf
    leaf = known.get(wanted)
    if leaf is None:
        hint = "`status` and `discover` show thumbprints."
        raise ConfigError(f"The store holds no certificate {wanted}.", hint=hint)
    is_pending = pending is not None and pending.leaf == leaf
    key = pending.key if pending and is_pending else adapters.store.key(wanted)
    memory = adapters.state.load()
    if reason == "keyCompromise":
        # First: even if the CA refuses, this key must not be used again.
        memory = without_key(leaf, memory)
        adapters.state.save(memory)
        forget_key(leaf, adapters)
    try:
        adapters.issuer().revoke(leaf, REASONS[reason], key)
    except Error as exc:
        state = "is NOT revoked"
        if isinstance(exc, AcmeError) and not exc.problem:
            # Perhaps only the answer was lost.
            state = "may not be revoked"
            exc.hint = f"{exc.hint} Then run `revoke` again.".strip()
        exc.message = f"The certificate {wanted} {state}: {exc.message}"
        raise
    issued = memory.find(wanted) or Issued(wanted, directory_url, dns_names(leaf))
    memory = memory.remember(issued._replace(revoked=utc(now)))
    adapters.state.save(memory)
    if is_pending:
        adapters.ca.forget_pending()
    if reason == "keyCompromise":
        # What is in use goes once its successor is verified.
        served = {seen.thumbprint for seen in adapters.observe().values() if seen.leaf}
        doomed = {
            thumbprint(each): name
            for each, name in adapters.store.certificates()
            if removal.is_done_with(each, memory)
        }
        removal.remove(doomed, adapters, served=served)
    return leaf


def without_key(leaf: x509.Certificate, memory: Memory) -> Memory:
    """Return the memory in which a certificate's key must not be used again."""
    keys = dict.fromkeys([*memory.compromised, public_key_hash(leaf)])
    return memory._replace(compromised=tuple(keys))


def forget_key(leaf: x509.Certificate, adapters: Adapters) -> None:
    """Forget the open order, and a pending certificate with the same key."""
    # The order may be for that key.
    adapters.ca.forget_order()
    pending = adapters.ca.pending()
    if pending is not None and public_key_hash(pending.leaf) == public_key_hash(leaf):
        adapters.ca.forget_pending()
