"""What this program puts on Windows outside of its folder and of MDaemon's.

The setup program adds it and removes it by two hidden commands. They are in this
program because only it knows its scheduled task, its settings and its state folder.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.app import build, script
from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.system import disk, drop_in

if TYPE_CHECKING:
    from letsencrypt_mdaemon.app.scheduling import Scheduler
    from letsencrypt_mdaemon.config.load import Loaded
    from letsencrypt_mdaemon.config.settings import Config

_AS_ADMINISTRATOR = "Run as an administrator."


def folder() -> Path:
    """Return the folder of this program, as the setup program installs it.

    Raises:
        ConfigError: If something else installed it.
    """
    if sys.platform != "win32" or not getattr(sys, "frozen", False):
        raise ConfigError(
            "Only the program that the setup program for Windows installs does this.",
            hint="To remove this one: first `schedule remove`, then what installed it.",
        )
    return Path(sys.executable).parent


def add_to_path(program: Path) -> list[str]:
    """Add a folder to the machine's PATH; return what was done.

    Raises:
        Error: If Windows refuses.
    """
    if sys.platform == "win32":
        from letsencrypt_mdaemon.windows import environment  # noqa: PLC0415

        with disk.explained("change PATH", hint=_AS_ADMINISTRATOR):
            if environment.add_to_path(program):
                return [f"added {program} to PATH"]
    return []


def remove_from_path(program: Path) -> list[str]:
    """Remove a folder from the machine's PATH; return what was done.

    Raises:
        Error: If Windows refuses.
    """
    if sys.platform == "win32":
        from letsencrypt_mdaemon.windows import environment  # noqa: PLC0415

        with disk.explained("change PATH", hint=_AS_ADMINISTRATOR):
            if environment.remove_from_path(program):
                return [f"removed {program} from PATH"]
    return []


def remove_event_source() -> list[str]:
    """Remove our source of the Application log; return what was done.

    Raises:
        Error: If Windows refuses.
    """
    if sys.platform == "win32":
        from letsencrypt_mdaemon.windows import eventlog  # noqa: PLC0415

        with disk.explained("remove the event source", hint=_AS_ADMINISTRATOR):
            if eventlog.remove_source():
                return ["removed the event source"]
    return []


def remove_schedule(scheduler: Scheduler, program: Path) -> list[str]:
    """Remove our job if it runs this program; return what was done, or left.

    Another installation of this program may have taken the job over: without it, that
    one would no longer renew.

    Args:
        program: The file that the job may run.

    Raises:
        DeployError: If the scheduler refuses.
    """
    try:
        job = scheduler.show()
    except ConfigError as exc:
        return [f"left a task of that name: {exc.message}"]
    if job is None:
        return []
    ours = subprocess.list2cmdline([str(program)]).casefold()
    if not f"{job.command} ".casefold().startswith(f"{ours} "):
        return [f"left the scheduled task, which runs another program: {job.command}"]
    scheduler.remove()
    return ["removed the scheduled task"]


def remove_script(loaded: Loaded, root: Path, program: Path) -> list[str]:
    """Put the vendor's LetsEncrypt.ps1 back if ours runs this program.

    Args:
        program: The file that ours may run.

    Returns:
        What was done, or left.

    Raises:
        BusyError: If a run holds the lock.
    """
    place = script.place_of(root)
    if not drop_in.runs(place, program):
        return []
    try:
        found = script.remove(loaded, root)
    except ConfigError as exc:
        return [f"left {place}, which runs this program: {exc.message}"]
    if found.script.exists():
        return [f"put MDaemon's own {place} back"]
    return [f"removed {place}"]


def delete_state(config: Config, root: Path, file: Path | None) -> list[str]:
    """Delete the state folder, while nobody holds its lock; return what was done.

    Args:
        file: The config file, if there is one.

    Raises:
        BusyError: If a run holds the lock.
        ConfigError: If others can change the folder.
        Error: If something in it cannot be deleted.
    """
    state = build.state_of(config, root)
    if not state.folder.exists():
        return []
    with disk.explained(f"delete {state.folder}"):
        with build.locked_state(config, root, file):
            for path in state.folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path != state.lock:
                    disk.delete(path)
        # Nobody can delete a file that is open.
        shutil.rmtree(state.folder)
    return [f"deleted {state.folder}"]
