"""The error boundary of a command: log, mail, event, exit code."""

from __future__ import annotations

import logging
import re
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NoReturn, Self

import click

from letsencrypt_mdaemon.app import build
from letsencrypt_mdaemon.cli import document as report
from letsencrypt_mdaemon.cli import streams, text
from letsencrypt_mdaemon.errors import AcmeError, BusyError, ChallengeError, Error
from letsencrypt_mdaemon.mdaemon import folders
from letsencrypt_mdaemon.system import log
from letsencrypt_mdaemon.system.disk import reason
from letsencrypt_mdaemon.system.parallel import is_lack
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from letsencrypt_mdaemon.cli.context import Context
    from letsencrypt_mdaemon.cli.document import Document
    from letsencrypt_mdaemon.cli.heartbeat import Heartbeat
    from letsencrypt_mdaemon.cli.options import Result

_log = logging.getLogger("letsencrypt_mdaemon")

MAX_EVENT_CHARACTERS = 30_000
"""ReportEvent takes at most 31,839."""

DOCTOR_SECONDS = 20


class Run:
    """One command, from its context to its exit code.

    Args:
        is_logged: Whether it writes a log, and mails a failure.
        on_failure: As `options.command` takes it, without the command line.

    Raises:
        SystemExit: On leaving after an error, with its exit code.
    """

    def __init__(
        self,
        context: Context,
        *,
        verbose: bool,
        is_logged: bool,
        on_failure: Callable[[str], tuple[int, Document]] | None = None,
    ) -> None:
        self.context = context
        self._on_failure = on_failure
        self._is_logged = is_logged
        self._mails = False
        self._items: Mapping[str, object] = {}
        self._file_log: log.FileLog | None = None
        self._heartbeat: Heartbeat | None = None
        # A monitor gets one line.
        stream = sys.stderr if on_failure is None or verbose else None
        holds = not context.is_json
        self._logger, self._lines = log.start(stream, verbose=verbose, holds=holds)

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Turn an error into messages, a mail, and an exit code."""
        with self.context.exits:
            if isinstance(error, Error):
                self._fail(error)
            elif isinstance(error, Exception) and not isinstance(error, click.Abort):
                if self._file_log is not None:
                    self._file_log.emit_traceback(error)
                _log.debug("Unexpected", exc_info=error)
                self._fail(_unexpected(error))
            elif error is not None:
                log.settle(show=True)
                _log.error("Interrupted. The next run continues.")
            else:
                self.context.note_end(0)
                self._tell(None, {}, list(self._lines))
                self._measure(0)
                self._beat(0)

    def begin(self) -> None:
        """Take the lock and open the log, if the command is logged; then mail failures.

        A dry run leaves no trace.
        """
        if not self._is_logged or self.context.valid.config.dry_run:
            return
        self._mails = True
        config = self.context.valid.config
        if config.heartbeat_url or config.heartbeat_url_file:
            from letsencrypt_mdaemon.cli.heartbeat import (  # noqa: PLC0415 - seldom
                Heartbeat,
            )

            self._heartbeat = Heartbeat(self.context)
        _ = self.context.config  # raises if it is invalid
        server: Path | None = None
        try:
            server = folders.child(self.context.root, "Logs")
            self.context.lock()
        except BusyError:
            raise  # The log belongs to the run that holds the lock.
        except Error:
            self._open_log(server)
            raise
        self._open_log(server)
        if self._heartbeat is not None:
            self._heartbeat.start()

    def show(self, result: Result) -> None:
        """Print a result as text or JSON.

        Raises:
            Error: That of the result.
        """
        self._items = result.items
        log.erase_progress()
        if not self.context.valid.config.json:
            log.settle(show=result.error is not None)
            result.print_text(self._document(result.exit_code))
        elif result.error is None:
            report.print_json(self._document(result.exit_code))
        if (lost := streams.failure()) is not None:
            message = f"Could not print the result: {reason(lost)}"
            if not self._is_logged:
                raise Error(message, hint="Print it elsewhere.") from lost
            _log.warning(message)
        if result.error is not None:
            raise result.error

    def _document(self, exit_code: int = 0, **more: object) -> Document:
        path = self._file_log.path if self._file_log else None
        return {
            **report.common(self.context.command, exit_code),
            **self._items,
            **more,
            "warnings": self._lines.warnings,
            "log": str(path) if path else None,
        }

    def _open_log(self, server: Path | None) -> None:
        config = self.context.config
        folder = log.folder(config.log_dir, server)
        if folder is None:
            return
        now = datetime.now(UTC)
        try:
            self._file_log = log.FileLog(folder, now=now, keep=config.keep_logs)
        except OSError as exc:
            _log.warning("Could not write a log in %s: %s", folder, reason(exc))
            return
        self._logger.addHandler(self._file_log)
        self.context.exits.callback(self._file_log.close)
        self.context.exits.callback(self._logger.removeHandler, self._file_log)

    def _fail(self, error: Error) -> NoReturn:
        self.context.note_end(error.exit_code)
        findings: dict[str, Document] = {}
        # A run with a result only waits: it has validated no name now.
        if isinstance(error, ChallengeError) and not self._items:
            findings = self._consult(error)
        lines = list(self._lines)
        log.settle(show=True)
        _log.error("%s", error.message)
        if error.hint:
            _log.info("%s", error.hint)
        items: Document = {}
        code = error.exit_code
        if self._on_failure is not None:
            code, items = self._on_failure(f"{error.message} {error.hint}".strip())
        if self._mails:
            self._tell(error, findings, lines)
            self._measure(error.exit_code)
            self._beat(error.exit_code)
            self._write_event(error)
        if self.context.is_json:
            details: Document = {
                "type": type(error).__name__,
                "message": error.message,
                "hint": error.hint,
            }
            if isinstance(error, AcmeError) and error.names:
                details["names"] = error.names
            if isinstance(error, ChallengeError):
                details["findings"] = findings
            more: Document = {
                "verdict": report.first_sentence(error.message),
                "error": details,
                **items,
            }
            if (prepared := self.context.prepared) is not None:
                more["days_left"] = report.days_left(prepared.named.values())
            report.print_json(self._document(code, **more))
        sys.exit(code)

    def _consult(self, error: ChallengeError) -> dict[str, Document]:
        """Add the doctor's findings to the CA's error; a failure here is ignored.

        Returns:
            The findings about each name that failed.
        """
        names = [name for name in self.context.names if name in error.names]
        if not names or self.context.installation is None:
            return {}
        _log.info("Checking %s from this machine", ", ".join(names))
        try:
            from letsencrypt_mdaemon.app import checkup  # noqa: PLC0415 - seldom needed

            found = checkup.check_names(
                self.context.installation,
                names,
                now=datetime.now(UTC),
                timeout=DOCTOR_SECONDS,
            )
            opinion, hints = text.second_opinion(found)
        except Exception as exc:  # noqa: BLE001 - it is advice
            _log.debug("No advice: %s", type(exc).__name__, exc_info=True)
            return {}
        error.message = f"{error.message}\n{opinion}"
        error.hint = " ".join([*hints, error.hint])
        for row in found.names:
            seen = "; ".join(map(str, row.findings))
            error.names[row.name] += f" - seen from here: {seen}" if seen else ""
        return {row.name: report.examined(row) for row in found.names}

    def _tell(
        self,
        error: Error | None,
        findings: Mapping[str, Document],
        lines: Sequence[str],
    ) -> None:
        """Mail or notify how the run ended, if that is news to the recipients.

        Args:
            lines: Those of the log, without the error.
        """
        config = self.context.valid.config if self._mails else None
        if not (config and (config.to or config.notify or config.notify_file)):
            return
        from letsencrypt_mdaemon.cli import notice  # noqa: PLC0415 - not every run

        bad = {
            name: [item["code"] for item in row["findings"] if item["weight"] != "note"]
            for name, row in findings.items()
        }
        codes = {name: rows[0] for name, rows in bad.items() if rows}
        notice.tell(self.context, error, codes=codes, log=lines)

    def _measure(self, exit_code: int) -> None:
        """Replace the metrics file; it belongs to the run that holds the lock."""
        if self._mails and exit_code != BusyError.exit_code:
            from letsencrypt_mdaemon.cli import measured  # noqa: PLC0415 - seldom

            measured.write(self.context, exit_code)

    def _beat(self, exit_code: int) -> None:
        """Tell how the run ended, unless another one is at work."""
        if self._heartbeat is not None and exit_code != BusyError.exit_code:
            self._heartbeat.end(exit_code, self._lines)

    def _write_event(self, error: Error) -> None:
        """Write the failure to the system's log; a failure here is only a warning."""
        write = build.event_log()
        if write is None:
            return
        try:
            write(error.exit_code, _entry(error))
        except OSError as exc:
            _log.warning("Could not write to Windows' event log: %s", reason(exc))


def _unexpected(error: Exception) -> Error:
    """Return an exception that nobody expected as an error: a bug, or a lack."""
    what = f"{type(error).__name__}: {printable(error)}"
    if is_lack(error):
        return Error(
            "This machine is out of memory, or of threads, processes or open files: "
            f"{what}",
            hint="End programs that use much of it, or raise the limit. Then run this "
            "again: it continues.",
        )
    hint = "This is a bug. Report it with the log, or with the output of -v."
    return Error(f"Unexpected: {what}", hint=hint)


def _entry(error: Error) -> str:
    """Return a failure as the text of an event."""
    lines = [*error.message.splitlines(), *error.hint.splitlines()]
    entry = "\r\n".join(printable(line) for line in lines)
    # The viewer would replace %1.
    return re.sub(r"%(?=[\d%])", "% ", entry)[:MAX_EVENT_CHARACTERS]
