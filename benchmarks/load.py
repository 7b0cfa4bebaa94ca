"""Show the load on a CA of very many servers whose certificates are of the same age.

    python -m benchmarks.load [--servers 100000] [--svg benchmarks/load.svg]

Each server is `tests.simulation`'s: what it asks is what the program asks. All are
scheduled at the same minute of the same time zone, and got their certificates on the
same day: the worst case. Simplified: what a run asks, it asks within the minute.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from tests.certificates import START
from tests.simulation import (
    DAY,
    OWN_DELAY,
    RANDOM_DELAY,
    SCHEDULE,
    Installation,
    SimulatedCa,
    quiet,
)

MINUTE = timedelta(minutes=1)
LIFETIME = 90 * DAY
DAYS = range(58, 62)
"""Around the window that the CA suggests, which is 43 hours wide."""

Delay = Callable[[random.Random], timedelta]


@dataclass(slots=True)
class Load:
    """Requests in each minute, if runs are delayed like this."""

    title: str
    delay: Delay
    minutes: Counter[int] = field(default_factory=Counter)

    @property
    def peak(self) -> int:
        """The most in a minute."""
        return max(self.minutes.values())


def loads() -> list[Load]:
    """Return the ways to delay a run that are compared."""

    def own(generator: random.Random) -> timedelta:
        return OWN_DELAY * generator.random()

    def both(generator: random.Random) -> timedelta:
        return RANDOM_DELAY * generator.random() + own(generator)

    return [
        Load("crontab, no delay (delay = 0)", lambda _: timedelta(0)),
        Load("crontab, the program's own delay (up to 5 minutes)", own),
        Load("task.xml (up to an hour), and the program's own", both),
    ]


def count(servers: int, into: list[Load]) -> Counter[datetime]:
    """Let every server live through the days; return how many renewed at each run."""
    generator = random.Random(1)  # noqa: S311 - not for secrets
    renewed: Counter[datetime] = Counter()
    with quiet(generator):
        for _ in range(servers):
            ca = SimulatedCa(LIFETIME)
            ca.now = ca.clock = START + DAY * generator.random()
            installation = Installation(ca)
            installation.run(ca.clock)
            for moment in (START + day * DAY + at for day in DAYS for at in SCHEDULE):
                ca.now = ca.clock = moment
                before = ca.requests
                renewed[moment] += installation.run(moment).renewed
                for load in into:
                    asked = moment + load.delay(generator)
                    load.minutes[(asked - START) // MINUTE] += ca.requests - before
    return renewed


WIDTH, HEIGHT, LEFT, TOP, GAP = 760, 130, 80, 64, 52
SHOWN = 80
"""Minutes."""
DECADES = 6
"""The scale is logarithmic, from one request to a million."""


def picture(loads: list[Load], servers: int, busiest: datetime) -> str:
    """Return the minutes after the busiest run as SVG, one panel above the other."""
    first = (busiest - START) // MINUTE - 5
    rows = [
        (
            '<svg xmlns="http://www.w3.org/2000/svg" '
            f'viewBox="0 0 {LEFT + WIDTH + 20} {TOP + len(loads) * (HEIGHT + GAP)}" '
            'font-family="sans-serif" font-size="13" fill="#222">'
        ),
        '<rect width="100%" height="100%" fill="#fff"/>',
        (
            f'<text x="{LEFT}" y="24" font-size="16">Requests to the CA per minute '
            f"(logarithmic): {servers:,} servers, all at {busiest:%H:%M}, "
            "certificates of one age</text>"
        ),
    ]
    for number, load in enumerate(loads):
        rows += _panel(load, first, TOP + number * (HEIGHT + GAP))
    return "\n".join([*rows, "</svg>\n"])


def _panel(load: Load, first: int, top: int) -> list[str]:
    bottom, step = top + HEIGHT, WIDTH / SHOWN
    title = f"{load.title}: at most {load.peak:,} a minute"
    rows = [f'<text x="{LEFT}" y="{top - 8}">{title}</text>']
    for decade in range(DECADES + 1):
        y = bottom - HEIGHT * decade / DECADES
        rows.append(f'<path d="M{LEFT} {y:.1f}h{WIDTH}" stroke="#ddd"/>')
        if decade % 2 == 0:
            rows.append(
                f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">'
                f"{10**decade:,}</text>"
            )
    for minute in range(SHOWN):
        if asked := load.minutes[first + minute]:
            height = HEIGHT * math.log10(asked) / DECADES
            rows.append(
                f'<rect x="{LEFT + minute * step:.1f}" y="{bottom - height:.1f}" '
                f'width="{step - 1:.1f}" height="{height:.1f}" fill="#2a6f97"/>'
            )
    for minute in range(5, SHOWN, 15):
        x = LEFT + minute * step
        rows.append(f'<text x="{x:.1f}" y="{bottom + 16}">{minute - 5:+d} min</text>')
    return rows


def main() -> None:
    """Count, draw, and print a line of figures for each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--servers", type=int, default=100_000)
    default = Path(__file__).with_name("load.svg")
    parser.add_argument("--svg", type=Path, default=default)
    options = parser.parse_args()
    began = time.perf_counter()
    counted = loads()
    renewed = count(options.servers, counted)
    busiest = max(renewed, key=lambda moment: renewed[moment])
    svg = picture(counted, options.servers, busiest)
    options.svg.write_text(svg, encoding="utf-8")
    total = sum(counted[0].minutes.values())
    shares = ", ".join(
        f"{number / options.servers:.0%}" for number in renewed.values() if number
    )
    lines = [
        (
            f"{options.servers:,} servers, {len(DAYS)} days: {total:,} requests; "
            f"renewed {renewed.total():,}, by run: {shares}; "
            f"{time.perf_counter() - began:.0f} s"
        ),
        *(f"{load.title}: at most {load.peak:,} requests a minute" for load in counted),
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
