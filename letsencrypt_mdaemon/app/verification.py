"""Check that the server's ports serve the certificate that its files name."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.app import adapters, build
from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.pki.certificate import thumbprint
from letsencrypt_mdaemon.pki.chain import Roots
from letsencrypt_mdaemon.verify import verdict
from letsencrypt_mdaemon.verify.verdict import Verification

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime
    from pathlib import Path

    from cryptography import x509

    from letsencrypt_mdaemon.app.installation import Installation

_log = logging.getLogger(__name__)


def verify(installation: Installation, *, now: datetime) -> Verification:
    """Compare what the ports serve with what the server's files name.

    Raises:
        ConfigError: If the settings do not allow it.
    """
    config = installation.config
    try:
        roots = Roots(config.ca_bundle, now=now)
    except ValueError as exc:
        hint = "Set ca-bundle to a PEM file of root certificates."
        raise ConfigError(f"ca-bundle: {exc}.", hint=hint) from exc
    try:
        names = installation.names()
    except ConfigError as exc:
        _log.warning("%s Checking the ports without SNI.", exc.message)
        names = ()
    seen = installation.look(names, public=config.public)
    named = _named(seen, names)
    ports = verdict.assess(
        seen.observed,
        expected=None if named is None else {thumbprint(leaf) for leaf in named},
        given=seen.endpoints if config.endpoint else (),
        roots=roots,
        issued=seen.issued_chain,
        require_trusted=config.require_trusted,
        now=now,
    )
    return Verification(
        names=names,
        expected=named,
        ports=tuple(ports),
        now=now,
        require_trusted=config.require_trusted,
        is_running=not _is_stopped(installation.root),
    )


def _is_stopped(root: Path) -> bool:
    """Whether MDaemon's Windows service is certainly stopped."""
    found = build.windows_service(root)
    if found is None:
        return False
    from letsencrypt_mdaemon.windows import service  # noqa: PLC0415 - Windows only

    return service.is_stopped(found)


def _named(
    installation: Installation, names: Collection[str]
) -> tuple[x509.Certificate, ...] | None:
    """Return the known certificates that the server's files name.

    None if the INI values that name it are unknown.
    """
    targets = installation.targets()
    if not targets:
        return None
    named = adapters.server(installation, targets).named(names).values()
    return tuple(leaf for leaf in dict.fromkeys(named) if leaf is not None)
