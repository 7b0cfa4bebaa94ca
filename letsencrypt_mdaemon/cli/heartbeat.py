"""Send a heartbeat when a run begins, and when it ends."""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.app import notifications
from letsencrypt_mdaemon.cli.notice import warn
from letsencrypt_mdaemon.errors import Error

if TYPE_CHECKING:
    from collections.abc import Iterable

    from letsencrypt_mdaemon.cli.context import Context

_log = logging.getLogger(__name__)


class Heartbeat:
    """The two heartbeats of one run; a failure of them is only a warning.

    Only of a run that nobody typed: else a person would hide that the schedule is gone.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._run = str(uuid.uuid4())

    def start(self) -> None:
        """Tell that the run began."""
        self._send("start")

    def end(self, exit_code: int, lines: Iterable[str]) -> None:
        """Tell how it ended, with the end of its log."""
        self._send(str(exit_code), lines)

    def _send(self, what: str, lines: Iterable[str] = ()) -> None:
        context, config = self._context, self._context.valid.config
        if context.command != "renew" or config.staging or context.is_typed:
            return
        try:
            warn(notifications.beat(config, what, self._run, lines))
        except Error as exc:
            _log.warning("Could not send a heartbeat: %s %s", exc, exc.hint)
