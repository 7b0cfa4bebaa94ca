"""A state folder that another user made, can change, or can put in place of ours."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from letsencrypt_mdaemon.app import build
from letsencrypt_mdaemon.config.settings import Config
from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from letsencrypt_mdaemon.system import disk, owners
from tests.hostile.attacker import UID, Attacker, open_to_all
from tests.program import Program, Ran

assert sys.platform != "win32"  # tests/windows/test_guard.py is its twin

PLANT = """
folder = pathlib.Path(sys.argv[1])
folder.mkdir(mode=0o755)
(folder / 'installation.json').write_text('{}')
(folder / 'attempt.json').write_text('nonsense')
"""
"""A damaged file is renamed as soon as it is read."""


@pytest.fixture
def shared(ground: Path) -> Path:
    """A folder like /tmp: all may make files, and only rename their own."""
    folder = ground / "shared"
    folder.mkdir()
    os.chmod(folder, 0o1777)  # noqa: PTH101, S103 - this is what the test is about
    return folder


def refused(ran: Ran, *words: str) -> str:
    """Return the hint of a run that refused its state folder."""
    assert ran.exit_code == 2, ran.messages
    error = ran.report["error"]
    for word in ("is not trusted", *words):
        assert word in error["message"]
    hint: str = error["hint"]
    assert "--state-dir" in hint
    return hint


def mend(hint: str) -> list[str]:
    """Run the commands of a hint, as an administrator would, and return them."""
    told = hint.partition("Then keep others out: ")[2].rpartition(". Or choose")[0]
    commands = told.split("; ")
    for command in commands:
        subprocess.run(shlex.split(command), check=True)
    return commands


@pytest.mark.parametrize("command", ["renew", "status", "doctor", "verify", "rollback"])
def test_a_planted_folder_is_neither_read_nor_locked(
    command: str,
    program: Program,
    ca: CertificateAuthority,
    attacker: Attacker,
    shared: Path,
) -> None:
    folder = shared / "state"
    attacker.run(PLANT, folder)

    ran = program.run(command, "--state-dir", str(folder))

    refused(ran, f"{folder}: belongs to nobody")
    assert {path.name for path in folder.iterdir()} == {
        "installation.json",
        "attempt.json",
    }
    assert ca.requests == []


def test_a_planted_folder_is_named_with_the_command_that_takes_it_over(
    program: Program, attacker: Attacker, shared: Path
) -> None:
    folder = shared / "state"
    attacker.run("os.mkdir(sys.argv[1])", folder)

    hint = refused(program.renew("--state-dir", str(folder)))

    assert mend(hint) == [f"chown -hR 0 {folder}"]
    assert program.renew("--state-dir", str(folder), "--no-reload").exit_code == 0


@pytest.mark.parametrize("name", ["lock", "installation.json", "ca/account.json", "ca"])
def test_a_single_file_of_another_user_is_refused(
    name: str, program: Program, attacker: Attacker
) -> None:
    path = program.state / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")
    os.chown(path, attacker.uid, attacker.uid)

    refused(program.here("renew"), f"{path}: belongs to nobody")

    assert path.read_text() == "{}"


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_is_refused_until_its_mode_is_mended(
    mode: int, program: Program
) -> None:
    assert program.here("renew", "--no-reload").exit_code == 0
    (account,) = program.state.glob("*/account.json")
    account.chmod(mode)

    hint = refused(
        program.here("renew", "--no-reload"), f"{account}: others can write to it"
    )

    assert mend(hint) == [f"chmod -R go-w {program.state}"]
    assert program.here("renew", "--no-reload").exit_code == 0


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777])
def test_our_folder_that_others_can_write_to_is_refused(
    mode: int, program: Program
) -> None:
    program.state.mkdir(parents=True)
    program.state.chmod(mode)

    hint = refused(program.here("renew"), f"{program.state}: others can write to it")

    assert mend(hint) == [f"chmod -R go-w {program.state}"]
    assert program.here("renew", "--no-reload").exit_code == 0


@pytest.mark.parametrize("made", [True, False])
def test_a_parent_in_which_others_can_rename_our_folder_is_refused(
    made: bool,  # noqa: FBT001 - whether the folder is there already
    program: Program,
) -> None:
    if made:
        program.state.mkdir(parents=True)
    parent = program.layout.letsencrypt
    parent.mkdir(exist_ok=True)
    open_to_all(parent)

    hint = refused(program.here("renew"), f"{parent}: others can write to it")

    assert program.state.exists() is made
    assert mend(hint) == [f"chmod go-w {parent}"]
    assert program.here("renew", "--no-reload").exit_code == 0


def test_a_parent_of_another_user_is_refused_without_a_command_for_his_folder(
    program: Program, attacker: Attacker, shared: Path
) -> None:
    attacker.run("os.mkdir(sys.argv[1])", shared / "his")
    (shared / "his" / "state").mkdir()

    ran = program.renew("--state-dir", str(shared / "his" / "state"))

    assert "chown" not in refused(ran, f"{shared / 'his'}: belongs to nobody")


def test_a_link_of_another_user_is_refused_wherever_it_leads(
    program: Program, attacker: Attacker, ground: Path, shared: Path
) -> None:
    safe = ground / "safe"
    safe.mkdir()
    attacker.run("os.symlink(sys.argv[2], sys.argv[1])", shared / "link", safe)

    for folder in (shared / "link", shared / "link" / "state"):
        ran = program.renew("--state-dir", str(folder))
        refused(ran, f"{shared / 'link'}: belongs to nobody")
    assert list(safe.iterdir()) == []


def test_a_link_of_ours_through_the_folder_of_another_user_is_refused(
    program: Program, attacker: Attacker, ground: Path, shared: Path
) -> None:
    attacker.run("os.mkdir(sys.argv[1])", shared / "his")
    (ground / "link").symlink_to(f"shared/his/../../{shared.name}/state")

    ran = program.renew("--state-dir", str(ground / "link"))

    refused(ran, f"{shared / 'his'}: belongs to nobody")


def test_a_pipe_in_place_of_the_lock_is_refused_and_not_waited_for(
    program: Program,
) -> None:
    program.state.mkdir(parents=True)
    os.mkfifo(program.state / "lock", 0o600)

    hint = refused(program.renew(), "lock: is neither a file nor a folder")

    assert mend(hint) == [f"rm {program.state / 'lock'}"]


def test_a_folder_that_is_planted_after_the_check_is_not_used(
    attacker: Attacker, shared: Path, ground: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, make = shared / "state", disk.make_private_folder

    def planted_first(path: Path) -> None:
        attacker.run("os.mkdir(sys.argv[1])", path)
        make(path)

    monkeypatch.setattr(disk, "make_private_folder", planted_first)
    with (
        pytest.raises(ConfigError, match="belongs to nobody"),
        build.locked_state(Config(state_dir=folder), ground, None),
    ):
        pass
    assert list(folder.iterdir()) == []


# What goes on working


def test_a_folder_of_ours_in_one_like_tmp_is_used(
    program: Program, shared: Path
) -> None:
    for _ in range(2):
        ran = program.renew("--state-dir", str(shared / "state"), "--no-reload")
        assert ran.exit_code == 0, ran.messages


def test_a_link_of_ours_is_followed(program: Program, ground: Path) -> None:
    (ground / "disk").mkdir()
    (ground / "link").symlink_to("disk")
    ran = program.renew("--state-dir", str(ground / "link"), "--no-reload")
    assert ran.exit_code == 0, ran.messages
    assert (ground / "disk" / "installation.json").is_file()


@pytest.mark.usefixtures("attacker")
def test_whoever_owns_mdaemons_folder_is_trusted_with_the_state_in_it(
    program: Program,
) -> None:
    # As a mounted folder shows one owner for each file, also for those that we make.
    root = program.layout.folder
    for _ in range(2):
        subprocess.run(["chown", "-hR", str(UID), str(root)], check=True)
        ran = program.renew("--no-reload")
        assert ran.exit_code == 0, ran.messages
    other = UID - 1
    (account,) = program.state.glob("*/account.json")
    os.chown(account, other, other)
    refused(program.renew(), f"{account}: belongs to user {other}")


@pytest.mark.usefixtures("attacker")
def test_he_is_not_trusted_with_a_state_folder_elsewhere(
    program: Program, ground: Path
) -> None:
    os.chown(program.layout.folder, UID, UID)
    (ground / "state").mkdir()
    os.chown(ground / "state", UID, UID)
    refused(program.renew("--state-dir", str(ground / "state")), "belongs to nobody")


@pytest.mark.usefixtures("attacker")
def test_a_group_of_the_owner_alone_may_write_to_a_parent_and_no_other(
    ground: Path,
) -> None:
    folder = ground / "group"
    folder.mkdir()
    folder.chmod(0o775)
    assert owners.doubts(folder / "state", []) == []
    os.chown(folder, -1, UID)
    (doubt,) = owners.doubts(folder / "state", [])
    assert (doubt.path, doubt.why) == (folder, "others can write to it")


def test_links_that_lead_in_a_circle_are_an_error(ground: Path) -> None:
    (ground / "a").symlink_to("b")
    (ground / "b").symlink_to("a")
    with pytest.raises(OSError, match="too many links"):
        owners.doubts(ground / "a", [os.geteuid()])
