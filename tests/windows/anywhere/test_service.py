"""A restart of the service that goes wrong at any of its steps is told."""

from __future__ import annotations

from pathlib import PureWindowsPath

import pytest

from letsencrypt_mdaemon.errors import DeployError
from letsencrypt_mdaemon.windows import service
from letsencrypt_mdaemon.windows.service import (
    CANNOT_NOW,
    DENIED,
    RUNNING,
    START_PENDING,
    STOP_PENDING,
    STOPPED,
    RefusedError,
    Status,
)
from tests.fakes import MemoryService
from tests.limits import HANG_SECONDS


@pytest.fixture(autouse=True)
def _poll_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "POLL_SECONDS", 0)


def restart(made: MemoryService, timeout: float = HANG_SECONDS) -> None:
    service.restart(made, timeout=timeout)


@pytest.mark.parametrize(
    ("program", "ours"),
    [
        (r"C:\MDaemon\App\MDaemon.exe", True),
        (r'"c:\mdaemon\APP\MDaemon.exe" /service', True),
        (r"C:\MDaemon2\App\MDaemon.exe", False),
        (r"D:\MDaemon\App\MDaemon.exe", False),
        ("", False),
    ],
)
def test_a_service_is_ours_if_its_program_is_in_the_servers_folder(
    program: str, *, ours: bool
) -> None:
    root = PureWindowsPath("C:/MDaemon/")

    assert service.is_of(MemoryService(program=program), root) is ours


def test_one_that_starts_just_now_is_stopped_once_it_has_started() -> None:
    good = MemoryService()
    good.now = Status(START_PENDING)

    restart(good)

    assert good.done == ["stop", "start"]


def test_one_that_stops_just_now_is_only_started() -> None:
    good = MemoryService()
    good.now = Status(STOP_PENDING)

    restart(good)

    assert good.done == ["start"]


def test_one_that_windows_starts_by_itself_is_let_be() -> None:
    class Recovering(MemoryService):
        def start(self) -> None:
            self.now = Status(START_PENDING)
            super().start()

    good = Recovering()

    restart(good)

    assert good.status() == Status(RUNNING)
    assert good.done == ["stop"]


def test_one_that_cannot_be_asked_just_now_is_asked_again() -> None:
    class Busy(MemoryService):
        refusals = 2

        def stop(self) -> None:
            if self.refusals:
                self.refusals -= 1
                raise RefusedError(CANNOT_NOW, "Not now.")
            super().stop()

    good = Busy()

    restart(good)

    assert good.done == ["stop", "start"]


def test_one_that_hangs_while_it_starts_is_told() -> None:
    class Hanging(MemoryService):
        def status(self) -> Status | None:
            if self.now.state == START_PENDING:
                return self.now
            return super().status()

    with pytest.raises(DeployError) as caught:
        restart(Hanging(), timeout=0.1)

    assert caught.value.message == (
        "The service good was stopped, and did not start again in 0 s: it is starting."
    )


def test_one_that_may_not_be_started_again_is_told_as_stopped() -> None:
    class Odd(MemoryService):
        def start(self) -> None:
            raise RefusedError(DENIED, "Access is denied.")

    with pytest.raises(DeployError) as caught:
        restart(Odd())

    assert caught.value.message == (
        "Could not start the service good: Access is denied (Windows error 5); it is "
        "stopped."
    )
    assert "administrator" in caught.value.hint


def test_one_that_is_removed_meanwhile_is_told() -> None:
    class Vanishing(MemoryService):
        def stop(self) -> None:
            self.kind = "absent"

    with pytest.raises(DeployError, match="was removed in the meantime"):
        restart(Vanishing())


def test_one_that_cannot_even_be_looked_at_is_told_and_not_known_to_be_stopped() -> (
    None
):
    class Secret(MemoryService):
        def status(self) -> Status | None:
            raise RefusedError(DENIED, "Access is denied.")

    secret = Secret()

    assert not service.is_stopped(secret)
    with pytest.raises(DeployError) as caught:
        restart(secret)
    assert caught.value.message == (
        "Could not restart the service good: Access is denied (Windows error 5)."
    )


@pytest.mark.parametrize(
    ("state", "words"), [(STOPPED, "stopped"), (7, "paused"), (99, "in state 99")]
)
def test_a_state_is_told_in_words(state: int, words: str) -> None:
    assert str(Status(state)) == words


def test_one_that_runs_and_could_not_be_started_again_is_not_stopped() -> None:
    disabled = MemoryService("disabled")
    disabled.now = Status(RUNNING)

    with pytest.raises(DeployError, match="is running and disabled"):
        restart(disabled)

    assert disabled.done == []
    assert disabled.status() == Status(RUNNING)
