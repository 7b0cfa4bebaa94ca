"""When a certificate is due, and why."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import example, given
from hypothesis import strategies as st

from letsencrypt_mdaemon.renewal import Due, Window, backstop, days, decide
from tests import certificates
from tests.certificates import NAME, START, leaf

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
IN_USE = leaf([NAME])
END = START + 90 * DAY
LITTLE_LEFT = "a third or less of the certificate's lifetime is left: it expires in"

LIFETIMES = st.one_of(
    st.sampled_from([90 * DAY, 64 * DAY, 45 * DAY, 160 * HOUR, 10 * DAY]),
    st.integers(1, 200 * 86400).map(lambda seconds: timedelta(seconds=seconds)),
)
MOMENTS = st.datetimes(datetime(2025, 12, 1), datetime(2026, 9, 1)).map(  # noqa: DTZ001
    lambda moment: moment.replace(tzinfo=START.tzinfo)
)
DRAWS = st.none() | MOMENTS


def decided(  # noqa: PLR0913 - what a decision is made from
    in_use: Sequence[x509.Certificate | None] = (IN_USE,),
    *,
    ours: bool = True,
    names: Sequence[str] = (NAME,),
    key: str = "p256",
    now: datetime = START + DAY,
    drawn: datetime | None = None,
    force: bool = False,
) -> Due:
    """Decide about the certificate in use, with which nothing is wrong."""
    return decide(
        in_use, ours=ours, names=names, key=key, now=now, drawn=drawn, force=force
    )


# What is wrong whatever the dates


@pytest.mark.parametrize(
    ("due", "reason"),
    [
        (
            decided([]),
            "the server's files name no certificate that is in the store",
        ),
        (
            decided([None, None]),
            "the server's files name no certificate that is in the store",
        ),
        (
            decided([IN_USE, None]),
            "some of the server's files name a certificate that is not in the store",
        ),
        (
            decided([IN_USE, leaf(), IN_USE]),
            "the server's files name different certificates",
        ),
        (
            decided([certificates.root().certificate]),
            "the certificate in use is self-signed",
        ),
        (
            decided(ours=False),
            "the certificate in use was not obtained from this CA by this program",
        ),
        (
            decided(names=["b.test", NAME, "a.test"]),
            "the names changed: +b.test, +a.test",
        ),
        (
            decided([leaf([NAME, "d.test", "c.test"])]),
            "the names changed: -c.test, -d.test",
        ),
        (
            decided(names=["imap.example.test"]),
            "the names changed: +imap.example.test, -mail.example.test",
        ),
        (
            decided([leaf(["\x1b[2J.test"])], names=[]),
            r"the names changed: -\x1b[2j.test",
        ),
        (
            decided(key="rsa2048"),
            "the key should be rsa2048 and is p256",
        ),
        (
            decided(force=True),
            "a new order was forced",
        ),
        (
            decided([], force=True),
            "a new order was forced",
        ),
    ],
)
def test_what_is_not_as_it_should_be_is_due_at_once(due: Due, reason: str) -> None:
    assert due == Due(due=True, reason=reason, at=START + DAY)


def test_several_targets_may_name_the_same_certificate() -> None:
    again = x509.load_der_x509_certificate(IN_USE.public_bytes(Encoding.DER))

    assert not decided([IN_USE, again, IN_USE]).due


def test_the_order_of_the_names_makes_no_difference() -> None:
    names = ["c.test", "A.test", "b.test"]

    assert not decided([leaf(names)], names=["a.test", "b.test", "c.test"]).due


# What the dates tell


@pytest.mark.parametrize(
    ("now", "drawn", "due", "reason", "at"),
    [
        (
            START,
            None,
            False,
            "the certificate in use is good until 2026-04-01 (90 days)",
            START + 60 * DAY,
        ),
        (
            START + 60 * DAY - timedelta(seconds=1),
            None,
            False,
            "the certificate in use is good until 2026-04-01 (30 days)",
            START + 60 * DAY,
        ),
        (
            START + 60 * DAY,
            None,
            True,
            f"{LITTLE_LEFT} 30 days",
            START + 60 * DAY,
        ),
        (
            END - 3 * HOUR,
            None,
            True,
            f"{LITTLE_LEFT} 3 hours",
            START + 60 * DAY,
        ),
        (
            END,
            None,
            True,
            "the certificate in use expired on 2026-04-01",
            START + 60 * DAY,
        ),
        (
            START + 20 * DAY,
            START + 20 * DAY,
            True,
            "the CA suggests to renew the certificate (ARI): it expires in 70 days",
            START + 20 * DAY,
        ),
        (
            START + 19 * DAY,
            START + 20 * DAY,
            False,
            "the certificate in use is good until 2026-04-01 (71 days)",
            START + 20 * DAY,
        ),
        (
            START + 60 * DAY,
            START + 70 * DAY,
            True,
            f"{LITTLE_LEFT} 30 days",
            START + 60 * DAY,
        ),
        (
            END + DAY,
            START - DAY,
            True,
            "the certificate in use expired on 2026-04-01",
            START - DAY,
        ),
    ],
)
def test_the_earlier_of_the_suggestion_and_the_backstop_counts(
    now: datetime, drawn: datetime | None, *, due: bool, reason: str, at: datetime
) -> None:
    assert decided(now=now, drawn=drawn) == Due(due=due, reason=reason, at=at)


@pytest.mark.parametrize(
    ("lifetime", "after", "part"),
    [
        (398 * DAY, 265 * DAY + 8 * HOUR, "a third"),
        (90 * DAY, 60 * DAY, "a third"),
        (64 * DAY, 42 * DAY + 16 * HOUR, "a third"),
        (45 * DAY, 30 * DAY, "a third"),
        (10 * DAY + timedelta(seconds=3), 6 * DAY + 16 * HOUR, "a third"),
        (10 * DAY, 5 * DAY, "half"),
        (6 * DAY, 3 * DAY, "half"),
        (160 * HOUR, 80 * HOUR, "half"),
    ],
)
def test_a_third_of_the_lifetime_is_left_or_half_of_a_short_one(
    lifetime: timedelta, after: timedelta, part: str
) -> None:
    certificate = leaf(lifetime=lifetime)
    at = backstop(certificate)

    due = decided([certificate], now=at)

    assert timedelta(0) <= at - (START + after) <= timedelta(seconds=2)
    assert due.reason.startswith(
        f"{part} or less of the certificate's lifetime is left: it expires in "
    )
    assert due.at == at
    assert not decided([certificate], now=at - timedelta(seconds=1)).due


@given(LIFETIMES, DRAWS, MOMENTS, MOMENTS)
@example(90 * DAY, None, START + 60 * DAY, END)
def test_what_is_due_once_is_still_due_later(
    lifetime: timedelta, drawn: datetime | None, one: datetime, other: datetime
) -> None:
    in_use = [leaf(lifetime=lifetime)]
    earlier = decided(in_use, now=min(one, other), drawn=drawn)
    later = decided(in_use, now=max(one, other), drawn=drawn)

    assert later.at == earlier.at
    assert later.due >= earlier.due


@given(LIFETIMES, LIFETIMES, DRAWS)
@example(10 * DAY, 10 * DAY + timedelta(seconds=1), None)
def test_the_sooner_it_expires_the_sooner_it_is_due(
    one: timedelta, other: timedelta, drawn: datetime | None
) -> None:
    sooner = decided([leaf(lifetime=min(one, other))], drawn=drawn)
    later = decided([leaf(lifetime=max(one, other))], drawn=drawn)

    assert sooner.at <= later.at


@given(LIFETIMES, DRAWS, MOMENTS)
def test_it_is_due_from_the_moment_it_tells(
    lifetime: timedelta, drawn: datetime | None, now: datetime
) -> None:
    certificate = leaf(lifetime=lifetime)

    due = decided([certificate], now=now, drawn=drawn)

    assert due.at == min(moment for moment in (drawn, backstop(certificate)) if moment)
    assert due.at < certificate.not_valid_after_utc or due.at == drawn
    assert due.due == (now >= due.at)
    assert "certificate" in due.reason


# The moment drawn, and how spans are told


class Fixed(random.Random):
    """A generator that returns one number."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = number

    def random(self) -> float:
        return self.number


def test_a_moment_is_drawn_evenly_from_the_window() -> None:
    window = Window(start=START, end=START + 2 * DAY)

    assert window.draw(Fixed(0.0)) == START
    assert window.draw(Fixed(0.25)) == START + 12 * HOUR
    assert window.draw(Fixed(0.5)) == START + DAY


@given(st.randoms(use_true_random=False), st.integers(0, 10**6))
def test_the_moment_is_in_the_window(generator: random.Random, seconds: int) -> None:
    window = Window(start=START, end=START + timedelta(seconds=seconds))

    assert window.start <= window.draw(generator) <= window.end


@pytest.mark.parametrize(
    ("span", "said"),
    [
        (90 * DAY, "90 days"),
        (3 * DAY - timedelta(seconds=1), "2 days"),
        (2 * DAY, "2 days"),
        (2 * DAY - timedelta(seconds=1), "47 hours"),
        (2 * HOUR, "2 hours"),
        (2 * HOUR - timedelta(seconds=1), "less than 2 hours"),
        (timedelta(0), "less than 2 hours"),
    ],
)
def test_a_span_is_said_in_days_or_hours(span: timedelta, said: str) -> None:
    assert days(span) == said
