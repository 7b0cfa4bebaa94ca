"""A restart of the service that goes wrong at any of its steps is told."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath

import pytest

from letsencrypt_mdaemon.errors import DeployError
from letsencrypt_mdaemon.windows import service
from letsencrypt_mdaemon.windows.service import (
    CANNOT_NOW,
    DATABASE_LOCKED,
    DENIED,
    REQUEST_TIMEOUT,
    RUNNING,
    START_PENDING,
    STOP_PENDING,
    STOPPED,
    RefusedError,
    Status,
)
from tests.fakes import MemoryService
from tests.limits import HANG_SECONDS
from tests.wine import wine_differs


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
        (r"\\?\C:\MDaemon\App\MDaemon.exe", True),
        (r"C:\MDaemon2\App\MDaemon.exe", False),
        (r"C:\Other\App\MDaemon.exe C:\MDaemon\App", False),
        (r"D:\MDaemon\App\MDaemon.exe", False),
        ("", False),
    ],
)
def test_a_service_is_ours_if_its_program_is_in_the_servers_folder(
    program: str, *, ours: bool
) -> None:
    root = PureWindowsPath("C:/MDaemon/")

    assert service.is_of(MemoryService(program=program), root) is ours


@wine_differs("its symbolic links lead nowhere")
@pytest.mark.parametrize("form", ['"{}" /service', "{} /service", "{}"])
def test_a_service_is_ours_by_whichever_path_its_program_is_reached(
    tmp_path: Path, form: str
) -> None:
    root = tmp_path / "real folder"
    program = root / "App" / "MDaemon.exe"
    program.parent.mkdir(parents=True)
    program.touch()
    link = tmp_path / "a link"
    link.symlink_to(root, target_is_directory=True)
    other = tmp_path / "other"
    other.mkdir()
    made = MemoryService(program=form.format(link / "App" / "MDaemon.exe"))

    assert service.is_of(made, root)
    assert not service.is_of(made, other)


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

    assert re.fullmatch(
        r"The service good was stopped, and did not start again in \d s: it is "
        r"starting\.",
        caught.value.message,
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


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(service, "POLL_SECONDS", 1)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        """Let it pass."""
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Slow(MemoryService):
    """A service that takes its time to stop: what Windows shows of it meanwhile."""

    def __init__(self, *steps: Status) -> None:
        super().__init__()
        self.steps = iter(steps)

    def status(self) -> Status | None:
        """Return the next step once it has been asked to stop."""
        if self.now.state == STOP_PENDING:
            return next(self.steps, None) or super().status()
        return super().status()


def pending(check_point: int = 0, wait_hint: int = 0) -> Status:
    return Status(STOP_PENDING, 0, check_point, wait_hint)


@pytest.mark.parametrize(
    "steps",
    [
        [pending()] * 800,
        [pending(number) for number in range(3000)],
        [pending(1, 2_000_000)] * 1900,
    ],
    ids=["silent", "check points", "wait hint"],
)
def test_a_stop_that_takes_long_is_waited_for_and_then_it_is_started(
    clock: Clock, steps: list[Status]
) -> None:
    slow = Slow(*steps)

    service.restart(slow)

    assert slow.done == ["stop", "start"]
    assert slow.status() == Status(RUNNING)
    assert clock.now >= len(steps)


@pytest.mark.parametrize(
    ("steps", "seconds"),
    [
        (itertools.repeat(pending()), 900),
        (itertools.repeat(pending(1, 60_000)), 900),
        ((pending(number) for number in itertools.count()), 3600),
    ],
)
def test_a_stop_without_an_end_is_given_up_at_last(
    clock: Clock, steps: Iterator[Status], seconds: int
) -> None:
    endless = Slow()
    endless.steps = steps

    with pytest.raises(DeployError, match="The next run starts it"):
        service.restart(endless)

    assert endless.done == ["stop"]
    assert seconds <= clock.now <= seconds + 2


@pytest.mark.parametrize("has_begun", [True, False])
def test_one_that_does_not_answer_when_it_is_stopped_is_started_all_the_same(
    clock: Clock, *, has_begun: bool
) -> None:
    class Mute(MemoryService):
        answers = 0

        def stop(self) -> None:
            clock.sleep(30)
            self.answers += 1
            if has_begun or self.answers > 2:
                super().stop()
            if self.answers <= 2:
                raise RefusedError(REQUEST_TIMEOUT, "It did not respond in time.")

    mute = Mute()

    service.restart(mute)

    assert mute.done == ["stop", "start"]
    assert mute.status() == Status(RUNNING)


@pytest.mark.parametrize("code", [REQUEST_TIMEOUT, DATABASE_LOCKED])
def test_one_that_cannot_be_started_just_now_is_started_again(
    clock: Clock, code: int
) -> None:
    class Late(MemoryService):
        refusals = 3

        def start(self) -> None:
            if self.refusals:
                self.refusals -= 1
                clock.sleep(30)
                raise RefusedError(code, "Not now.")
            super().start()

    late = Late()

    service.restart(late)

    assert late.done == ["stop", "start"]


def test_a_state_that_cannot_be_read_for_a_moment_leaves_it_not_stopped(
    clock: Clock,
) -> None:
    class Busy(MemoryService):
        looks = 0

        def status(self) -> Status | None:
            self.looks += 1
            if 2 < self.looks < 100:
                raise RefusedError(1723, "The RPC server is too busy.")
            return super().status()

    busy = Busy()

    service.restart(busy)

    assert busy.done == ["stop", "start"]
    assert clock.now > 90


def test_who_is_interrupted_starts_it_if_it_is_stopped(clock: Clock) -> None:
    class Watched(MemoryService):
        def status(self) -> Status | None:
            found = super().status()
            if found == Status(STOPPED) and not self.done.count("start"):
                raise KeyboardInterrupt
            return found

    watched = Watched()

    with pytest.raises(KeyboardInterrupt):
        service.restart(watched)

    assert watched.done == ["stop", "start"]
    assert clock.now < 900


@pytest.mark.parametrize(
    ("state", "done"),
    [(STOPPED, ["start"]), (STOP_PENDING, ["start"]), (RUNNING, []), (7, [])],
)
def test_one_is_started_later_only_if_it_is_still_stopped(
    clock: Clock, state: int, done: list[str]
) -> None:
    left = MemoryService()
    left.now = Status(state)

    assert service.resume(left) is bool(done)

    assert left.done == done
    assert clock.now < 900


def test_one_that_cannot_be_started_later_is_told() -> None:
    left = MemoryService("disabled")

    with pytest.raises(DeployError, match="Could not start the service disabled"):
        service.resume(left)
    assert not service.resume(MemoryService("absent"))
