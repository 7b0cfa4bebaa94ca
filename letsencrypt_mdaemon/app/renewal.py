"""The use cases that change which certificate the server uses."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.renewal import run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cryptography import x509

    from letsencrypt_mdaemon.app.installation import Installation
    from letsencrypt_mdaemon.renewal.adapters import Adapters, Outcome, Request
    from letsencrypt_mdaemon.state.memory import Target


class Prepared(NamedTuple):
    """A run before its first look at the certificates.

    Args:
        named: Which certificate each target names.
    """

    installation: Installation
    request: Request
    adapters: Adapters
    named: Mapping[Target, x509.Certificate | None]


def prepare(installation: Installation, names: tuple[str, ...]) -> Prepared:
    """Find the targets, and put the adapters of a run together.

    Raises:
        ConfigError: If the settings or the server's files do not allow a run.
    """
    installation.warn_of_what_is_missing()
    # A rehearsal has nothing to do with what is in use.
    targets = () if installation.config.staging else installation.learn()
    server = installation.server(targets)
    return Prepared(
        installation,
        installation.order(names),
        installation.parts(server),
        server.named(names),
    )


def renew(prepared: Prepared, now: datetime) -> Outcome:
    """Renew the certificate if it is due, and make the server use it."""
    issuer = prepared.installation.issuer()
    return run.renew(prepared.request, prepared.adapters, issuer, now=now)


def activate(prepared: Prepared, now: datetime) -> Outcome:
    """Put into use what an earlier run obtained, or what was rolled back."""
    wanted = replace(
        prepared.request, activate_only=True, issue_only=False, force=False
    )
    return renew(prepared._replace(request=wanted), now)


def roll_back(prepared: Prepared, now: datetime) -> Outcome:
    """Go back to the last certificate that was seen to work on every port."""
    return run.roll_back(prepared.request, prepared.adapters, now=now)
