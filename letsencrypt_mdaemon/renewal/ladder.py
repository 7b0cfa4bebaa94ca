"""Decide when to take the next rung of the reload ladder, without I/O.

A rung is a semaphore that makes the server reload, or the restart of its service. Each
changes some kinds of endpoint (`verify.endpoints.Endpoint.kind`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.state.memory import Rung

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

GENTLE_SECONDS = 5.0
"""The patience with endpoints that still serve the old certificate."""
RESTART_TIMEOUTS = 3
"""The patience with a silent endpoint after a restart, in timeouts: 180 s."""

RESTART = "RESTART.SEM"
KINDS = ("mail", "webmail", "administration", "web")
_CHANGES = {"RELOADCACHE.SEM": KINDS[:1], "RESTARTWC.SEM": ("webmail", "web")}


def is_restart(name: str) -> bool:
    """Whether a rung restarts the server: mail is down for a moment."""
    return name.upper() == RESTART or not name.upper().endswith(".SEM")


def known(name: str, remembered: Iterable[Rung]) -> Rung:
    """Return what a rung changes: as it did earlier, else as documented, else all."""
    usual = Rung(name, _CHANGES.get(name.upper(), KINDS), 0)
    return next((rung for rung in remembered if rung.name == name), usual)


class Progress(NamedTuple):
    """What the endpoints show after a rung.

    Args:
        old: The kinds of those that still serve the old certificate.
        broken: Whether one answers wrongly.
        silent: Whether nobody answers at one.
        changed: Whether one changed, on this rung or an earlier one.
    """

    old: frozenset[str] = frozenset()
    broken: bool = False
    silent: bool = False
    changed: bool = False


class Patience(NamedTuple):
    """The time until the next rung.

    Args:
        from_change: Whether it begins again with each endpoint that changes; else it
            begins with the rung.
    """

    seconds: float
    from_change: bool = False


def patience(
    rung: Rung, following: str | None, progress: Progress, timeout: float
) -> Patience:
    """Return how long to wait for the endpoints before the next rung.

    Args:
        following: The next rung; None if this is the last one.
        timeout: Seconds of full patience.
    """
    full = Patience(timeout)
    if progress.silent and is_restart(rung.name):
        return Patience(timeout * RESTART_TIMEOUTS)
    if progress.broken or progress.silent:
        return full
    if not progress.old:
        return Patience(0)
    if following is None:
        return full
    seconds = min(max(GENTLE_SECONDS, 2.0 * rung.seconds), timeout)
    gentle = Patience(seconds, from_change=True)
    if is_restart(following):
        return gentle if progress.changed else full
    return gentle if progress.old & set(rung.kinds) else Patience(0)


def learned(
    rung: Rung, old: Collection[str], changed: Collection[str], seconds: float
) -> Rung:
    """Return what a rung changes, after it was taken once more.

    Args:
        old: The kinds of endpoint that served the old certificate before.
        changed: Those of them that then served the new one.
        seconds: From the rung to the last change.
    """
    kinds = (set(rung.kinds) - set(old)) | set(changed)
    took = math.ceil(seconds) if changed else rung.seconds
    return Rung(rung.name, tuple(kind for kind in KINDS if kind in kinds), took)
