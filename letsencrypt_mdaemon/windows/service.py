"""The server as a Windows service: its state, and how to restart it."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, NamedTuple, Protocol

from letsencrypt_mdaemon.errors import DeployError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import PurePath

NAME = "MDaemon"
TIMEOUT_SECONDS = 180.0
"""For a service to begin to stop, and again for it to start."""
STOPPING_FACTOR = 5
"""Once it stops, it gets so many timeouts: 15 min. Nobody else would start it."""
MAX_FACTOR = 20
"""At most so many timeouts in all, however often it shows progress: 1 h."""
POLL_SECONDS = 0.25

STOPPED, START_PENDING, STOP_PENDING, RUNNING = 1, 2, 3, 4
"""States of SERVICE_STATUS_PROCESS; the others concern pausing."""
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
REQUEST_TIMEOUT = 1053
"""It did not answer within 30 s; it may stop or start all the same."""
DATABASE_LOCKED = 1055
DEPENDENTS_RUN = 1051
ALREADY_RUNNING = 1056
DISABLED = 1058
CANNOT_NOW = 1061
NOT_ACTIVE = 1062
_NOT_STOPPED_YET = {NOT_ACTIVE, CANNOT_NOW, REQUEST_TIMEOUT}
_NOT_STARTED_YET = {ALREADY_RUNNING, REQUEST_TIMEOUT, DATABASE_LOCKED}
_HINTS = {
    DENIED: "Run as an account that may stop and start services: LocalSystem, or "
    "an administrator.",
    DEPENDENTS_RUN: "Restart it by hand, with the services that depend on it.",
    DISABLED: "Enable it, and start it by hand.",
}
_HINT = "Restart it by hand, and check Windows' System event log."


class Status(NamedTuple):
    """The state of a service.

    Args:
        state: Of SERVICE_STATUS_PROCESS.
        exit_code: Why it stopped; 1067 if its process ended unexpectedly.
        check_point: Grows while it makes progress with a stop or a start.
        wait_hint: The milliseconds within which it promises the next progress.
    """

    state: int
    exit_code: int = 0
    check_point: int = 0
    wait_hint: int = 0

    def __str__(self) -> str:
        """Return the state as messages show it."""
        return _STATES.get(self.state, f"in state {self.state}")


class RefusedError(Exception):
    """Windows refused to show or control a service.

    Args:
        code: Windows' error code.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{reason.rstrip('. ')} (Windows error {code})")
        self.code = code


class Service(Protocol):
    """A Windows service; every method may raise `RefusedError`."""

    @property
    def name(self) -> str:
        """The name of the service."""
        ...

    def status(self) -> Status | None:
        """Return the state of the service; None if there is no such service."""
        ...

    def account(self) -> str:
        """Return the account that runs the service, such as LocalSystem."""
        ...

    def program(self) -> str:
        """Return the command line that starts the service."""
        ...

    def is_disabled(self) -> bool:
        """Whether the service is disabled and cannot be started."""
        ...

    def dependents(self) -> Sequence[str]:
        """Return the names of the running services that depend on this one."""
        ...

    def stop(self) -> None:
        """Ask the service to stop, if we may start it again; do not wait."""
        ...

    def start(self) -> None:
        """Ask the service to start; do not wait."""
        ...


def is_of(service: Service, root: PurePath) -> bool:
    """Whether a service's program is below a folder; another MDaemon's is not.

    The folder may have several paths: by a junction, a short name or another drive.
    """
    for program in _programs(service.program()):
        written = PureWindowsPath(program.removeprefix("\\\\?\\"))
        if PureWindowsPath(str(root)) in written.parents:
            return True
        with suppress(OSError, ValueError):
            if any(each.samefile(root) for each in Path(program).parents):
                return True
    return False


def _programs(command: str) -> list[str]:
    """Return what a command line may start: without quotes it may end at any blank."""
    command = os.path.expandvars(command.strip())
    if command.startswith('"'):
        return [command[1:].partition('"')[0]]
    ends = [blank.start() for blank in re.finditer(" ", command)]
    programs = [command[:end] for end in ends] + [command]
    # The first that is there is started (CreateProcess).
    there = (each for each in programs if Path(each).is_file())
    return [next(there, command)]


def is_stopped(service: Service) -> bool:
    """Whether the service is certainly stopped."""
    try:
        status = service.status()
    except RefusedError:
        return False
    return status is not None and status.state == STOPPED


def restart(service: Service, *, timeout: float = TIMEOUT_SECONDS) -> None:
    """Stop a service, wait, start it, and wait again.

    As long as it stops, it is waited for, and started as soon as it is stopped.

    Args:
        timeout: Seconds for it to begin to stop, and again for it to start.

    Raises:
        DeployError: If it does not stop (then it is not started), or does not start.
    """
    try:
        status = service.status()
        if status is None:
            message = f"There is no service {service.name}."
            raise DeployError(
                message, hint="Check how MDaemon is started on this machine."
            )
        # Before stopping: a service that cannot be started again must not be stopped.
        if service.is_disabled():
            message = f"The service {service.name} is {status} and disabled "
            message += f"(Windows error {DISABLED}). It was not restarted."
            raise DeployError(message, hint=_HINTS[DISABLED])
        try:
            _stop(service, timeout)
            _start(service, timeout)
        except (KeyboardInterrupt, SystemExit):
            with suppress(RefusedError):  # it may still stop
                service.start()
            raise
    except RefusedError as exc:
        raise _refusal(service, "restart", exc) from exc


def resume(service: Service, *, timeout: float = TIMEOUT_SECONDS) -> bool:
    """Start a service that an earlier restart stopped; return whether it had to be.

    Raises:
        DeployError: If it still stops, or does not start.
    """
    try:
        status = service.status()
        if status is None or status.state not in {STOPPED, STOP_PENDING}:
            return False
        _stop(service, timeout)
        _start(service, timeout)
    except RefusedError as exc:
        raise _refusal(service, "start", exc) from exc
    return True


def _stop(service: Service, timeout: float) -> None:
    """Ask the service to stop, again while it is still starting, and wait."""
    asked, began = False, time.monotonic()
    for status in _states(service, timeout):
        if status.state == STOPPED:
            return
        if not asked and status.state != STOP_PENDING:
            try:
                service.stop()
                asked = True
            except RefusedError as exc:
                # It has ended by itself, is just starting, or does not answer.
                if exc.code not in _NOT_STOPPED_YET:
                    raise _refusal(service, "stop", exc) from exc
    seconds = time.monotonic() - began
    message = f"The service {service.name} did not stop in {seconds:.0f} s: it is "
    message += f"{service.status()}. It was not started again. "
    message += "The next run starts it if it is stopped by then."
    raise DeployError(message, hint=_HINT)


def _start(service: Service, timeout: float) -> None:
    asked, began = False, time.monotonic()
    for status in _states(service, timeout):
        if status.state == RUNNING:
            return
        if asked and status.state == STOPPED:
            message = (
                f"The service {service.name} was stopped and started, but ended at "
            )
            message += f"once (exit code {status.exit_code}): it is stopped."
            raise DeployError(message, hint=_HINT)
        if not asked:
            try:
                service.start()
                asked = True
            except RefusedError as exc:
                # Windows may have restarted it, or may not have finished stopping it.
                if exc.code not in _NOT_STARTED_YET:
                    raise _refusal(service, "start", exc) from exc
    seconds = time.monotonic() - began
    message = f"The service {service.name} was stopped, and did not start again in "
    message += f"{seconds:.0f} s: it is {service.status()}."
    raise DeployError(message, hint=_HINT)


def _states(service: Service, timeout: float) -> Iterator[Status]:
    """Yield the state again and again, until it shows no progress for too long.

    A new state and a new check point are progress. It may ask for more time with its
    wait hint, and has more once it stops.

    Raises:
        RefusedError: If its state cannot be read for so long.
        DeployError: If it is removed meanwhile.
    """
    began = progress = time.monotonic()
    former: Status | None = None
    while True:
        refusal, now = None, time.monotonic()
        try:
            status = service.status()
        except RefusedError as exc:  # the service manager may be busy
            refusal, status = exc, former
        if status is None and refusal is None:
            break
        if refusal is None:
            if former and status and _mark(status) != _mark(former):
                progress = now
            former = status
        patience = timeout
        if status is not None:
            patience *= STOPPING_FACTOR if status.state == STOP_PENDING else 1
            patience = max(patience, status.wait_hint / 1000)
            yield status
        now = time.monotonic()
        if now >= min(progress + patience, began + MAX_FACTOR * timeout):
            if refusal is not None:
                raise refusal
            return
        time.sleep(POLL_SECONDS)
    message = f"The service {service.name} was removed in the meantime."
    raise DeployError(message, hint=_HINT)


def _mark(status: Status) -> tuple[int, int]:
    return status.state, status.check_point


def _refusal(service: Service, doing: str, error: RefusedError) -> DeployError:
    message = f"Could not {doing} the service {service.name}: {error}"
    try:
        message += f"; it is {service.status()}"
        if error.code == DEPENDENTS_RUN and (names := service.dependents()):
            message += f", and these services depend on it: {', '.join(names)}"
    except RefusedError:
        pass
    return DeployError(f"{message}.", hint=_HINTS.get(error.code, _HINT))
