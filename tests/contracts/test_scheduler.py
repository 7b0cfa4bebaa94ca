"""What every scheduler does: Task Scheduler, cron, and what stands for them here."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from letsencrypt_mdaemon.app import scheduling
from letsencrypt_mdaemon.app.scheduling import Scheduler
from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.system import process, schedule
from letsencrypt_mdaemon.system.schedule import Cron
from letsencrypt_mdaemon.system.tasks import TaskScheduler
from letsencrypt_mdaemon.windows.access import SYSTEM
from tests.schedulers import Crontab, Schtasks
from tests.wine import expect_difference

COMMAND = [
    "/opt/with blank/python",
    "-m",
    "letsencrypt_mdaemon",
    "--config",
    "a%b",
    "renew",
]
OTHER = [*COMMAND, "--to=me@example.test"]


def a_crontab(_: Path) -> Scheduler:
    return Cron(Path("crontab"), Crontab())


def a_task_scheduler(_: Path) -> Scheduler:
    return TaskScheduler(Path("schtasks.exe"), Schtasks(), account=SYSTEM)


SCHEDULERS: list[Callable[[Path], Scheduler]] = [a_crontab, a_task_scheduler]
if sys.platform == "win32":

    def windows_own(_: Path) -> Scheduler:
        return scheduling.of_this_system()

    SCHEDULERS.append(windows_own)


@pytest.fixture(params=SCHEDULERS)
def scheduler(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scheduler]:
    if request.param.__name__ == "windows_own":
        expect_difference(request, "Wine's schtasks /Query prints nothing")
    yield request.param(tmp_path)
    if sys.platform == "win32":
        stored = Path("C:\\windows\\System32\\Tasks") / schedule.NAME
        stored.unlink(missing_ok=True)


def test_what_is_installed_is_shown_until_it_is_removed(scheduler: Scheduler) -> None:
    assert scheduler.show() is None
    installed = scheduler.install(COMMAND)
    shown = scheduler.show()
    assert shown is not None
    assert (shown.when, shown.command) == (installed.when, installed.command)
    assert re.fullmatch(r"\d\d:\d\d, \d\d:\d\d", shown.when)
    assert "with blank" in shown.command
    assert "a%b" in shown.command
    assert scheduler.remove()
    assert scheduler.show() is None


def test_what_is_installed_again_keeps_its_time_and_gets_the_new_command(
    scheduler: Scheduler,
) -> None:
    scheduler.install(COMMAND)
    first = scheduler.show()
    scheduler.install(OTHER)
    second = scheduler.show()
    assert first is not None
    assert second is not None
    assert second.when == first.when
    assert second.command.endswith("--to=me@example.test")
    assert scheduler.remove()
    assert not scheduler.remove()


if sys.platform == "win32":

    def test_windows_own_program_takes_the_definition_and_deletes_it() -> None:
        stored = Path("C:\\windows\\System32\\Tasks") / schedule.NAME
        scheduler = scheduling.of_this_system()
        scheduler.install(COMMAND)
        assert stored.is_file()
        program = Path("C:\\windows\\System32\\schtasks.exe")
        assert process.run(program, "/Delete", "/TN", schedule.NAME, "/F").code == 0
        assert not stored.exists()


if sys.platform != "win32":

    def test_a_machine_without_cron_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(process, "FOLDERS", ("/nowhere",))
        with pytest.raises(ConfigError, match="find the program crontab"):
            scheduling.of_this_system()
