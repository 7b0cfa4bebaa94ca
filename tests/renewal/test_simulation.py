"""Simulated years: nothing expires that need not, and no limit is passed.

Stories that chance tells, and stories that are aimed at one rule each. A thousand
years are told by `python -m tests.simulation`.
"""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from itertools import product
from typing import Any

import pytest
from cryptography import x509

from letsencrypt_mdaemon.errors import AcmeError
from letsencrypt_mdaemon.renewal import due as lifetimes
from letsencrypt_mdaemon.renewal import due as renewal
from letsencrypt_mdaemon.renewal import run
from letsencrypt_mdaemon.renewal.adapters import Outcome
from letsencrypt_mdaemon.renewal.due import Due
from letsencrypt_mdaemon.state import memory
from letsencrypt_mdaemon.state.ledger import Ledger
from tests.certificates import START
from tests.simulation import (
    DAY,
    HOUR,
    INTERVAL,
    LIFETIMES,
    SCHEDULE,
    YEAR,
    YEARS,
    Installation,
    Kind,
    SimulatedCa,
    Story,
    Trouble,
    live,
    ordinary,
    quiet,
    slack,
)

LONG = LIFETIMES[:3]
MINUTE = timedelta(minutes=1)
FIRST_RUN = START + SCHEDULE[0]
"""Not before this moment; then chance delays it."""


@pytest.mark.parametrize(
    ("lifetime", "seed"), [*product(LONG, range(3)), (LIFETIMES[3], 0)]
)
def test_in_years_of_troubles_nothing_expires_and_no_limit_is_passed(
    lifetime: timedelta, seed: int
) -> None:
    story = ordinary(lifetime, seed)

    assert not story.expired
    assert not story.passed
    assert story.is_told


@pytest.mark.parametrize("lifetime", LIFETIMES)
def test_what_a_person_holds_until_its_usual_end_is_replaced_in_time(
    lifetime: timedelta,
) -> None:
    kinds = (Kind.CA, Kind.NAME)
    years = 2 if lifetime > 10 * DAY else 0.5

    story = live(lifetime, years, 0, kinds=kinds, holds=0.05, early=False)

    assert story.holds > 3
    assert not story.expired
    assert not story.passed


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("off", [2 * DAY, 2 * DAY - 12 * HOUR])
@pytest.mark.parametrize("lifetime", LIFETIMES)
def test_a_name_mended_just_before_the_end_is_renewed_by_the_next_run(
    lifetime: timedelta, off: timedelta, seed: int
) -> None:
    """When little is left every run tries: nothing waits for a day to be over.

    Args:
        off: How long before the end the server is off, for half a day: a try that is
            missed then moves those that come once a day to the other half.
    """
    end = FIRST_RUN - HOUR + lifetime
    missed, back = end - off, end - off + 12 * HOUR
    troubles = [
        Trouble(Kind.NAME, START + DAY, missed),
        Trouble(Kind.SERVER, missed, back),
        Trouble(Kind.NAME, back, end - INTERVAL),
    ]

    story = live(lifetime, lifetime * 1.5 / YEAR, seed, coming=troubles)

    assert not story.expired
    assert story.failed >= 5
    assert not story.passed


@pytest.mark.parametrize("lifetime", LIFETIMES)
def test_a_trouble_longer_than_the_slack_lets_certificates_expire(
    lifetime: timedelta,
) -> None:
    longest = lifetimes.slack(lifetime) + 10 * DAY
    years = 16 * lifetime / YEAR
    stories = [live(lifetime, years, seed, longest=longest) for seed in range(2)]

    assert any(story.expired for story in stories)
    assert not any(story.passed for story in stories)


@pytest.mark.parametrize("lifetime", LONG)
@pytest.mark.parametrize("seed", range(2))
def test_to_leave_out_idle_runs_changes_nothing(lifetime: timedelta, seed: int) -> None:
    whole, short = live(lifetime, 2, seed), live(lifetime, 2, seed, idle=True)

    assert short.renewals == whole.renewals
    assert short.failed == whole.failed
    assert short.runs < 0.7 * whole.runs


@pytest.mark.parametrize("lifetime", LONG)
def test_in_fair_weather_every_renewal_is_in_the_suggested_window(
    lifetime: timedelta,
) -> None:
    story = live(lifetime, YEARS, 0, kinds=(), idle=True)

    assert len(story.renewals) == int(YEARS * 365 * DAY / (lifetime * 2 / 3))
    assert all(
        item.advised.start <= item.at < item.advised.end for item in story.renewals
    )
    assert story.failed == 0


def test_a_window_in_which_no_run_comes_up_is_not_waited_for() -> None:
    """A certificate of 160 hours has a window of three hours; runs are twelve apart."""
    lifetime = LIFETIMES[3]

    story = live(lifetime, 1, 0, kinds=())

    assert len(story.renewals) > 365 * DAY / (lifetime / 2)
    for item in story.renewals:
        assert item.advised.start - INTERVAL <= item.at < item.advised.end


@pytest.mark.parametrize("every", [10 * MINUTE, HOUR])
def test_runs_as_often_as_anybody_likes_pass_no_limit(every: timedelta) -> None:
    story = live(LIFETIMES[3], 0.1, 10, every=every, kinds=[Kind.NAME])

    assert story.failed >= 5
    assert not story.passed
    assert not story.expired


def test_a_run_at_every_minute_passes_no_limit() -> None:
    story = impatient()

    assert story.failed >= 5
    assert not story.passed
    assert not story.expired


def impatient() -> Story:
    """Let a name fail for a day from when a certificate is due, and never rest."""
    lifetime = LIFETIMES[3]
    due = START + lifetime / 2
    trouble = Trouble(Kind.NAME, due - DAY, due + DAY)
    years = (due + 2 * DAY - START) / YEAR
    return live(lifetime, years, 0, every=MINUTE, coming=[trouble])


@pytest.mark.parametrize("kind", list(Kind))
def test_one_kind_of_trouble_alone_is_survived_too(kind: Kind) -> None:
    story = live(64 * DAY, YEARS, 1, kinds=[kind], idle=True)

    assert not story.expired
    assert not story.passed
    assert set(story.troubles) == {kind}


def test_a_server_whose_files_somebody_changes_back_does_not_use_up_the_ca() -> None:
    ca = changed_back(28)

    assert ca.book.passed.total() == 0
    assert len(ca.windows) == 1


def test_a_machine_that_is_restored_after_each_run_passes_no_limit() -> None:
    ca = changed_back(28, restored=True)

    assert ca.book.passed.total() == 0
    assert len(ca.windows) == 4 * 5


def changed_back(days: int, *, restored: bool = False) -> SimulatedCa:
    """Let somebody write the first certificate back after every run.

    Args:
        restored: Whether the store is as it was in the beginning, too.
    """
    ca = SimulatedCa(90 * DAY)
    installation = Installation(ca)
    installation.order = installation.order._replace(remove_old=False)
    first = dict(installation.server.values)
    with quiet(random.Random(0)):  # noqa: S311
        for number in range(2 * days):
            ca.now = ca.clock = START + number * 12 * HOUR
            installation.run(ca.clock)
            installation.server.values = dict(first)
            store = installation.server.store
            for digest in restored * list(store.keys):
                store.remove(digest)
    return ca


# What the simulation would notice


def test_it_notices_a_decision_that_comes_too_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def late(certificate: x509.Certificate) -> datetime:
        return certificate.not_valid_after_utc - DAY

    longest = slack(90 * DAY)
    monkeypatch.setattr(renewal, "backstop", late)
    monkeypatch.setattr(memory.Draw, "moment", lambda *_: None)

    stories = [live(90 * DAY, 2, seed, longest=longest) for seed in range(3)]

    assert any(story.expired for story in stories)


def test_it_notices_a_decision_that_never_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*inputs: Any) -> Due:  # noqa: ANN401
        due = by_rule(*inputs)
        return due._replace(due=False) if due.rule else due

    by_rule = renewal.by_rule
    monkeypatch.setattr(renewal, "by_rule", never)

    assert live(90 * DAY, 1, 0).expired


def test_it_notices_a_ledger_that_never_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ledger, "wait", lambda *_, **__: None)

    assert impatient().passed["failed validations of a name"] > 0
    with pytest.raises(AcmeError, match="Too many"):
        changed_back(28, restored=True)


def test_it_notices_a_clock_that_silences_for_as_long_as_it_was_ahead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def moved(ledger: Ledger, now: datetime) -> Ledger:
        issuances = [item._replace(at=min(item.at, now)) for item in ledger.issuances]
        failures = [
            item._replace(times=tuple(min(at, now) for at in item.times))
            for item in ledger.failures
        ]
        return Ledger(tuple(issuances), tuple(failures))

    def expired() -> bool:
        story = live(90 * DAY, YEARS, 3, compares=False, idle=True)
        return bool(story.expired)

    assert not expired()
    monkeypatch.setattr(Ledger, "settled", moved)
    assert expired()


def test_it_notices_an_issuer_that_orders_by_a_wrong_clock() -> None:
    stories = [
        live(64 * DAY, YEARS, seed, compares=False, idle=True) for seed in range(3)
    ]

    assert any(story.passed for story in stories)


def test_it_notices_an_advice_that_is_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory.Draw, "moment", lambda *_: START)

    story = live(90 * DAY, 0.1, 0, kinds=())

    assert not any(
        item.advised.start <= item.at < item.advised.end for item in story.renewals
    )
    assert story.renewals


def test_it_notices_a_run_that_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: object, now: datetime, **__: object) -> Outcome:
        return Outcome(renewed=False, reason=f"nothing on {now}", names=())

    monkeypatch.setattr(run, "renew", lost)

    assert live(90 * DAY, 1, 0).expired == [START]
