"""Years of one server and its CA in seconds: the program itself, a simulated clock.

python -m tests.simulation [SERVERS]

This tells a thousand years in all, or those of so many servers for each lifetime; a
test tells some of them, and stories that are aimed at one rule each.

Each run is `workflow.renew` as it stands, over a store, a server and a state in memory.
The CA keeps a book of its own; what it allows is written down here once more.
"""

from __future__ import annotations

import functools
import itertools
import logging
import random
import sys
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from unittest.mock import patch

from cryptography import x509

from letsencrypt_mdaemon import authorities
from letsencrypt_mdaemon.errors import AcmeError, ChallengeError
from letsencrypt_mdaemon.pki.certificate import Certificate, PrivateKey
from letsencrypt_mdaemon.pki.checks import check
from letsencrypt_mdaemon.renewal import by_hand, hold
from letsencrypt_mdaemon.renewal import due as lifetimes
from letsencrypt_mdaemon.renewal import run as workflow
from letsencrypt_mdaemon.renewal.adapters import Adapters, Outcome, Request
from letsencrypt_mdaemon.state.folder import CaState, State
from letsencrypt_mdaemon.state.ledger import CLOCK_ERROR, Ledger
from letsencrypt_mdaemon.state.memory import (
    MAX_RUNS,
    Attempt,
    Draw,
    Memory,
    OpenOrder,
    Window,
    utc,
)
from letsencrypt_mdaemon.text import days
from tests.certificates import START, certificate, leaf
from tests.fakes import MemoryServer, MemoryStore

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
YEAR = timedelta(days=365)
NAMES = ("mail.example.test", "imap.example.test")
DIRECTORY = authorities.LETSENCRYPT.url
LIFETIMES = (90 * DAY, 64 * DAY, 45 * DAY, 160 * HOUR)
YEARS = 5
SERVERS = dict(zip(LIFETIMES, (64, 63, 63, 10), strict=True))
"""A thousand years in all: those of the shortest certificates are the longest told."""
SCHEDULE = (3 * HOUR + timedelta(minutes=17), 15 * HOUR + timedelta(minutes=17))
"""Since midnight: examples/crontab and examples/task.xml."""
RANDOM_DELAY = HOUR
"""The longest one: examples/task.xml."""
OWN_DELAY = timedelta(minutes=5)
"""The longest one: `Config.longest_delay`."""
INTERVAL = 12 * HOUR + RANDOM_DELAY + OWN_DELAY
"""The longest time between two runs."""
PATIENCE = DAY + INTERVAL
"""The longest time from the end of a trouble to the next try: a day that was to be
waited since the last failure, or that the CA asked for, and the run after that."""
ORDERING = 16
"""Requests of a renewal for two names: nonce, order, two authorizations, two challenges
and some polls of them, finalization, some polls, the certificate, and its chain."""


def slack(lifetime: timedelta) -> timedelta:
    """Return how long a trouble may last without a certificate expiring of it.

    A certificate is due that long before its end, less what waiting may cost. Boulder
    dates certificates back by an hour, but that is counted in their lifetime.
    """
    return lifetimes.slack(lifetime) - PATIENCE


class Kind(Enum):
    """What may be wrong for a while."""

    CA = "the CA cannot be reached"
    SERVER = "the server is off"
    NAME = "a name cannot be validated"
    CLOCK = "the server's clock is wrong"


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong from when to when.

    Args:
        ahead: How far the server's clock is.
    """

    kind: Kind
    start: datetime
    end: datetime
    ahead: timedelta = timedelta(0)


class Book:
    """What a CA issued and refused, and which of its limits that passed.

    letsencrypt.org/docs/rate-limits (2026-02-24), as sliding windows; that renewals in
    the suggested window are exempt is left out.
    """

    def __init__(self) -> None:
        self.passed: Counter[str] = Counter()
        self._certificates: dict[frozenset[str], deque[datetime]] = defaultdict(deque)
        self._failures: dict[str, deque[datetime]] = defaultdict(deque)
        self._orders: deque[datetime] = deque()

    def order(self, names: Sequence[str], at: datetime) -> str:
        """Write down an order; return the limit that it would pass, or ""."""
        if not _fits(self._orders, at, 300, 3 * HOUR):
            return self._pass("orders")
        self._orders.append(at)
        if not _fits(self._certificates[frozenset(names)], at, 5, 7 * DAY):
            return self._pass("certificates for exactly these names")
        if not all(_fits(self._failures[name], at, 5, HOUR) for name in names):
            return self._pass("failed validations of a name")
        return ""

    def failure(self, name: str, at: datetime) -> None:
        """Write down a failed validation."""
        self._failures[name].append(at)

    def issuance(self, names: Sequence[str], at: datetime) -> None:
        """Write down a certificate."""
        self._certificates[frozenset(names)].append(at)

    def _pass(self, limit: str) -> str:
        self.passed[limit] += 1
        return limit


def _fits(moments: deque[datetime], at: datetime, most: int, span: timedelta) -> bool:
    """Whether one more is allowed; those that do not count any more are forgotten."""
    while moments and at - moments[0] >= span:
        moments.popleft()
    return len(moments) < most


class SimulatedCa:
    """A CA as the program sees it: `parts.Issuer`.

    Args:
        compares: Whether the issuer sees by the `Date` of the CA's answers that this
            machine's clock is wrong by days, and orders nothing then.

    Attributes:
        now: The time, as the CA knows it.
        clock: The time, as the server knows it.
        trouble: What is wrong now.
        requests: How many were made so far.
        windows: What is advised for each certificate, by its serial number.
        state: Where the issuer keeps the ledger.
    """

    def __init__(self, lifetime: timedelta, *, compares: bool = True) -> None:
        self.lifetime = lifetime
        self.compares = compares
        self.book = Book()
        self.now = self.clock = START
        self.trouble: Trouble | None = None
        self.requests = 0
        self.serials = itertools.count(1)
        self.windows: dict[int, Window] = {}
        self.state = MemoryCaState()

    def suggested_window(
        self, certificate: x509.Certificate
    ) -> tuple[Window | None, float]:
        """Return its advice, good for six hours; None if it cannot be reached."""
        self.requests += 2  # the directory, and this
        if self._is(Kind.CA):
            return None, 6 * 3600.0
        return self.windows[certificate.serial_number], 6 * 3600.0

    def obtain(
        self,
        names: Sequence[str],
        replaces: x509.Certificate | None,
        key: PrivateKey | None,
    ) -> Certificate:
        """Return a new certificate, or raise what `Issuer.obtain` raises."""
        del replaces, key
        self.requests += ORDERING
        if self._is(Kind.CA):
            raise AcmeError("The CA could not be reached.")
        if self.compares and abs(self.clock - self.now) > CLOCK_ERROR:
            raise AcmeError("This machine's clock is wrong.")
        if limit := self.book.order(names, self.now):
            problem: dict[str, object] = {
                "type": "urn:ietf:params:acme:error:rateLimited",
                "detail": limit,
            }
            raise AcmeError("Too many.", problem=problem, retry_after=86400.0)
        if self._is(Kind.NAME):
            self.book.failure(names[-1], self.now)
            raise ChallengeError("It failed.", names={names[-1]: "nobody is there"})
        self.book.issuance(names, self.now)
        ledger = self.state.ledger().settled(self.clock).issued(names, self.clock)
        self.state.save(ledger)
        serial = next(self.serials)
        start = utc(self.now - HOUR)
        made = certificate(names, start=start, lifetime=self.lifetime, serial=serial)
        self.windows[serial] = window(start, self.lifetime)
        check(made, names, now=self.now if self.compares else self.clock)
        return made

    def revoke(
        self, certificate: x509.Certificate, reason: int, key: PrivateKey | None
    ) -> None:
        """Do nothing: nobody asks for it."""

    def _is(self, kind: Kind) -> bool:
        return self.trouble is not None and self.trouble.kind is kind


def window(start: datetime, lifetime: timedelta) -> Window:
    """Return when Boulder suggests to renew a certificate that is good from then on."""
    middle = start + (lifetime / 2 if lifetime < 10 * DAY else lifetime * 2 / 3)
    return Window(start=utc(middle - lifetime / 100), end=utc(middle + lifetime / 100))


class MemoryState(State):
    """A state of the installation that is kept in memory."""

    def __init__(self) -> None:
        super().__init__(Path())
        self._memory = Memory()
        self._attempt: Attempt | None = None

    def load(self) -> Memory:
        """Return what is remembered."""
        return self._memory

    def save(self, record: object) -> None:
        """Remember the memory or the attempt."""
        if isinstance(record, Memory):
            self._memory = record
        else:
            assert isinstance(record, Attempt)
            self._attempt = record

    def attempt(self) -> Attempt | None:
        """Return the attempt that is not decided."""
        return self._attempt

    def forget_attempt(self) -> None:
        """Forget it."""
        self._attempt = None


class MemoryCaState(CaState):
    """A state at one CA that is kept in memory."""

    def __init__(self) -> None:
        super().__init__(Path())
        self._pending: Certificate | None = None
        self._draw: Draw | None = None
        self._ledger = Ledger()

    def order(self) -> OpenOrder | None:
        """Return no open order: they end with the run."""
        return None

    def forget_order(self) -> None:
        """Do nothing: there is none."""

    def pending(self) -> Certificate | None:
        """Return the pending certificate."""
        return self._pending

    def keep(self, certificate: Certificate) -> None:
        """Keep a certificate until it is in use."""
        self._pending = certificate

    def forget_pending(self) -> None:
        """Forget the pending certificate."""
        self._pending = None

    def draw(self) -> Draw | None:
        """Return the moment drawn."""
        return self._draw

    def ledger(self) -> Ledger:
        """Return the ledger."""
        return self._ledger

    def save(self, record: object) -> None:
        """Keep the moment drawn or the ledger."""
        if isinstance(record, Draw):
            self._draw = record
        else:
            assert isinstance(record, Ledger)
            self._ledger = record


ORDER = Request(
    names=NAMES,
    key_type="p256",
    directory_url=DIRECTORY,
    limits=authorities.LETSENCRYPT.limits,
    timeout=0,
    remove_old=True,
)


class Installation:
    """A server with the program on it."""

    def __init__(self, ca: SimulatedCa, *, order: Request = ORDER) -> None:
        store = MemoryStore()
        first = leaf(NAMES, lifetime=ca.lifetime, serial=1 << 40)
        store.put(first, "chosen by hand")
        self.server = MemoryServer(store, first)
        self.ca = ca
        self.order = order
        self.state = MemoryState()
        self.parts = Adapters(
            store=store,
            server=self.server,
            observe=self.server.observe,
            state=self.state,
            ca=ca.state,
            issuer=lambda: ca,
        )

    def run(self, now: datetime) -> Outcome:
        """Run as the schedule does (`assembly.Installation`)."""
        memory = self.state.load()
        runs = [run for run in memory.runs if run <= now]
        self.state.save(memory._replace(runs=tuple([*runs, utc(now)][-MAX_RUNS:])))
        every = lifetimes.interval(self.state.load().runs) or lifetimes.INTERVAL
        if every != self.order.interval:
            self.order = self.order._replace(interval=every)
        self.server.done.clear()
        return workflow.renew(self.order, self.parts, self.state.load(), now=now)

    def hold(
        self, leaf: x509.Certificate, now: datetime, until: datetime | None
    ) -> None:
        """Choose the certificate in use by hand, so that runs keep it."""
        held = hold.begin(leaf, "use", now, until)
        memory = self.state.load()
        by_hand.use(leaf, self.order, self.parts, memory, now=now, held=held)


@dataclass(frozen=True, slots=True)
class Renewal:
    """A certificate put into use.

    Args:
        at: When it was.
        advised: When the CA wanted the former one to be renewed.
        ended: When that expired.
    """

    at: datetime
    advised: Window
    ended: datetime


@dataclass(slots=True)
class Story:
    """What happened over the years.

    Attributes:
        failed: How many runs ended with an error.
        expired: The certificates that did while they were in use: when.
        passed: How often each limit of the CA would have been passed.
        holds: How often a person chose the certificate in use by hand.
    """

    lifetime: timedelta
    years: float
    runs: int = 0
    failed: int = 0
    renewals: list[Renewal] = field(default_factory=list)
    troubles: Counter[Kind] = field(default_factory=Counter)
    expired: list[datetime] = field(default_factory=list)
    passed: Counter[str] = field(default_factory=Counter)
    holds: int = 0

    @property
    def is_told(self) -> bool:
        """Whether it is no fair-weather story, and all of it happened."""
        least = self.years * YEAR / self.lifetime
        return (
            set(self.troubles) == set(Kind)
            and self.failed > 0
            and len(self.renewals) > least
        )


def troubles(
    generator: random.Random, longest: timedelta, kinds: Sequence[Kind]
) -> Iterator[Trouble]:
    """Yield what goes wrong, without end; nothing if nothing can.

    Up to three of them follow each other at once; together they do not last longer
    than the longest, and after them all is well until the next try at least.
    """
    at = START + DAY
    while kinds:
        at += PATIENCE + 30 * DAY * generator.expovariate(1)
        # Long ones are the ones that matter.
        length = longest * generator.random() ** 0.25
        parts = generator.randint(1, 3)
        for _ in range(parts):
            kind = generator.choice(kinds)
            ahead = _ahead(generator) if kind is Kind.CLOCK else timedelta(0)
            yield Trouble(kind, at, at + length / parts, ahead)
            at += length / parts


def _ahead(generator: random.Random) -> timedelta:
    """Return how far a clock is ahead or behind: minutes, days or years."""
    most = generator.choice([HOUR, DAY, 10 * DAY, 100 * DAY, 10 * YEAR])
    return most * generator.uniform(-1, 1)


def schedule(
    generator: random.Random, end: datetime, every: timedelta | None = None
) -> Iterator[datetime]:
    """Yield when a run begins to ask: twice a day at random, or just that often."""
    days = range((end - START).days)
    often = [every * number for number in range(DAY // every)] if every else SCHEDULE
    delays = (timedelta(0), timedelta(0)) if every else (RANDOM_DELAY, OWN_DELAY)
    for day, moment in itertools.product(days, often):
        delay = sum((most * generator.random() for most in delays), timedelta(0))
        yield START + day * DAY + moment + delay


class Weather:
    """What is wrong at a moment.

    Attributes:
        over: What was.
    """

    def __init__(self, coming: Iterator[Trouble]) -> None:
        self.over: Counter[Kind] = Counter()
        self._coming = coming
        self._next = next(coming, None)

    def at(self, now: datetime) -> Trouble | None:
        """Return what is wrong; asked for one moment after the other."""
        while self._next is not None and self._next.end <= now:
            self.over[self._next.kind] += 1
            self._next = next(self._coming, None)
        return self._next if self._next and self._next.start <= now else None


def live(  # noqa: PLR0913, C901 - what a life is made of
    lifetime: timedelta,
    years: float,
    seed: int,
    *,
    longest: timedelta | None = None,
    kinds: Sequence[Kind] = tuple(Kind),
    coming: Sequence[Trouble] = (),
    every: timedelta | None = None,
    compares: bool = True,
    idle: bool = False,
    holds: float = 0.0,
    early: bool = True,
) -> Story:
    """Tell the story of a server.

    Args:
        lifetime: Of its certificates.
        longest: The longest trouble; None = just shorter than the slack.
        kinds: What goes wrong.
        coming: What goes wrong and when, where that is not left to chance.
        every: How often it is tried; None = twice a day.
        compares: See `SimulatedCa`.
        idle: Whether runs are left out as long as nothing is wrong, and the program
            itself has said that nothing will be due for days.
        holds: How probable it is after a run that a person holds what is in use.
        early: Whether that ends before a certificate is due by its lifetime; else it
            ends as usual.
    """
    generator = random.Random(f"{seed} {lifetime}")  # noqa: S311 - not for secrets
    story = Story(lifetime, years)
    ca = SimulatedCa(lifetime, compares=compares)
    installation = Installation(ca)
    longest = longest or slack(lifetime) - timedelta(seconds=1)
    weather = Weather(iter(coming or troubles(generator, longest, kinds)))
    in_use: x509.Certificate | None = None
    end, rest = START + years * YEAR, START
    with quiet(generator):
        for now in schedule(generator, end, every):
            ca.now = ca.clock = now
            ca.trouble = weather.at(now)
            if ca.trouble is None and now < rest:
                continue
            if ca.trouble is not None:
                ca.clock += ca.trouble.ahead
                if ca.trouble.kind is Kind.SERVER:
                    continue
            story.runs += 1
            try:
                outcome = installation.run(ca.clock)
            except AcmeError:
                story.failed += 1
                continue
            if outcome.renewed:
                story.renewals += _renewal(ca, in_use)
                in_use = outcome.certificate
                rest = START
            elif ca.trouble is None and in_use and holds and generator.random() < holds:
                span = lifetimes.backstop(in_use) - now
                until = now + span * generator.random() if early else None
                if until is None or until > now:
                    installation.hold(in_use, now, until)
                    story.holds += 1
                    rest = START
            elif idle and ca.trouble is None and outcome.next_at is not None:
                rest = outcome.next_at - 3 * DAY
    story.expired = [item.ended for item in story.renewals if item.ended <= item.at]
    if in_use is None or in_use.not_valid_after_utc <= end:
        story.expired.append(in_use.not_valid_after_utc if in_use else START)
    story.troubles, story.passed = weather.over, ca.book.passed
    return story


def _renewal(ca: SimulatedCa, former: x509.Certificate | None) -> list[Renewal]:
    if former is None:
        return []
    advised = ca.windows.pop(former.serial_number)
    return [Renewal(ca.now, advised, former.not_valid_after_utc)]


@contextmanager
def quiet(generator: random.Random) -> Iterator[None]:
    """Let chance be the same each time, and nothing be logged."""
    logging.disable()
    try:
        with patch.object(random, "SystemRandom", lambda: generator):
            yield
    finally:
        logging.disable(logging.NOTSET)


def ordinary(lifetime: timedelta, seed: int) -> Story:
    """Tell one of the thousand years' stories."""
    idle = lifetime > lifetimes.SHORT_LIVED
    return live(lifetime, YEARS, seed, idle=idle, holds=0.02)


def main() -> int:
    """Tell the thousand years, and whether all was well."""
    given = {lifetime: int(word) for lifetime in LIFETIMES for word in sys.argv[1:2]}
    well = True
    with ProcessPoolExecutor() as pool:
        for lifetime, servers in (given or SERVERS).items():
            tell = functools.partial(ordinary, lifetime)
            stories = list(pool.map(tell, range(servers)))
            expired = sum(len(story.expired) for story in stories)
            passed = sum(story.passed.total() for story in stories)
            well &= not expired and not passed and all(x.is_told for x in stories)
            print(  # noqa: T201
                f"{days(lifetime):>9}: {servers * YEARS} years, "
                f"{sum(story.runs for story in stories)} runs, "
                f"{sum(story.failed for story in stories)} of them failed, "
                f"{sum(len(story.renewals) for story in stories)} renewals, "
                f"{sum(story.holds for story in stories)} choices by hand, "
                f"{expired} expired, {passed} limits passed",
                flush=True,
            )
    print("All is well." if well else "SOMETHING IS WRONG.")  # noqa: T201
    return int(not well)


if __name__ == "__main__":
    sys.exit(main())
