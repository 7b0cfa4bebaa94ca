"""Obtain a certificate for what is due, and remember what failed and what was spent."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.errors import AcmeError, ChallengeError
from letsencrypt_mdaemon.pki.certificate import key_type, thumbprint
from letsencrypt_mdaemon.renewal import due
from letsencrypt_mdaemon.renewal import due as renewal
from letsencrypt_mdaemon.state.memory import Dropped, utc

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from letsencrypt_mdaemon.pki.certificate import Certificate, PrivateKey
    from letsencrypt_mdaemon.renewal.adapters import Adapters, Issuer, Request
    from letsencrypt_mdaemon.renewal.due import Situation
    from letsencrypt_mdaemon.state.folder import CaState

_log = logging.getLogger(__name__)

RESERVE = 2
"""Certificates a week for the same names that are better kept for an emergency."""


def obtain(
    order: Request, found: Situation, parts: Adapters, issuer: Issuer, now: datetime
) -> Certificate | None:
    """Obtain a certificate, if need be without names that the CA cannot validate.

    None if the one in use is as good as what could be had.
    """
    if order.force:
        _log_what_is_spent(order, parts, now)
        parts.ca.forget_order()
    replaces = found.in_use if found.ours else None
    key = _key(order, found, parts)

    def attempt(names: tuple[str, ...]) -> Certificate | None:
        missing = [name for name in order.names if name not in names]
        if missing:
            rest = replace(found, names=names)
            if not due.by_rule(order, rest, parts, now).due:
                return None
            _log.warning("The certificate goes without %s.", ", ".join(missing))
        try:
            return issuer.obtain(names, replaces, key)
        except AcmeError as exc:
            _record(exc, names, parts.ca, now)
            raise

    names = due.tried_now(order, found, parts, now)
    failing = parts.ca.ledger().settled(now).failing(order.names)
    known = {*names, *(item.name for item in found.dropped), ""}
    early = {item.name: item.why for item in failing if item.name not in known}
    try:
        certificate = attempt(names)
        _drop(early, names, parts, now)
    except ChallengeError as exc:
        rest = tuple(name for name in names if name not in exc.names)
        missing = set(order.names) - set(rest)
        if not order.drop or not renewal.may_drop(
            missing, order.names, found.in_use, now
        ):
            raise
        _log.warning("%s", exc)
        _drop(early | exc.names, names, parts, now)
        certificate = attempt(rest)
    # Before anything else can fail: a certificate that was issued is never lost.
    if certificate is not None:
        parts.ca.keep(certificate)
    return certificate


def _record(error: AcmeError, names: Sequence[str], ca: CaState, now: datetime) -> None:
    """Remember which names failed, or that the CA wants to be left alone for a while.

    After anything else the next run just tries again: the network, a setting or the CA
    may have been mended, and nothing that is counted was spent – unless the CA issued
    something that cannot be used.
    """
    said = error.names if isinstance(error, ChallengeError) else {}
    if error.paused:
        told = set(re.findall(r"[a-z0-9.-]+", error.message.lower()))
        said = {name: error.message for name in names if {name, f"{name}."} & told}
    until = None
    if error.retry_after is not None:
        until = utc(now) + timedelta(seconds=error.retry_after)
    if error.paused or error.is_limit or error.spent or until is not None:
        said = said or {"": error.message}
    if said:
        ledger = ca.ledger().settled(now)
        ledger = ledger.failed(said, utc(now), until=until, paused=error.paused)
        ca.save_ledger(ledger)


def _log_what_is_spent(order: Request, parts: Adapters, now: datetime) -> None:
    """Say what a forced order takes of what the CA allows."""
    ledger = parts.ca.ledger().settled(now)
    used = len(ledger.used(order.names, now))
    for item in ledger.failing(order.names):
        failed = f"{item.name or 'An order'} failed {len(item.times)} times"
        _log.info("%s, last on %s UTC", failed, f"{item.times[-1]:%Y-%m-%d %H:%M}")
    if order.limits is None:
        _log.info("Issued for exactly these names in the last 7 days: %d.", used)
        return
    most = order.limits.exact_set
    level = logging.WARNING if used >= most - RESERVE else logging.INFO
    text = "This forced order is number %d of the %d certificates a week that the CA "
    text += "issues for exactly these names."
    _log.log(level, text, used + 1, most)


def _key(order: Request, found: Situation, parts: Adapters) -> PrivateKey | None:
    """Return the key to go on with; None = a new one.

    A TLSA record pins the key, whichever CA certifies it: that of what is in use, or
    else of what was put into use last.
    """
    if not order.reuse_key:
        return None
    memory = parts.state.load()
    stored = {thumbprint(leaf): leaf for leaf, _ in parts.store.certificates()}
    leaf = found.in_use if found.ours else stored.get(memory.in_use)
    if leaf is None:
        return None
    if key_type(leaf) != order.key_type:
        why = f"it is {key_type(leaf)}"
    elif due.is_compromised(leaf, memory):
        why = "it was revoked as compromised"
    elif (key := parts.store.key(thumbprint(leaf))) is not None:
        return key
    else:
        why = "the store does not give it away"
    _log.warning(
        "The key in use is not used again: %s. A new one is made; publish its TLSA "
        "record (`status` shows it).",
        why,
    )
    return None


def _drop(
    failed: Mapping[str, str], tried: Collection[str], parts: Adapters, now: datetime
) -> None:
    """Remember which names the certificate goes without, since when, and why."""
    memory = parts.state.load()
    before = {item.name: item for item in memory.dropped}
    moment = utc(now)
    dropped = [item for item in memory.dropped if item.name not in tried]
    dropped += [
        Dropped(name, before[name].since if name in before else moment, moment, why)
        for name, why in failed.items()
    ]
    if tuple(dropped) != memory.dropped:
        parts.state.save(replace(memory, dropped=tuple(dropped)))
