"""Revoke a certificate, and never use again what was compromised."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.pki.certificate import dns_names, public_key_hash, thumbprint
from letsencrypt_mdaemon.state.memory import Issued, utc

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography import x509

    from letsencrypt_mdaemon.renewal.adapters import Adapters, Issuer

REASONS = {
    "unspecified": 0,
    "keyCompromise": 1,
    "affiliationChanged": 3,
    "superseded": 4,
    "cessationOfOperation": 5,
}
"""Why a certificate may be revoked (RFC 5280, 5.3.1), as a subscriber may say it."""


def revoke(  # noqa: PLR0913 - each is one thing to know
    wanted: str,
    reason: str,
    parts: Adapters,
    issuer: Issuer,
    *,
    directory_url: str,
    now: datetime,
) -> x509.Certificate:
    """Revoke a certificate of the store, and remember it.

    Args:
        wanted: Its thumbprint.
        reason: One of `REASONS`; after keyCompromise its key is not used again.
        directory_url: The CA.

    Raises:
        AcmeError: If the CA refuses.
        ConfigError: If there is no such certificate.
    """
    known = {thumbprint(leaf): leaf for leaf, _ in parts.store.certificates()}
    pending = parts.ca.pending()
    if pending is not None:
        known[pending.thumbprint] = pending.leaf
    leaf = known.get(wanted)
    if leaf is None:
        hint = "`status` and `discover` show thumbprints."
        raise ConfigError(f"The store holds no certificate {wanted}.", hint=hint)
    is_pending = pending is not None and pending.leaf == leaf
    key = pending.key if pending and is_pending else parts.store.key(wanted)
    if reason == "keyCompromise":
        # First: whatever the CA says, nobody should go on with this key.
        compromised, memory = public_key_hash(leaf), parts.state.load()
        keys = dict.fromkeys([*memory.compromised, compromised])
        parts.state.save(replace(memory, compromised=tuple(keys)))
        # An order left open may be for the same key.
        parts.ca.forget_order()
        if pending is not None and public_key_hash(pending.leaf) == compromised:
            parts.ca.forget_pending()
    issuer.revoke(leaf, REASONS[reason], key)
    memory = parts.state.load()
    issued = memory.find(wanted) or Issued(wanted, directory_url, dns_names(leaf))
    parts.state.save(memory.remember(replace(issued, revoked=utc(now))))
    if is_pending:
        parts.ca.forget_pending()
    return leaf
