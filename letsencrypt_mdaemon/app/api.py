"""The public API: renew a certificate from another Python program."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.config import load

if TYPE_CHECKING:
    from letsencrypt_mdaemon.config.settings import Config
    from letsencrypt_mdaemon.renewal.adapters import Outcome

Value = str | int | Path | Iterable[str]
"""A setting as a Python value; a flag is a bool, which is an int."""


def load_config(file: str | Path | None = None, /, **settings: Value) -> Config:
    """Load a config file, and let keyword arguments override it.

    The environment is not read, and no config file is searched for.

    Args:
        file: The config file, if there is one.
        settings: Settings by name, with underscores: `agree_tos=True`,
            `alternate_host_names=["imap.example.com"]`.

    Raises:
        ConfigError: With every problem and its place.
    """
    options = {name.replace("_", "-"): _text(row) for name, row in settings.items()}
    path = None if file is None else Path(file)
    return load.load(options, {}, path, origin="argument ").config


def renew(config: Config) -> Outcome:
    """Renew the certificate if it is due, as the command `renew` does.

    Writes no log file and sends no mail: messages go to the logger
    `letsencrypt_mdaemon`, and failures are raised.

    Raises:
        ConfigError: If the settings or the server's files do not allow it.
        AcmeError: If the CA did not issue; `ChallengeError` if a name failed.
        DeployError: If the certificate is not in use everywhere.
        BusyError: If another run holds the lock of this installation.
        Error: If the machine did not allow it, for example because a disk is full.
    """
    from letsencrypt_mdaemon.app import build, renewal  # noqa: PLC0415 - slow to import
    from letsencrypt_mdaemon.app.installation import open_installation  # noqa: PLC0415
    from letsencrypt_mdaemon.mdaemon import folders  # noqa: PLC0415
    from letsencrypt_mdaemon.system.disk import sweep  # noqa: PLC0415
    from letsencrypt_mdaemon.system.locks import exclusive_lock  # noqa: PLC0415

    root = folders.find(folders.places(config.mdaemon_dir, "mdaemon_dir"))
    with ExitStack() as held:
        if not config.dry_run:
            state = build.state_of(config, root)
            held.enter_context(exclusive_lock(state.lock))
            build.guard(state, None)
            sweep(state.folder)
        installation = open_installation(config, root)
        prepared = renewal.prepare(installation, installation.names())
        return renewal.renew(prepared, datetime.now(UTC))


def _text(value: Value) -> tuple[str, ...]:
    """Return a value as the texts of a command line option."""
    if isinstance(value, bool):
        return ("yes" if value else "no",)
    if isinstance(value, str | int | Path):
        return (str(value),)
    return tuple(value)
