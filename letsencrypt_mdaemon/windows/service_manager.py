"""A Windows service, by the service control manager."""

from __future__ import annotations

import sys
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

assert sys.platform == "win32"  # noqa: S101 - tells the type checker

import pywintypes  # noqa: E402 - Windows only
import win32service  # noqa: E402

from letsencrypt_mdaemon.windows.service import NAME, RefusedError, Status  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

_DOES_NOT_EXIST = 1060


class Service:
    """A service by its name: `service.Service`.

    No handle outlives a call: an open one would delay the removal of a service.
    """

    def __init__(self, name: str = NAME) -> None:
        self.name = name

    def status(self) -> Status | None:
        """Return the state of the service; None if there is no such service."""
        try:
            with self._opened(win32service.SERVICE_QUERY_STATUS) as handle:
                found: Any = win32service.QueryServiceStatusEx(handle)
        except RefusedError as exc:
            if exc.code == _DOES_NOT_EXIST:
                return None
            raise
        return Status(
            found["CurrentState"],
            found["Win32ExitCode"],
            found["CheckPoint"],
            found["WaitHint"],
        )

    def account(self) -> str:
        """Return the account that runs the service, such as LocalSystem."""
        return str(self._configuration()[7])

    def program(self) -> str:
        """Return the command line that starts the service."""
        return str(self._configuration()[3])

    def is_disabled(self) -> bool:
        """Whether the service is disabled and cannot be started."""
        return bool(self._configuration()[1] == win32service.SERVICE_DISABLED)

    def dependents(self) -> list[str]:
        """Return the names of the running services that depend on this one."""
        with self._opened(win32service.SERVICE_ENUMERATE_DEPENDENTS) as handle:
            found = win32service.EnumDependentServices(
                handle, win32service.SERVICE_ACTIVE
            )
        return [str(item[0]) for item in found]

    def stop(self) -> None:
        """Ask the service to stop, if we may start it again; do not wait."""
        # An account that may stop it but not start it must not stop it.
        both = win32service.SERVICE_STOP | win32service.SERVICE_START
        with self._opened(both) as handle:
            win32service.ControlService(handle, win32service.SERVICE_CONTROL_STOP)

    def start(self) -> None:
        """Ask the service to start; do not wait."""
        with self._opened(win32service.SERVICE_START) as handle:
            win32service.StartService(handle, None)

    def _configuration(self) -> tuple[Any, ...]:
        with self._opened(win32service.SERVICE_QUERY_CONFIG) as handle:
            return tuple(win32service.QueryServiceConfig(handle))

    @contextmanager
    def _opened(self, access: int) -> Iterator[Any]:
        windows: Any = win32service  # its stubs do not know that a handle closes
        connect = win32service.SC_MANAGER_CONNECT
        try:
            with (
                closing(windows.OpenSCManager(None, None, connect)) as manager,
                closing(windows.OpenService(manager, self.name, access)) as handle,
            ):
                yield handle
        except pywintypes.error as exc:
            raise RefusedError(exc.winerror, str(exc.strerror)) from exc
