"""One command from its options to its exit code: the error boundary."""

from __future__ import annotations

import logging
import os
import re
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Self

from letsencrypt_mdaemon.app import build
from letsencrypt_mdaemon.app import installation as assembly
from letsencrypt_mdaemon.cli import document as report
from letsencrypt_mdaemon.cli.text import second_opinion
from letsencrypt_mdaemon.config import load
from letsencrypt_mdaemon.config import settings as config
from letsencrypt_mdaemon.errors import BusyError, ChallengeError, Error
from letsencrypt_mdaemon.mdaemon import folders
from letsencrypt_mdaemon.system import log
from letsencrypt_mdaemon.system.disk import sweep
from letsencrypt_mdaemon.system.locks import exclusive_lock
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from letsencrypt_mdaemon.app.installation import Installation
    from letsencrypt_mdaemon.system.schedule import Scheduler

_log = logging.getLogger("letsencrypt_mdaemon")

# ReportEvent takes at most 31,839 characters.
_EVENT_LIMIT = 30_000


class Run:
    """What a command shares with all the others: configuration, logs, mail, exit code.

    Args:
        options: What the command line gave, by setting name.
        file: The config file it named, if it did.

    Attributes:
        findings: What --json prints of a command that fails after all.
        is_noted: Whether it is remembered how this run ends.

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
        self.findings: dict[str, object] = {}
        self._options = options
        self._file = file
        self._loaded: load.Loaded | None = None
        self._root: Path | None = None
        self._installation: Installation | None = None
        self._file_log: log.FileLog | None = None
        self._mails = False
        self.is_noted = False
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
                message = f"Unexpected: {type(error).__name__}: {printable(error)}"
                hint = "This is a bug: please report it with the log, or with -v."
                self._fail(Error(message, hint=hint))
            elif error is not None:
                _log.error("Interrupted; the next run continues.")
            else:
                self._note_end(0)

    @property
    def loaded(self) -> load.Loaded:
        """The configuration, and where each value comes from."""
        if self._loaded is None:
            self._loaded = load.load(self._options, os.environ, self._config_file())
        return self._loaded

    @property
    def config(self) -> config.Config:
        """The configuration."""
        return self.loaded.config

    @property
    def root(self) -> Path:
        """MDaemon's folder."""
        if self._root is None:
            self._root = build.find_root(self.loaded)
        return self._root

    def installation(self, *, look: bool = True) -> Installation:
        """Look at the server, and at its ports unless told otherwise."""
        self._installation = assembly.open_installation(
            self.config, self.root, look=look, scheduled=self.is_scheduled
        )
        return self._installation

    @property
    def is_scheduled(self) -> bool:
        """Whether it is most likely a job of the schedule."""
        settings = self.config
        by_hand = settings.dry_run or settings.force or settings.staging
        return self.command == "renew" and not by_hand and not sys.stderr.isatty()

    def be_alone(self) -> None:
        """Be the only run of this installation; without log and mail.

        Raises:
            Error: If it cannot be known.
        """
        state = build.state_of(self.config, self.root)
        self._exits.enter_context(exclusive_lock(state.lock))
        build.guard(state, self.loaded.file)

    def begin(self, now: datetime) -> None:
        """Be the only run of this installation, and begin its log; failures are mailed.

        A dry run leaves no trace.
        """
        if self.config.dry_run:
            return
        self._mails = True
        try:
            state = build.state_of(self.config, self.root)
        except Error:
            self._open_log(now, None)
            raise
        logs = folders.child(self.root, "Logs")
        try:
            self._exits.enter_context(exclusive_lock(state.lock))
            build.guard(state, self.loaded.file)
            sweep(state.folder)
        except BusyError:
            raise  # The log belongs to the run that holds the lock.
        except Error:
            self._open_log(now, logs)
            raise
        self._open_log(now, logs)

    def scheduler(self) -> Scheduler:
        """Return the system's scheduler.

        Raises:
            ConfigError: If there is none.
        """
        from letsencrypt_mdaemon.app import scheduling  # noqa: PLC0415 - seldom needed

        windows = os.environ.get("SystemRoot", r"C:\Windows")  # noqa: SIM112 - Windows'
        return scheduling.of_this_system(windows if sys.platform == "win32" else "")

    def scheduled_command(self) -> list[str]:
        """Return what the scheduler runs: this program, as it was set up here.

        Raises:
            ConfigError: If SYSTEM would refuse to run it from where it is.
        """
        build.require_trusted(self.loaded.file)
        program = [sys.executable]
        if not getattr(sys, "frozen", False):
            program += ["-m", "letsencrypt_mdaemon"]
        if self.loaded.file is not None:
            program += ["--config", str(self.loaded.file.absolute())]
        if not self.config.agree_tos:
            _log.warning(
                "agree-tos is not set here: a first run would stop at the CA's terms "
                "of service. Set it in the config file."
            )
        origins = self.loaded.origins.items()
        if lost := [name for name, where in origins if where.startswith("environment")]:
            _log.warning(
                "A scheduled run does not have this environment: write %s into the "
                "config file.",
                ", ".join(lost),
            )
        options = []
        for name, values in self._options.items():
            if name != "json":
                flag = values == ("yes",) and load.is_flag(name)
                text = load.absolute(name, ",".join(values))
                options += [f"--{name}"] if flag else [f"--{name}={text}"]
        return [*program, "renew", *options]

    def last_scheduled(self) -> tuple[datetime | None, int | None]:
        """Return when a scheduled run began last, and how it ended, as far as known."""
        try:
            memory = build.state_of(self.config, self.root).load()
        except Error as exc:
            _log.debug("Nothing is remembered: %s", exc)
            return None, None
        return (memory.runs[-1] if memory.runs else None), memory.exit_code

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
        named = self._file or os.environ.get(f"{load.PREFIX}CONFIG")
        if named:
            return Path(named)
        variable = os.environ.get(f"{load.PREFIX}MDAEMON_DIR", "")
        (folder,) = self._options.get("mdaemon-dir", (variable,))
        for place in folders.places(Path(folder) if folder else None, ""):
            for file in (
                folders.child(place.folder, "LetsEncrypt", load.FILE_NAME),
                folders.child(place.folder, load.FILE_NAME),
            ):
                if file.is_file():
                    return file
        return None

    def _note_end(self, exit_code: int) -> None:
        """Remember how a scheduled run ended; that this may fail changes nothing."""
        if self.is_noted:
            try:
                build.note_end(self.config, self.root, exit_code)
            except Error as exc:
                _log.warning("It is not remembered how this run ended: %s", exc)

    def _fail(self, error: Error) -> NoReturn:
        self._note_end(error.exit_code)
        findings = self._consult(error)
        _log.error("%s", error.message)
        if error.hint:
            _log.info("%s", error.hint)
        if self._mails and self.config.to:
            self._mail(error)
        if self._mails:
            self._record(error)
        if self._options.get("json") or (self._loaded and self._loaded.config.json):
            details: dict[str, object] = {
                "type": type(error).__name__,
                "message": error.message,
                "hint": error.hint,
            }
            if isinstance(error, ChallengeError):
                details["names"] = error.names
                details["findings"] = findings
            document = self.document(error.exit_code, **self.findings, error=details)
            report.print_json(document)
        sys.exit(error.exit_code)

    def _consult(self, error: Error) -> dict[str, object]:
        """Put beside the CA's words what the doctor sees; that it may fail is nothing.

        Returns:
            What it finds about each name that failed.
        """
        named = error.names if isinstance(error, ChallengeError) else {}
        names = [name for name in self.names if name in named]
        if not names or self._installation is None:
            return {}
        _log.info("Looking from here at %s", ", ".join(names))
        try:
            from letsencrypt_mdaemon.app import checkup  # noqa: PLC0415 - seldom needed

            found = checkup.examine_names(
                self._installation, names, now=datetime.now(UTC), patience=20
            )
            text, hints = second_opinion(found)
        except Exception as exc:  # noqa: BLE001 - it is advice
            _log.debug("No advice: %s", type(exc).__name__, exc_info=True)
            return {}
        error.message = f"{error.message}\n{text}"
        error.hint = " ".join([*hints, error.hint])
        for row in found.names:
            seen = "; ".join(map(str, row.findings))
            named[row.name] += f" – seen from here: {seen}" if seen else ""
        return {row.name: report.examined(row) for row in found.names}

    def _mail(self, error: Error) -> None:
        """Mail the failure; that this may fail changes nothing."""
        from letsencrypt_mdaemon.system import mail as notify  # noqa: PLC0415 - seldom needed

        subject, lines = notify.failure(
            error, names=self.names, in_use=self.in_use, lines=self.lines
        )
        try:
            mail = build.mail(self.config, subject, lines)
            where = build.transport(self.config, self._root).send(mail)
        except Error as exc:
            _log.warning("The mail about it could not be sent: %s %s", exc, exc.hint)
        else:
            _log.info("Mailed to %s %s", ", ".join(mail.recipients), where)

    def _record(self, error: Error) -> None:
        """Put the failure into the system's log; that this may fail changes nothing."""
        system_log = build.event_log()
        if system_log is None:
            return
        try:
            system_log.error(error.exit_code, _entry(error))
        except OSError as exc:
            _log.warning("Windows' event log cannot be written: %s", exc.strerror)


def _entry(error: Error) -> str:
    """Return a failure as the text of an event, harmless to its viewer."""
    lines = [*error.message.splitlines(), *error.hint.splitlines()]
    text = "\r\n".join(printable(line) for line in lines)
    # The viewer would put something else in the place of %1.
    return re.sub(r"%(?=[\d%])", "% ", text)[:_EVENT_LIMIT]
