"""How long a first rollout takes, against buckets that are counted here once more."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from letsencrypt_mdaemon.app.rollout import Case, case, cases
from letsencrypt_mdaemon.authorities import LETSENCRYPT, Limits, Rate

assert LETSENCRYPT.limits
LIMITS: Limits = LETSENCRYPT.limits
HOUR = timedelta(hours=1)


def rollout(servers: int, **spread: int) -> Case:
    return case(servers, LIMITS, **spread)


@pytest.mark.parametrize(
    ("spread", "takes", "limit"),
    [
        ((300, 1, 1, 300), 0 * HOUR, ""),
        ((301, 1, 1, 301), HOUR / 100, "orders per account"),
        ((10_000, 1, 1, 10_000), 97 * HOUR, "orders per account"),
        ((10, 10, 1, 10), 0 * HOUR, ""),
        ((20, 20, 1, 20), 3 * HOUR, "new accounts per address"),
        ((20, 20, 2, 20), 0 * HOUR, ""),
        ((50, 1, 1, 1), 0 * HOUR, ""),
        ((100, 1, 1, 1), 7 * 24 * HOUR, "certificates per registered domain"),
        ((100, 100, 1, 2), 27 * HOUR, "new accounts per address"),
    ],
)
def test_the_tightest_limit_decides(
    spread: tuple[int, int, int, int], takes: timedelta, limit: str
) -> None:
    servers, accounts, addresses, domains = spread

    found = rollout(servers, accounts=accounts, addresses=addresses, domains=domains)

    assert (found.takes, found.limit) == (takes, limit)


class Bucket:
    """Refills steadily; as the CA counts, and in seconds."""

    def __init__(self, rate: Rate) -> None:
        self.size, self.every = rate.number, rate.span.total_seconds() / rate.number
        self.left, self.at = float(rate.number), 0.0

    def take(self, at: float) -> None:
        """Take one out."""
        self.left = min(self.size, self.left + (at - self.at) / self.every)
        self.at = at
        self.left -= 1
        assert self.left > -1e-3


@given(
    servers=st.integers(1, 400),
    shares=st.booleans(),
    addresses=st.integers(1, 400),
    domains=st.integers(1, 400),
)
def test_a_rollout_by_the_plan_passes_no_limit(
    servers: int, addresses: int, domains: int, *, shares: bool
) -> None:
    accounts, domains = 1 if shares else servers, min(servers, domains)
    addresses = min(accounts, addresses)
    found = rollout(servers, accounts=accounts, addresses=addresses, domains=domains)
    rows = (LIMITS.accounts, LIMITS.orders, LIMITS.domain)
    buckets: dict[tuple[int, int], Bucket] = {}

    for number in range(servers):
        wait = max(0, number + 1 - found.at_once)
        at = wait * found.every.total_seconds()
        account = number % accounts
        keys = [account % addresses, account, number % domains]
        is_new = number < accounts
        for row, (rate, key) in enumerate(zip(rows, keys, strict=True)):
            assert rate
            if row or is_new:
                buckets.setdefault((row, key), Bucket(rate)).take(at)

    takes = (found.every * (servers - found.at_once)).total_seconds()
    assert takes == pytest.approx(found.takes.total_seconds())


def test_the_cases_are_every_choice_of_accounts_and_addresses() -> None:
    found = cases(300, LIMITS)

    choices = defaultdict(list)
    for row in found:
        choices[row.accounts, row.addresses].append(row.domains)
    assert choices == {(1, 1): [300, 1], (300, 300): [300, 1], (300, 1): [300, 1]}
    assert [row.domains for row in cases(300, LIMITS, domains=40)] == [40] * 3


def test_one_server_needs_no_plan() -> None:
    (found,) = cases(1, LIMITS)

    assert (found.at_once, found.takes, found.limit) == (1, timedelta(), "")
