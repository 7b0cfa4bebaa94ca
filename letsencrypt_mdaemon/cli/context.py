"""What a command works with: its options, the configuration, the installation."""

from __future__ import annotations

import logging
import os
import re
import sys
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

from letsencrypt_mdaemon.app import build, trust
from letsencrypt_mdaemon.app.installation import open_installation
from letsencrypt_mdaemon.config import load
from letsencrypt_mdaemon.config.parsers import parse_path
from letsencrypt_mdaemon.errors import ConfigError, Error
from letsencrypt_mdaemon.mdaemon import folders
from letsencrypt_mdaemon.system import log
from letsencrypt_mdaemon.system.disk import explained

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from letsencrypt_mdaemon.app.installation import Installation
    from letsencrypt_mdaemon.app.renewal import Prepared
    from letsencrypt_mdaemon.config.settings import Config
    from letsencrypt_mdaemon.renewal.adapters import Outcome
    from letsencrypt_mdaemon.state.folder import State
    from letsencrypt_mdaemon.system.schedule import Job

_log = logging.getLogger(__name__)

_NEAR_NAME = re.compile(
    r"(?i)letsencrypt[-_ ]?mdaemon(?:\.(?:ini|cfg|conf|config|txt))?(?:\.txt)?"
)


ENTER = "Let this account enter the folder."


class Context:
    """One call of a command; whatever it reads is read when it is first needed.

    Args:
        command: The command's name.
        options: The options of the command line: texts by setting name.
        file: The config file that the command line names.
        is_marked: Whether the command line has the mark of a scheduled job.

    Attributes:
        exits: Releases the lock at the end.
        installation: The installation, once it is open.
        prepared: The run that changes the server, once it is prepared.
        names: The names of the certificate, once they are known.
        state: The state, once the lock is held.
        outcome: How a run that changes the server ended, unless it failed.
        now: When the command began.
    """

    def __init__(
        self,
        command: str,
        options: Mapping[str, Sequence[str]],
        *,
        file: str | None,
        is_marked: bool = False,
    ) -> None:
        self.command = command
        self.options = options
        self.is_marked = is_marked
        self.exits = ExitStack()
        self.installation: Installation | None = None
        self.prepared: Prepared | None = None
        self.names: tuple[str, ...] = ()
        self.state: State | None = None
        self.outcome: Outcome | None = None
        self.now = datetime.now(UTC)
        self._file = file
        self._is_noted = False

    @cached_property
    def _read(self) -> tuple[load.Loaded, list[str]]:
        file = self._config_file()
        if file is not None:
            trust.require_settings(file.absolute())
        loaded, problems = load.read(self.options, os.environ, file)
        return loaded, problems + build.problems(loaded)

    @cached_property
    def loaded(self) -> load.Loaded:
        """The configuration, and the origin of each value."""
        return load.checked(self._read)

    @property
    def valid(self) -> load.Loaded:
        """The configuration without the settings that are invalid.

        Raises:
            ConfigError: If others can change the config file.
        """
        return self._read[0]

    @property
    def config(self) -> Config:
        """The configuration."""
        return self.loaded.config

    @property
    def is_json(self) -> bool:
        """Whether the result is printed as JSON, even if the settings are invalid."""
        return "json" in self.options or (
            "loaded" in self.__dict__ and self.config.json
        )

    @cached_property
    def root(self) -> Path:
        """MDaemon's folder."""
        return build.find_root(self.valid)

    @cached_property
    def job(self) -> Job | None:
        """Our job as the scheduler shows it; None if there is none, as far as known."""
        from letsencrypt_mdaemon.app import scheduling  # noqa: PLC0415 - seldom

        return scheduling.our_job()

    @cached_property
    def is_typed(self) -> bool:
        """Whether a person most likely typed this command.

        Without a terminal that is so only if our job would have its mark: over SSH, or
        with the output redirected.
        """
        # What SYSTEM runs has a console of its own, which nobody sees.
        if self.is_marked or trust.is_system():
            return False
        if sys.stderr.isatty():
            return True
        if self.command != "renew" or self.job is None:
            return False
        from letsencrypt_mdaemon.system import schedule  # noqa: PLC0415 - seldom

        return schedule.MARK in self.job.command

    @property
    def is_scheduled(self) -> bool:
        """Whether this is most likely a job of the schedule."""
        config = self.config
        by_hand = config.dry_run or config.force or config.ask_ca or config.staging
        return self.command == "renew" and not by_hand and not self.is_typed

    def open(self, *, look: bool = True, read_only: bool = False) -> Installation:
        """Open the installation.

        Args:
            look: Whether to check what its ports serve.
            read_only: Leave damaged state files where they are.
        """
        self.installation = open_installation(
            self.config,
            self.root,
            look=look,
            scheduled=self.is_scheduled,
            read_only=read_only,
        )
        return self.installation

    def prepare(self) -> Prepared:
        """Open the installation for a run that changes the server."""
        from letsencrypt_mdaemon.app import renewal  # noqa: PLC0415 - slow to import

        installation = self.open()
        if self.is_scheduled:
            installation = installation.noted(self.now)
            self._is_noted = True
        self.names = installation.names()
        self.prepared = renewal.prepare(installation, self.names)
        return self.prepared

    def confirm(self, lines: Sequence[str], *, yes: bool) -> None:
        """Show what is about to happen, and ask whether it should.

        Args:
            yes: Whether the command line agrees to it, so that nobody is asked.

        Raises:
            ConfigError: If the answer is no, or nobody can be asked.
        """
        if yes:
            return
        if not all(stream and stream.isatty() for stream in (sys.stdin, sys.stderr)):
            message = f"`{self.command}` needs your consent. {' '.join(lines)}"
            raise ConfigError(message, hint="Nothing was changed. Add --yes.")
        log.erase_progress()
        click.echo("\n".join(lines), err=True)
        try:
            agrees = click.confirm("Go on?", err=True)
        except click.Abort:
            agrees = False
        if not agrees:
            raise ConfigError("You did not agree. Nothing was changed.")

    def mail(self, subject: str, lines: Iterable[str]) -> tuple[str, ...]:
        """Send a mail to the recipients in the settings (`build.send_mail`).

        Settings that are invalid stop no mail to those that are valid.
        """
        return build.send_mail(self.valid.config, lambda: self.root, subject, lines)

    def note_end(self, exit_code: int) -> None:
        """Remember how a run of `renew` ended; a failure here is only a warning."""
        config = self.valid.config if self.state is not None else None
        if config is None or self.command != "renew" or config.staging:
            return
        try:
            build.note_end(
                config, self.root, exit_code, self.now, scheduled=self._is_noted
            )
        except Error as exc:
            _log.warning("The result of this run could not be saved: %s", exc)

    def lock(self) -> State:
        """Wait for no other run: be the only one, or fail.

        Raises:
            BusyError: If another run holds the lock.
            Error: If the state folder cannot be used, or is not trusted.
        """
        self.state = self.exits.enter_context(
            build.locked_state(self.valid.config, self.root, self.valid.file)
        )
        return self.state

    def _config_file(self) -> Path | None:
        """Return the config file that is named, else the one in MDaemon's folder."""
        named = self._file or os.environ.get(load.CONFIG)
        if named:
            return Path(named)
        if self.command == "check" and "metrics-file" in self.options:
            return None  # whoever asks may read nothing else
        variable = os.environ.get(f"{load.PREFIX}MDAEMON_DIR", "")
        (text,) = self.options.get("mdaemon-dir", (variable,))
        given = parse_path(text, Path.cwd()) if text else None
        for place in folders.places(given, ""):
            root = folders.root_of(place.folder)
            for file in (
                folders.child(root, "LetsEncrypt", load.FILE_NAME),
                folders.child(root, load.FILE_NAME),
            ):
                with explained(f"look for {file}", failure=ConfigError, hint=ENTER):
                    if file.is_file():
                        return file
            _warn_of_near_names(folders.child(root, "LetsEncrypt"))
        return None


def _warn_of_near_names(folder: Path) -> None:
    """Warn of files that look like the config file, and are not read.

    Explorer hides the ending .txt that Notepad adds.
    """
    with suppress(OSError):
        for file in sorted(folder.iterdir()):
            if _NEAR_NAME.fullmatch(file.name) and file.is_file():
                text = "%s is not read: the config file is named %s. Rename it."
                _log.warning(text, file, load.FILE_NAME)
