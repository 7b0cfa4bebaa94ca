"""One command from its options to its exit code: the error boundary."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Self

from letsencrypt_mdaemon import assembly, config, log, mdaemon, notify, report
from letsencrypt_mdaemon.errors import ChallengeError, Error, words
from letsencrypt_mdaemon.files import exclusive_lock

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from letsencrypt_mdaemon.assembly import Installation

_log = logging.getLogger("letsencrypt_mdaemon")


class Run:
    """What a command shares with all the others: configuration, log, mail, exit code.

    Args:
        options: What the command line gave, by setting name.
        file: The config file it named, if it did.

    Raises:
        SystemExit: On leaving the context after any error, with its exit code.
    """

    def __init__(
        self,
        command: str,
        options: Mapping[str, Sequence[str]],
        *,
        file: str | None,
        verbose: bool,
    ) -> None:
        self.command = command
        self.names: tuple[str, ...] = ()
        self.in_use = ""
        self._options = options
        self._file = file
        self._loaded: config.Loaded | None = None
        self._root: Path | None = None
        self._file_log: log.FileLog | None = None
        self._mails = False
        self._exits = ExitStack()
        self._logger, self.lines = log.start(sys.stderr, verbose=verbose)

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Turn an error into messages, a mail, and an exit code."""
        with self._exits:
            if isinstance(error, Error):
                self._fail(error)
            elif isinstance(error, Exception):
                if self._file_log is not None:
                    self._file_log.emit_traceback(error)
                _log.debug("Unexpected", exc_info=error)
                message = f"Unexpected: {type(error).__name__}: {words(error)}"
                hint = "This is a bug: please report it with the log, or with -v."
                self._fail(Error(message, hint=hint))
            elif error is not None:
                _log.error("Interrupted; the next run continues.")

    @property
    def loaded(self) -> config.Loaded:
        """The configuration, and where each value comes from."""
        if self._loaded is None:
            self._loaded = config.load(self._options, os.environ, self._config_file())
        return self._loaded

    @property
    def config(self) -> config.Config:
        """The configuration."""
        return self.loaded.config

    @property
    def root(self) -> Path:
        """MDaemon's folder."""
        if self._root is None:
            self._root = assembly.find_root(self.loaded)
        return self._root

    def installation(self) -> Installation:
        """Look at the server."""
        return assembly.open_installation(self.config, self.root)

    def begin(self, now: datetime) -> None:
        """Be the only run of this installation, and begin its log; failures are mailed.

        A dry run leaves no trace.
        """
        if self.config.dry_run:
            return
        self._mails = True
        try:
            state = assembly.state_of(self.config, self.root)
        except Error:
            self._open_log(now, None)
            raise
        # The log belongs to the run that holds the lock.
        self._exits.enter_context(exclusive_lock(state.lock))
        self._open_log(now, mdaemon.child(self.root, "Logs"))

    def document(self, exit_code: int = 0, **items: object) -> dict[str, object]:
        """Return what --json prints."""
        path = self._file_log.path if self._file_log else None
        return {
            "schema": report.SCHEMA,
            "command": self.command,
            "exit_code": exit_code,
            **items,
            "warnings": self.lines.warnings,
            "log": str(path) if path else None,
        }

    def _open_log(self, now: datetime, server: Path | None) -> None:
        folder = log.folder(self.config.log_dir, server)
        if folder is None:
            return
        try:
            self._file_log = log.FileLog(folder, now=now, keep=self.config.keep_logs)
        except OSError as exc:
            _log.warning("No log can be written in %s: %s", folder, exc.strerror)
            return
        self._logger.addHandler(self._file_log)
        self._exits.callback(self._file_log.close)
        self._exits.callback(self._logger.removeHandler, self._file_log)

    def _config_file(self) -> Path | None:
        """Return the config file named, else the one beside the installation."""
        named = self._file or os.environ.get(f"{config.PREFIX}CONFIG")
        if named:
            return Path(named)
        variable = os.environ.get(f"{config.PREFIX}MDAEMON_DIR", "")
        (folder,) = self._options.get("mdaemon-dir", (variable,))
        for place in mdaemon.places(Path(folder) if folder else None, ""):
            for file in (
                mdaemon.child(place.folder, "LetsEncrypt", config.FILE_NAME),
                mdaemon.child(place.folder, config.FILE_NAME),
            ):
                if file.is_file():
                    return file
        return None

    def _fail(self, error: Error) -> NoReturn:
        if isinstance(error, ChallengeError) and not self.config.skip_port_check:
            self._add_port_check(error)
        _log.error("%s", error.message)
        if error.hint:
            _log.info("%s", error.hint)
        if self._mails and self.config.to:
            self._mail(error)
        if self._options.get("json"):
            details: dict[str, object] = {
                "type": type(error).__name__,
                "message": error.message,
                "hint": error.hint,
            }
            if isinstance(error, ChallengeError):
                details["names"] = error.names
            report.print_json(self.document(error.exit_code, error=details))
        sys.exit(error.exit_code)

    def _add_port_check(self, error: ChallengeError) -> None:
        if not mdaemon.listens(80):
            error.hint += (
                " Nothing listens on port 80 of this machine, where the CA looks: let "
                "webmail's web server bind to port 80 as well."
            )

    def _mail(self, error: Error) -> None:
        """Mail the failure; that this may fail changes nothing."""
        subject, lines = notify.failure(
            error, names=self.names, in_use=self.in_use, lines=self.lines
        )
        try:
            mail = assembly.mail(self.config, subject, lines)
            where = assembly.transport(self.config, self._root).send(mail)
        except Error as exc:
            _log.warning("The mail about it could not be sent: %s %s", exc, exc.hint)
        else:
            _log.info("Mailed to %s %s", ", ".join(mail.recipients), where)
