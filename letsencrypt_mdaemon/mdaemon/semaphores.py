"""Semaphore files, which MDaemon takes as commands."""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.mdaemon.folders import child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path


_log = logging.getLogger(__name__)


POLL_SECONDS = 0.1
"""Between two looks for a semaphore."""


class Semaphores:
    """The semaphore files in App: an empty file asks the server for something.

    It looks for them every few seconds, and removes one as a sign that it took it up.

    Args:
        timeout: Seconds that MDaemon has to take up each.
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
        """Ask for a reload, gentlest first, and yield each semaphore taken up.

        Nothing is asked of a server that does not run: it would act on the files when
        it starts, maybe weeks later. Whatever was not taken up in time is withdrawn,
        with a warning that says what to do.

        Args:
            running: Whether the server is known to run; if not, the semaphore that does
                nothing but vanish tells.
        """
        probe = () if running else (self.PROBE,)
        for name in (*probe, *self.names):
            if reason := self._why_not_taken_up(name):
                _log.warning(
                    "%s. MDaemon uses the new certificate when it starts: restart it "
                    "if it runs.",
                    reason,
                )
                return
            if name in self.names:
                yield name

    def deaf(self) -> str:
        """Return why the server takes up no semaphore; "" if it does.

        Asked is the one that does nothing but vanish.
        """
        return self._why_not_taken_up(self.PROBE)

    def _why_not_taken_up(self, name: str) -> str:
        """Ask for something and wait; return why it was not taken up, if it was not."""
        lock, path = child(self.app, self.LOCK), child(self.app, name)
        if lock.exists():
            return f"{lock} forbids semaphores, so {name} was not asked for"
        # One that somebody else put there may have been read before our files were.
        others = path.exists()
        if others and not self._vanishes(path):
            return f"{path} was there before, and MDaemon does not take it up"
        try:
            path.open("xb").close()
        except FileExistsError:
            return f"{path} was put there by another program at the same time"
        except OSError as exc:
            return f"{path} cannot be written: {exc.strerror or exc}"
        vanished = False
        try:
            vanished = self._vanishes(path)
        finally:  # also when interrupted
            vanished = vanished or not _withdraw(path)
        if vanished:
            return ""
        return (
            f"MDaemon did not take up {name} in {self.timeout:.0f} s; it was withdrawn"
        )

    def _vanishes(self, path: Path) -> bool:
        """Wait until the file is gone, or the time is up."""
        for _ in range(math.ceil(self.timeout / POLL_SECONDS)):
            if not path.exists():
                return True
            text = "waiting for MDaemon to take up %s"
            _log.info(text, path.name, extra={"progress": True})
            self._sleep(POLL_SECONDS)
        return not path.exists()


def _withdraw(path: Path) -> bool:
    """Remove a semaphore of ours; return whether it was still there."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as exc:
        _log.warning("%s cannot be withdrawn: %s", path, exc.strerror or exc)
    return True
