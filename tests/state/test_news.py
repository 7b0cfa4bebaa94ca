"""Which news of a run are worth a mail."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from letsencrypt_mdaemon.state.codec import decode, encode
from letsencrypt_mdaemon.state.memory import Memory
from letsencrypt_mdaemon.state.news import (
    MORE,
    PAUSE,
    Event,
    Now,
    count,
    decide,
    is_urgent,
    note,
)
from letsencrypt_mdaemon.state.told import Told

START = datetime(2027, 1, 1, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
FAR = 60
"""Days that are left, and of which nothing is to be told."""


class Step(NamedTuple):
    """A run: hours after the one before, how it ended, and the mail.

    Args:
        left: The days left of another certificate; 0 = the one of the run before.
    """

    hours: float
    failure: str | None
    mail: Event | None
    left: float = 0
    renewed: bool = False


F, A, R, X = Event.FAILED, Event.AGAIN, Event.RECOVERED, Event.EXPIRING
QUIET = Step(12, "", None)


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([QUIET, QUIET], id="nothing-happens"),
        pytest.param(
            [
                Step(0, "a", F),
                Step(12, "a", None),
                Step(12, "a", A),
                QUIET._replace(mail=R),
            ],
            id="the-same-failure-daily-and-its-end",
        ),
        pytest.param(
            [Step(0, "a", F), Step(11, "a", None), Step(10, "a", A)],
            id="a-day-that-varies-by-hours-is-a-day",
        ),
        pytest.param(
            [Step(0, "a", F), Step(1, "b", F), Step(1, "a", None), Step(1, "b", None)],
            id="another-failure-at-once-but-none-of-them-twice",
        ),
        pytest.param(
            [Step(0, "a", F), Step(1, "", R), Step(1, "a", None), Step(1, "", None)],
            id="what-comes-and-goes-is-told-once-a-day",
        ),
        pytest.param(
            [Step(0, "a", F), Step(1, "", R), Step(1, "a", None), Step(20, "a", A)],
            id="what-comes-back-and-stays-is-told",
        ),
        pytest.param(
            [Step(0, "a", F), Step(1, None, None), Step(21, None, A), Step(1, "", R)],
            id="a-run-that-waits-still-fails",
        ),
        pytest.param([Step(0, None, None), QUIET], id="a-run-that-waits-began-nothing"),
        pytest.param(
            [
                Step(0, "a", F, 8.5),
                Step(12, "a", A),
                Step(12, None, A),
                Step(12, "a", A),
            ],
            id="every-run-below-a-tenth",
        ),
        pytest.param(
            [
                Step(0, "", None, 22.6),
                Step(12, "", X),  # 22.1
                Step(12, "", None),
                Step(14 * 24, "", None),  # 7.6
                Step(12, "", None),
                Step(12, "", X),  # 6.6
                Step(12, "", None),
                Step(3 * 24, "", None),  # 3.1
                Step(12, "", X),  # 2.6
                Step(48, "", X),  # 0.6
                Step(6, "", None),
                Step(12, "", X),  # expired
                Step(12, "", None),
            ],
            id="each-limit-of-the-time-left-once",
        ),
        pytest.param(
            [Step(0, "", X, 0.9), Step(12, "", None)],
            id="several-limits-at-once-are-one-mail",
        ),
        pytest.param(
            [Step(0, "a", F, 22.9), Step(12, "a", X), Step(7, "a", None)],
            id="a-limit-is-told-while-runs-fail-and-tells-nothing-twice",
        ),
        pytest.param(
            [Step(0, "a", F, 22.4), Step(12, "a", None)],
            id="a-failure-tells-the-time-left-too",
        ),
        pytest.param(
            [
                Step(0, "", X, 7),
                Step(12, "", None, 90, renewed=True),
                Step(12, "", X, 5),
            ],
            id="the-next-certificate-has-its-own-limits",
        ),
    ],
)
def test_what_is_mailed(steps: list[Step]) -> None:
    assert mailed(steps) == [step.mail for step in steps]


def mailed(steps: list[Step], *more: Event) -> list[Event | None]:
    """Return what is mailed at each run, if every mail is sent."""
    told, at, found = Told(), START, []
    ends = START + FAR * DAY
    for step in steps:
        at += step.hours * HOUR
        ends = at + step.left * DAY if step.left else ends
        now = Now(at, step.failure, step.renewed, ends - 90 * DAY, ends)
        told = count(told, now)
        event = decide(told, now, more)
        told = note(told, now) if event else told
        found.append(event)
    return found


def ended(after: timedelta, failure: str, left: float = FAR) -> Now:
    """Return how a run ended, with a certificate of 90 days."""
    ends = START + left * DAY
    return Now(START + after, failure, begins=ends - 90 * DAY, ends=ends)


def test_a_renewal_is_mailed_if_that_is_asked_for() -> None:
    steps = [Step(0, "", None, renewed=True), QUIET]

    assert mailed(steps, Event.RENEWED) == [Event.RENEWED, None]
    assert mailed(steps, Event.EVERY_RUN) == [Event.EVERY_RUN] * 2
    assert mailed(steps, *MORE) == [Event.RENEWED, Event.EVERY_RUN]


def test_the_end_of_a_failure_is_told_rather_than_the_renewal_that_was_it() -> None:
    steps = [Step(0, "a", F), Step(12, "", R, renewed=True)]

    assert mailed(steps, *MORE) == [F, R]


NAMES = ("mail.example.test", "imap.example.test", "pop.example.test")


@pytest.mark.parametrize(
    "steps",
    [
        [("", (1,), Event.DROPPED), ("", (1,), None), ("", (), Event.RETURNED)],
        [("", (1,), Event.DROPPED), ("", (1, 2), Event.DROPPED), ("", (1, 2), None)],
        [("", (1,), Event.DROPPED), ("", (2,), Event.DROPPED), ("", (2,), None)],
        [("a", (1,), F), ("a", (), None), ("", (1,), R), ("", (1,), None)],
        [(None, (1,), None), ("", (1,), Event.DROPPED), (None, (), None)],
        [("", (), None), ("", (), None)],
    ],
)
def test_a_name_that_is_dropped_or_comes_back_is_mailed_once(
    steps: list[tuple[str | None, tuple[int, ...], Event | None]],
) -> None:
    told, at = Told(), START
    for failure, without, mail in steps:
        at += HOUR
        dropped = tuple(NAMES[number] for number in without)
        now = Now(at, failure, names=NAMES, dropped=dropped)
        told = count(told, now)
        event = decide(told, now, [])
        assert event is mail
        told = note(told, now) if event else told


def test_a_dropped_name_that_nobody_wants_any_more_is_no_news() -> None:
    first = Now(START, "", names=NAMES, dropped=NAMES[1:2])
    told = note(count(Told(), first), first)
    less = Now(START + HOUR, "", names=NAMES[:1])

    told = count(told, less)

    assert decide(told, less) is None
    assert told.dropped == ()


def test_a_mail_that_was_not_sent_is_sent_by_the_next_run() -> None:
    told = count(Told(), ended(0 * HOUR, "a"))
    again = ended(HOUR, "a")
    told = count(told, again)
    assert decide(told, again) is F
    assert (told.runs, told.since) == (2, START)

    told = note(told, again)
    good = ended(2 * HOUR, "")
    told = count(told, good)
    assert decide(told, good) is R
    later = ended(3 * HOUR, "")
    told = count(told, later)
    assert decide(told, later) is R
    assert told.since == START, "the mail says since when"
    told = note(told, later)
    assert (told.since, told.runs, told.open) == (None, 0, False)


def test_without_a_word_about_the_certificate_the_one_before_counts() -> None:
    told = count(Told(), ended(0 * HOUR, "", left=23))
    blind = Now(START + DAY, "")

    told = count(told, blind)

    assert decide(told, blind) is X
    assert not is_urgent(Told(), START)


@pytest.mark.parametrize("back", [DAY, 400 * DAY])
def test_a_clock_that_is_set_back_silences_nothing(back: timedelta) -> None:
    first = Now(START, "a")
    told = note(count(Told(), first), first)
    then = Now(START - back, "a")

    told = count(told, then)

    assert decide(told, then) is A
    assert told.since == START - back


RUNS = st.lists(
    st.tuples(
        st.floats(0.1, 4),
        st.sampled_from(["", "", "a", "a", "a", "b", None]),
        st.booleans(),
    ),
    max_size=60,
)


@given(RUNS, st.floats(10, 89))
def test_failures_are_never_silent_never_noisy_and_end_once(
    runs: list[tuple[float, str | None, bool]], left: float
) -> None:
    told, at, ends = Told(), START, START + left * DAY
    sent: list[tuple[datetime, Event, str]] = []
    failing: datetime | None = None
    is_known_to_fail = False
    for hours, failure, renewed in runs:
        at += hours * HOUR
        # Enough is left: what is urgent is told at every run.
        left_now = max(ends - at, 9.5 * DAY)
        now = Now(at, failure, renewed, at + left_now - 90 * DAY, at + left_now)
        told = count(told, now._replace(begins=told.begins, ends=told.ends))
        event = decide(told, now)
        if event:
            told = note(told, now)
            sent.append((at, event, told.failure))
        if told.failure:
            failing = failing or at
            last = max(
                (when for when, *_ in sent if when >= failing - DAY), default=None
            )
            assert last is not None
            assert at - last <= DAY, "silent for more than a day"
        else:
            failing = None
        ended = max((when for when, what, _ in sent if what is R), default=START)
        same = [
            when
            for when, what, key in sent
            if key == told.failure and what in (F, A) and when > ended
        ]
        if told.failure and len(same) > 1:
            assert same[-1] - same[-2] >= PAUSE - timedelta(seconds=1), "twice in a day"
        if event in (F, A) or (event is X and told.failure):
            is_known_to_fail = True
        if event is R:
            assert is_known_to_fail, "the end of what was never told, or told twice"
            is_known_to_fail = False
        if failure == "":
            assert not is_known_to_fail, "the end was not told"
    assert decode(encode(Memory(told=told)), Memory).told == told
