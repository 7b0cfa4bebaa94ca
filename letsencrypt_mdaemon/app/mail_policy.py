"""Look up what DNS says about the server's mail, as senders do."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.mdaemon import host_name

if TYPE_CHECKING:
    from letsencrypt_mdaemon.app.installation import Installation
    from letsencrypt_mdaemon.config.settings import Config
    from letsencrypt_mdaemon.policy.dane import Found
    from letsencrypt_mdaemon.policy.validator import Validator

LOOK_SECONDS = 30.0
"""The time limit for all questions of a run."""

MAX_DOMAINS = 50
"""The domains whose MX hosts are looked up; of more, `mail-domains` chooses."""


def validator(config: Config, *, at: datetime | None = None) -> Validator | None:
    """Return what looks up records and proves them.

    Args:
        at: The time that signatures are compared with; by default now.

    Returns:
        None in a laboratory whose DNS has no root that is trusted: its names are not
        those of the world.
    """
    from letsencrypt_mdaemon.policy import anchors  # noqa: PLC0415 - seldom

    if config.validation_dns is not None and not anchors.LABORATORY:
        return None
    from letsencrypt_mdaemon.policy.network import Network  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.policy.validator import Validator  # noqa: PLC0415 - slow

    at = at or datetime.now(UTC)
    if config.validation_dns is None:
        return Validator(Network(timeout=LOOK_SECONDS), at=at)
    address, port = config.validation_dns
    network = Network([address], port=port, timeout=LOOK_SECONDS)
    return Validator(network, at=at, trusted=anchors.LABORATORY)


def tlsa(installation: Installation) -> Found | None:
    """Return the TLSA records of the server's names and of its domains' MX hosts.

    Raises:
        ConfigError: If the server's own name is unclear.
    """
    found = validator(installation.config)
    if found is None:
        return None
    from letsencrypt_mdaemon.policy import dane  # noqa: PLC0415 - slow

    names = installation.wanted_names()
    ports = {endpoint.port for endpoint in installation.endpoints}
    return dane.look_up(found, names, ports, domains(installation))


def domains(installation: Installation) -> tuple[str, ...]:
    """Return the domains that the server receives mail for, as far as is known."""
    given = installation.config.mail_domains
    found = given or host_name.mail_domains(installation.files)
    return tuple(found[:MAX_DOMAINS])
