"""What a folder's name, the working directory, and the environment make us run."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import venv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest

from letsencrypt_mdaemon.app import trust
from letsencrypt_mdaemon.cli import commands
from letsencrypt_mdaemon.errors import Doubt, Error
from letsencrypt_mdaemon.system import process
from letsencrypt_mdaemon.system.process import Ended
from tests.limits import HANG_SECONDS
from tests.program import Program, environment

PLANTED = """
import os, pathlib
pathlib.Path(os.environ["PLANTED_RAN"]).touch()
"""


@pytest.fixture
def crontab(ground: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's crontab, which keeps its lines in a file."""
    folder, kept = ground / "bin", ground / "kept"
    folder.mkdir()
    program = folder / "crontab"
    program.write_text(
        f'#!/bin/sh\ncase "$1" in -l) cat {kept} ;; *) cat > {kept} ;; esac'
    )
    program.chmod(0o755)
    kept.write_text("# theirs\n")
    monkeypatch.setattr(process, "FOLDERS", (str(folder),))
    return kept


@pytest.fixture
def planted(ground: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with modules that another user named like those of ours."""
    folder = ground / "planted"
    for name in ("click", "letsencrypt_mdaemon", "cryptography", "runpy", "site"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(PLANTED)
    monkeypatch.setenv("PLANTED_RAN", str(ground / "ran"))
    return folder


def test_a_line_break_in_the_working_directory_is_no_line_of_roots_crontab(
    beside: Program, crontab: Path, ground: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = ground / "x\n* * * * * touch owned #"
    evil.mkdir()
    monkeypatch.chdir(evil)

    ran = beside.here("schedule install", "--webroot", "web")

    assert ran.exit_code == 2
    assert "line break" in ran.report["error"]["message"]
    assert "\n" not in ran.report["error"]["message"]
    assert crontab.read_text() == "# theirs\n"


def test_a_percent_sign_in_a_folders_name_reaches_the_program(
    beside: Program, crontab: Path, ground: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = ground / "100 % %s"
    odd.mkdir()
    monkeypatch.chdir(odd)

    ran = beside.here("schedule install", "--webroot", "web")

    assert ran.exit_code == 0, ran.messages
    line = crontab.read_text().splitlines()[1]
    ran_by_cron = line.split(" ", 5)[5].replace(r"\%", "%")
    assert f"--webroot={odd / 'web'}" in shlex.split(ran_by_cron)


def test_the_scheduled_command_imports_nothing_from_where_it_is_started(
    program: Program, crontab: Path, ground: Path, planted: Path
) -> None:
    ran = program.here("schedule install")
    assert ran.exit_code == 0, ran.messages
    command = crontab.read_text().splitlines()[1].split(" ", 5)[5]

    done = subprocess.run(
        ["/bin/sh", "-c", command.replace(r"\%", "%").partition(" >")[0]],
        cwd=planted,
        env={**os.environ, "PYTHONPATH": str(planted), "PYTHONSTARTUP": "x"},
        check=False,
        capture_output=True,
        timeout=HANG_SECONDS,
    )

    assert done.returncode == 0, done.stderr
    assert not (ground / "ran").exists()


def test_the_demo_imports_nothing_from_where_it_is_started(
    ground: Path, planted: Path
) -> None:
    done = subprocess.run(
        # The demo itself is started as an installed program is.
        [sys.executable, "-P", "-m", "letsencrypt_mdaemon", "demo"],
        cwd=planted,
        env=environment(),
        check=False,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "All checks passed." in done.stdout
    assert not (ground / "ran").exists()


def test_a_program_that_only_this_user_or_folder_has_is_not_scheduled(
    beside: Program, crontab: Path, ground: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv.create(ground / "bare", symlinks=True)
    monkeypatch.setattr(sys, "executable", str(ground / "bare" / "bin" / "python"))

    ran = beside.here("schedule install")

    assert ran.exit_code == 2
    assert "No module named 'letsencrypt_mdaemon'" in ran.report["error"]["message"]
    assert "pip install --user" in ran.report["error"]["hint"]
    assert crontab.read_text() == "# theirs\n"


def test_a_crontab_on_the_path_of_whoever_starts_us_is_not_run(
    beside: Program, ground: Path
) -> None:
    planted = ground / "bin"
    planted.mkdir()
    (planted / "crontab").write_text(f"#!/bin/sh\ntouch {ground / 'ran'}\n")
    (planted / "crontab").chmod(0o755)

    for command in ("schedule show", "schedule install", "schedule remove"):
        ran = beside.run(command, environ={"PATH": f"{planted}:{os.environ['PATH']}"})
        assert ran.exit_code in {0, 2}, ran.messages

    assert not (ground / "ran").exists()


def test_programs_of_the_system_are_found_in_its_own_folders_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert process.system_program("sh") in {Path("/usr/bin/sh"), Path("/bin/sh")}
    monkeypatch.setenv("SYSTEMROOT", "/tmp")  # noqa: S108 - a planted Windows
    assert process.windows_system() == Path("C:/Windows/System32")


# `schedule install` offers to keep others out.


@pytest.fixture
def asked(ground: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """An administrator at a terminal, and a config file's folder to be mended."""
    seen: dict[str, Any] = {"answer": True, "ran": [], "code": 0}
    command = ("icacls", str(ground), "/setowner", "*S-1-5-32-544")
    doubts = [Doubt(ground, "Users can change it", (command,))]

    def confirm(question: str, **_: object) -> bool:
        seen["question"] = question
        return bool(seen["answer"])

    def run(program: Path, *arguments: str) -> Ended:
        seen["ran"].append((program, *arguments))
        return Ended(seen["code"], "Access is denied.")

    monkeypatch.setattr(trust, "program_doubts", lambda *_: doubts)
    monkeypatch.setattr(click, "confirm", confirm)
    monkeypatch.setattr(process, "run", run)
    monkeypatch.setattr(process, "system_program", lambda name: Path("/system", name))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    return seen


def offer(*, as_json: bool = False) -> None:
    loaded = SimpleNamespace(file=None)
    config = SimpleNamespace(json=as_json)
    context: Any = SimpleNamespace(loaded=loaded, config=config, root=Path("/"))
    commands.offer_to_keep_others_out(context)


def test_the_commands_are_shown_and_run_by_their_paths_if_the_answer_is_yes(
    asked: dict[str, Any], ground: Path
) -> None:
    offer()
    assert f"icacls {ground} /setowner" in asked["question"]
    assert asked["ran"] == [
        (Path("/system/icacls"), str(ground), "/setowner", "*S-1-5-32-544")
    ]
    asked["code"] = 5
    with pytest.raises(Error, match=r"Access is denied\."):
        offer()


def test_without_a_yes_or_a_terminal_nothing_is_run(
    asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(as_json=True)
    asked["answer"] = False
    offer()
    asked["answer"] = True
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: False))
    offer()
    assert asked["ran"] == []
