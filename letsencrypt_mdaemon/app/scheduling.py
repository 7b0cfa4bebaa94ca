"""Schedule `renew` on this system."""

from __future__ import annotations

import logging
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.app import build, trust
from letsencrypt_mdaemon.config import load
from letsencrypt_mdaemon.errors import ConfigError, Error
from letsencrypt_mdaemon.system import process
from letsencrypt_mdaemon.system.schedule import MARK, Cron
from letsencrypt_mdaemon.system.tasks import TaskScheduler
from letsencrypt_mdaemon.text import printable
from letsencrypt_mdaemon.windows import access

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from letsencrypt_mdaemon.config.settings import Config
    from letsencrypt_mdaemon.system.schedule import Job

_log = logging.getLogger(__name__)

MAX_PAUSE = timedelta(hours=36)
"""Without a scheduled run: three times the usual interval."""

Scheduler = TaskScheduler | Cron


def of_this_system() -> Scheduler:
    """Return the system's scheduler.

    Raises:
        ConfigError: If there is none.
    """
    if sys.platform == "win32":
        schtasks = process.system_program("schtasks")
        return TaskScheduler(schtasks, account=access.SYSTEM)
    try:
        return Cron(process.system_program("crontab"))
    except ConfigError as exc:
        hint = "Install cron, or let another scheduler run `renew` twice a day."
        raise ConfigError(exc.message, hint=hint) from exc


def command(
    loaded: load.Loaded, options: Mapping[str, Sequence[str]], root: Path
) -> tuple[str, ...]:
    """Return the command that the scheduler runs: `renew` with these options.

    Args:
        options: Settings from the command line: texts by setting name.
        root: MDaemon's folder.

    Raises:
        ConfigError: If others can change the program, so that SYSTEM would refuse it,
            or if it is installed for this user or this folder only.
    """
    flags = (load.as_option(*item) for item in options.items())
    return (*program(loaded, root), "renew", MARK, *flags)


def program(loaded: load.Loaded, root: Path, *more: Path) -> tuple[str, ...]:
    """Return how SYSTEM runs this program, up to the name of a command.

    Args:
        more: See `trust.require_program`.

    Raises:
        ConfigError: As `command` does.
    """
    trust.require_program(loaded.file, root, *more)
    words = [sys.executable]
    if not getattr(sys, "frozen", False):
        # Neither the working directory nor the environment says what is imported.
        words += ["-I", "-m", "letsencrypt_mdaemon"]
        _require_isolated(Path(sys.executable))
    if loaded.file is not None:
        words += ["--config", str(loaded.file.absolute())]
    if not loaded.config.agree_tos:
        _log.warning(
            "The first run would fail, because agree-tos is not set. Set it in the "
            "config file to accept the CA's terms of service."
        )
    origins = loaded.origins.items()
    if lost := [name for name, where in origins if where.startswith("environment")]:
        _log.warning(
            "Scheduled runs do not get this environment. Set %s in the config file.",
            ", ".join(lost),
        )
    return tuple(words)


def our_job() -> Job | None:
    """Return our job as the scheduler shows it; None if there is none, or unknown."""
    try:
        return of_this_system().show()
    except Error as exc:
        _log.debug("Could not read the schedule: %s", exc)
        return None


def is_scheduled(job: Job | None, runs: Sequence[datetime], now: datetime) -> bool:
    """Whether something runs `renew`: our job, or another scheduler not long ago."""
    return job is not None or any(timedelta() <= now - at < MAX_PAUSE for at in runs)


def _require_isolated(python: Path) -> None:
    tried = "import letsencrypt_mdaemon.cli.main, letsencrypt_mdaemon.app.renewal"
    ended = process.run(python, "-I", "-c", tried)
    if ended.code:
        last = printable(ended.output.strip().rpartition("\n")[2], 300)
        raise ConfigError(
            f"{python} -I cannot run this program, as the scheduled command does: "
            f"{last}",
            hint="Install it in a virtual environment or for all users, not with "
            "`pip install --user` and not by PYTHONPATH.",
        )


def last_run(config: Config, root: Path) -> tuple[datetime | None, int | None]:
    """Return when the last scheduled run began, and its exit code, if known.

    Raises:
        ConfigError: If the state folder is not trusted.
    """
    state = build.state_of(config, root)
    try:
        memory = state.load()
    except Error as exc:
        _log.debug("Could not read the state: %s", exc)
        return None, None
    return (memory.runs[-1] if memory.runs else None), memory.exit_code
