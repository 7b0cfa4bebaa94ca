"""The CAs that are known by name: where they are, and what they publish of themselves.

Whatever is not here works by its directory's URL; nothing depends on a name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a CA allows.

    Args:
        exact_set: Certificates for exactly the same names, in seven days.
        failures: Failed validations of one name, in an hour.
    """

    exact_set: int
    failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """A public CA.

    Args:
        url: Its directory.
        staging: The directory of its rehearsals, if it has one.
        most_names: Names in one certificate, by profile; "" is the profile it chooses.
        limits: What it allows; None = it does not say.
    """

    url: str
    staging: str = ""
    most_names: Mapping[str, int] = field(default_factory=dict)
    limits: Limits | None = None


# letsencrypt.org/docs/profiles (2026-07-14) and /docs/rate-limits (2026-02-24).
_NAMES = {"": 100, "classic": 100, "tlsserver": 25, "shortlived": 25}
_STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"
LETSENCRYPT = Authority(
    url="https://acme-v02.api.letsencrypt.org/directory",
    staging=_STAGING,
    most_names=_NAMES,
    limits=Limits(exact_set=5, failures=5),
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

LIFETIMES = ((date(2027, 2, 10), 64), (date(2028, 2, 16), 45))
"""From when on a certificate of Let's Encrypt's default profile lives how many days."""


def at(directory_url: str) -> Authority:
    """Return the CA at this URL: one known by name, else one of which nothing is."""
    known = {authority.url: authority for authority in AUTHORITIES.values()}
    return known.get(directory_url, Authority(url=directory_url))


def is_public(directory_url: str) -> bool:
    """Whether it is one of the CAs that very many servers ask."""
    known = {authority.url for authority in AUTHORITIES.values()}
    staging = {authority.staging for authority in AUTHORITIES.values()}
    return directory_url in known | staging
