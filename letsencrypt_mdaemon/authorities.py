"""List the CAs that are known by name: their URLs, and the limits that they publish.

Every other CA works by the URL of its directory.
"""

from __future__ import annotations

from datetime import date, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Rate(NamedTuple):
    """So many in a span; after that, one whenever its part of the span is over."""

    number: int
    span: timedelta


class Limits(NamedTuple):
    """The rate limits of a CA.

    Args:
        exact_set: Certificates for exactly the same names in seven days.
        failures: Failed validations of one name in an hour.
        accounts: New accounts from an address.
        orders: New orders of an account.
        domain: Certificates below a registered domain.
    """

    exact_set: int
    failures: int
    accounts: Rate | None = None
    orders: Rate | None = None
    domain: Rate | None = None


class Authority(NamedTuple):
    """A public CA.

    Args:
        url: The URL of its directory.
        staging: The directory of its staging service, if it has one.
        most_names: The most names in a certificate, by profile; "" = the default one.
        limits: Its rate limits; None = unknown.
        lifetimes: Of its default profile in the future: from when, how many days.
    """

    url: str
    staging: str = ""
    most_names: Mapping[str, int] = MappingProxyType({})
    limits: Limits | None = None
    lifetimes: Sequence[tuple[date, int]] = ()


# letsencrypt.org/docs/profiles (2026-07-14) and /docs/rate-limits (2026-02-24).
_NAMES = {"": 100, "classic": 100, "tlsserver": 25, "shortlived": 25}
_STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"
LETSENCRYPT = Authority(
    url="https://acme-v02.api.letsencrypt.org/directory",
    staging=_STAGING,
    most_names=_NAMES,
    limits=Limits(
        exact_set=5,
        failures=5,
        accounts=Rate(10, timedelta(hours=3)),
        orders=Rate(300, timedelta(hours=3)),
        domain=Rate(50, timedelta(days=7)),
    ),
    lifetimes=((date(2027, 2, 10), 64), (date(2028, 2, 16), 45)),
)
AUTHORITIES = {
    "letsencrypt": LETSENCRYPT,
    "letsencrypt-staging": Authority(url=_STAGING, most_names=_NAMES),
    "zerossl": Authority(url="https://acme.zerossl.com/v2/DV90"),
    "google": Authority(
        url="https://dv.acme-v02.api.pki.goog/directory",
        staging="https://dv.acme-v02.test-api.pki.goog/directory",
    ),
}


def at(directory_url: str) -> Authority:
    """Return the CA with this URL; only the URL is known of most."""
    known = {authority.url: authority for authority in AUTHORITIES.values()}
    return known.get(directory_url) or Authority(url=directory_url)


def is_public(directory_url: str) -> bool:
    """Return whether this is a known CA, which very many servers ask."""
    return any(directory_url in (row.url, row.staging) for row in AUTHORITIES.values())
