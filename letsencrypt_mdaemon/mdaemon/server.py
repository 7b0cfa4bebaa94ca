"""Bind certificates at the mail server, and make it reload them."""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.errors import Error
from letsencrypt_mdaemon.mdaemon import discovery
from letsencrypt_mdaemon.mdaemon.folders import child
from letsencrypt_mdaemon.state.memory import IIS
from letsencrypt_mdaemon.system import disk, handles
from letsencrypt_mdaemon.system.disk import reason

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from cryptography import x509

    from letsencrypt_mdaemon.mdaemon import iis
    from letsencrypt_mdaemon.mdaemon.bindings import Bindings
    from letsencrypt_mdaemon.state.memory import Change, Target
    from letsencrypt_mdaemon.windows.service import Service

_log = logging.getLogger(__name__)

POLL_SECONDS = 0.1
"""The time between two checks of a semaphore."""
LOCK = "LOCKSEMS.SEM"
"""Forbids semaphores while it exists."""
PROBE = "WATCHDOG.SEM"
"""Has no effect, so it shows whether MDaemon processes semaphores."""
_SERVICE = "a restart of the service "


class Semaphores(NamedTuple):
    """The semaphore files in App: empty files that MDaemon treats as commands.

    MDaemon checks for them every few seconds, and removes each one that it processes.

    Args:
        timeout: Seconds to wait for MDaemon after each.
    """

    app: Path
    names: Sequence[str]
    timeout: float
    sleep: Callable[[float], None] = time.sleep

    def take(self, name: str) -> bool:
        """Ask for a reload, and return whether MDaemon processed the semaphore.

        A semaphore that is not processed in time is withdrawn, with a warning: MDaemon
        would process the file when it starts, maybe weeks later.
        """
        if why := self.problem(name):
            _log.warning(
                "%s. MDaemon uses the certificate that its files name after its next "
                "start. If it runs, restart it.",
                why,
            )
            return False
        if name != PROBE:
            _log.info("MDaemon processed %s", name, extra={"result": True})
        return True

    def problem(self, name: str) -> str:
        """Create a semaphore and wait; return why MDaemon did not process it, or ""."""
        lock, path = child(self.app, LOCK), child(self.app, name)
        if lock.exists():
            return f"Could not create {name}, because {lock} forbids semaphores"
        # MDaemon may have read our files before it processes another's semaphore.
        if path.exists() and not self._vanishes(path):
            return f"{path} already existed, and MDaemon did not process it"
        try:
            disk.create(path, b"", mode=handles.PUBLIC)
        except FileExistsError:
            return f"Another program created {path} at the same time"
        except OSError as exc:
            return f"Could not write {path}: {reason(exc)}"
        vanished = False
        try:
            vanished = self._vanishes(path)
        finally:  # also when interrupted
            vanished = vanished or not _withdraw(path)
        if vanished:
            return ""
        return f"MDaemon did not process {name} within {self.timeout:.0f} s"

    def _vanishes(self, path: Path) -> bool:
        """Wait until the file is gone, or time is up."""
        for _ in range(math.ceil(self.timeout / POLL_SECONDS)):
            if not path.exists():
                return True
            text = "waiting for MDaemon to process %s"
            _log.info(text, path.name, extra={"progress": True})
            self.sleep(POLL_SECONDS)
        return not path.exists()


def _withdraw(path: Path) -> bool:
    """Remove our semaphore; return whether it still existed."""
    try:
        disk.delete(path)
    except FileNotFoundError:
        return False
    except OSError as exc:
        _log.warning("Could not remove %s: %s", path, reason(exc))
    return True


class MailServer(NamedTuple):
    """The server's files, semaphores, IIS site and service (`adapters.Server`).

    Args:
        running: Whether it answers with a greeting; connects.
        look_everywhere: Searches all files; returns the targets to bind, and others to
            remember.
        site: The IIS site that also gets the certificate.
        service: Its Windows service.
        may_restart: Whether this program may restart the service.
        elsewhere: Returns the other users of certificates on this machine, by
            thumbprint.
        note: Called with the service's name before it is stopped, and with "" once it
            runs again.
    """

    bindings: Bindings
    semaphores: Semaphores
    running: Callable[[], bool]
    own_folders: list[Path]
    look_everywhere: Callable[[], tuple[tuple[Target, ...], tuple[Target, ...]]]
    site: iis.Site | None = None
    service: Service | None = None
    may_restart: bool = False
    elsewhere: Callable[[], Mapping[str, str]] = dict
    note: Callable[[str], None] = lambda _: None

    def named(self, names: Collection[str]) -> dict[Target, x509.Certificate | None]:
        """Return the certificate that each target names; None if it is unknown."""
        named = self.bindings.named(names)
        return named | self.site.named() if self.site else named

    def search(self) -> tuple[Target, ...]:
        """Search all files for targets, and return those to remember; maybe none."""
        seen, others = self.look_everywhere()
        if seen:
            self.bindings.targets = seen
        return (*seen, *others)

    def planned(self, certificate: x509.Certificate) -> list[Change]:
        """Return the changes that `bind` would make."""
        changes = self.bindings.planned(certificate)
        if self.site:
            changes += self.site.bind(certificate, dry_run=True)
        return changes

    def writes(self, certificate: x509.Certificate | None) -> list[Path]:
        """Return the files that `bind` writes; without a certificate, for any new one.

        IIS shows its bindings only to whom it lets change them.
        """
        return self.bindings.writes(certificate)

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

    def ladder(self) -> list[str]:
        """Return the rungs that make the server reload, the gentlest first.

        A stopped server gets none. If it is unknown whether it runs, a semaphore
        without effect shows whether it processes them.
        """
        names = [*self.semaphores.names]
        if names and not self.running() and self._is_stopped():
            _log.warning(
                "The service %s is stopped. MDaemon uses the certificate that its "
                "files name after its next start.",
                self.service and self.service.name,
            )
            return []
        if names and not (self.running() or self.semaphores.take(PROBE)):
            names = []
        if self.service and self.may_restart and not self._is_stopped():
            names.append(f"{_SERVICE}{self.service.name}")
        return names

    def _is_stopped(self) -> bool:
        if self.service is None:
            return False
        from letsencrypt_mdaemon.windows import service  # noqa: PLC0415 - seldom needed

        return service.is_stopped(self.service)

    def take(self, rung: str) -> bool:
        """Take a rung: create a semaphore, or restart the service.

        Raises:
            DeployError: If the service does not stop or start.
        """
        if self.service is None or not rung.startswith(_SERVICE):
            return self.semaphores.take(rung)
        from letsencrypt_mdaemon.windows import service  # noqa: PLC0415 - seldom needed

        _log.info("Restarting the service %s", self.service.name)
        self.note(self.service.name)
        service.restart(self.service)
        self.note("")
        _log.info("Restarted the service %s", self.service.name)
        return True

    def references(self) -> dict[str, str]:
        """Return what names a certificate now, by its thumbprint.

        Any file of the server, and other services of this machine.
        """
        bindings = self.bindings
        found = discovery.references(
            bindings.files.root, bindings.known, skip=self.own_folders
        )
        return {**dict.fromkeys(found, "a file of the server"), **self.elsewhere()}
