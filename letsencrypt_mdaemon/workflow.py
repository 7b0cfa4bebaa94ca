"""One run: decide, obtain, keep, install, bind, reload, remove – in this order.

Each step is "make it so": done twice it does nothing the second time. Whatever a run
leaves undone, because it failed or was killed, the next one finishes.
"""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from letsencrypt_mdaemon import renewal
from letsencrypt_mdaemon.certificate import (
    OURS,
    Certificate,
    dns_names,
    key_type,
    thumbprint,
    utc,
)
from letsencrypt_mdaemon.errors import AcmeError, DeployError
from letsencrypt_mdaemon.state import Draw, Issued

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from cryptography import x509

    from letsencrypt_mdaemon.renewal import Due, Window
    from letsencrypt_mdaemon.state import CaState, State, Target
    from letsencrypt_mdaemon.targets import Change

_log = logging.getLogger(__name__)


class Issuer(Protocol):
    """Obtains certificates."""

    def suggested_window(
        self, certificate: x509.Certificate
    ) -> tuple[Window | None, float]:
        """Return the CA's advice, and the seconds until it may be asked again."""
        ...

    def obtain(
        self, names: Sequence[str], replaces: x509.Certificate | None
    ) -> Certificate:
        """Return a new certificate, checked."""
        ...


class Store(Protocol):
    """Keeps certificates where the server's programs find them."""

    def certificates(self) -> Iterable[tuple[x509.Certificate, str]]:
        """Return each certificate with its friendly name."""
        ...

    def install(self, certificate: Certificate) -> None:
        """Make sure that it is there, with its key, under its friendly name."""
        ...

    def remove(self, wanted: str) -> None:
        """Make sure that the one with this thumbprint is not there."""
        ...


class Server(Protocol):
    """The mail server's files, and its ear for changes."""

    def named(self, names: Collection[str]) -> Mapping[Target, x509.Certificate | None]:
        """Return which certificate each target names."""
        ...

    def bind(
        self, certificate: x509.Certificate, *, now: datetime, dry_run: bool = False
    ) -> Sequence[Change]:
        """Make every target name it; with `dry_run` only return what would change."""
        ...

    def reload(self) -> Iterator[str]:
        """Ask the server to use it, gentlest first, and yield what it took up."""
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
        force: Order even if none is due.
        dry_run: Only say what would be done.
        rehearse: Obtain it, and put it to no use.
        remove_old: Remove superseded certificates of ours.
    """

    names: tuple[str, ...]
    key_type: str
    directory_url: str
    force: bool = False
    dry_run: bool = False
    rehearse: bool = False
    remove_old: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a run works with, beside the CA."""

    store: Store
    server: Server
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
        removed: Thumbprints of the certificates removed.
    """

    renewed: bool
    reason: str
    names: tuple[str, ...]
    certificate: x509.Certificate | None = None
    next_at: datetime | None = None
    changes: tuple[Change, ...] = ()
    reloaded: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


def renew(order: Order, parts: Parts, issuer: Issuer, *, now: datetime) -> Outcome:
    """Make sure that the server uses a good certificate for the names.

    Raises:
        AcmeError: The CA did not issue; nothing is changed.
        DeployError: It issued, but the certificate is not in use everywhere; it is
            kept, and the next run continues with it.
        ConfigError: The server's files or the settings do not allow it.
    """
    pending = None if order.force else _usable(parts.ca.pending(), order, now)
    if order.rehearse:
        return _rehearse(order, pending, parts, issuer)
    named = parts.server.named(order.names)
    in_use = _single(named.values())
    ours = in_use is not None and _is_ours(in_use, order, parts)
    if pending is not None:
        reason = "an earlier run obtained a certificate that is not in use yet"
        due = renewal.Due(due=True, reason=reason, at=now)
    else:
        drawn = None
        if in_use is not None and ours and not order.force:
            drawn = _drawn(in_use, parts.ca, issuer, now, keep=not order.dry_run)
        due = _decide(order, named.values(), now, ours=ours, drawn=drawn)
    if due.due:
        _log.info("Due: %s", due.reason)
    else:
        _log.info("Nothing is due before %s: %s", f"{due.at:%Y-%m-%d}", due.reason)
    if order.dry_run or not due.due:
        plan = bool(pending) and due.due
        return Outcome(
            renewed=False,
            reason=due.reason,
            names=order.names,
            certificate=in_use,
            next_at=due.at,
            changes=_planned(pending, parts, now) if plan else (),
        )
    if pending is None:
        if order.force:
            parts.ca.forget_order()
        pending = issuer.obtain(order.names, in_use if ours else None)
        # Before anything else can fail: a certificate that was issued is never lost.
        parts.ca.keep(pending)
    return _deploy(order, due, pending, parts, now)


def due(
    order: Order, parts: Parts, *, now: datetime
) -> tuple[Due, x509.Certificate | None]:
    """Return whether it is due, without asking the CA, and what is in use."""
    named = parts.server.named(order.names)
    in_use = _single(named.values())
    ours = in_use is not None and _is_ours(in_use, order, parts)
    draw = parts.ca.draw()
    fits = draw is not None and in_use and draw.thumbprint == thumbprint(in_use)
    drawn = draw.at if draw is not None and fits else None
    return _decide(order, named.values(), now, ours=ours, drawn=drawn), in_use


def _decide(
    order: Order,
    in_use: Collection[x509.Certificate | None],
    now: datetime,
    *,
    ours: bool,
    drawn: datetime | None,
) -> Due:
    return renewal.decide(
        list(in_use),
        ours=ours,
        names=order.names,
        key=order.key_type,
        now=now,
        drawn=drawn,
        force=order.force,
    )


def _deploy(
    order: Order, due: Due, pending: Certificate, parts: Parts, now: datetime
) -> Outcome:
    """Put the pending certificate into use: install, bind, reload, remove."""
    _remember(pending, order, parts, now)
    parts.store.install(pending)
    changes = parts.server.bind(pending.leaf, now=now)
    for change in changes:
        before = change.before or "(nothing)"
        _log.info("%s: %s → %s", change.target, before, change.after)
    reloaded = []
    for name in parts.server.reload():
        _log.info("The server took up %s", name)
        reloaded.append(name)
    _remember(pending, order, parts, now, bound=now)
    parts.ca.forget_pending()
    next_at = renewal.backstop(pending.leaf)
    _log.info(
        "In use: %s, until %s; due again about %s",
        pending.thumbprint,
        f"{pending.leaf.not_valid_after_utc:%Y-%m-%d}",
        f"{next_at:%Y-%m-%d}",
    )
    return Outcome(
        renewed=True,
        reason=due.reason,
        names=order.names,
        certificate=pending.leaf,
        next_at=next_at,
        changes=tuple(changes),
        reloaded=tuple(reloaded),
        removed=_remove_old(order, pending, parts),
    )


def _drawn(
    certificate: x509.Certificate,
    ca: CaState,
    issuer: Issuer,
    now: datetime,
    *,
    keep: bool,
) -> datetime | None:
    """Return the moment drawn from the CA's suggested window (RFC 9773, 4.2 and 4.3).

    Drawn once for each window and kept; asked again when the CA wants to be asked.
    """
    print_ = thumbprint(certificate)
    kept = ca.draw()
    if kept is not None and kept.thumbprint != print_:
        kept = None
    # A clock that was wrong when it was kept does not silence us for long.
    if kept is not None and now < kept.ask_again < now + timedelta(days=2):
        return kept.at
    try:
        window, seconds = issuer.suggested_window(certificate)
    except AcmeError as exc:
        # Whether it is due can be told without the CA.
        _log.warning("The CA could not be asked when to renew: %s", exc)
        window, seconds = None, 3600.0
    ask_again = now + timedelta(seconds=seconds)
    if window is None:
        draw = kept or Draw(print_, None, None, None, ask_again)
        draw = replace(draw, ask_again=ask_again)
    elif kept is not None and (kept.start, kept.end) == (window.start, window.end):
        draw = replace(kept, ask_again=ask_again)
    else:
        moment = utc(window.draw(random.SystemRandom()))
        url = window.explanation_url
        draw = Draw(print_, window.start, window.end, moment, ask_again, url)
        _log.info(
            "The CA suggests to renew between %s and %s; drawn: %s UTC%s",
            f"{window.start:%Y-%m-%d %H:%M}",
            f"{window.end:%Y-%m-%d %H:%M}",
            f"{moment:%Y-%m-%d %H:%M}",
            f"; why: {url}" if url else "",
        )
    if keep:
        ca.save_draw(draw)
    return draw.at


def _usable(
    pending: Certificate | None, order: Order, now: datetime
) -> Certificate | None:
    """Return the pending certificate if it is still what is wanted."""
    if pending is None:
        return None
    fits = set(pending.names) == set(order.names)
    fits = fits and key_type(pending.leaf) == order.key_type
    if fits and now < renewal.backstop(pending.leaf):
        return pending
    _log.info("The pending certificate %s does not fit any more", pending.thumbprint)
    return None


def _rehearse(
    order: Order, pending: Certificate | None, parts: Parts, issuer: Issuer
) -> Outcome:
    """Obtain a certificate and put it to no use."""
    if pending is not None:
        reason = "rehearsed before: that certificate is still good; --force repeats it"
    elif order.dry_run:
        reason = "a rehearsal would obtain a certificate and put it to no use"
    else:
        pending = issuer.obtain(order.names, None)
        parts.ca.keep(pending)
        reason = "rehearsed: the CA issued a certificate; it is put to no use"
    return Outcome(
        renewed=False,
        reason=reason,
        names=order.names,
        certificate=pending.leaf if pending else None,
    )


def _planned(
    pending: Certificate | None, parts: Parts, now: datetime
) -> tuple[Change, ...]:
    if pending is None:
        return ()
    return tuple(parts.server.bind(pending.leaf, now=now, dry_run=True))


def _single(certificates: Iterable[x509.Certificate | None]) -> x509.Certificate | None:
    """Return the one certificate that all the targets name, if it is one."""
    found = set(certificates)
    return found.pop() if len(found) == 1 else None


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
    certificate: Certificate,
    order: Order,
    parts: Parts,
    now: datetime,
    *,
    bound: datetime | None = None,
) -> None:
    issued = Issued(
        thumbprint=certificate.thumbprint,
        directory_url=order.directory_url,
        names=certificate.names,
        obtained=utc(now),
        bound=utc(bound) if bound else None,
    )
    parts.state.save(parts.state.load().remember(issued))


def _remove_old(order: Order, new: Certificate, parts: Parts) -> tuple[str, ...]:
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
            older = leaf.not_valid_before_utc <= new.leaf.not_valid_before_utc
            superseded = older and bool(set(dns_names(leaf)) & set(new.names))
            if ours and superseded and leaf != new.leaf and print_ not in referenced:
                parts.store.remove(print_)
                _log.info("Removed the superseded certificate %s", name)
                removed.append(print_)
    except DeployError as exc:
        _log.warning("%s %s", exc.message, exc.hint)
    return tuple(removed)
