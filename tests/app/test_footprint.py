"""What the setup program for Windows has removed, and what it leaves."""

from __future__ import annotations

import sys
from pathlib import Path, PureWindowsPath
from unittest.mock import Mock

import pytest

from letsencrypt_mdaemon.app import footprint, scheduling, trust
from letsencrypt_mdaemon.errors import BusyError, ConfigError
from letsencrypt_mdaemon.system import drop_in, schedule
from letsencrypt_mdaemon.system.locks import exclusive_lock
from letsencrypt_mdaemon.system.tasks import TaskScheduler
from letsencrypt_mdaemon.windows.access import SYSTEM
from tests.program import Program, here
from tests.schedulers import Schtasks

PROGRAM = PureWindowsPath(r"C:\Program Files\letsencrypt-mdaemon\x.exe")
COMMAND = "remove-from-windows"


@pytest.fixture
def schtasks() -> Schtasks:
    return Schtasks()


@pytest.fixture
def scheduler(schtasks: Schtasks) -> TaskScheduler:
    return TaskScheduler(Path("schtasks.exe"), schtasks, account=SYSTEM)


def removed(scheduler: TaskScheduler) -> list[str]:
    return footprint.remove_schedule(scheduler, Path(str(PROGRAM)))


def test_the_task_that_runs_this_program_is_removed(
    scheduler: TaskScheduler, schtasks: Schtasks
) -> None:
    scheduler.install([str(PROGRAM).upper(), "renew", "--scheduled"])

    assert removed(scheduler) == ["removed the scheduled task"]
    assert not schtasks.tasks
    assert removed(scheduler) == []


@pytest.mark.parametrize(
    "other", [r"C:\Python\python.exe", f"{PROGRAM}.old.exe", f"{PROGRAM} 2"]
)
def test_the_task_of_another_installation_is_left(
    scheduler: TaskScheduler, schtasks: Schtasks, other: str
) -> None:
    scheduler.install([other, "renew"])

    (done,) = removed(scheduler)

    assert done.startswith("left the scheduled task, which runs another program: ")
    assert other in done
    assert schtasks.tasks


def test_another_programs_task_of_our_name_is_left(
    scheduler: TaskScheduler, schtasks: Schtasks
) -> None:
    schtasks.tasks[schedule.NAME] = "<Task/>"

    (done,) = removed(scheduler)

    assert done.startswith("left a task of that name: ")
    assert schtasks.tasks


@pytest.fixture
def _installed(
    scheduler: TaskScheduler, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Let this be what a setup program has installed."""
    monkeypatch.setattr(footprint, "folder", lambda: tmp_path)
    monkeypatch.setattr(scheduling, "of_this_system", lambda: scheduler)
    scheduler.install([sys.executable, "renew", "--scheduled"])


@pytest.mark.usefixtures("_installed")
def test_the_state_stays_unless_it_is_to_go(program: Program) -> None:
    program.state.mkdir(parents=True)
    (program.state / "backups").mkdir()
    (program.state / "backups" / "file").write_bytes(b"x")
    (program.state / "installation.json").write_bytes(b"{}")
    before = program.snapshot()

    first = program.here(COMMAND)
    assert first.report["done"] == ["removed the scheduled task"]
    assert (program.state / "installation.json").exists()
    second = program.here(COMMAND, "--delete-state")

    assert second.report["done"] == [f"deleted {program.state}"]
    assert not program.state.exists()
    assert program.snapshot() == before
    third = program.here(COMMAND, "--delete-state", as_json=False)
    assert third.output == "Nothing to do.\n"
    assert not program.state.exists()


@pytest.fixture
def place(program: Program) -> Path:
    """Where our LetsEncrypt.ps1 is, which runs this program."""
    found = program.layout.letsencrypt / drop_in.NAME
    found.parent.mkdir(exist_ok=True)
    found.write_bytes(drop_in.script([sys.executable.upper(), "renew"], {}, {}))
    return found


@pytest.mark.usefixtures("_installed")
def test_a_script_that_runs_this_program_goes_and_the_vendors_returns(
    program: Program, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust, "require_script", lambda *_: None)
    kept = place.with_name(drop_in.KEPT)
    kept.write_bytes(b"the vendor's")

    ran = program.here(COMMAND)

    assert ran.report["done"][1:] == [f"put MDaemon's own {place} back"]
    assert place.read_bytes() == b"the vendor's"
    assert not kept.exists()
    # And where there was none, none is left.
    place.write_bytes(drop_in.script([sys.executable, "renew"], {}, {}))
    ran = program.here(COMMAND)
    assert ran.report["done"] == [f"removed {place}"]
    assert not place.exists()


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize(
    "other",
    [
        b"the vendor's",
        drop_in.script(["/another/program", "renew"], {}, {}),
        drop_in.script([f"{sys.executable}2", sys.executable], {}, {}),
    ],
)
def test_the_script_of_another_installation_is_left(
    program: Program, place: Path, other: bytes
) -> None:
    place.write_bytes(other)

    ran = program.here(COMMAND)

    assert ran.report["done"] == ["removed the scheduled task"]
    assert place.read_bytes() == other


@pytest.mark.usefixtures("_installed")
def test_a_vendors_script_that_cannot_be_trusted_does_not_hinder_the_rest(
    program: Program, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = Mock(side_effect=ConfigError("Others can change it.", hint=""))
    monkeypatch.setattr(trust, "require_script", refusal)
    kept = place.with_name(drop_in.KEPT)
    kept.write_bytes(b"others may have changed it")
    program.state.mkdir(parents=True)
    before = place.read_bytes()

    ran = program.here(COMMAND, "--delete-state")

    _, left, deleted = ran.report["done"]
    assert left == f"left {place}, which runs this program: Others can change it."
    assert deleted == f"deleted {program.state}"
    assert place.read_bytes() == before


@pytest.mark.usefixtures("_installed")
def test_a_state_that_a_run_uses_is_left_whole(program: Program) -> None:
    program.state.mkdir(parents=True)
    (program.state / "installation.json").write_bytes(b"{}")
    with exclusive_lock(program.state / "lock"):
        ran = program.here(COMMAND, "--delete-state")

    assert ran.exit_code == BusyError.exit_code
    assert ran.report["error"]["type"] == "BusyError"
    assert (program.state / "installation.json").exists()


@pytest.mark.usefixtures("_installed")
def test_the_rest_is_removed_where_no_mdaemon_is_left(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")

    ran = here([COMMAND, "--delete-state", "--mdaemon-dir", nowhere, "--json"])

    task, state = ran.report["done"]
    assert (ran.exit_code, task) == (0, "removed the scheduled task")
    assert state.startswith("left LetsEncrypt.ps1 and the state folder: ")


@pytest.mark.usefixtures("_installed")
def test_nothing_is_removed_if_the_task_cannot_be(
    program: Program, schtasks: Schtasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    program.state.mkdir(parents=True)
    schtasks.refuses = True
    path = Mock()
    monkeypatch.setattr(footprint, "remove_from_path", path)

    ran = program.here(COMMAND, "--delete-state")

    assert ran.exit_code == 5
    assert program.state.exists()
    assert not path.called


@pytest.mark.parametrize("command", ["add-to-windows", COMMAND])
def test_a_program_that_no_setup_program_installed_refuses(command: str) -> None:
    ran = here([command])

    assert ran.exit_code == 2
    assert "Only the program that the setup program for Windows installs" in (
        ran.messages
    )
