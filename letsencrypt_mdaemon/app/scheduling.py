"""Schedule `renew` on this system."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.app import build
from letsencrypt_mdaemon.config import load
from letsencrypt_mdaemon.errors import ConfigError, Error
from letsencrypt_mdaemon.system.schedule import Cron, TaskScheduler
from letsencrypt_mdaemon.windows import access

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from letsencrypt_mdaemon.config.settings import Config
    from letsencrypt_mdaemon.system.schedule import Scheduler

_log = logging.getLogger(__name__)


def of_this_system(system_root: str | None = None) -> Scheduler:
    """Return the system's scheduler.

    Args:
        system_root: Windows' folder, empty elsewhere; None = that of this system.

    Raises:
        ConfigError: If there is none.
    """
    if system_root is None:
        system_root = windows_folder() if sys.platform == "win32" else ""
    if system_root:
        schtasks = Path(system_root, "System32", "schtasks.exe")
        return TaskScheduler(schtasks, account=access.SYSTEM)
    crontab = shutil.which("crontab")
    if crontab is None:
        message = "Could not find the program crontab."
        hint = "Install cron, or let another scheduler run `renew` twice a day."
        raise ConfigError(message, hint=hint)
    return Cron(Path(crontab))


def windows_folder() -> str:
    """Return Windows' own folder."""
    return os.environ.get("SystemRoot", r"C:\Windows")  # noqa: SIM112 - Windows' name


def command(
    loaded: load.Loaded, options: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
    """Return the command that the scheduler runs: `renew` with these options.

    Args:
        options: Settings from the command line: texts by setting name.

    Raises:
        ConfigError: If others may change the program, so that SYSTEM would refuse it.
    """
    build.require_trusted(loaded.file)
    program = [sys.executable]
    if not getattr(sys, "frozen", False):
        program += ["-m", "letsencrypt_mdaemon"]
    if loaded.file is not None:
        program += ["--config", str(loaded.file.absolute())]
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
    return (*program, "renew", *(load.as_option(*item) for item in options.items()))


def last_run(config: Config, root: Path) -> tuple[datetime | None, int | None]:
    """Return when the last scheduled run began, and its exit code, if known."""
    try:
        memory = build.state_of(config, root).load()
    except Error as exc:
        _log.debug("Could not read the state: %s", exc)
        return None, None
    return (memory.runs[-1] if memory.runs else None), memory.exit_code
