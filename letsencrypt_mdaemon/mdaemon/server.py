"""The mail server as a run works with it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

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


@dataclass(frozen=True, slots=True)
class MailServer:
    """The server's files, semaphores, IIS site and service: `parts.Server`.

    Args:
        running: Whether it greets; its service, if it has one, tells too.
        site: The IIS site that shows its certificate, too.
        service: The service that it runs as, on Windows.
        may_restart: Whether that may be restarted.
    """

    bindings: Bindings
    semaphores: Semaphores
    running: bool
    own_folders: list[Path]
    site: iis.Site | None = None
    service: Service | None = None
    may_restart: bool = False

    def named(self, names: Collection[str]) -> dict[Target, x509.Certificate | None]:
        """Return which certificate each target names."""
        named = self.bindings.named(names)
        return named | self.site.named() if self.site else named

    def planned(self, certificate: x509.Certificate) -> list[Change]:
        """Return what `bind` would change."""
        changes = self.bindings.planned(certificate)
        return (
            changes + self.site.bind(certificate, dry_run=True)
            if self.site
            else changes
        )

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

    def restore(self, changes: Sequence[Change], *, now: datetime) -> None:
        """Take changes back; one kind also if the other cannot be."""
        in_iis = [change for change in changes if change.target.file == IIS]
        in_files = [change for change in changes if change not in in_iis]
        try:
            self.bindings.restore(in_files, now=now)
        finally:
            if in_iis and self.site:
                self.site.restore(in_iis)
            elif in_iis:
                _log.warning("IIS stays as it is: iis-site-name is not set any more.")

    def reload(self) -> Iterator[str]:
        """Ask the server to reload, and yield what it took up."""
        if not self.semaphores.names:
            _log.info("The server is not told to reload.")
            return iter(())
        if self.service and not self.running and self._is_stopped():
            _log.warning(
                "The service %s is stopped: MDaemon uses the new certificate when it "
                "starts.",
                self.service.name,
            )
            return iter(())
        return self.semaphores.reload(running=self.running)

    def _is_stopped(self) -> bool:
        from letsencrypt_mdaemon.windows import service  # noqa: PLC0415 - seldom needed

        return self.service is not None and service.is_stopped(self.service)

    def restart_service(self) -> Iterator[str]:
        """Restart the service, if that is allowed and it is not stopped."""
        if self.service and self.may_restart and not self._is_stopped():
            from letsencrypt_mdaemon.windows import service  # noqa: PLC0415 - seldom

            _log.info("Restarting the service %s", self.service.name)
            service.restart(self.service)
            yield f"a restart of the service {self.service.name}"

    def references(self) -> set[str]:
        """Return the thumbprints that any INI value names."""
        references = self.bindings.references(skip=self.own_folders)
        return references | self.site.references() if self.site else references
