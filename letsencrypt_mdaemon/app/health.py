"""Judge an installation for a monitor: read it, contact no CA, change nothing."""

from __future__ import annotations

import math
from datetime import timedelta
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.app import scheduling, script, status
from letsencrypt_mdaemon.pki.certificate import thumbprint
from letsencrypt_mdaemon.renewal import hold, spare
from letsencrypt_mdaemon.renewal.adapters import Proof
from letsencrypt_mdaemon.renewal.due import lifetime
from letsencrypt_mdaemon.renewal.proof import Judge
from letsencrypt_mdaemon.text import printable
from letsencrypt_mdaemon.verify.observe import observe
from letsencrypt_mdaemon.verify.served import Answer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from letsencrypt_mdaemon.app.installation import Installation
    from letsencrypt_mdaemon.app.status import Status
    from letsencrypt_mdaemon.renewal.adapters import Row
    from letsencrypt_mdaemon.renewal.snapshot import Snapshot
    from letsencrypt_mdaemon.state.ledger import Failure
    from letsencrypt_mdaemon.verify.endpoints import Endpoint
    from letsencrypt_mdaemon.verify.served import Served

CRITICAL_DAYS, CRITICAL_PART = 7, 8
WARNING_DAYS, WARNING_PART = 21, 4
"""Days left, or that part of the certificate's lifetime if it is less."""

MAX_REASON = 80
"""Characters of a CA's message: monitors show one line."""


class Grade(IntEnum):
    """The state of a service, by the exit codes of monitoring plugins.

    Monitoring Plugins Development Guidelines, "Plugin Return Codes".
    """

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


class Problem(NamedTuple):
    """What is not good about an installation, as a clause."""

    grade: Grade
    text: str


class Health(NamedTuple):
    """The state of an installation.

    Args:
        name: The server's own name.
        left: Until the first certificate in use expires; None if none is known.
        warning: The least of that which is no reason to warn.
        critical: The least of that which is not critical.
        proof: What the ports show; None if they were not asked.
        last_run: The time since the last scheduled run began; None if there was none.
        renewed: The time since every port served the certificate in use for the first
            time, if no scheduled run was due since; else None.
        problems: The worst first.
    """

    name: str
    left: timedelta | None
    warning: timedelta
    critical: timedelta
    proof: Proof | None
    last_run: timedelta | None
    renewed: timedelta | None
    problems: tuple[Problem, ...]

    @property
    def grade(self) -> Grade:
        """That of the worst problem."""
        return max((item.grade for item in self.problems), default=Grade.OK)


class Limits(NamedTuple):
    """What a monitor was told: days, None = the usual ones."""

    warning: float | None = None
    critical: float | None = None

    def of(self, span: timedelta) -> tuple[timedelta, timedelta]:
        """Return the warning and the critical time left for a lifetime."""
        usual = (
            min(timedelta(days=WARNING_DAYS), span / WARNING_PART),
            min(timedelta(days=CRITICAL_DAYS), span / CRITICAL_PART),
        )
        given = (self.warning, self.critical)
        warning, critical = (
            least if number is None else timedelta(days=number)
            for number, least in zip(given, usual, strict=True)
        )
        return warning, critical


USUAL = Limits()


def check(
    installation: Installation,
    limits: Limits,
    *,
    now: datetime,
    port_timeout: float | None,
    file: Path | None = None,
) -> Health:
    """Judge an installation that was opened without a look at its ports.

    Args:
        port_timeout: Seconds for all ports together; None = ask no port.
        file: The config file, if there is one.

    Raises:
        Error: If the state, the store or the server's files cannot be read.
    """
    found = status.read(installation, now=now)
    seen = None
    if port_timeout is not None and found.snapshot.in_use is not None:
        seen = _look(installation, found.snapshot, port_timeout)
    return judge(
        installation, found, seen, limits=limits, timeout=port_timeout, file=file
    )


def judge(  # noqa: PLR0913 - all of it is judged
    installation: Installation,
    found: Status,
    seen: Mapping[Endpoint, Served] | None,
    *,
    limits: Limits = USUAL,
    timeout: float | None = None,
    file: Path | None = None,
) -> Health:
    """Judge what was read of an installation.

    Args:
        seen: What the ports serve; None if they were not asked.
        timeout: Seconds that there were for all ports together; None = no limit.
        file: The config file, if there is one.
    """
    snapshot, now = found.snapshot, found.snapshot.now
    leaves = [leaf for leaf in dict.fromkeys(snapshot.named.values()) if leaf]
    first = min(leaves, key=lambda leaf: leaf.not_valid_after_utc, default=None)
    span = lifetime(first) if first else timedelta(days=90)
    warning, critical = limits.of(span)
    left = first.not_valid_after_utc - now if first else None
    runs = [at for at in snapshot.memory.runs if at <= now]
    last_run = now - runs[-1] if runs else None
    renewed = _just_renewed(snapshot) if last_run is None else None
    proof = None
    problems = [*_certificate_problems(snapshot, left, warning, critical)]
    if seen is not None and snapshot.in_use is not None:
        proof, more = _ports(snapshot, seen, math.inf if timeout is None else timeout)
        problems += more
    problems += [
        Problem(Grade.WARNING, f"{path} is damaged: what it held is not known")
        for path in installation.state.damaged
    ]
    if (begun := installation.state.restart()) is not None:
        text = f"the service {begun.service} did not start after a restart on "
        text += f"{begun.at.astimezone():%Y-%m-%d %H:%M}"
        problems.append(Problem(Grade.WARNING, text))
    if flaw := script.flaw(snapshot.memory.script, installation.root):
        problems.append(Problem(Grade.WARNING, flaw))
    problems += _name_problems(found)
    if look := installation.state.mail():
        problems += [
            Problem(Grade.WARNING, f"{item.subject} loses mail: {item.seen}")
            for item in look.problems
            if item.loses
        ]
    doubts = [
        *scheduling.doubts(
            last_run, renewed, file, installation.root, sparse=bool(found.sparse)
        )
    ]
    memory = snapshot.memory
    if installation.config.after_activation and memory.in_use != memory.hooked:
        doubts.append("the hook after-activation has not run for the last certificate")
    problems += [Problem(Grade.WARNING, text) for text in doubts]
    return Health(
        name=snapshot.request.names[0],
        left=left,
        warning=warning,
        critical=critical,
        proof=proof,
        last_run=last_run,
        renewed=renewed,
        problems=tuple(sorted(problems, key=lambda item: -item.grade)),
    )


def _just_renewed(snapshot: Snapshot) -> timedelta | None:
    """Return the time since a renewal by hand, unless a scheduled run was due since.

    Just after `setup`, nobody has to wait for the first scheduled run.
    """
    leaf = snapshot.in_use
    issued = snapshot.memory.find(thumbprint(leaf)) if leaf else None
    if issued is None or issued.verified is None:
        return None
    span = snapshot.now - issued.verified
    return span if timedelta() <= span <= scheduling.MAX_PAUSE else None


def _certificate_problems(
    snapshot: Snapshot,
    left: timedelta | None,
    warning: timedelta,
    critical: timedelta,
) -> Iterator[Problem]:
    if not snapshot.named or None in snapshot.named.values():
        yield Problem(
            Grade.WARNING,
            "the server's files name a certificate that is not in the store",
        )
    known = {at: leaf for at, leaf in snapshot.named.items() if leaf is not None}
    if flaw := spare.fault(snapshot._replace(named=known)):
        yield Problem(Grade.CRITICAL, f"the certificate in use {flaw}")
    elif len(set(known.values())) > 1:
        text = "the server's files name different certificates"
        yield Problem(Grade.WARNING, text)
    if left is not None and timedelta() < left < max(warning, critical):
        grade = Grade.CRITICAL if left < critical else Grade.WARNING
        end = (snapshot.now + left).astimezone()
        yield Problem(grade, f"expires on {end:%Y-%m-%d}")


def _look(
    installation: Installation, snapshot: Snapshot, timeout: float
) -> dict[Endpoint, Served]:
    """Ask one address of each port for the first name.

    An address that served the certificate when it was activated is preferred.
    """
    proven = set(snapshot.memory.proven)
    ports: dict[tuple[str, int], Endpoint] = {}
    for at in sorted(installation.endpoints, key=lambda at: str(at) not in proven):
        ports.setdefault((at.scheme, at.port), at)
    names = snapshot.request.names
    given = bool(installation.config.endpoint)
    asked = installation.endpoints if given else ports.values()
    return observe(asked, names, briefly=True, within=timeout)


def ports(
    installation: Installation, *, now: datetime, timeout: float = 20
) -> tuple[Proof, tuple[Row, ...]]:
    """Look once at the ports, without a judgement of the rest.

    Args:
        installation: Opened without a look at its ports.
        timeout: Seconds for all ports together.

    Returns:
        What they show; and those that served the certificate when it was activated,
        and do not any more.

    Raises:
        Error: If the state, the store or the server's files cannot be read.
    """
    snapshot = status.read(installation, now=now).snapshot
    if snapshot.in_use is None:
        return Proof(), ()
    seen = _look(installation, snapshot, timeout)
    proof, _ = _ports(snapshot, seen, timeout)
    rows = proof.of("old", "broken", "silent", "unproven")
    return proof, tuple(x for x in rows if x.endpoint in snapshot.memory.proven)


def _ports(
    snapshot: Snapshot, seen: Mapping[Endpoint, Served], timeout: float
) -> tuple[Proof, list[Problem]]:
    """Return what the ports show, and what is not good about that."""
    leaf = snapshot.in_use
    assert leaf is not None  # noqa: S101 - `check` made sure
    digest, memory = thumbprint(leaf), snapshot.memory
    late = {
        str(at)
        for at, served in seen.items()
        if served.outcome is Answer.TIMED_OUT or served.seconds >= timeout
    }
    before = {at: digest for at in memory.proven if at not in late}
    ours = {item.thumbprint for item in memory.issued} | {digest}
    judge = Judge(before, digest, ours, given=snapshot.request.given, now=snapshot.now)
    proof = judge(seen)
    together: dict[tuple[Grade, str, str], list[str]] = {}
    for row in proof.rows:
        if row.verdict in {"new", "foreign"}:
            continue
        lost = row.endpoint in before
        what = "not proven" if row.verdict != "old" else "a former certificate"
        kind = (Grade.CRITICAL, "no longer served") if lost else (Grade.WARNING, what)
        together.setdefault((*kind, row.reason), []).append(row.endpoint)
    return proof, [
        Problem(grade, f"{what} at {', '.join(at)} ({printable(reason, MAX_REASON)})")
        for (grade, what, reason), at in together.items()
    ]


def failures(found: Status) -> Sequence[Failure]:
    """Return what failed at the CA; while nothing is due, that is history."""
    is_due = found.due.due or found.wait is not None
    snapshot = found.snapshot
    return snapshot.ledger.failing(snapshot.request.names) if is_due else ()


def _name_problems(found: Status) -> Iterator[Problem]:
    snapshot = found.snapshot
    dropped = {item.name: item for item in snapshot.memory.dropped}
    for item in dropped.values():
        why = printable(item.why, MAX_REASON)
        text = f"{item.name} is not in the certificate since {item.since:%Y-%m-%d}"
        yield Problem(Grade.WARNING, f"{text} ({why})")
    for failure in failures(found):
        if failure.name not in dropped:
            who, since = failure.name or "the order", failure.times[0]
            why = printable(failure.why, MAX_REASON)
            text = f"{who} fails since {since:%Y-%m-%d} ({why})"
            yield Problem(Grade.WARNING, text)
    for row in found.failing:
        text = f"{row} would fail at the next renewal, since {row.since:%Y-%m-%d}"
        yield Problem(Grade.WARNING, text)
    if held := hold.in_force(snapshot):
        yield Problem(Grade.WARNING, f"held by you since {held.since:%Y-%m-%d}")
    if found.pending is not None:
        text = "a certificate is issued and not in use"
        if at := found.rolled_back:
            text = f"a new certificate was rolled back on {at:%Y-%m-%d}"
        yield Problem(Grade.WARNING, text)
