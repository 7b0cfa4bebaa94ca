"""Compute how long a first rollout of many servers takes within a CA's limits.

letsencrypt.org/docs/rate-limits (2026-02-24): each limit is a bucket that refills
steadily. What is computed starts as many servers at once as every limit allows, and the
rest one after the other, so that the last one is started when the tightest limit allows
it. It leaves no room for orders that fail.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from letsencrypt_mdaemon.authorities import Limits, Rate


class Case(NamedTuple):
    """A rollout.

    Args:
        accounts: At the CA: one for all servers, or one for each.
        addresses: From which these are registered.
        domains: The registered domains of the servers' names.
        at_once: How many servers can be started at once.
        every: Then one each time this is over; zero if none is left.
        takes: Until the last one can be started.
        limit: What makes it take so long; "" if nothing does.
    """

    accounts: int
    addresses: int
    domains: int
    at_once: int
    every: timedelta
    takes: timedelta
    limit: str


def case(
    servers: int, limits: Limits, *, accounts: int, addresses: int, domains: int
) -> Case:
    """Compute a rollout whose servers are spread evenly over all that is limited."""
    # How many of what there are, and in how many buckets.
    rows: dict[str, tuple[Rate | None, int, int]] = {
        "new accounts per address": (limits.accounts, accounts, addresses),
        "orders per account": (limits.orders, servers, accounts),
        "certificates per registered domain": (limits.domain, servers, domains),
    }
    takes, at_once, limit = timedelta(), servers, ""
    for name, (rate, needed, buckets) in rows.items():
        if rate is None or needed <= 1:
            continue
        if math.ceil(needed / buckets) <= rate.number:
            continue
        # One after the other, in turn: the first of a bucket waits until it refills.
        most = (rate.number - 1) * buckets + 1
        at_once = min(at_once, most)
        span = rate.span * (needed - most) / (rate.number * buckets)
        if span > takes:
            takes, limit = span, name
    left = servers - at_once
    every = takes / left if left else timedelta()
    return Case(accounts, addresses, domains, at_once, every, takes, limit)


def cases(servers: int, limits: Limits, *, domains: int | None = None) -> list[Case]:
    """Compute the rollouts that a choice of accounts and addresses makes.

    Args:
        domains: The registered domains; None = one for each server, and one for all.
    """
    found = []
    for accounts, addresses in ((1, 1), (servers, servers), (servers, 1)):
        for count in (servers, 1) if domains is None else (domains,):
            row = case(
                servers, limits, accounts=accounts, addresses=addresses, domains=count
            )
            if row not in found:  # of one server
                found.append(row)
    return found
