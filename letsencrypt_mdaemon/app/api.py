"""What other programs call: the run of the command line, without the command line."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.app import build, renewal
from letsencrypt_mdaemon.app.installation import open_installation
from letsencrypt_mdaemon.mdaemon import folders
from letsencrypt_mdaemon.system.disk import sweep
from letsencrypt_mdaemon.system.locks import exclusive_lock

if TYPE_CHECKING:
    from letsencrypt_mdaemon.config.settings import Config
    from letsencrypt_mdaemon.renewal.adapters import Outcome


def renew(config: Config) -> Outcome:
    """Renew the certificate of this machine's MDaemon, if it is due.

    Works like the command `renew` and holds the same lock, but sends no mail and writes
    no log file: messages go to the logger `letsencrypt_mdaemon`.

    Raises:
        BusyError: Another run holds the lock.
        ConfigError: The settings or the server's files do not allow a run.
        ChallengeError: The CA could not validate a name; nothing is changed.
        AcmeError: The CA did not issue for another reason; nothing is changed.
        DeployError: The CA issued, but the certificate is not in use everywhere. The
            next run continues with it.
        Error: Another failure.
    """
    now = datetime.now(UTC)
    root = folders.find(folders.places(config.mdaemon_dir, "mdaemon_dir"))
    with ExitStack() as exits:
        if not config.dry_run:
            state = build.state_of(config, root)
            exits.enter_context(exclusive_lock(state.lock))
            build.guard(state, None)
            sweep(state.folder)
        installation = open_installation(config, root)
        prepared = renewal.prepare(installation, installation.names())
        return renewal.renew(prepared, now)
