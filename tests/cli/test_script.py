"""`script install` and `script remove`: the old script's name runs this program."""

from __future__ import annotations

import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from letsencrypt_mdaemon.app import scheduling, script, trust
from letsencrypt_mdaemon.cli import legacy
from letsencrypt_mdaemon.config.load import FILE_NAME
from letsencrypt_mdaemon.errors import ConfigError, Doubt
from letsencrypt_mdaemon.state.folder import State
from letsencrypt_mdaemon.system import disk, drop_in
from letsencrypt_mdaemon.system.handles import Folder
from letsencrypt_mdaemon.system.schedule import Cron
from tests.program import Program, Ran
from tests.schedulers import Crontab
from tests.wine import wine_differs

VENDORS = b"# LetsEncrypt.ps1 of MDaemon\r\nparam($To)\r\n"


@pytest.fixture(autouse=True)
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the commands run here, from a checkout that belongs to anybody."""
    monkeypatch.setattr(script, "_require_powershell", lambda: None)
    monkeypatch.setattr(trust, "program_doubts", lambda *_: [])
    monkeypatch.setattr(trust, "require_script", lambda *_: None)
    monkeypatch.setattr(scheduling, "_require_isolated", lambda _: None)


@pytest.fixture
def place(beside: Program) -> Path:
    """The vendor's script."""
    path = beside.layout.letsencrypt / drop_in.NAME
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(VENDORS)
    return path


def kept(place: Path) -> Path:
    """Return where the vendor's script is kept."""
    return place.with_name("LetsEncrypt.ps1.vendor")


def text(ran: Ran) -> str:
    """Return what a command printed, in one line."""
    assert ran.exit_code == 0, ran.messages
    return " ".join(ran.output.split())


def test_install_writes_ours_and_keeps_the_vendor_s_and_remove_puts_it_back(
    beside: Program, place: Path
) -> None:
    ran = beside.here("script install")
    assert ran.exit_code == 0, ran.messages
    assert ran.report["changed"]
    assert ran.report["ours"]
    assert ran.report["kept"] == str(kept(place))
    assert kept(place).read_bytes() == VENDORS
    assert drop_in.is_ours(place)
    command = State(beside.state).load().script
    assert place.read_bytes() == legacy.script(command)
    assert command[:4] == (sys.executable, "-I", "-m", "letsencrypt_mdaemon")
    assert command[-2:] == ("renew", f"--mdaemon-dir={beside.layout.folder}")

    ran = beside.here("script remove")
    assert ran.exit_code == 0, ran.messages
    assert ran.report["changed"]
    assert not ran.report["ours"]
    assert place.read_bytes() == VENDORS
    assert not kept(place).exists()
    assert State(beside.state).load().script == ()
    left = {path.name for path in place.parent.iterdir()}
    assert left == {place.name, beside.state.name}


def test_both_commands_do_once_what_is_asked_twice(
    beside: Program, place: Path
) -> None:
    beside.here("script install")
    status = place.stat()
    again = beside.here("script install")
    assert not again.report["changed"]
    assert "already" in again.report["verdict"]
    assert place.stat().st_ino == status.st_ino
    assert kept(place).read_bytes() == VENDORS

    beside.here("script remove")
    again = beside.here("script remove")
    assert not again.report["changed"]
    assert "nothing to remove" in again.report["verdict"]
    assert place.read_bytes() == VENDORS


def test_without_a_vendor_s_script_there_is_none_afterwards(
    beside: Program, place: Path
) -> None:
    place.unlink()
    ran = beside.here("script install")
    assert ran.report["kept"] is None
    assert drop_in.is_ours(place)
    beside.here("script remove")
    assert not place.exists()


def test_the_vendor_s_comes_back_where_somebody_deleted_ours(
    beside: Program, place: Path
) -> None:
    beside.here("script install")
    place.unlink()
    assert beside.here("script remove").report["changed"]
    assert place.read_bytes() == VENDORS


def test_a_dry_run_says_what_it_would_do_and_changes_nothing(
    beside: Program, place: Path
) -> None:
    before = beside.snapshot()
    ran = beside.here("script install", "--dry-run")
    assert ran.exit_code == 0
    assert ran.report["changed"]
    assert ran.report["verdict"] == f"Dry run: {place} would run this program."
    assert beside.snapshot() == before
    assert not beside.state.exists()

    beside.here("script install")
    before = beside.snapshot()
    shown = text(beside.here("script remove", "--dry-run", as_json=False))
    assert shown == f"Dry run: {place} would be replaced or removed."
    assert beside.snapshot() == before
    assert State(beside.state).load().script


def test_the_text_says_where_the_old_script_is(beside: Program, place: Path) -> None:
    shown = text(beside.here("script install", as_json=False))
    assert shown == (
        f"{place} runs this program. The old script is kept as LetsEncrypt.ps1.vendor."
    )
    shown = text(beside.here("script remove", as_json=False))
    assert f"{place} is the old script again." in shown


def test_the_script_names_the_config_file_in_use(beside: Program, place: Path) -> None:
    config = place.with_name(FILE_NAME)
    config.write_text("[letsencrypt-mdaemon]\nagree-tos = yes\n")
    beside.here("script install")
    words = State(beside.state).load().script
    assert words[words.index("--config") + 1] == str(config)


@pytest.mark.skipif(sys.platform == "win32", reason="there it is written")
def test_elsewhere_than_on_windows_nothing_is_written(
    beside: Program, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    ran = beside.here("script install")
    assert ran.exit_code == 2
    assert "is for Windows PowerShell" in ran.report["error"]["message"]
    assert place.read_bytes() == VENDORS


def test_in_a_folder_that_others_can_change_nothing_is_written(
    beside: Program, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = set()

    def doubts(_: Path | None, root: Path, *more: Path) -> list[Doubt]:
        assert root == beside.layout.folder
        asked.add(more)
        return [Doubt(place.parent, "Users can change it")]

    monkeypatch.setattr(trust, "program_doubts", doubts)
    ran = beside.here("script install")
    assert ran.exit_code == 2
    assert "Users can change it" in ran.report["error"]["message"]
    assert asked == {(place.parent, place, kept(place))}
    assert place.read_bytes() == VENDORS
    assert not kept(place).exists()


def test_a_script_that_others_made_is_not_put_back(
    beside: Program, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside.here("script install")

    def refuse(file: Path, root: Path) -> None:
        raise ConfigError(f"{file} in {root} belongs to a stranger.")

    monkeypatch.setattr(trust, "require_script", refuse)
    ran = beside.here("script remove")
    assert ran.exit_code == 2
    assert f"{kept(place)} in" in ran.report["error"]["message"]
    assert drop_in.is_ours(place)
    assert kept(place).read_bytes() == VENDORS


@wine_differs("renames the file that a link leads to, and not the link")
def test_a_link_in_its_place_is_moved_aside_and_not_written_through(
    beside: Program, place: Path, tmp_path: Path
) -> None:
    target = tmp_path / "precious.ps1"
    target.write_bytes(VENDORS)
    place.unlink()
    place.symlink_to(target)
    assert beside.here("script install").exit_code == 0
    assert target.read_bytes() == VENDORS
    assert not place.is_symlink()
    assert drop_in.is_ours(place)
    assert kept(place).is_symlink()


def test_a_folder_in_its_place_is_refused_by_name(beside: Program, place: Path) -> None:
    place.unlink()
    place.mkdir()
    ran = beside.here("script install")
    assert ran.exit_code == 2
    assert f"Could not read {place}: it is a folder." in ran.report["error"]["message"]


def test_the_vendor_s_stays_where_ours_cannot_be_put_in_its_place(
    beside: Program, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Folder.rename

    def refuse(self: Folder, name: str, to: str) -> None:
        if to == drop_in.NAME and name.endswith(".tmp"):
            raise PermissionError(13, "Access is denied")
        rename(self, name, to)

    monkeypatch.setattr(Folder, "rename", refuse)
    ran = beside.here("script install")
    assert ran.exit_code == 2
    assert "Access is denied" in ran.report["error"]["message"]
    assert place.read_bytes() == VENDORS
    assert not kept(place).exists()
    assert not disk.neighbours(place)


@pytest.mark.skipif(sys.platform == "win32", reason="modes are of POSIX")
def test_ours_can_be_read_by_all_and_written_by_nobody_else(
    beside: Program, place: Path
) -> None:
    beside.here("script install")
    assert stat.S_IMODE(place.stat().st_mode) == 0o644


UPDATED = b"# LetsEncrypt.ps1 of a later MDaemon\r\n"


def _update(place: Path) -> None:
    place.write_bytes(UPDATED)


def _delete(place: Path) -> None:
    place.unlink()


def _block(place: Path) -> None:
    place.unlink()
    place.mkdir()


@pytest.mark.parametrize(
    ("happens", "says"),
    [
        (_update, "is not this program's any more (an MDaemon update?)"),
        (_delete, "is gone"),
        (_block, "could not be checked"),
    ],
)
def test_status_and_check_notice_what_happened_to_ours(
    secure: Program,
    happens: Callable[[Path], None],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cron = Cron(Path("crontab"), Crontab())
    monkeypatch.setattr(scheduling, "of_this_system", lambda: cron)
    place = secure.layout.letsencrypt / drop_in.NAME
    assert secure.here("status").report["script"] == {
        "installed": False,
        "warning": None,
    }
    assert "script" not in secure.here("status", as_json=False).output

    place.write_bytes(VENDORS)
    secure.here("script install")
    assert secure.here("status").report["script"] == {
        "installed": True,
        "warning": None,
    }
    shown = " ".join(secure.here("status", as_json=False).output.split())
    assert "script LetsEncrypt.ps1 runs this program" in shown
    assert drop_in.NAME not in secure.here("check", as_json=False).output

    happens(place)
    warning = secure.here("status").report["script"]["warning"]
    assert warning.startswith(f"{place} {says}")
    assert warning in " ".join(secure.here("status", as_json=False).output.split())
    problems = secure.here("check").report["problems"]
    assert {"state": "WARNING", "text": warning} in problems


def test_after_an_update_install_keeps_the_new_vendor_s_script(
    beside: Program, place: Path
) -> None:
    beside.here("script install")
    _update(place)
    assert script.flaw(State(beside.state).load().script, beside.layout.folder)
    ran = beside.here("script install")
    assert ran.report["changed"]
    assert kept(place).read_bytes() == UPDATED
    assert script.flaw(State(beside.state).load().script, beside.layout.folder) == ""


def test_remove_leaves_what_an_update_brought_back(
    beside: Program, place: Path
) -> None:
    beside.here("script install")
    _update(place)
    shown = text(beside.here("script remove", as_json=False))
    assert shown == (
        f"{place} is not this program's: nothing to remove. "
        "An earlier old script is in LetsEncrypt.ps1.vendor. You can delete it."
    )
    assert place.read_bytes() == UPDATED
    assert State(beside.state).load().script == ()


@pytest.mark.parametrize("gone", [0, 1])
def test_a_program_or_config_file_that_is_gone_is_named(
    beside: Program, place: Path, tmp_path: Path, gone: int
) -> None:
    files = [tmp_path / "program.exe", tmp_path / "x.ini"]
    for file in files:
        file.touch()
    command = (str(files[0]), "--config", str(files[1]), "renew")
    place.write_bytes(legacy.script(command))
    assert script.flaw(command, beside.layout.folder) == ""
    files[gone].unlink()
    says = f"{place} needs {files[gone]}, which is not there: {script.AGAIN}"
    assert script.flaw(command, beside.layout.folder) == says
