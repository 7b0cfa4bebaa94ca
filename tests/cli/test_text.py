"""Dates as people read them."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from letsencrypt_mdaemon.cli.text import day, when

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Set the time zone of this process."""
    if sys.platform == "win32":
        pytest.skip("on Windows a process has no time zone of its own")

    def set_zone(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield set_zone
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("name", "shown", "shown_day"),
    [
        ("UTC0", "2001-02-03 22:30 +00:00", "2001-02-03"),
        ("XXX-5:30", "2001-02-04 04:00 +05:30", "2001-02-04"),
        ("XXX+8", "2001-02-03 14:30 -08:00", "2001-02-03"),
    ],
)
def test_a_date_is_shown_in_local_time_with_its_zone(
    zone: Callable[[str], None], name: str, shown: str, shown_day: str
) -> None:
    zone(name)
    moment = "2001-02-03T22:30:59+00:00"

    assert re.fullmatch(rf"{re.escape(shown)} \(\d+ days ago\)", when(moment))
    assert re.fullmatch(rf"{shown_day} \(\d+ days ago\)", day(moment))


@pytest.mark.parametrize(
    ("away", "words"),
    [
        (89 * DAY + HOUR, "in 89 days"),
        (30 * HOUR + MINUTE, "in 30 hours"),
        (HOUR + 5 * SECOND, "in 60 minutes"),
        (MINUTE, "in less than 2 minutes"),
        (-5 * DAY - HOUR, "5 days ago"),
        (-5 * MINUTE, "5 minutes ago"),
        (-SECOND, "just now"),
    ],
)
def test_a_date_is_shown_with_how_far_away_it_is(away: timedelta, words: str) -> None:
    moment = (datetime.now(UTC) + away).isoformat()

    assert when(moment).endswith(f" ({words})")
    assert day(moment).endswith(f" ({words})")


def test_a_date_as_a_scheduler_writes_it_stays_as_it_is() -> None:
    assert when("28.11.2026 03:17:00") == "28.11.2026 03:17:00"
