"""Change which certificate the server uses."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.app import adapters
from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.renewal import run
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cryptography import x509

    from letsencrypt_mdaemon.app.installation import Installation
    from letsencrypt_mdaemon.renewal.adapters import Adapters, Outcome, Request
    from letsencrypt_mdaemon.state.memory import Target

_log = logging.getLogger(__name__)


class Prepared(NamedTuple):
    """A run before its decision.

    Args:
        named: The certificate that each target names; None if it is unknown.
    """

    installation: Installation
    request: Request
    adapters: Adapters
    named: Mapping[Target, x509.Certificate | None]


def prepare(installation: Installation, names: tuple[str, ...]) -> Prepared:
    """Find the targets, and make the request and the adapters of a run.

    Raises:
        ConfigError: If the settings or the server's files do not allow a run.
    """
    config = installation.config
    if config.iis_site_name and sys.platform != "win32":
        _log.warning(
            "Ignoring iis-site-name = %s: this system is not Windows.",
            printable(config.iis_site_name),
        )
    # A rehearsal does not touch the certificate in use.
    targets = () if config.staging else installation.targets()
    installation = installation if config.staging else installation.learned(targets)
    tools = adapters.adapters(installation, targets)
    named = tools.server.named(names)
    return Prepared(installation, adapters.request(installation, names), tools, named)


def renew(prepared: Prepared, now: datetime) -> Outcome:
    """Renew the certificate if it is due, and make the server use it.

    Raises:
        Error: If the renewal fails, or the certificate is not in use everywhere.
    """
    installation, request, tools, _ = prepared
    config = installation.config
    if config.require_profile and not config.profile:
        message = "require-profile is set, but profile is not."
        raise ConfigError(message, hint="Set profile.")
    if not config.dry_run:
        # A killed run left its token files, which this run may not need.
        adapters.webroot(installation).sweep()
    return run.renew(request, tools, installation.memory, now=now)


def activate(prepared: Prepared, now: datetime) -> Outcome:
    """Activate the certificate that an earlier run obtained or rolled back.

    Raises:
        Error: If the certificate is not in use everywhere.
    """
    request = prepared.request
    wanted = request._replace(activate_only=True, issue_only=False, force=False)
    return renew(prepared._replace(request=wanted), now)


def roll_back(prepared: Prepared, now: datetime) -> Outcome:
    """Restore the last certificate that every port served.

    Raises:
        Error: If there is none, or it is not in use everywhere afterwards.
    """
    installation, request, tools, _ = prepared
    return run.roll_back(request, tools, installation.memory, now=now)
