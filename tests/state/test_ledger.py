"""When it is tried again after what failed before, and what a CA's limits leave."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from letsencrypt_mdaemon.authorities import Limits
from letsencrypt_mdaemon.state.ledger import (
    CLOCK_ERROR,
    MAX_FAILURES,
    MIN_ISSUANCES,
    RETRY_DELAYS,
    RETRY_INTERVAL,
    WEEK,
    Issuance,
    Ledger,
    Wait,
)
from letsencrypt_mdaemon.text import when

START = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
YEAR = timedelta(days=365)
FIRST, SECOND = NAMES = ("mail.example.test", "imap.example.test")
LIMITS = Limits(exact_set=5, failures=5)

MOMENTS = st.integers(0, 30 * 86400).map(lambda n: START + timedelta(seconds=n))
ANY_MOMENT = st.integers(-10 * 365, 10 * 365 * 24).map(lambda n: START + n * HOUR)
SPANS = st.integers(1, 3 * 86400).map(lambda n: timedelta(seconds=n))
SHORT_SPANS = st.integers(1, 3600).map(lambda n: timedelta(seconds=n))
FAILING = st.sampled_from(["", *NAMES])


def failed(*moments: datetime, name: str = FIRST) -> Ledger:
    """Return the ledger after a name failed at these moments."""
    ledger = Ledger()
    for moment in moments:
        ledger = ledger.failed({name: "nobody is there"}, moment)
    return ledger


def not_before(ledger: Ledger, now: datetime, *, urgent: bool = False) -> datetime:
    """Return when the names may be tried again."""
    wait = ledger.wait(NAMES, now, urgent=urgent, limits=LIMITS)
    if wait is None:
        return now
    assert wait.until is not None
    return wait.until


# The ladder


@pytest.mark.parametrize(
    ("times", "wait", "urgent"),
    [
        (1, MINUTE, MINUTE),
        (2, 10 * MINUTE, 10 * MINUTE),
        (3, 100 * MINUTE, 100 * MINUTE),
        (4, 20 * HOUR, 100 * MINUTE),
        (5, 20 * HOUR, 100 * MINUTE),
        (100, 20 * HOUR, 100 * MINUTE),
    ],
)
def test_after_each_failure_it_waits_longer_up_to_a_day_or_less_if_it_is_urgent(
    times: int, wait: timedelta, urgent: timedelta
) -> None:
    moments = [START + number * DAY for number in range(times)]
    last = moments[-1]
    ledger = failed(*moments)

    assert not_before(ledger, last) == last + wait
    assert not_before(ledger, last, urgent=True) == last + urgent
    assert ledger.wait(NAMES, last + wait) is None
    assert ledger.wait(NAMES, last + wait - timedelta(seconds=1)) is not None


def test_a_wait_says_what_failed_when_how_often_and_why() -> None:
    ledger = failed(START, START + HOUR).failed({SECOND: "no\x1b[2J answer"}, START)

    assert ledger.wait([FIRST], START + HOUR) == Wait(
        "mail.example.test could not be validated 2 times, last on "
        f"{when(START + HOUR, START + HOUR)}: nobody is there",
        START + HOUR + 10 * MINUTE,
        failed=FIRST,
    )
    assert ledger.wait([SECOND], START) == Wait(
        f"imap.example.test could not be validated on {when(START, START)}: "
        "no\\x1b[2J answer",
        START + MINUTE,
        failed=SECOND,
    )


def test_each_name_has_a_ladder_of_its_own_and_the_longest_wait_counts() -> None:
    ledger = failed(START, START, START).failed({SECOND: "no"}, START)

    assert not_before(ledger, START) == START + RETRY_DELAYS[2]
    assert ledger.wait([SECOND], START + MINUTE) is None
    assert ledger.wait(["pop.example.test"], START) is None


def test_an_order_that_fails_as_a_whole_counts_for_all_names() -> None:
    ledger = Ledger().failed({"": "the CA is overloaded"}, START)

    wait = ledger.wait(["pop.example.test"], START)

    assert wait == Wait(
        f"the order failed on {when(START, START)}: the CA is overloaded",
        START + MINUTE,
        failed="",
    )


def test_an_issuance_clears_what_failed_of_its_names_and_of_the_whole() -> None:
    ledger = failed(START).failed({SECOND: "no", "": "no"}, START)

    left = ledger.issued([FIRST], START)

    assert [item.name for item in left.failures] == [SECOND]
    assert left.failures[0] in ledger.failures


def test_the_ca_is_not_asked_before_the_moment_it_named() -> None:
    until = START + 5 * HOUR
    ledger = Ledger().failed({"": "slow down"}, START, until=until)

    assert not_before(ledger, START) == until
    assert ledger.wait(NAMES, until) is None


def test_a_moment_that_comes_sooner_than_the_ladder_does_not_shorten_it() -> None:
    ledger = Ledger().failed({"": "slow down"}, START, until=START + timedelta(0, 1))

    assert not_before(ledger, START) == START + MINUTE


def test_paused_waits_until_somebody_acts_and_tells_where() -> None:
    url = "https://ca.test/unpause"
    ledger = failed(START).failed({SECOND: "paused"}, START, paused=url)
    forever = START + 100 * YEAR

    assert ledger.settled(forever).wait(NAMES, forever, urgent=True) == Wait(
        "the CA has paused for imap.example.test: paused", None, url
    )
    assert ledger.wait([FIRST], forever) is None
    assert ledger.issued(NAMES, forever).wait(NAMES, forever) is None


# The limit of a week


def test_five_certificates_a_week_for_exactly_these_names_are_all() -> None:
    ledger = Ledger()
    for number in range(5):
        assert ledger.wait(NAMES, START, limits=LIMITS) is None
        ledger = ledger.issued(reversed(NAMES), START + number * HOUR)
    now = START + DAY

    assert ledger.wait(NAMES, now, limits=LIMITS) == Wait(
        "the CA's limit of 5 certificates a week for exactly these names is reached",
        START + WEEK + CLOCK_ERROR,
    )
    assert ledger.wait([FIRST], now, limits=LIMITS) is None
    assert ledger.wait([*NAMES, "pop.example.test"], now, limits=LIMITS) is None
    assert ledger.wait(NAMES, now) is None
    assert ledger.wait(NAMES, now, limits=LIMITS, resumes=True) is None
    assert ledger.wait(NAMES, START + WEEK + CLOCK_ERROR, limits=LIMITS) is None


def test_a_resumed_order_still_waits_for_what_failed() -> None:
    assert failed(START).wait(NAMES, START, resumes=True, limits=LIMITS) is not None


def test_the_oldest_of_the_last_five_makes_room_whatever_their_order() -> None:
    moments = [START + number * HOUR for number in (3, 5, 1, 2, 4, 0)]
    ledger = Ledger(tuple(Issuance(tuple(sorted(NAMES)), at) for at in moments))

    assert ledger.used(NAMES, START + DAY) == sorted(moments)
    assert not_before(ledger, START + DAY) == START + HOUR + WEEK + CLOCK_ERROR


# Clocks that were wrong


def test_a_failure_that_lies_in_the_future_is_forgotten() -> None:
    ledger = failed(START, START + YEAR, START + 2 * YEAR)

    settled = ledger.settled(START + HOUR)

    assert settled == failed(START)
    assert settled.wait(NAMES, START + HOUR) is None


def test_a_failure_of_the_future_is_not_waited_for_at_any_run() -> None:
    ledger = Ledger().failed({"": "no"}, START + YEAR, until=START + YEAR + DAY)

    for days in range(5):
        now = START + days * DAY
        assert ledger.settled(now).wait(NAMES, now, limits=LIMITS) is None


def test_a_pause_is_kept_even_if_it_lies_in_the_future() -> None:
    ledger = Ledger().failed({FIRST: "no"}, START + YEAR, paused="https://ca.test")

    wait = ledger.settled(START).wait(NAMES, START)

    assert wait is not None
    assert wait.paused == "https://ca.test"


def test_a_certificate_of_the_next_day_counts_and_a_later_one_does_not() -> None:
    near, far = START + CLOCK_ERROR, START + CLOCK_ERROR + timedelta(seconds=1)
    ledger = Ledger((Issuance(NAMES, near), Issuance(NAMES, far)))

    assert ledger.settled(START).issuances == (Issuance(NAMES, START),)


def test_a_ca_is_believed_a_day_at_most() -> None:
    ledger = Ledger().failed({"": "no"}, START, until=START + YEAR)

    assert not_before(ledger.settled(START), START) == START + DAY
    later = START + 3 * DAY
    assert ledger.settled(later).wait(NAMES, later) is None


# Bounded


def test_failures_are_remembered_up_to_a_number() -> None:
    ledger = failed(*(START + number * HOUR for number in range(100)))

    (failure,) = ledger.failures

    assert len(failure.times) == MAX_FAILURES
    assert failure.times[-1] == START + 99 * HOUR


def test_old_issuances_are_forgotten_and_those_of_the_week_never() -> None:
    ledger = Ledger()
    for number in range(100):
        ledger = ledger.issued([FIRST], START + number * DAY)
    assert len(ledger.issuances) == MIN_ISSUANCES

    ledger = Ledger()
    for number in range(100):
        ledger = ledger.issued([f"{number}.example.test"], START + number * MINUTE)
    assert len(ledger.issuances) == 100


# Whatever happened


@st.composite
def histories(draw: st.DrawFn, moments: st.SearchStrategy[datetime]) -> Ledger:
    """Return a ledger after failures and issuances in any order, at any moments."""
    ledger = Ledger()
    for at in draw(st.lists(moments, max_size=12)):
        if draw(st.booleans()):
            ledger = ledger.issued(draw(st.sampled_from([NAMES, (FIRST,)])), at)
        else:
            until = draw(st.none() | moments)
            ledger = ledger.failed({draw(FAILING): "no"}, at, until=until)
        if draw(st.booleans()):
            ledger = ledger.settled(at)
    return ledger


@given(ledger=histories(ANY_MOMENT), now=MOMENTS, urgent=st.booleans())
def test_failures_silence_nobody_for_longer_than_a_day(
    *, ledger: Ledger, now: datetime, urgent: bool
) -> None:
    wait = ledger.settled(now).wait(NAMES, now, urgent=urgent)

    assert wait is None or (wait.until is not None and wait.until <= now + DAY)


@given(histories(MOMENTS), st.integers(0, 1000))
def test_every_wait_is_over_after_a_week(ledger: Ledger, minutes: int) -> None:
    now = START + 30 * DAY + WEEK + CLOCK_ERROR + minutes * MINUTE

    assert ledger.settled(now).wait(NAMES, now, limits=LIMITS) is None


@given(histories(MOMENTS), st.integers(0, 1000))
def test_a_clock_that_was_far_ahead_silences_nobody(ledger: Ledger, hours: int) -> None:
    now = START - 2 * DAY - hours * HOUR

    assert ledger.settled(now).wait(NAMES, now, limits=LIMITS) is None


@given(histories(ANY_MOMENT), MOMENTS)
def test_nothing_is_left_that_is_later_than_now(ledger: Ledger, now: datetime) -> None:
    settled = ledger.settled(now)

    assert all(item.at <= now for item in settled.issuances)
    assert all(at <= now for item in settled.failures for at in item.times)
    assert settled.settled(now) == settled


@given(ledger=histories(MOMENTS), now=MOMENTS, name=FAILING, urgent=st.booleans())
def test_one_more_failure_never_makes_it_sooner(
    *, ledger: Ledger, now: datetime, name: str, urgent: bool
) -> None:
    ledger = ledger.settled(now)

    more = ledger.failed({name: "no"}, now)

    # What the CA asked for the last time is what counts.
    before = not_before(failures_without_until(ledger), now, urgent=urgent)
    assert not_before(more, now, urgent=urgent) >= before
    assert not_before(more, now, urgent=urgent) > now


def failures_without_until(ledger: Ledger) -> Ledger:
    """Return a ledger in which the CA asked for nothing."""
    bare = Ledger(ledger.issuances)
    for item in ledger.failures:
        for at in item.times:
            bare = bare.failed({item.name: item.why}, at)
    return bare


@given(histories(MOMENTS), MOMENTS)
def test_a_certificate_ends_every_wait_for_its_names(
    ledger: Ledger, now: datetime
) -> None:
    assert ledger.settled(now).issued(NAMES, now).wait(NAMES, now) is None


def apart(moments: list[datetime], number: int) -> timedelta:
    """Return the shortest time from one to the one so many later."""
    pairs = zip(moments, moments[number:], strict=False)
    return min((later - first for first, later in pairs), default=timedelta.max)


@given(st.lists(SPANS, max_size=60))
def test_who_waits_as_told_never_gets_more_than_five_a_week(
    spans: list[timedelta],
) -> None:
    ledger, now, issued = Ledger(), START, list[datetime]()
    for span in spans:
        now += span
        ledger = ledger.settled(now)
        if ledger.wait(NAMES, now, limits=LIMITS) is None:
            ledger = ledger.issued(NAMES, now)
            issued.append(now)

    assert apart(issued, 5) >= WEEK


@given(spans=st.lists(SPANS | SHORT_SPANS, max_size=60), urgent=st.booleans())
def test_who_waits_as_told_never_fails_more_than_five_times_an_hour(
    *, spans: list[timedelta], urgent: bool
) -> None:
    ledger, now, moments = Ledger(), START, list[datetime]()
    for span in spans:
        now += span
        if ledger.wait(NAMES, now, urgent=urgent, limits=LIMITS) is None:
            ledger = ledger.failed({FIRST: "no"}, now)
            moments.append(now)

    assert apart(moments, 5) >= HOUR
    assert urgent or apart(moments[3:], 1) >= RETRY_INTERVAL
