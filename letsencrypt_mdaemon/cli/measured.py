"""Replace the metrics file after a run."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.errors import Error

if TYPE_CHECKING:
    from letsencrypt_mdaemon.cli.context import Context

_log = logging.getLogger(__name__)

COMMANDS = ("renew", "activate", "rollback", "use", "self-signed", "reload")


def write(context: Context, exit_code: int) -> None:
    """Replace the metrics file, if one is set; a failure here is only a warning."""
    config = context.valid.config
    path = config.metrics_file
    if path is None or context.command not in COMMANDS or config.staging:
        return
    from letsencrypt_mdaemon.app import metrics_file  # noqa: PLC0415 - seldom

    outcome, installation = context.outcome, context.installation
    ended = metrics_file.Ended(
        name=(*context.names, config.host_name)[0],
        began=context.now,
        exit_code=exit_code,
        observed=installation.observed if installation else {},
        proof=outcome.proof if outcome else None,
    )
    try:
        file = context.valid.file
        text = metrics_file.text(config, lambda: context.root, ended, file)
        metrics_file.write(path, text)
    except Error as exc:
        _log.warning("%s %s", exc, exc.hint)
