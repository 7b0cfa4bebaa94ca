"""Change which certificate the server uses."""

from __future__ import annotations

import logging
import sys
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.app import adapters, build, hook, mail_policy
from letsencrypt_mdaemon.app.installation import Installation, open_installation
from letsencrypt_mdaemon.errors import AcmeError, ConfigError, DeployError, Error
from letsencrypt_mdaemon.mdaemon import folders
from letsencrypt_mdaemon.renewal import by_hand, hold, run
from letsencrypt_mdaemon.renewal.due import lifetime
from letsencrypt_mdaemon.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptography import x509

    from letsencrypt_mdaemon.config.settings import Config
    from letsencrypt_mdaemon.mdaemon.discovery import Unseen
    from letsencrypt_mdaemon.renewal.adapters import Adapters, Outcome, Request
    from letsencrypt_mdaemon.state.memory import Target

_log = logging.getLogger(__name__)

MAIL_PAUSE = timedelta(hours=20)
"""Between two looks at the mail policies: runs look about once a day."""


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
            exits.enter_context(build.locked_state(config, root, None))
        installation = open_installation(config, root)
        return prepare(installation, installation.names()).renew(now)


class Prepared(NamedTuple):
    """A run before its decision.

    Args:
        named: The certificate that each target names; None if it is unknown.
        unseen: The known targets that cannot be seen.
    """

    installation: Installation
    request: Request
    adapters: Adapters
    named: Mapping[Target, x509.Certificate | None]
    unseen: Sequence[Unseen] = ()

    def renew(self, now: datetime) -> Outcome:
        """Renew the certificate if it is due, and make the server use it.

        Raises:
            Error: If the renewal fails, or the certificate is not in use everywhere.
        """
        config = self.installation.config
        if config.require_profile and not config.profile:
            message = "require-profile is set, but profile is not."
            raise ConfigError(message, hint="Set profile.")
        if not config.dry_run:
            # A killed run left its token files, which this run may not need.
            adapters.webroot(self.installation).sweep()
        memory = self.installation.memory
        self._require_all(now)
        try:
            outcome = run.renew(self._guarded(now), self.adapters, memory, now=now)
        except Error:
            self._catch_up()
            raise
        if config.dry_run and outcome.ordered and outcome.error is None:
            outcome = outcome._replace(error=self._disagreement())
        return self._with_error(outcome)

    def _guarded(self, now: datetime) -> Request:
        """Return the request with the names that the domains' policies need."""
        installation, look = self.installation, self.installation.state.mail()
        changes = not self.request.dry_run and not self.request.rehearse
        is_old = look is None or not timedelta() <= now - look.at < MAIL_PAUSE
        if changes and is_old and mail_policy.validator(installation.config):
            from letsencrypt_mdaemon.app import mail_checkup  # noqa: PLC0415 - slow

            look = mail_checkup.refreshed(installation, look, now=now)
        return self.request._replace(needed=look.needed) if look else self.request

    def _disagreement(self) -> Error | None:
        """Return the error of an order that needs agree-tos, if it is not set."""
        account = self.installation.ca.account()
        if self.installation.config.agree_tos or (account and account.url):
            return None
        try:
            adapters.accounts(self.installation).require_agreement()
        except AcmeError as exc:
            _log.warning("Could not ask the CA for its terms of service: %s", exc)
        except ConfigError as exc:
            return exc
        return None

    def activate(self, now: datetime) -> Outcome:
        """Activate the certificate that an earlier run obtained or rolled back.

        Raises:
            ConfigError: In a rehearsal: its certificate is for nobody's use.
            Error: If the certificate is not in use everywhere.
        """
        self._refuse_rehearsal("activate")
        request = self.request._replace(
            activate_only=True, issue_only=False, force=False
        )
        outcome = self._replace(request=request).renew(now)
        state = self.installation.state
        if not request.dry_run and (memory := state.load()).hold is not None:
            state.save(memory._replace(hold=None))
        return outcome

    def roll_back(self, now: datetime) -> Outcome:
        """Restore the last certificate that every port served.

        Raises:
            ConfigError: In a rehearsal.
            Error: If there is none, or it is not in use everywhere afterwards.
        """
        self._refuse_rehearsal("roll back")
        memory = self.installation.memory
        self._require_all(now)
        outcome = run.roll_back(self.request, self.adapters, memory, now=now)
        return self._with_error(outcome)

    def _refuse_rehearsal(self, doing: str) -> None:
        if self.request.rehearse:
            message = f"Cannot {doing}: with staging = yes, nothing in use is changed."
            raise ConfigError(message, hint="Remove staging from the settings.")

    def use(
        self,
        leaf: x509.Certificate,
        now: datetime,
        *,
        until: datetime | None = None,
    ) -> Outcome:
        """Make the server use a certificate of the store, and hold it.

        Args:
            leaf: A self-signed one is not held.
            until: When the hold ends; None = when the certificate is nearly over.

        Raises:
            Error: If it is not in use everywhere afterwards.
        """
        self._require_all(now)
        held = hold.begin(leaf, "use", now, until)
        memory = self.installation.memory
        outcome = by_hand.use(
            leaf, self.request, self.adapters, memory, now=now, held=held
        )
        return self._with_error(outcome)

    def reload(self, now: datetime, *, restart: bool) -> by_hand.Reloaded:
        """Make the server reload its certificate, and look at its ports.

        Raises:
            Error: If a restart fails.
        """
        memory = self.installation.memory
        return by_hand.reload(
            self.request, self.adapters, memory, now=now, restart=restart
        )

    def _require_all(self, now: datetime) -> None:
        """Stop before anything is changed if a target cannot be seen for now.

        With less than a tenth of the lifetime left, what can be seen is renewed.
        """
        hidden = [str(item) for item in self.unseen if not item.is_gone]
        leaves = [leaf for leaf in self.named.values() if leaf is not None]
        ends = [
            (leaf.not_valid_after_utc - now) * 10 < lifetime(leaf) for leaf in leaves
        ]
        if hidden and not any(ends):
            raise DeployError(
                f"Could not check {'; '.join(hidden)}. Nothing was changed.",
                hint="Close the program that has the file open, or let this account "
                "read it, and run again.",
            )

    def _catch_up(self) -> None:
        """Run a hook that failed earlier, before another failure ends this run."""
        leaves = {leaf for leaf in self.named.values() if leaf is not None}
        try:
            hook.catch_up(self.installation, leaves.pop() if len(leaves) == 1 else None)
        except Error as exc:
            _log.warning("%s %s", exc, exc.hint)

    def _with_error(self, outcome: Outcome) -> Outcome:
        """Return an outcome after its hook, with what failed after the activation."""
        try:
            hook.catch_up(self.installation, outcome.certificate)
        except Error as exc:
            if outcome.error is None:
                return outcome._replace(error=exc)
            _log.warning("%s %s", exc, exc.hint)
        if not self.unseen or outcome.error:
            return outcome
        shown = "; ".join(map(str, self.unseen))
        error = DeployError(
            f"The certificate is not named by every known INI value: {shown}.",
            hint="Choose the certificate in MDaemon's dialog again. If that part of "
            f'MDaemon was removed: discover --forget "{self.unseen[0].target}".',
        )
        return outcome._replace(error=error)


def prepare(installation: Installation, names: tuple[str, ...]) -> Prepared:
    """Find the targets, and make the request and the adapters of a run.

    Raises:
        ConfigError: If the settings or the server's files do not allow a run.
    """
    config = installation.config
    if config.iis_site_name and sys.platform != "win32":
        _log.warning(
            "Ignoring iis-site-name = %s: this system is not Windows.",
            printable(config.iis_site_name),
        )
    # A rehearsal does not touch the certificate in use.
    targets, unseen = ((), ()) if config.staging else installation.known_targets()
    if not config.staging:
        installation = installation.learned(targets, unseen)
    tools = adapters.adapters(installation, targets, names)
    named = tools.server.named(names)
    request = adapters.request(installation, names)
    return Prepared(installation, request, tools, named, unseen)
