"""Bind certificates at the mail server, and reload it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.errors import Error
from letsencrypt_mdaemon.state.memory import IIS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from cryptography import x509

    from letsencrypt_mdaemon.mdaemon import iis
    from letsencrypt_mdaemon.mdaemon.bindings import Bindings
    from letsencrypt_mdaemon.mdaemon.semaphores import Semaphores
    from letsencrypt_mdaemon.state.memory import Change, Target
    from letsencrypt_mdaemon.windows.service import Service

_log = logging.getLogger(__name__)


class MailServer(NamedTuple):
    """The server's files, semaphores, IIS site and service (`adapters.Server`).

    Args:
        running: Whether it answers with a greeting.
        site: The IIS site that also gets the certificate.
        service: Its Windows service.
        may_restart: Whether this program may restart the service.
    """

    bindings: Bindings
    semaphores: Semaphores
    running: bool
    own_folders: list[Path]
    site: iis.Site | None = None
    service: Service | None = None
    may_restart: bool = False

    def named(self, names: Collection[str]) -> dict[Target, x509.Certificate | None]:
        """Return the certificate that each target names; None if it is unknown."""
        named = self.bindings.named(names)
        return named | self.site.named() if self.site else named

    def planned(self, certificate: x509.Certificate) -> list[Change]:
        """Return the changes that `bind` would make."""
        changes = self.bindings.planned(certificate)
        if self.site:
            changes += self.site.bind(certificate, dry_run=True)
        return changes

    def bind(
        self,
        certificate: x509.Certificate,
        *,
        now: datetime,
        announce: Callable[[Sequence[Change]], None],
    ) -> list[Change]:
        """Make every target name the certificate."""
        if self.site is None:
            return self.bindings.bind(certificate, now=now, announce=announce)
        in_iis = self.site.bind(certificate, dry_run=True)
        changes = self.bindings.bind(
            certificate, now=now, announce=lambda planned: announce([*planned, *in_iis])
        )
        try:
            return changes + self.site.bind(certificate, dry_run=False)
        except Error:
            self.bindings.restore(changes, now=now)
            raise

    def settle(self, certificate: x509.Certificate | None) -> list[Target]:
        """Carry over what others wrote into the files while they were replaced.

        Returns:
            The targets that do not name the certificate now.
        """
        self.bindings.settle()
        return self.bindings.strays(certificate) if certificate else []

    def restore(self, changes: Sequence[Change], *, now: datetime) -> None:
        """Undo changes in the files and in IIS, even if one of the two fails."""
        in_iis = [change for change in changes if change.target.file == IIS]
        in_files = [change for change in changes if change not in in_iis]
        try:
            self.bindings.restore(in_files, now=now)
        finally:
            if in_iis and self.site:
                self.site.restore(in_iis)
            elif in_iis:
                _log.warning("Could not restore IIS: iis-site-name is no longer set.")

    def reload(self) -> Iterator[str]:
        """Ask the server to reload, and yield each processed semaphore."""
        if not self.semaphores.names:
            _log.info("Skipping the reload (no-reload).")
            return iter(())
        if self.service and not self.running and self._is_stopped():
            _log.warning(
                "The service %s is stopped. MDaemon uses the new certificate after its "
                "next start.",
                self.service.name,
            )
            return iter(())
        return self.semaphores.reload(running=self.running)

    def _is_stopped(self) -> bool:
        from letsencrypt_mdaemon.windows import service  # noqa: PLC0415 - seldom needed

        return self.service is not None and service.is_stopped(self.service)

    def restart_service(self) -> Iterator[str]:
        """Restart the service, if this is allowed and it is not stopped."""
        if self.service and self.may_restart and not self._is_stopped():
            from letsencrypt_mdaemon.windows import service  # noqa: PLC0415 - seldom

            _log.info("Restarting the service %s", self.service.name)
            service.restart(self.service)
            yield f"a restart of the service {self.service.name}"

    def references(self) -> set[str]:
        """Return the thumbprints that any file, or http.sys, names."""
        references = self.bindings.references(skip=self.own_folders)
        return references | self.site.references() if self.site else references
