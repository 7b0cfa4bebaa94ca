"""One run: decide, obtain, keep, install, bind, reload, prove, remove – in this order.

Each step is "make it so": done twice it does nothing the second time. Whatever a run
leaves undone, because it failed or was killed, the next one finishes.
"""

from __future__ import annotations

import logging
import random
import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NoReturn, Protocol

from letsencrypt_mdaemon import deployment, renewal
from letsencrypt_mdaemon.certificate import (
    OURS,
    Certificate,
    dns_names,
    key_type,
    public_key_hash,
    thumbprint,
    utc,
)
from letsencrypt_mdaemon.errors import (
    AcmeError,
    ChallengeError,
    ConfigError,
    DeployError,
)
from letsencrypt_mdaemon.ledger import DAILY
from letsencrypt_mdaemon.renewal import Draw
from letsencrypt_mdaemon.state import Attempt, Dropped, Issued

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from cryptography import x509

    from letsencrypt_mdaemon.certificate import PrivateKey
    from letsencrypt_mdaemon.ledger import Limits, Wait
    from letsencrypt_mdaemon.renewal import Due, Window
    from letsencrypt_mdaemon.state import CaState, Change, Memory, State, Target

_log = logging.getLogger(__name__)

RESERVE = 2
"""Certificates a week for the same names that are better kept for an emergency."""
URGENT = timedelta(days=3)
"""With less left of the certificate in use, every run tries."""


class Issuer(Protocol):
    """Obtains certificates."""

    def suggested_window(
        self, certificate: x509.Certificate
    ) -> tuple[Window | None, float]:
        """Return the CA's advice, and the seconds until it may be asked again."""
        ...

    def obtain(
        self,
        names: Sequence[str],
        replaces: x509.Certificate | None,
        key: PrivateKey | None,
    ) -> Certificate:
        """Return a new certificate, checked; for the key, if one is given."""
        ...

    def revoke(
        self, certificate: x509.Certificate, reason: int, key: PrivateKey | None
    ) -> None:
        """Make sure that a certificate is revoked."""
        ...


class Store(Protocol):
    """Keeps certificates where the server's programs find them."""

    def certificates(self) -> Iterable[tuple[x509.Certificate, str]]:
        """Return each certificate with its friendly name."""
        ...

    def key(self, wanted: str) -> PrivateKey | None:
        """Return the private key of the one with this thumbprint, if it can be had."""
        ...

    def install(self, certificate: Certificate) -> None:
        """Make sure that it is there, with its key, under its friendly name."""
        ...

    def remove(self, wanted: str) -> None:
        """Make sure that the one with this thumbprint is not there."""
        ...


class Server(deployment.Server, Protocol):
    """The mail server's files, and its ear for changes."""

    def named(self, names: Collection[str]) -> Mapping[Target, x509.Certificate | None]:
        """Return which certificate each target names."""
        ...

    def bind(
        self, certificate: x509.Certificate, *, now: datetime, dry_run: bool = False
    ) -> Sequence[Change]:
        """Make every target name it; with `dry_run` only return what would change."""
        ...

    def references(self) -> Collection[str]:
        """Return the thumbprints that any of the server's INI values names."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a certificate should be, and how far a run may go.

    Args:
        names: The names, the first one first.
        key_type: The kind of key.
        directory_url: The CA.
        reuse_key: Go on with the private key in use, which a TLSA record pins.
        days_left: Renew when no more days than these are left; 0 = the usual rules.
        interval: Until the next scheduled run.
        limits: What the CA allows, if it says so.
        force: Order even if none is due, and even if it is too early to try again.
        dry_run: Only say what would be done.
        drop: Rather go without names that fail than without a certificate.
        rehearse: Obtain it, and put it to no use.
        issue_only: Leave the cut-over to a later run.
        activate_only: Only put into use what an earlier run obtained.
        reload: Whether the server is told, and its ports are looked at.
        given: Whether the administrator named the endpoints.
        patience: Seconds that the ports have to change after each step of a reload.
        remove_old: Remove superseded certificates of ours.
    """

    names: tuple[str, ...]
    key_type: str
    directory_url: str
    reuse_key: bool = False
    days_left: int = 0
    interval: timedelta = renewal.INTERVAL
    limits: Limits | None = None
    force: bool = False
    dry_run: bool = False
    drop: bool = False
    rehearse: bool = False
    issue_only: bool = False
    activate_only: bool = False
    reload: bool = True
    given: bool = False
    patience: float = 60.0
    remove_old: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a run works with, beside the CA."""

    store: Store
    server: Server
    verifier: deployment.Verifier
    state: State
    ca: CaState


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run did, or would do.

    Args:
        renewed: Whether another certificate is in use than before.
        reason: Why, or why not.
        certificate: The one in use afterwards; in a rehearsal the one obtained.
        next_at: When it will be due.
        reloaded: The semaphores that the server took up.
        waits_until: When it is tried again, if it is due and failed before.
        proof: What its ports serve; None if nothing could be proven.
        removed: Thumbprints of the certificates removed.
        dropped: The names that the certificate goes without for now.
    """

    renewed: bool
    reason: str
    names: tuple[str, ...]
    certificate: x509.Certificate | None = None
    next_at: datetime | None = None
    waits_until: datetime | None = None
    changes: tuple[Change, ...] = ()
    reloaded: tuple[str, ...] = ()
    proof: deployment.Proof | None = None
    removed: tuple[str, ...] = ()
    dropped: tuple[Dropped, ...] = ()


@dataclass(frozen=True, slots=True)
class _Situation:
    """What a run finds.

    Args:
        names: The names it should have now: those wanted, without the dropped ones.
        in_use: The one certificate that all the targets name, if it is one.
        ours: Whether this program obtained that from this CA.
        pending: Issued earlier, not in use yet, and still what is wanted.
    """

    names: tuple[str, ...]
    dropped: tuple[Dropped, ...]
    named: tuple[x509.Certificate | None, ...]
    in_use: x509.Certificate | None
    ours: bool
    pending: Certificate | None
    attempt: Attempt | None


def renew(order: Order, parts: Parts, issuer: Issuer, *, now: datetime) -> Outcome:
    """Make sure that the server uses a good certificate for the names.

    Raises:
        AcmeError: The CA did not issue; nothing is changed.
        DeployError: It issued, but the certificate is not in use everywhere; it is
            kept, and the next run continues with it.
        ConfigError: The server's files or the settings do not allow it.
    """
    if order.rehearse:
        return _rehearse(order, parts, issuer, now)
    attempt = parts.state.attempt()
    if attempt is not None and attempt.undoing and not order.dry_run:
        _roll_back(order, attempt, (), parts, now)
    found = _look(order, parts, now)
    due = _decide(order, found, parts, issuer, now)
    _log.info("%s: %s", "Due" if due.due else "Nothing is due", due.reason)
    wait = None if order.force or not due.due else _wait(order, found, parts, now)
    if wait is not None and not order.dry_run:
        return _postponed(order, found, due, wait)
    if order.dry_run or not due.due:
        return _nothing_done(order, found, due, parts, now)
    pending = found.pending or _obtain(order, found, parts, issuer, now)
    if pending is None:
        found = _look(order, parts, now)
        due = _by_rule(order, found, parts, now)
        return _nothing_done(order, found, due, parts, now)
    # A run may have died between keeping the certificate and this.
    parts.ca.forget_order()
    _remember(pending, order, parts, now)
    parts.store.install(pending)
    if order.issue_only:
        reason = f"{due.reason}; issued, and kept until `activate` puts it into use"
        return Outcome(
            renewed=False, reason=reason, names=order.names, certificate=found.in_use
        )
    return _deploy(order, due.reason, pending.leaf, parts, now)


def due(
    order: Order, parts: Parts, *, now: datetime
) -> tuple[Due, Wait | None, x509.Certificate | None]:
    """Return whether it is due, why it waits, and what is in use; ask no CA."""
    found = _look(order, parts, now)
    due = _decide(order, found, parts, None, now)
    return due, _wait(order, found, parts, now) if due.due else None, found.in_use


def roll_back(order: Order, parts: Parts, *, now: datetime) -> Outcome:
    """Go back to the last certificate that was seen to work, and prove it.

    Raises:
        ConfigError: If there is none that is still valid and in the store.
        DeployError: If it is not in use everywhere afterwards.
    """
    in_use = set(parts.server.named(order.names).values())
    stored = {thumbprint(leaf): leaf for leaf, _ in parts.store.certificates()}
    memory = parts.state.load()
    for issued in reversed(memory.issued):
        leaf = stored.get(issued.thumbprint)
        good = issued.verified is not None and issued.revoked is None
        if leaf is None or not good or in_use == {leaf}:
            continue
        if _is_compromised(leaf, memory):
            continue
        if leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc:
            reason = (
                f"rolled back to the certificate verified on {issued.verified:%Y-%m-%d}"
            )
            parts.ca.forget_pending()
            return _deploy(order, reason, leaf, parts, now)
    raise ConfigError(
        "There is no certificate to go back to: none that was verified on every port "
        "is still valid and in the store.",
        hint="`renew --force` obtains a new one.",
    )


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
    parts: Parts,
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
    start = leaf.not_valid_before_utc
    issued = memory.find(wanted) or Issued(
        wanted, directory_url, dns_names(leaf), obtained=start
    )
    parts.state.save(memory.remember(replace(issued, revoked=utc(now))))
    if is_pending:
        parts.ca.forget_pending()
    return leaf


def _is_compromised(leaf: x509.Certificate, memory: Memory) -> bool:
    """Whether a certificate's key was revoked as compromised, with whichever one."""
    return bool(memory.compromised) and public_key_hash(leaf) in memory.compromised


def _look(order: Order, parts: Parts, now: datetime) -> _Situation:
    named = tuple(parts.server.named(order.names).values())
    in_use = named[0] if len(set(named)) == 1 else None
    memory = parts.state.load()
    dropped = memory.dropped if order.drop else ()
    dropped = tuple(item for item in dropped if item.name in order.names[1:])
    without = {item.name for item in dropped}
    names = tuple(name for name in order.names if name not in without)
    pending = None
    if not order.force:
        pending = _usable(parts.ca.pending(), [names, order.names], order, now)
    if pending is not None and _is_compromised(pending.leaf, memory):
        pending = None
    return _Situation(
        names=names,
        dropped=dropped,
        named=named,
        in_use=in_use,
        ours=in_use is not None and _is_ours(in_use, order, parts),
        pending=pending,
        attempt=parts.state.attempt(),
    )


def _decide(
    order: Order, found: _Situation, parts: Parts, issuer: Issuer | None, now: datetime
) -> Due:
    """Return what is due; the CA is asked for its advice only if there is an issuer."""
    if found.pending is not None:
        return _resume(order, found, found.pending, now)
    if order.activate_only:
        reason = "no certificate waits to be put into use"
        return renewal.Due(due=False, reason=reason, at=now)
    drawn, why = None, ""
    if found.in_use is not None and found.ours and not order.force:
        draw = _advice(order, found.in_use, parts.ca, issuer, now)
        drawn, why = draw.moment(now, order.interval), draw.explanation_url
    due = _by_rule(order, found, parts, now, drawn=drawn)
    if due.due and due.at == drawn and why:
        due = replace(due, reason=f"{due.reason}; the CA says why: {why}")
    again = [item.name for item in found.dropped if item.tried + DAILY <= now]
    if again and not due.due:
        reason = f"{', '.join(again)} could not be validated before, and is tried again"
        return renewal.Due(due=True, reason=reason, at=now)
    return due


def _by_rule(
    order: Order,
    found: _Situation,
    parts: Parts,
    now: datetime,
    *,
    drawn: datetime | None = None,
) -> Due:
    return renewal.decide(
        found.named,
        ours=found.ours,
        names=found.names,
        key=order.key_type,
        now=now,
        drawn=drawn,
        days_left=order.days_left,
        spoiled=_spoiled(found, parts.state.load()),
        force=order.force,
    )


def _spoiled(found: _Situation, memory: Memory) -> str:
    """Return why the certificate in use must not stay, as far as we remember; or ""."""
    if found.in_use is None:
        return ""
    print_ = thumbprint(found.in_use)
    known = memory.find(print_)
    if known is not None and known.revoked is not None:
        return f"the certificate in use was revoked on {known.revoked:%Y-%m-%d}"
    if found.ours and _is_compromised(found.in_use, memory):
        return "the key of the certificate in use was revoked as compromised"
    if memory.in_use and print_ != memory.in_use:
        return "the certificate in use is not the one that was put into use last"
    return ""


def _wait(order: Order, found: _Situation, parts: Parts, now: datetime) -> Wait | None:
    """Return why it is too early to try again, after what failed before."""
    if found.pending is not None:
        return None
    names = _tried_now(order, found, parts, now)
    left = parts.ca.order()
    return (
        parts.ca.ledger()
        .settled(now)
        .wait(
            names,
            now,
            urgent=_is_urgent(found, now),
            resumes=left is not None and set(left.names) == set(names),
            limits=order.limits,
        )
    )


def _postponed(order: Order, found: _Situation, due: Due, wait: Wait) -> Outcome:
    """Return that it is due, and too early to try again.

    Raises:
        AcmeError: If nothing happens until somebody acts.
    """
    if wait.until is None:
        raise AcmeError(
            f"A certificate is due ({due.reason}), but {wait.reason}",
            hint=f"Open {wait.paused} to resume, then `renew --force`.",
            paused=wait.paused,
        )
    when = f"{wait.until:%Y-%m-%d %H:%M} UTC"
    _log.warning("%s. The next try is after %s; --force tries now.", wait.reason, when)
    return Outcome(
        renewed=False,
        reason=due.reason,
        names=order.names,
        certificate=found.in_use,
        next_at=due.at,
        waits_until=wait.until,
        dropped=found.dropped,
    )


def _is_urgent(found: _Situation, now: datetime) -> bool:
    return found.in_use is not None and found.in_use.not_valid_after_utc - now < URGENT


def _tried_now(
    order: Order, found: _Situation, parts: Parts, now: datetime
) -> tuple[str, ...]:
    """Return the names to order: all, or without those that wait, if that may be."""
    if not order.drop or order.force:
        return order.names
    ledger, urgent = parts.ca.ledger().settled(now), _is_urgent(found, now)
    early = {
        item.name
        for item in ledger.failing(order.names)
        if item.name and (item.paused or item.not_before(urgent=urgent) > now)
    }
    if not early or not renewal.may_drop(early, order.names, found.in_use, now):
        return order.names
    return tuple(name for name in order.names if name not in early)


def _nothing_done(
    order: Order, found: _Situation, due: Due, parts: Parts, now: datetime
) -> Outcome:
    """Return that nothing is due; or, in a dry run, what would be changed."""
    changes: Sequence[Change] = ()
    if due.due and found.pending is not None:
        changes = parts.server.bind(found.pending.leaf, now=now, dry_run=True)
    return Outcome(
        renewed=False,
        reason=due.reason,
        names=order.names,
        certificate=found.in_use,
        next_at=due.at,
        changes=tuple(changes),
        dropped=found.dropped,
    )


def _obtain(
    order: Order, found: _Situation, parts: Parts, issuer: Issuer, now: datetime
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
            if not _by_rule(order, rest, parts, now).due:
                return None
            _log.warning("The certificate goes without %s.", ", ".join(missing))
        try:
            return issuer.obtain(names, replaces, key)
        except AcmeError as exc:
            _record(exc, names, parts.ca, now)
            raise

    names = _tried_now(order, found, parts, now)
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


def _log_what_is_spent(order: Order, parts: Parts, now: datetime) -> None:
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


def _key(order: Order, found: _Situation, parts: Parts) -> PrivateKey | None:
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
    elif _is_compromised(leaf, memory):
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
    failed: Mapping[str, str], tried: Collection[str], parts: Parts, now: datetime
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


def _resume(
    order: Order, found: _Situation, pending: Certificate, now: datetime
) -> Due:
    """Return whether the pending certificate is tried now: after a roll-back daily."""
    failed = found.attempt.failed if found.attempt else None
    same = found.attempt and found.attempt.thumbprint == pending.thumbprint
    if failed is None or not same:
        reason = "an earlier run obtained a certificate that is not in use yet"
        return renewal.Due(due=True, reason=reason, at=now)
    again = failed + DAILY
    left = found.in_use.not_valid_after_utc - now if found.in_use else timedelta(0)
    reason = f"a new certificate was rolled back on {failed:%Y-%m-%d %H:%M} UTC"
    if again <= now or left < URGENT or order.activate_only:
        return renewal.Due(due=True, reason=f"{reason} and is tried again", at=now)
    when = f"{again:%Y-%m-%d %H:%M} UTC"
    _log.warning("%s; it is tried again after %s", reason, when)
    return renewal.Due(due=False, reason=reason, at=again)


def _deploy(
    order: Order, reason: str, leaf: x509.Certificate, parts: Parts, now: datetime
) -> Outcome:
    """Put a certificate of the store into use, prove it, or roll back."""
    attempt = parts.state.attempt()
    if attempt is not None and attempt.failed is None:
        # A run that was killed, or that left ports on the old certificate.
        before, changes = attempt.before, attempt.changes
    else:
        before, changes = _before(order, parts), ()
    changes += tuple(parts.server.bind(leaf, now=now, dry_run=True))
    attempt = Attempt(thumbprint(leaf), before, changes)
    parts.state.save_attempt(attempt)
    deploying = deployment.Deployment(
        parts.server, parts.verifier, before, patience=order.patience
    )
    deployed = deploying.carry_out(leaf, now=now)
    proof = deployed.proof
    if proof is not None and proof.broken:
        _roll_back(order, attempt, proof.broken, parts, now)
    if proof is not None and proof.old:
        raise DeployError(
            f"The new certificate is issued and written into the server's files, but "
            f"these ports still serve the old one: {', '.join(proof.old)}.",
            hint="Restart MDaemon (or let this program: allow-restart = yes). The next "
            "run looks again, and orders nothing.",
        )
    if proof is None:
        kept = "; superseded certificates stay" if order.remove_old else ""
        _log.warning(
            "No port that serves TLS was seen: nothing could be proven%s.", kept
        )
    memory = parts.state.load()
    if proof is not None and (issued := memory.find(thumbprint(leaf))):
        memory = memory.remember(replace(issued, verified=utc(now)))
    parts.state.save(replace(memory, in_use=thumbprint(leaf)))
    # In this order: an attempt that outlives its certificate would spoil the next one.
    parts.state.forget_attempt()
    parts.ca.forget_pending()
    next_at = renewal.backstop(leaf)
    _log.info(
        "In use%s: %s, until %s; due again about %s",
        f" at {len(proof.new)} ports" if proof else "",
        thumbprint(leaf),
        f"{leaf.not_valid_after_utc:%Y-%m-%d}",
        f"{next_at:%Y-%m-%d}",
    )
    return Outcome(
        renewed=True,
        reason=reason,
        names=order.names,
        certificate=leaf,
        next_at=next_at,
        changes=deployed.changes,
        reloaded=deployed.reloaded,
        proof=proof,
        dropped=memory.dropped,
        removed=_remove_old(order, leaf, parts) if proof is not None else (),
    )


def _before(order: Order, parts: Parts) -> dict[str, str]:
    """Return what the ports serve that are ours to change."""
    if not order.reload:
        return {}
    named = {
        thumbprint(leaf) for leaf in parts.server.named(order.names).values() if leaf
    }
    issued = {item.thumbprint for item in parts.state.load().issued}
    observed = parts.verifier.observe()
    return deployment.baseline(observed, named | issued, given=order.given)


def _roll_back(
    order: Order,
    attempt: Attempt,
    broken: Sequence[str],
    parts: Parts,
    now: datetime,
) -> NoReturn:
    """Put everything back and say so; whatever happens, the run has failed."""
    what = (
        f"The new certificate broke {', '.join(broken)}"
        if broken
        else ("An earlier run was interrupted while it was rolling back")
    )
    _log.warning("%s: rolling back.", what)
    parts.state.save_attempt(replace(attempt, undoing=True))
    deploying = deployment.Deployment(
        parts.server, parts.verifier, attempt.before, patience=order.patience
    )
    lost = deploying.roll_back(attempt.changes, now=now)
    done = Attempt(attempt.thumbprint, {}, (), failed=utc(now))
    parts.state.save_attempt(done)
    if lost:
        message = f"{what}; the files are as they were, but these ports do not serve "
        message += f"what they did: {', '.join(lost)}."
        raise DeployError(message, hint="Restart MDaemon, and look at these ports.")
    served = ", ".join(attempt.before)
    raise DeployError(
        f"{what}; it was rolled back, and every port serves again what it served "
        f"before: {served}.",
        hint="The new certificate is kept and tried again in a day. See why the server "
        "does not take it: its key (key-type), its chain, the log of the server.",
    )


def _advice(
    order: Order,
    certificate: x509.Certificate,
    ca: CaState,
    issuer: Issuer | None,
    now: datetime,
) -> Draw:
    """Return the moment drawn from the CA's suggested window (RFC 9773, 4.2 and 4.3).

    Drawn once for each window and kept; asked again when the CA wants to be asked.
    """
    print_ = thumbprint(certificate)
    kept = ca.draw()
    if kept is None or kept.thumbprint != print_:
        kept = Draw(print_, None, None, None, ask_again=now)
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


def _usable(
    pending: Certificate | None,
    wanted: Sequence[Sequence[str]],
    order: Order,
    now: datetime,
) -> Certificate | None:
    """Return the pending certificate if it is still one that is wanted.

    Args:
        wanted: The names it may have: any of these.
    """
    if pending is None:
        return None
    fits = any(set(pending.names) == set(names) for names in wanted)
    fits = fits and key_type(pending.leaf) == order.key_type
    if fits and now < renewal.backstop(pending.leaf):
        return pending
    _log.info("The pending certificate %s does not fit any more", pending.thumbprint)
    return None


def _rehearse(order: Order, parts: Parts, issuer: Issuer, now: datetime) -> Outcome:
    """Obtain a certificate and put it to no use."""
    pending = None
    if not order.force:
        pending = _usable(parts.ca.pending(), [order.names], order, now)
    if pending is not None:
        reason = "rehearsed before: that certificate is still good; --force repeats it"
    elif order.dry_run:
        reason = "a rehearsal would obtain a certificate and put it to no use"
    else:
        pending = issuer.obtain(order.names, None, None)
        parts.ca.keep(pending)
        reason = "rehearsed: the CA issued a certificate; it is put to no use"
    return Outcome(
        renewed=False,
        reason=reason,
        names=order.names,
        certificate=pending.leaf if pending else None,
    )


def _is_ours(certificate: x509.Certificate, order: Order, parts: Parts) -> bool:
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


def _remember(
    certificate: Certificate, order: Order, parts: Parts, now: datetime
) -> None:
    memory = parts.state.load()
    if memory.find(certificate.thumbprint) is None:
        issued = Issued(
            thumbprint=certificate.thumbprint,
            directory_url=order.directory_url,
            names=certificate.names,
            obtained=utc(now),
        )
        parts.state.save(memory.remember(issued))


def _remove_old(order: Order, new: x509.Certificate, parts: Parts) -> tuple[str, ...]:
    """Remove certificates of ours that this one supersedes and that nothing names.

    A failure is a warning: the new certificate is in use.
    """
    if not order.remove_old:
        return ()
    memory = parts.state.load()
    removed = []
    try:
        referenced = parts.server.references()
        for leaf, name in list(parts.store.certificates()):
            print_ = thumbprint(leaf)
            ours = memory.find(print_) is not None or name.startswith(f"{OURS} ")
            older = leaf.not_valid_before_utc <= new.not_valid_before_utc
            superseded = older and bool(set(dns_names(leaf)) & set(dns_names(new)))
            if ours and superseded and leaf != new and print_ not in referenced:
                parts.store.remove(print_)
                _log.info("Removed the superseded certificate %s", name)
                removed.append(print_)
    except DeployError as exc:
        _log.warning("%s %s", exc.message, exc.hint)
    return tuple(removed)
