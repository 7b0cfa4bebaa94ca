"""What every service does when it is asked, and how a restart of it ends."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from letsencrypt_mdaemon.errors import DeployError
from letsencrypt_mdaemon.windows import service
from letsencrypt_mdaemon.windows.service import RUNNING, STOP_PENDING, STOPPED, Service
from tests.fakes import MemoryService
from tests.limits import HANG_SECONDS
from tests.wine import wine_differs

Make = Callable[[str], Service]


@contextmanager
def in_memory() -> Iterator[Make]:
    """Make services of memory."""
    yield MemoryService


if sys.platform == "win32":
    import win32service

    from letsencrypt_mdaemon.windows import service_manager

    PROGRAM = r"C:\service.exe"  # tests/windows/service.c

    @contextmanager
    def of_windows() -> Iterator[Make]:
        """Make services of the program, and remove them."""
        everything = win32service.SERVICE_ALL_ACCESS
        manager = win32service.OpenSCManager(
            None, None, win32service.SC_MANAGER_ALL_ACCESS
        )

        with ExitStack() as exits:
            exits.callback(win32service.CloseServiceHandle, manager)

            def add(name: str, start: int, *needs: str) -> service_manager.Service:
                handle = win32service.CreateService(
                    manager,
                    name,
                    name,
                    everything,
                    win32service.SERVICE_WIN32_OWN_PROCESS,
                    start,
                    win32service.SERVICE_ERROR_NORMAL,
                    PROGRAM,
                    None,
                    False,  # noqa: FBT003 - its name is bFetchTag, and has no keyword
                    list(needs) or None,
                    None,
                    None,
                )
                win32service.CloseServiceHandle(handle)
                exits.callback(remove, name)
                return service_manager.Service(name)

            def remove(name: str) -> None:
                handle = win32service.OpenService(manager, name, everything)
                status: Any = win32service.QueryServiceStatusEx(handle)
                win32service.DeleteService(handle)
                win32service.CloseServiceHandle(handle)
                # Some of them do not stop when they are told to.
                with suppress(OSError):
                    if status["ProcessId"]:
                        os.kill(status["ProcessId"], signal.SIGTERM)

            def make(kind: str) -> service_manager.Service:
                # One whose process still ends is still there.
                name = f"{kind}-{uuid.uuid4().hex}"
                if kind == "absent":
                    return service_manager.Service(name)
                disabled = kind == "disabled"
                made = add(
                    name,
                    win32service.SERVICE_DISABLED
                    if disabled
                    else win32service.SERVICE_DEMAND_START,
                )
                if kind not in {"dies", "disabled"}:
                    start(made)
                if kind == "needed":
                    start(
                        add(
                            f"follower-of-{name}",
                            win32service.SERVICE_DEMAND_START,
                            name,
                        )
                    )
                return made

            yield make

    def start(made: Service) -> None:
        """Start it and wait until it runs."""
        made.start()
        wait_for(made, RUNNING)

    MAKERS = [in_memory, of_windows]
    DEPENDENTS = [
        pytest.param(in_memory),
        pytest.param(of_windows, marks=wine_differs("it knows no dependent services")),
    ]
else:
    MAKERS = [in_memory]
    DEPENDENTS = [pytest.param(in_memory)]


def wait_for(made: Service, state: int) -> None:
    """Wait until a service is in a state."""
    deadline = time.monotonic() + HANG_SECONDS
    while (status := made.status()) is None or status.state != state:
        assert time.monotonic() < deadline, f"it is {status}"
        time.sleep(0.05)


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    with request.param() as maker:
        yield maker


def restart(made: Service, timeout: float = HANG_SECONDS) -> None:
    service.restart(made, timeout=timeout)


def state(made: Service) -> int | None:
    status = made.status()
    return status.state if status else None


def test_it_tells_its_state_account_and_program(make: Make) -> None:
    good = make("good")

    assert state(good) == RUNNING
    assert good.account() == "LocalSystem"
    assert good.program().lower().endswith(".exe")
    assert not good.is_disabled()
    assert list(good.dependents()) == []


def test_one_that_is_not_there_is_told(make: Make) -> None:
    absent = make("absent")

    assert absent.status() is None
    assert not service.is_stopped(absent)
    for ask in (absent.account, absent.program, absent.stop, absent.start):
        with pytest.raises(service.RefusedError) as caught:
            ask()
        assert caught.value.code == 1060
    with pytest.raises(DeployError, match="There is no service"):
        restart(absent)


@pytest.mark.parametrize("kind", ["good", "slow"])
def test_a_restart_ends_when_it_runs_again(make: Make, kind: str) -> None:
    made = make(kind)

    restart(made)

    assert state(made) == RUNNING


def test_a_stopped_one_is_started(make: Make) -> None:
    good = make("good")
    good.stop()
    wait_for(good, STOPPED)
    assert service.is_stopped(good)

    restart(good)

    assert state(good) == RUNNING


def test_one_that_never_stops_is_not_started(make: Make) -> None:
    never = make("never")

    with pytest.raises(DeployError) as caught:
        restart(never, timeout=1)

    assert re.fullmatch(
        rf"The service {never.name} did not stop in \d+ s: it is stopping\. "
        r"It was not started again\. The next run starts it if it is stopped by then\.",
        caught.value.message,
    )
    assert caught.value.hint
    assert state(never) == STOP_PENDING


def test_one_that_dies_at_start_is_told_with_its_exit_code(make: Make) -> None:
    dies = make("dies")

    with pytest.raises(DeployError) as caught:
        restart(dies)

    assert caught.value.message == (
        f"The service {dies.name} was stopped and started, but ended at once "
        "(exit code 1067): it is stopped."
    )


def test_a_disabled_one_is_neither_stopped_nor_started(make: Make) -> None:
    disabled = make("disabled")
    assert disabled.is_disabled()
    with pytest.raises(service.RefusedError) as refused:
        disabled.start()
    assert refused.value.code == service.DISABLED

    with pytest.raises(DeployError, match=r"disabled \(Windows error 1058\)"):
        restart(disabled)

    assert state(disabled) == STOPPED


@pytest.mark.parametrize("make", DEPENDENTS, indirect=True)
def test_one_that_others_need_stays_and_they_are_named(make: Make) -> None:
    needed = make("needed")

    with pytest.raises(DeployError) as caught:
        restart(needed)

    assert "(Windows error 1051); it is running" in caught.value.message
    assert "follower" in caught.value.message
    assert state(needed) == RUNNING


def test_asking_twice_for_a_stop_or_a_start_is_refused(make: Make) -> None:
    never = make("never")
    with pytest.raises(service.RefusedError) as running:
        never.start()
    never.stop()
    wait_for(never, STOP_PENDING)
    with pytest.raises(service.RefusedError) as stopping:
        never.stop()

    assert running.value.code == service.ALREADY_RUNNING
    assert stopping.value.code == service.CANNOT_NOW


def test_a_stopped_one_cannot_be_stopped(make: Make) -> None:
    dies = make("dies")

    with pytest.raises(service.RefusedError) as caught:
        dies.stop()

    assert caught.value.code == service.NOT_ACTIVE
