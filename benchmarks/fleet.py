"""Show what very many servers cost: a report, a first rollout, a mass revocation.

    python -m benchmarks fleet [--servers 10000]

The report is a process of its own. The rest is simulated: each server is
`tests.simulation`'s, which is the program itself with a simulated clock, and asks a CA
with Let's Encrypt's limits as buckets that refill.
"""

from __future__ import annotations

import argparse
import heapq
import random
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.app import rollout
from letsencrypt_mdaemon.app.health import Grade
from letsencrypt_mdaemon.authorities import LETSENCRYPT, Rate
from letsencrypt_mdaemon.errors import AcmeError
from letsencrypt_mdaemon.state.memory import Window, utc
from tests import fleets
from tests.certificates import START
from tests.program import environment
from tests.simulation import (
    DAY,
    HOUR,
    OWN_DELAY,
    RANDOM_DELAY,
    SCHEDULE,
    Installation,
    SimulatedCa,
    quiet,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cryptography import x509

    from letsencrypt_mdaemon.pki.certificate import Certificate, PrivateKey

SERVERS, FILES, RUNS = 10_000, 1_000, 5
LIFETIME = 90 * DAY
MINUTE = timedelta(minutes=1)
LIMITED = "urn:ietf:params:acme:error:rateLimited"


class Bucket:
    """A limit of the CA: it refills steadily."""

    def __init__(self, rate: Rate) -> None:
        self.size, self.every = rate.number, rate.span / rate.number
        self.left, self.at = float(rate.number), START

    def take(self, now: datetime) -> timedelta:
        """Take one out; return how long to wait for one if it is empty."""
        refilled = (now - self.at) / self.every
        self.left, self.at = min(self.size, self.left + refilled), now
        if self.left < 1 - 1e-6:
            return self.every * (1 - self.left)
        self.left -= 1
        return timedelta()


class LimitedCa(SimulatedCa):
    """A CA that refuses an order beyond the limit of an account that many share."""

    def __init__(self, orders: Bucket) -> None:
        super().__init__(LIFETIME)
        self.orders, self.refused = orders, 0
        self.exempt = False

    def obtain(
        self,
        names: Iterable[str],
        replaces: x509.Certificate | None,
        key: PrivateKey | None,
    ) -> Certificate:
        """Return a new certificate, or raise what `Issuer.obtain` raises."""
        wait = timedelta() if self.exempt else self.orders.take(self.now)
        if wait:
            self.refused += 1
            raise AcmeError(
                "Too many.",
                problem={"type": LIMITED, "detail": "orders"},
                retry_after=wait.total_seconds(),
            )
        return super().obtain(list(names), replaces, key)


class Server:
    """One of the servers: scheduled twice a day, at random minutes of an hour."""

    def __init__(self, orders: Bucket, generator: random.Random) -> None:
        self.ca = LimitedCa(orders)
        self.installation = Installation(self.ca)
        self.generator = generator

    def run(self, now: datetime) -> bool:
        """Run once; return whether a new certificate is in use."""
        self.ca.now = self.ca.clock = now
        try:
            return self.installation.run(now).renewed
        except AcmeError:
            return False

    def schedule(self, start: datetime) -> Iterator[datetime]:
        """Yield when its scheduled runs begin to ask."""
        midnight = start.replace(hour=0, minute=0, second=0, microsecond=0)
        for number in count():
            for at in SCHEDULE:
                moment = midnight + number * DAY + at
                moment += RANDOM_DELAY * self.generator.random()
                moment += OWN_DELAY * self.generator.random()
                if moment >= start:
                    yield moment


def run_all(
    servers: list[Server], runs: list[Iterator[datetime]]
) -> dict[int, datetime]:
    """Let all servers run until each has a new certificate; return when that was."""
    due = [(next(moments), number) for number, moments in enumerate(runs)]
    heapq.heapify(due)
    done = {}
    while due:
        now, number = heapq.heappop(due)
        if servers[number].run(now):
            done[number] = now
        else:
            heapq.heappush(due, (next(runs[number]), number))
    return done


def told(title: str, servers: list[Server], hours: list[float], orders: int) -> str:
    """Return a row of the table."""
    hours.sort()
    half, last = hours[len(hours) // 2], hours[-1]
    refused = sum(server.ca.refused for server in servers)
    return f"| {title} | {half:.1f} | {last:.1f} | {orders:,} | {refused:,} |"


def busiest(moments: Iterable[datetime]) -> int:
    """Return the most in an hour."""
    return max(Counter((moment - START) // HOUR for moment in moments).values())


def first_rollout(number: int, *, planned: bool) -> str:
    """Let all servers get their first certificate with one account."""
    limits = LETSENCRYPT.limits
    assert limits is not None  # noqa: S101
    assert limits.orders is not None  # noqa: S101
    plan = rollout.case(number, limits, accounts=1, addresses=1, domains=number)
    generator, orders = random.Random(1), Bucket(limits.orders)  # noqa: S311
    with quiet(generator):
        servers = [Server(orders, generator) for _ in range(number)]
        runs = []
        for place, server in enumerate(servers):
            wait = max(0, place + 1 - plan.at_once) if planned else 0
            first = START + DAY + wait * plan.every
            runs.append(_then(first, server))
        done = run_all(servers, runs)
    hours = [(moment - START - DAY) / HOUR for moment in done.values()]
    title = "first rollout by the plan" if planned else "first rollout, all at once"
    return told(title, servers, hours, busiest(done.values()))


def _then(first: datetime, server: Server) -> Iterator[datetime]:
    yield first
    yield from server.schedule(first + MINUTE)


def revocation(number: int) -> str:
    """Let the CA revoke all certificates at once, a week after they were issued.

    A certificate for the same names is exempt from the limit of orders.
    """
    limits = LETSENCRYPT.limits
    assert limits is not None  # noqa: S101
    assert limits.orders is not None  # noqa: S101
    generator, orders = random.Random(1), Bucket(limits.orders)  # noqa: S311
    revoked = START + 7 * DAY + 9 * HOUR
    with quiet(generator):
        servers = [Server(orders, generator) for _ in range(number)]
        for server in servers:
            server.ca.exempt = True
            issued = START + DAY * generator.random()
            server.run(issued)
            # Its next question may not be due for hours.
            for moment in server.schedule(revoked - DAY):
                if moment >= revoked:
                    break
                server.run(moment)
            # As Boulder advises for a revoked certificate.
            past = Window(start=utc(revoked - HOUR), end=utc(revoked - HOUR / 2))
            server.ca.windows = dict.fromkeys(server.ca.windows, past)
        runs = [server.schedule(revoked) for server in servers]
        done = run_all(servers, runs)
    hours = [(moment - revoked) / HOUR for moment in done.values()]
    return told("mass revocation", servers, hours, busiest(done.values()))


def report(files: int) -> str:
    """Measure a report on very many servers: a process, from its start to its end."""
    with TemporaryDirectory(prefix="report-") as name:
        folder = fleets.make(Path(name, "collected"), files, now=datetime.now(UTC))
        command = [sys.executable, "-m", "letsencrypt_mdaemon", "report"]
        for option in ("html", "csv"):
            command += [f"--{option}", str(Path(name, f"report.{option}"))]
        seconds = []
        for _ in range(RUNS):
            began = time.perf_counter()
            done = subprocess.run(
                [*command, "--from", str(folder)],
                env=environment(),
                capture_output=True,
                check=False,
            )
            seconds.append(time.perf_counter() - began)
            assert done.returncode == Grade.CRITICAL, done.stderr  # noqa: S101
        size = Path(name, "report.html").stat().st_size
    return (
        f"Report on {files:,} servers, HTML and CSV: {median(seconds):.2f} s "
        f"(median of {RUNS}, longest {max(seconds):.2f} s), {size / 1e6:.1f} MB of HTML"
    )


def main(arguments: list[str]) -> None:
    """Measure, simulate, and print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks fleet", description=__doc__
    )
    parser.add_argument("--servers", type=int, default=SERVERS, help=f"[{SERVERS}]")
    parser.add_argument("--files", type=int, default=FILES, help=f"[{FILES}]")
    options = parser.parse_args(arguments)
    lines = [
        report(options.files),
        "",
        (
            f"| {options.servers:,} servers | hours, half of them | hours, all "
            "| most certificates in an hour | orders refused |"
        ),
        "| --- | --- | --- | --- | --- |",
        first_rollout(options.servers, planned=True),
        first_rollout(options.servers, planned=False),
        revocation(options.servers),
    ]
    sys.stdout.write("\n".join(lines) + "\n")
