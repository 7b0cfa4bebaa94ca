"""The server as a Windows service: what it does now, and how it is restarted."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING, Protocol

from letsencrypt_mdaemon.errors import DeployError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import PurePath

NAME = "MDaemon"
PATIENCE = 180.0
"""Seconds that a service has to stop, and as many to start."""
PAUSE = 0.25

STOPPED, START_PENDING, STOP_PENDING, RUNNING = 1, 2, 3, 4
"""Of SERVICE_STATUS_PROCESS; the others are about pausing."""
_STATES = {
    STOPPED: "stopped",
    START_PENDING: "starting",
    STOP_PENDING: "stopping",
    RUNNING: "running",
    5: "continuing",
    6: "pausing",
    7: "paused",
}

DENIED = 5
DEPENDENTS_RUN = 1051
ALREADY_RUNNING = 1056
DISABLED = 1058
CANNOT_NOW = 1061
NOT_ACTIVE = 1062
_HINTS = {
    DENIED: "Run it as an account that may stop and start services: LocalSystem, or "
    "an administrator.",
    DEPENDENTS_RUN: "Restart it by hand, with the services that depend on it.",
    DISABLED: "Enable it, and start it by hand.",
}
_HINT = "Restart it by hand, and look at Windows' System event log."


@dataclass(frozen=True, slots=True)
class Status:
    """What Windows knows of a service now.

    Args:
        state: Of SERVICE_STATUS_PROCESS.
        exit_code: Why it stopped; 1067 if its process just ended.
    """

    state: int
    exit_code: int = 0

    def __str__(self) -> str:
        """Return it in words."""
        return _STATES.get(self.state, f"in state {self.state}")


class RefusedError(Exception):
    """Windows refuses a service something.

    Args:
        code: Windows' error code.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{reason.rstrip('. ')} (Windows error {code})")
        self.code = code


class Service(Protocol):
    """A service of Windows; everything raises `RefusedError`."""

    @property
    def name(self) -> str:
        """What Windows knows it by."""
        ...

    def status(self) -> Status | None:
        """Return what it does; None if there is no such service."""
        ...

    def account(self) -> str:
        """Return the account it runs as, such as LocalSystem."""
        ...

    def program(self) -> str:
        """Return the command line that starts it."""
        ...

    def is_disabled(self) -> bool:
        """Whether it cannot be started."""
        ...

    def dependents(self) -> Sequence[str]:
        """Return the names of the services that run and depend on it."""
        ...

    def stop(self) -> None:
        """Ask it to stop, if it could be started again, and do not wait."""
        ...

    def start(self) -> None:
        """Ask it to start, and do not wait."""
        ...


def is_of(service: Service, root: PurePath) -> bool:
    """Whether a service's program is in a folder: another MDaemon is not ours."""
    command = service.program().strip().lstrip('"').lower()
    folder = PureWindowsPath(str(root).lower())
    return command.startswith(str(folder).rstrip("\\") + "\\")


def is_stopped(service: Service) -> bool:
    """Whether it is known to be stopped."""
    try:
        status = service.status()
    except RefusedError:
        return False
    return status is not None and status.state == STOPPED


def restart(
    service: Service,
    *,
    patience: float = PATIENCE,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Stop a service, wait, start it, and wait again.

    Args:
        patience: Seconds that it has to stop, and as many to start.

    Raises:
        DeployError: It does not stop, and was not started then; or it does not start.
    """
    try:
        status = service.status()
        if status is None:
            message = f"There is no service {service.name}."
            raise DeployError(message, hint="See how MDaemon is started here.")
        # Asked first: what cannot be started again must not be stopped.
        if service.is_disabled():
            message = f"The service {service.name} is {status} and disabled "
            message += f"(Windows error {DISABLED}): it was not restarted."
            raise DeployError(message, hint=_HINTS[DISABLED])
        _stop(service, patience, sleep)
        _start(service, patience, sleep)
    except RefusedError as exc:
        raise _explained(service, "restarted", exc) from exc


def _stop(service: Service, patience: float, sleep: Callable[[float], None]) -> None:
    """Ask for it until it is not starting or stopping any more, and wait."""
    asked = False
    for status in _looks(service, patience, sleep):
        if status.state == STOPPED:
            return
        if not asked and status.state != STOP_PENDING:
            try:
                service.stop()
                asked = True
            except RefusedError as exc:
                # It came to its end by itself, or is just starting.
                if exc.code not in {NOT_ACTIVE, CANNOT_NOW}:
                    raise _explained(service, "stopped", exc) from exc
    message = f"The service {service.name} did not stop in {patience:.0f} s: it is "
    message += f"{service.status()}. It was not started again."
    raise DeployError(message, hint=_HINT)


def _start(service: Service, patience: float, sleep: Callable[[float], None]) -> None:
    asked = False
    for status in _looks(service, patience, sleep):
        if status.state == RUNNING:
            return
        if asked and status.state == STOPPED:
            message = f"The service {service.name} was stopped, and ended at once when "
            message += f"it was started (exit code {status.exit_code}): it is stopped."
            raise DeployError(message, hint=_HINT)
        if not asked:
            try:
                service.start()
                asked = True
            except RefusedError as exc:
                # Windows may have started it itself, or be not yet done with the end.
                if exc.code != ALREADY_RUNNING:
                    raise _explained(service, "started", exc) from exc
    message = f"The service {service.name} was stopped, and did not start in "
    message += f"{patience:.0f} s: it is {service.status()}."
    raise DeployError(message, hint=_HINT)


def _looks(
    service: Service, patience: float, sleep: Callable[[float], None]
) -> Iterator[Status]:
    """Yield what it does now, again and again until patience ends."""
    deadline = time.monotonic() + patience
    while (status := service.status()) is not None:
        yield status
        if time.monotonic() >= deadline:
            return
        sleep(PAUSE)
    message = f"The service {service.name} has been removed meanwhile."
    raise DeployError(message, hint=_HINT)


def _explained(service: Service, what: str, error: RefusedError) -> DeployError:
    message = f"The service {service.name} cannot be {what}: {error}"
    try:
        message += f"; it is {service.status()}"
        if error.code == DEPENDENTS_RUN and (names := service.dependents()):
            message += f", and these services depend on it: {', '.join(names)}"
    except RefusedError:
        pass
    return DeployError(f"{message}.", hint=_HINTS.get(error.code, _HINT))
