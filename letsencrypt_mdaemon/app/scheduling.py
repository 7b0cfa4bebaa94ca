"""Schedule `renew` on this system."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.errors import ConfigError
from letsencrypt_mdaemon.system.cron import Cron
from letsencrypt_mdaemon.system.tasks import TaskScheduler
from letsencrypt_mdaemon.windows import access

if TYPE_CHECKING:
    from letsencrypt_mdaemon.system.schedule import Scheduler


def of_this_system(system_root: str) -> Scheduler:
    """Return the scheduler that there is.

    Args:
        system_root: Windows' folder; empty elsewhere.

    Raises:
        ConfigError: If there is none.
    """
    if system_root:
        schtasks = Path(system_root) / "System32" / "schtasks.exe"
        return TaskScheduler(schtasks, account=access.SYSTEM)
    crontab = shutil.which("crontab")
    if crontab is None:
        message = "There is no program crontab on this machine."
        hint = "Install cron, or let another scheduler run `renew` twice a day."
        raise ConfigError(message, hint=hint)
    return Cron(Path(crontab))
