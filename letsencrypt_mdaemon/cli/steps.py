"""The steps of `setup` after the questions, each said when it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from letsencrypt_mdaemon.app import config_file, survey
from letsencrypt_mdaemon.app import setup as steps
from letsencrypt_mdaemon.app.setup import Ended
from letsencrypt_mdaemon.cli import document, text
from letsencrypt_mdaemon.config import load
from letsencrypt_mdaemon.errors import DeployError, Error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from letsencrypt_mdaemon.app.scheduling import Scheduler
    from letsencrypt_mdaemon.app.survey import Survey
    from letsencrypt_mdaemon.cli.context import Context
    from letsencrypt_mdaemon.config.load import Loaded
    from letsencrypt_mdaemon.config.settings import Config
    from letsencrypt_mdaemon.renewal.adapters import Outcome

AGAIN = "Then run `setup` again: what is done is kept."
AGAIN_WITH_MAIL = "Then run `setup --test-mail`: what is done is kept."

CHANGES = {"written", "issued", "in use"}
"""Results of steps that a test mail follows; a new schedule is another."""

TITLES = {
    1: "rights, certificate store, keys, semaphores",
    2: "names, as the CA will see them",
    3: "rehearsal at the staging CA",
    4: "configuration",
    5: "certificate",
    6: "MDaemon's choice of certificate",
    7: "ports",
    8: "schedule",
    9: "test mail",
}


class Steps:
    """The steps after the questions, each said when it ends.

    Attributes:
        is_mailing: Whether a test mail is sent: something changed, or it is asked for.
        done: Number, title, result and detail of each, as JSON.
        error: Why the server is not ready, although the steps were taken.
        days_left: Those of the certificate in use.
        verdict: The result in a sentence, if the server is ready.
    """

    def __init__(
        self,
        context: Context,
        scheduler: Scheduler | None,
        disable: Sequence[str],
        say: Callable[[str], object],
        *,
        is_asking: bool,
    ) -> None:
        self.context = context
        self.scheduler = scheduler
        self.disable = disable
        self.say = say
        self.is_asking = is_asking
        self.is_mailing = False
        self.done: list[Mapping[str, object]] = []
        self.error: Error | None = None
        self.days_left: float | None = None
        self.verdict = ""

    def go(
        self,
        found: Survey,
        answers: Mapping[str, str],
        data: bytes,
        *,
        no_rehearsal: bool,
    ) -> None:
        """Take the steps.

        Args:
            data: The new content of the config file.

        Raises:
            Error: If one fails; those before it are done.
        """
        root, options, former = (
            self.context.root,
            self.context.options,
            self.context.loaded.file,
        )
        installation = self.context.open(look=False)
        self._step(1, lambda: steps.machine(installation, former))
        loaded = steps.configured(former, options, answers)
        self._step(2, lambda: steps.names(installation, loaded, found.offers))
        skipped = Ended("skipped", "--no-rehearsal")
        self._step(
            3, lambda: skipped if no_rehearsal else steps.rehearse(loaded.config)
        )
        file = config_file.place(loaded, root)
        self._step(4, lambda: steps.write_config(file, data))
        loaded = steps.configured(file, options, answers)
        outcome = self._certificate(loaded)
        self._step(7, lambda: self._ports(outcome, loaded.config))
        self._schedule(loaded, file)
        self._step(9, lambda: self._mail(loaded.config))
        self.say(text.SWITCH_OFF)
        leaf = outcome.certificate if outcome else None
        self.days_left = document.days_left([leaf])
        if self.error is None:
            self.verdict = steps.farewell(outcome)
            self.say(self.verdict)

    def _certificate(self, loaded: Loaded) -> Outcome | None:
        """Obtain the certificate; on a new server, let the person choose it."""
        root, config = self.context.root, loaded.config
        outcome: Outcome | None = None
        missing: DeployError | None = None

        def obtain() -> Ended:
            nonlocal outcome, missing
            try:
                outcome = steps.obtain(config)
            except DeployError as exc:
                if not exc.unchosen:
                    raise
                missing = exc
                return Ended("issued", "in the store")
            return steps.issued(outcome)

        self._step(5, obtain)

        def choose() -> Ended:
            nonlocal outcome, missing
            while missing is not None and self.is_asking:
                self.say(f"    {missing.hint}")
                try:
                    click.prompt(
                        "    Then press Enter here", default="", show_default=False
                    )
                except click.Abort:  # Ctrl-C: the rest is done all the same
                    break
                if not steps.is_new(config, root):
                    outcome, missing = steps.obtain(config), None
            if missing is not None:
                self.error = missing
                return Ended("missing", missing.hint)
            return Ended("found", steps.values(config, root))

        self._step(6, choose)
        if outcome is not None:
            self.error = outcome.error
        return outcome

    def _ports(self, outcome: Outcome | None, config: Config) -> Ended:
        ended, error = steps.ports(outcome, config, self.context.root)
        self.error = self.error or error
        return ended

    def _mail(self, config: Config) -> Ended:
        if not self.is_mailing:
            return Ended("skipped", "nothing changed; --test-mail sends it")
        return steps.test_mail(config, self.context.root)

    def _schedule(self, loaded: Loaded, file: Path) -> None:

        def act() -> Ended:
            if self.scheduler is None:
                return Ended("skipped", "--no-schedule")
            # The scheduled command gets no environment and no options.
            scheduled = load.load({}, {}, file)
            config_file.require_no_secret(loaded, scheduled)
            job, is_new = steps.schedule(self.scheduler, scheduled, self.context.root)
            self.is_mailing |= is_new or bool(self.disable)
            steps.disable(self.scheduler, loaded, self.context.root, self.disable)
            off = "".join(
                f'; the task "{survey.title(name)}" is disabled'
                for name in self.disable
            )
            return Ended(job.when, f"daily{off}")

        self._step(8, act)

    def _step(self, number: int, act: Callable[[], Ended]) -> None:
        title = TITLES[number]
        try:
            ended = act()
        except Error as exc:
            self.say(f"{number} {title:<44}failed")
            again = AGAIN_WITH_MAIL if number == max(TITLES) else AGAIN
            exc.hint = f"{exc.hint} {again}".strip()
            raise
        self.is_mailing |= ended.result in CHANGES
        line = f"{number} {title:<44}{ended.result:<12}  {ended.detail}".rstrip()
        if len(line) > (text.columns() or text.WIDTH):
            self.say(f"{number} {title:<44}{ended.result}")
            line = f"    {ended.detail}"
        self.say(line)
        row = {"number": number, "title": title, **ended._asdict()}
        self.done.append(row)
