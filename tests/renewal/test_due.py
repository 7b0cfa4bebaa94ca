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

from letsencrypt_mdaemon.pki.certificate import KeyType, thumbprint
from letsencrypt_mdaemon.renewal.adapters import Request
from letsencrypt_mdaemon.renewal.due import (
    Due,
    backstop,
    by_rule,
    earliest,
    interval,
    is_sparse,
    lifetime,
    slack,
)
from letsencrypt_mdaemon.state.memory import Draw, Issued, Memory, Window
from letsencrypt_mdaemon.text import day, days
from tests import certificates
from tests.certificates import NAME, START, leaf
from tests.fakes import snapshot

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
OURS = "https://ca.test/directory"
IN_USE = leaf([NAME])
END = START + 90 * DAY
LAST_DAY = f"{END.astimezone():%Y-%m-%d}"
A_THIRD = "a third or less of the certificate's lifetime is left"
LITTLE_LEFT = f"{A_THIRD}: it expires in"
ARI = "the CA suggests renewing the certificate (ARI)"

LIFETIMES = st.one_of(
    st.sampled_from([90 * DAY, 64 * DAY, 45 * DAY, 160 * HOUR, 10 * DAY]),
    st.integers(1, 200 * 86400).map(lambda seconds: timedelta(seconds=seconds)),
)
MOMENTS = st.datetimes(datetime(2025, 12, 1), datetime(2026, 9, 1)).map(  # noqa: DTZ001
    lambda moment: moment.replace(tzinfo=START.tzinfo)
)
TWIN = f"www.{NAME}"
DRAWS = st.none() | MOMENTS


def decided(  # noqa: PLR0913 - what a decision is made from
    in_use: Sequence[x509.Certificate | None] = (IN_USE,),
    *,
    ours: bool = True,
    names: Sequence[str] = (NAME,),
    ordered: Sequence[str] = (NAME,),
    key: KeyType = "p256",
    now: datetime = START + DAY,
    drawn: datetime | None = None,
    days_left: int = 0,
    revoked: datetime | None = None,
    force: bool = False,
) -> Due:
    """Decide about the certificate in use, with which nothing is wrong."""
    request = Request(
        names=tuple(names),
        key_type=key,
        directory_url=OURS if ours else "https://another.test",
        days_left=days_left,
        force=force,
    )
    issued = [
        Issued(thumbprint(item), OURS, tuple(ordered), revoked=revoked)
        for item in in_use
        if item is not None
    ]
    memory = Memory(issued=tuple(issued))
    return by_rule(snapshot(request, *in_use, now=now, memory=memory), names, drawn)


@pytest.mark.parametrize("names", [[NAME], [NAME, TWIN], [TWIN]])
def test_names_that_the_ca_added_are_no_change(names: list[str]) -> None:
    assert not decided([leaf([NAME, TWIN])], names=names, ordered=names[:1]).due


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
            "this program did not obtain the certificate in use from this CA",
        ),
        (
            decided(names=["b.test", NAME, "a.test"]),
            "the names changed: with b.test, with a.test",
        ),
        (
            decided([leaf([NAME, "d.test", "c.test"])]),
            "the names changed: without c.test, without d.test",
        ),
        (
            decided(names=["imap.example.test"]),
            "the names changed: with imap.example.test, without mail.example.test",
        ),
        (
            decided([leaf(["\x1b[2J.test"])], names=[]),
            r"the names changed: without \x1b[2j.test",
        ),
        (
            decided([leaf([NAME, TWIN])], ordered=[NAME, TWIN]),
            f"the names changed: without {TWIN}",
        ),
        (
            decided([leaf([NAME, TWIN, "www.a.test"])]),
            "the names changed: without www.a.test",
        ),
        (
            decided(key="rsa2048"),
            "the key type is p256, and key-type is rsa2048",
        ),
        (
            decided(revoked=START),
            f"the certificate in use was revoked on {day(START, START + DAY)}",
        ),
        (
            decided(force=True),
            "--force requests a new order",
        ),
        (
            decided([], force=True),
            "--force requests a new order",
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
            f"the certificate in use is valid until {LAST_DAY} (in 90 days)",
            START + 60 * DAY,
        ),
        (
            START + 60 * DAY - timedelta(seconds=1),
            None,
            False,
            f"the certificate in use is valid until {LAST_DAY} (in 30 days)",
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
            f"the certificate in use expired on {LAST_DAY} (just now)",
            START + 60 * DAY,
        ),
        (
            START + 20 * DAY,
            START + 20 * DAY,
            True,
            f"{ARI}: it expires in 70 days",
            START + 20 * DAY,
        ),
        (
            START + 19 * DAY,
            START + 20 * DAY,
            False,
            f"the certificate in use is valid until {LAST_DAY} (in 71 days)",
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
            f"the certificate in use expired on {LAST_DAY} (24 hours ago)",
            START - DAY,
        ),
    ],
)
def test_the_earlier_of_the_suggestion_and_the_backstop_counts(
    now: datetime, drawn: datetime | None, *, due: bool, reason: str, at: datetime
) -> None:
    rule = ARI if at == drawn else A_THIRD
    expected = Due(due=due, reason=reason, at=at, rule=rule)
    assert decided(now=now, drawn=drawn) == expected


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


# The administrator's days


@pytest.mark.parametrize(
    ("lifetime", "days_left", "after"),
    [
        (90 * DAY, 0, 60 * DAY),
        (90 * DAY, 20, 60 * DAY),  # it never makes it later
        (90 * DAY, 30, 60 * DAY),
        (90 * DAY, 31, 59 * DAY),
        (90 * DAY, 45, 45 * DAY),
        (90 * DAY, 46, 45 * DAY),  # nor earlier than after half of it
        (90 * DAY, 1000, 45 * DAY),
        (45 * DAY, 30, 22 * DAY + 12 * HOUR),
        (160 * HOUR, 5, 80 * HOUR),
    ],
)
def test_the_administrator_may_want_it_earlier_but_not_at_every_run(
    lifetime: timedelta, days_left: int, after: timedelta
) -> None:
    certificate = leaf(lifetime=lifetime)

    due = decided([certificate], days_left=days_left, now=START + after)

    assert due.at == START + after
    assert due.due
    assert not decided([certificate], days_left=days_left, now=due.at - HOUR).due
    assert due.at >= earliest(certificate)


def test_the_rule_that_comes_first_is_told() -> None:
    days_rule = "renew-days is set to 40 days before the end"

    assert decided().rule == A_THIRD
    assert decided(days_left=40).rule == days_rule
    assert decided(days_left=60).rule == (
        "renew-days is set, and half of the lifetime is over"
    )
    assert decided(days_left=40, drawn=START + 49 * DAY).rule == ARI
    assert decided(days_left=40, drawn=START + 51 * DAY).rule == days_rule
    assert decided(days_left=40, now=START + 50 * DAY).reason == (
        f"{days_rule}: it expires in 40 days"
    )
    assert decided([leaf(lifetime=10 * DAY)]).rule == (
        "half or less of the certificate's lifetime is left"
    )
    assert decided(names=["a.test"]).rule == ""


@given(LIFETIMES, st.integers(0, 400), DRAWS)
def test_the_first_of_the_rules_decides(
    lifetime: timedelta, days_left: int, drawn: datetime | None
) -> None:
    certificate = leaf(lifetime=lifetime)
    wanted = certificate.not_valid_after_utc - days_left * DAY

    at = decided([certificate], days_left=days_left, drawn=drawn).at

    moments = [backstop(certificate)]
    moments += [drawn] if drawn else []
    moments += [max(wanted, earliest(certificate))] if days_left else []
    assert at == min(moments)


# Lifetimes and schedules


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        (90 * DAY, 30 * DAY),
        (45 * DAY, 15 * DAY),
        (10 * DAY + timedelta(seconds=3), 3 * DAY + 8 * HOUR + timedelta(seconds=1)),
        (10 * DAY, 5 * DAY),
        (160 * HOUR, 80 * HOUR),
    ],
)
def test_the_slack_is_a_third_of_the_lifetime_or_half_of_a_short_one(
    span: timedelta, expected: timedelta
) -> None:
    certificate = leaf(lifetime=span)

    assert slack(span) == expected
    assert lifetime(certificate) == span
    assert backstop(certificate) == certificate.not_valid_after_utc - expected


@pytest.mark.parametrize(
    ("hours", "expected"),
    [
        ([], None),
        ([0], None),
        ([0, 12, 24], None),
        ([0, 12, 24, 36], 12),
        ([36, 0, 24, 12], 12),
        ([0, 12, 24, 200, 212], 12),  # it was off for a week
        ([0, 0.5, 0.9, 12, 12.5, 24, 36], 12),  # somebody ran it by hand
        ([0, 24, 48, 72], 24),
        ([0, 168, 336, 504, 672], 168),
    ],
)
def test_the_interval_is_what_usually_lies_between_runs(
    hours: Sequence[float], expected: float | None
) -> None:
    runs = [START + hour * HOUR for hour in hours]

    assert interval(runs) == (None if expected is None else expected * HOUR)


@pytest.mark.parametrize(
    ("every", "span", "sparse"),
    [
        (12 * HOUR, 160 * HOUR, False),
        (26 * HOUR, 160 * HOUR, False),
        (27 * HOUR, 160 * HOUR, True),
        (7 * DAY, 90 * DAY, False),
        (7 * DAY, 64 * DAY, False),
        (7 * DAY, 45 * DAY, True),
        (30 * DAY, 90 * DAY, True),
    ],
)
def test_a_schedule_of_fewer_than_three_tries_before_the_end_is_sparse(
    every: timedelta, span: timedelta, *, sparse: bool
) -> None:
    assert is_sparse(every, span) == sparse


# The advice that is kept


class Fixed(random.Random):
    """A generator that returns one number."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = number

    def random(self) -> float:
        return self.number


WINDOW = Window(start=START + 59 * DAY, end=START + 61 * DAY, explanation_url="url")
NO_ADVICE = Draw("print", None, None, None, START)


@given(st.randoms(use_true_random=False))
def test_a_window_is_drawn_from_once(generator: random.Random) -> None:
    drawn = NO_ADVICE.asked(WINDOW, START + DAY, generator)

    assert drawn.at is not None
    assert WINDOW.start <= drawn.at <= WINDOW.end
    assert drawn == Draw(
        "print", WINDOW.start, WINDOW.end, drawn.at, START + DAY, "url"
    )
    again = drawn.asked(WINDOW, START + 2 * DAY, generator)
    assert again == drawn._replace(ask_again=START + 2 * DAY)


def test_a_new_window_is_drawn_from_anew() -> None:
    drawn = NO_ADVICE.asked(WINDOW, START, Fixed(0.5))
    sooner = Window(start=START, end=START + DAY)

    assert drawn.at == START + 60 * DAY
    assert drawn.asked(sooner, START, Fixed(0.5)).at == START + 12 * HOUR


def test_without_an_answer_the_advice_stays_as_it_is() -> None:
    drawn = NO_ADVICE.asked(WINDOW, START, Fixed(0.5))

    assert drawn.asked(None, START + DAY, Fixed(0.1)) == drawn._replace(
        ask_again=START + DAY
    )
    assert NO_ADVICE.asked(None, START + DAY, Fixed(0.1)).at is None


@pytest.mark.parametrize(
    ("ask_again", "holds"),
    [
        (START - HOUR, False),
        (START, False),
        (START + HOUR, True),
        (START + DAY, True),
        (START + 2 * DAY, False),  # a clock was wrong
        (START + 365 * DAY, False),
    ],
)
def test_the_ca_is_not_asked_again_before_it_wants_to_be(
    ask_again: datetime, *, holds: bool
) -> None:
    assert NO_ADVICE._replace(ask_again=ask_again).holds(START) == holds


@pytest.mark.parametrize(
    ("now", "every", "moment"),
    [
        # Another run comes up in the window: the moment drawn counts.
        (START + 58 * DAY, 12 * HOUR, START + 60 * DAY),
        (START + 60 * DAY, DAY, START + 60 * DAY),
        (START + 62 * DAY, DAY, START + 60 * DAY),
        # This one is the last before the window's end.
        (START + 60 * DAY - HOUR, DAY + 2 * HOUR, START + 60 * DAY - HOUR),
        (START + 55 * DAY, 7 * DAY, START + 55 * DAY),
        (START + 53 * DAY, 7 * DAY, START + 60 * DAY),
    ],
)
def test_the_last_run_before_the_end_of_the_window_renews(
    now: datetime, every: timedelta, moment: datetime
) -> None:
    drawn = NO_ADVICE.asked(WINDOW, START, Fixed(0.5))

    assert drawn.moment(now, every) == moment
    assert NO_ADVICE.moment(now, every) is None


@given(MOMENTS, st.integers(1, 30 * 24), st.floats(0, 1))
def test_the_moment_is_never_later_than_the_one_drawn(
    now: datetime, hours: int, number: float
) -> None:
    drawn = NO_ADVICE.asked(WINDOW, START, Fixed(number))

    moment = drawn.moment(now, hours * HOUR)

    assert moment is not None
    assert drawn.at is not None
    assert moment in {drawn.at, now}
    assert moment <= drawn.at
    # Whoever comes up that often has renewed when the window is over.
    assert now + hours * HOUR <= WINDOW.end or moment <= now


# The moment drawn, and how spans are told


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
        (2 * HOUR - timedelta(seconds=1), "119 minutes"),
        (timedelta(minutes=2), "2 minutes"),
        (timedelta(seconds=119), "less than 2 minutes"),
        (timedelta(0), "less than 2 minutes"),
    ],
)
def test_a_span_is_shown_in_days_hours_or_minutes(span: timedelta, said: str) -> None:
    assert days(span) == said
