"""Ask MDaemon to reload by semaphore files."""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.mdaemon.folders import child
from letsencrypt_mdaemon.system.disk import reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

_log = logging.getLogger(__name__)

POLL_SECONDS = 0.1
"""The time between two checks of a semaphore."""


class Semaphores:
    """The semaphore files in App: empty files that MDaemon treats as commands.

    MDaemon checks for them every few seconds, and removes each one that it processes.

    Args:
        timeout: Seconds to wait for MDaemon after each.
    """

    LOCK = "LOCKSEMS.SEM"
    PROBE = "WATCHDOG.SEM"

    def __init__(
        self,
        app: Path,
        names: Sequence[str],
        *,
        timeout: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.app = app
        self.names = names
        self.timeout = timeout
        self._sleep = sleep

    def reload(self, *, running: bool) -> Iterator[str]:
        """Ask for a reload, gentlest first, and yield each processed semaphore.

        A stopped server gets no semaphore, because it would process the file when it
        starts, maybe weeks later. A semaphore that is not processed in time is
        withdrawn, with a warning.

        Args:
            running: Whether the server is known to run; if not, a semaphore without
                effect shows whether it does.
        """
        probe = () if running else (self.PROBE,)
        for name in (*probe, *self.names):
            if reason := self._problem(name):
                _log.warning(
                    "%s. MDaemon uses the new certificate after its next start. If it "
                    "runs, restart it.",
                    reason,
                )
                return
            if name in self.names:
                _log.info("MDaemon processed %s", name)
                yield name

    def deaf(self) -> str:
        """Return why MDaemon processes no semaphore; "" if it does.

        The check uses the semaphore that has no effect.
        """
        return self._problem(self.PROBE)

    def _problem(self, name: str) -> str:
        """Create a semaphore and wait; return why MDaemon did not process it, or ""."""
        lock, path = child(self.app, self.LOCK), child(self.app, name)
        if lock.exists():
            return f"Could not create {name}, because {lock} forbids semaphores"
        # MDaemon may have read our files before it processes another's semaphore.
        others = path.exists()
        if others and not self._vanishes(path):
            return f"{path} already existed, and MDaemon did not process it"
        try:
            path.open("xb").close()
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
            self._sleep(POLL_SECONDS)
        return not path.exists()


def _withdraw(path: Path) -> bool:
    """Remove our semaphore; return whether it still existed."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as exc:
        _log.warning("Could not remove %s: %s", path, reason(exc))
    return True
