"""Guard mail from senders who use DANE: look at TLSA records, keep the next key.

The rules are in `renewal.dane`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.errors import DeployError
from letsencrypt_mdaemon.pki.certificate import (
    key_pem,
    key_type,
    load_key,
    new_key,
    thumbprint,
)
from letsencrypt_mdaemon.pki.tlsa import of_key
from letsencrypt_mdaemon.renewal import dane
from letsencrypt_mdaemon.renewal import due as rules
from letsencrypt_mdaemon.renewal.dane import Act, Dane, Fit
from letsencrypt_mdaemon.state.memory import utc
from letsencrypt_mdaemon.state.pins import NextKey
from letsencrypt_mdaemon.text import printable, when

if TYPE_CHECKING:
    from cryptography import x509

    from letsencrypt_mdaemon.errors import Error
    from letsencrypt_mdaemon.pki.certificate import PrivateKey
    from letsencrypt_mdaemon.renewal.adapters import Adapters
    from letsencrypt_mdaemon.renewal.snapshot import Snapshot
    from letsencrypt_mdaemon.state.ledger import Wait

_log = logging.getLogger(__name__)


def look(snapshot: Snapshot, adapters: Adapters, *, keep: bool = True) -> Snapshot:
    """Return the snapshot with the TLSA records that senders see now.

    Args:
        keep: Whether to remember them, and to make the next key if there is none.
    """
    keep = keep and not snapshot.request.dry_run
    found, former = adapters.tlsa(), adapters.state.pins()
    pins, unknown = former._replace(pins=()), ""
    if found is not None:
        pins, unknown = dane.merge(former, found, utc(snapshot.now))
    if keep and pins != former:
        adapters.state.save(pins)
    if keep:
        make_next(snapshot, adapters)
    leaves = [leaf for leaf in dict.fromkeys(snapshot.named.values()) if leaf]
    chains = [chain(leaf, adapters) for leaf in leaves]
    rows = [dane.pinned(pin, chains) for pin in pins.pins]
    pinned = tuple(row for row in rows if row.matched)
    known = Dane(
        pinned=pinned,
        pins=pins.pins,
        unknown=printable(unknown, 500),
        next_key=next_key(snapshot, adapters),
        current=current_key(snapshot, adapters)[0] if pinned else None,
    )
    if leaves and (wrong := dane.mismatched(known, snapshot.request.names)):
        _log.warning(
            "No TLSA record of %s matches the certificate in use: senders that use "
            "DANE keep their mail back. Publish %s.",
            ", ".join(pin.owner for pin in wrong),
            ", ".join(dane.to_publish(wrong, of_key(leaves[0]))),
        )
    return snapshot._replace(dane=known)


def chain(leaf: x509.Certificate, adapters: Adapters) -> tuple[x509.Certificate, ...]:
    """Return a certificate with its issuers, as far as the store has them."""
    return adapters.store.chain(thumbprint(leaf)) or (leaf,)


# Keys


def current_key(
    snapshot: Snapshot, adapters: Adapters
) -> tuple[PrivateKey | None, str]:
    """Return the key to reuse, or why there is none; "" before the first certificate.

    A TLSA record pins the key, whichever CA certifies it: the key of the certificate in
    use, or else of the last one that this program activated.
    """
    request, memory = snapshot.request, snapshot.memory
    leaf = snapshot.ours
    if leaf is None:
        leaf, _ = snapshot.stored.get(memory.in_use, (None, ""))
    if leaf is None:
        return None, ""
    if key_type(leaf) != request.key_type:
        return None, f"it is {key_type(leaf)}"
    if rules.is_compromised(leaf, memory):
        return None, "it was revoked as compromised"
    key = adapters.store.key(thumbprint(leaf))
    return key, "" if key is not None else "the store does not export it"


def next_key(snapshot: Snapshot, adapters: Adapters) -> PrivateKey | None:
    """Return the key that the next certificate gets; None if it has to be made first.

    It is another one than that in use, of the right type and not compromised.
    """
    if snapshot.request.key_policy != "next":
        return None
    kept = adapters.state.next_key()
    if kept is None or kept.key_type != snapshot.request.key_type:
        return None
    try:
        key = load_key(kept.key_pem.encode())
    except ValueError as exc:
        _log.warning("Making the next key again: %s.", exc)
        return None
    record = of_key(key)
    used = {of_key(leaf) for leaf in snapshot.named.values() if leaf is not None}
    is_spoiled = record.digest in snapshot.memory.compromised
    return None if record in used or is_spoiled else key


def make_next(
    snapshot: Snapshot, adapters: Adapters, *, used: x509.Certificate | None = None
) -> None:
    """Make the key of the next certificate, so that its record can be published.

    Args:
        used: The certificate that was put into use just now.
    """
    request = snapshot.request
    if used is not None:
        snapshot = snapshot._replace(named=dict.fromkeys(snapshot.named, used))
    if request.key_policy != "next" or next_key(snapshot, adapters) is not None:
        return
    key = new_key(request.key_type)
    pem = key_pem(key).decode()
    adapters.state.save(NextKey(pem, request.key_type, utc(snapshot.now)))
    _log.info(
        "Made the key of the next certificate. If you use DANE, publish its TLSA "
        "record `%s` beside the current one.",
        of_key(key),
    )


def key_to_order(snapshot: Snapshot, adapters: Adapters) -> PrivateKey | None:
    """Return the key of a new certificate; None for one that the order makes."""
    policy, known = snapshot.request.key_policy, snapshot.dane
    if policy == "reuse":
        key, why = current_key(snapshot, adapters)
        if why:
            _log.warning(
                "Creating a new key, because the current one cannot be reused: %s. "
                "Publish its TLSA record (`status` shows it).",
                why,
            )
        return key
    key = known.next_key if policy == "next" else None
    fit = dane.judge_key(snapshot, key).fit
    has = dane.has_current(snapshot)
    act = dane.decide(fit, policy, dane.left(snapshot), has_current=has)
    is_forced = act is Act.WAIT and has and snapshot.request.force
    if act is Act.CURRENT or is_forced or known.keeps_key:
        _log.warning(
            "Keeping the current key, because the TLSA records match no other yet."
        )
        return known.current
    return key


# Certificates


class Verdict(NamedTuple):
    """What the TLSA records say about a certificate that is to be put into use.

    Args:
        wait: Why it waits.
        refusal: Why it is refused.
        loss: What is lost if it is put into use all the same.
    """

    wait: Wait | None = None
    refusal: Error | None = None
    loss: Error | None = None


def without_misfit(snapshot: Snapshot, adapters: Adapters) -> Snapshot:
    """Return the snapshot without a pending certificate that the current key replaces.

    So it is with little time left, where the records do not match it.
    """
    pending, known = snapshot.pending, snapshot.dane
    if pending is None or known.current is None or snapshot.request.issue_only:
        return snapshot
    if of_key(pending.key) == of_key(known.current):
        return snapshot
    fit, policy = dane.judge(snapshot, pending.chain).fit, snapshot.request.key_policy
    has, time_left = dane.has_current(snapshot), dane.left(snapshot)
    if dane.decide(fit, policy, time_left, has_current=has) is not Act.CURRENT:
        return snapshot
    _log.warning(
        "The certificate %s waits for a TLSA record in vain. Ordering one for the "
        "current key, because little time is left.",
        pending.thumbprint,
    )
    adapters.ca.forget_pending()
    # The CA's issuer may have changed, which nobody sees before it issues.
    return snapshot._replace(pending=None, dane=known._replace(keeps_key=True))


def judge(
    snapshot: Snapshot,
    leaf: x509.Certificate,
    adapters: Adapters,
    *,
    asked: bool = False,
) -> Verdict:
    """Return whether a certificate may be put into use.

    Args:
        asked: Whether a person chose this one: it is refused instead of waiting.
    """
    asked = asked or snapshot.request.activate_only
    pending = snapshot.pending
    is_pending = pending is not None and pending.leaf == leaf
    held = pending.chain if pending and is_pending else chain(leaf, adapters)
    found = dane.judge(snapshot, held)
    policy = "new" if asked else snapshot.request.key_policy
    act = dane.decide(found.fit, policy, dane.left(snapshot), has_current=False)
    record = of_key(leaf)
    if act is Act.WARN:
        _log.warning(
            "Could not find out whether TLSA records pin the certificate in use: %s. "
            "Going on without.",
            snapshot.dane.unknown,
        )
    if act is Act.WAIT and not asked:
        return Verdict(wait=dane.held(snapshot, found, record))
    then = f"Then run `use {thumbprint(leaf)[:8]}`."
    if is_pending:
        then = "A run that sees it there goes on, and places no order."
    owners = ", ".join(pin.owner for pin in found.ports)
    publish = ", ".join(dane.to_publish(found.ports, record))
    if act is Act.MAIL:
        why = f"no TLSA record of {owners} matches it"
        hint = f"Publish {publish} now."
        if found.until is not None:
            why = f"its TLSA record at {owners} is too new for some caches"
            hint = f"Leave the record there. It counts from {when(found.until)}."
        return Verdict(
            loss=DeployError(
                f"The new certificate is in use, but {why}: senders that use DANE keep "
                "their mail back. It could wait no longer, because the certificate "
                "before was nearly over.",
                hint=hint,
            )
        )
    if found.fit is Fit.SOON and act is not Act.USE:
        until = when(found.until, snapshot.now) if found.until else ""
        return Verdict(
            refusal=DeployError(
                f"The certificate {thumbprint(leaf)} was not put into use: the TLSA "
                f"record of its key is published at {owners}, but caches may hold the "
                f"former records until {until}.",
                hint="Try again then.",
            )
        )
    if act is not Act.REFUSE:
        return Verdict()
    return Verdict(
        refusal=DeployError(
            f"The certificate {thumbprint(leaf)} was not put into use: no TLSA record "
            f"of {owners} matches it, so senders that use DANE would keep their mail "
            "back. Nothing in use was changed.",
            hint=f"Publish {publish} beside the current record. {then} For the next "
            "renewals set key-policy = next, or reuse.",
        )
    )
