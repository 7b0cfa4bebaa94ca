"""Set up a server: what each step of `setup` does, and the config file."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon import authorities
from letsencrypt_mdaemon.app import (
    build,
    health,
    renewal,
    scheduling,
    selftest,
    survey,
    trust,
)
from letsencrypt_mdaemon.app.config_file import ONCE, former
from letsencrypt_mdaemon.app.installation import open_installation
from letsencrypt_mdaemon.config import load
from letsencrypt_mdaemon.errors import ConfigError, DeployError
from letsencrypt_mdaemon.mdaemon import folders
from letsencrypt_mdaemon.system import handles, mail
from letsencrypt_mdaemon.system.disk import (
    create,
    explained,
    make_private_folder,
    neighbour,
    remove,
    rename,
)
from letsencrypt_mdaemon.system.identity import Status
from letsencrypt_mdaemon.text import day

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from letsencrypt_mdaemon.app.installation import Installation
    from letsencrypt_mdaemon.app.scheduling import Scheduler
    from letsencrypt_mdaemon.app.survey import Offer
    from letsencrypt_mdaemon.config.load import Loaded
    from letsencrypt_mdaemon.config.settings import Config
    from letsencrypt_mdaemon.renewal.adapters import Outcome
    from letsencrypt_mdaemon.system.schedule import Job

SHORT_WAIT = timedelta(hours=2)
"""The longest wait of our own before the daily one (`ledger.RETRY_DELAYS`)."""

ELEVATE = {
    "win32": "Run this in a Command Prompt opened as administrator.",
}


class Ended(NamedTuple):
    """How a step ended.

    Args:
        result: A word or two: ok, written, skipped, unchanged.
        detail: More, or "".
    """

    result: str
    detail: str = ""


def require_rights(root: Path) -> None:
    """Require the rights to change the server's files.

    Raises:
        ConfigError: If this account has not.
    """
    app = folders.child(root, "App")
    is_elevated = os.access(app, os.W_OK)
    if sys.platform == "win32":
        import ctypes  # noqa: PLC0415 - Windows only

        is_elevated = bool(ctypes.windll.shell32.IsUserAnAdmin())
    if not is_elevated:
        message = f"This account may not change MDaemon's files in {app}."
        hint = "Run this as root, or as the account that owns that folder."
        raise ConfigError(message, hint=ELEVATE.get(sys.platform, hint))


def write_config(file: Path, data: bytes) -> Ended:
    """Write the config file, unless it is the same.

    It keeps its mode and owner; where it is a link of ours, the target is written. A
    new one can be read by everybody: `setup` writes no secret into it.

    Raises:
        ConfigError: If it cannot be written.
    """
    with explained(f"write {file}", failure=ConfigError):
        if former(file) == data:
            return Ended("unchanged", str(file))
        make_private_folder(file.parent, 0o755)
        target, like = handles.resolved(file), None
        if target.exists():
            with handles.opened(target) as handle:
                like = Status.of(handle)
        fresh = neighbour(target)
        try:
            create(fresh, data, mode=0o644, like=like)
            rename(fresh, target)
        finally:
            remove(fresh)
    return Ended("written", str(file))


def machine(installation: Installation, file: Path | None) -> Ended:
    """Test what the program needs on this machine.

    Raises:
        DeployError: If something does not work.
        ConfigError: If SYSTEM must not run this program, because others can change it,
            or does not have its drive.
    """
    scheduling.require_drives(
        scheduling.paths(installation.config, file, installation.root)
    )
    trust.require_program(file, installation.root)
    with build.locked_state(installation.config, installation.root, file):
        report = selftest.run(list(selftest.checks(installation)))
    if report.failed:
        failed = [check for check in report.checks if check.result == "failed"]
        text = "; ".join(f"{check.name}: {check.detail}" for check in failed)
        raise DeployError(f"The self-test failed: {text}", hint="Correct that.")
    return Ended("ok")


def names(installation: Installation, loaded: Loaded, offers: Sequence[Offer]) -> Ended:
    """Let the doctor look at the names that nobody has looked at yet.

    What it sees does not stop the setup: the rehearsal decides.

    Raises:
        ConfigError: If the server's own name is unclear.
    """
    wanted_names = installation._replace(config=loaded.config).wanted_names()
    known = {item.name: item for item in offers}
    new = {name: "" for name in wanted_names if name not in known}
    if new:
        with build.locked_state(loaded.config, installation.root, loaded.file):
            more = survey.examine(installation, new, now=now())
        known |= {item.name: item for item in more}
    bad = [known[name].verdict for name in wanted_names if known[name].verdict]
    return Ended("doubtful", "; ".join(bad)) if bad else Ended("ok")


def rehearse(config: Config) -> Ended:
    """Obtain a certificate from the CA's staging service, but do not use it.

    Raises:
        Error: If the CA cannot validate a name, or the rehearsal fails otherwise.
    """
    if not authorities.at(config.ca).staging:
        return Ended("skipped", "this CA has no staging service")
    began = time.monotonic()
    # An earlier rehearsal says nothing of today.
    renewal.renew(replace(config, staging=True, force=True))
    return Ended("ok", f"{time.monotonic() - began:.0f} s")


def obtain(config: Config) -> Outcome:
    """Renew, if a certificate is due.

    A person who runs `setup` again has mended something: a short wait after a failure
    is cut, but no limit of the CA.

    Raises:
        Error: If the renewal fails; on a new server, a DeployError once the certificate
            is in the store, and nobody has chosen it yet.
    """
    outcome = renewal.renew(config)
    until = outcome.waits_until
    if until is not None and until - now() < SHORT_WAIT:
        return renewal.renew(replace(config, force=True))
    return outcome


def is_new(config: Config, root: Path) -> bool:
    """Whether MDaemon's files name no known certificate yet."""
    return not open_installation(config, root, look=False).targets()


def schedule(scheduler: Scheduler, loaded: Loaded, root: Path) -> tuple[Job, bool]:
    """Schedule `renew` with the config file.

    Returns:
        The job, and whether it was not scheduled like that before.

    Raises:
        Error: If the scheduler refuses.
    """
    before = scheduler.show()
    job = scheduler.install(scheduling.command(loaded, {}, root))
    after = scheduler.show()
    is_same = before and after and before.command == after.command
    return job, not is_same


def refuse_once(loaded: Loaded) -> None:
    """Refuse settings of one run, with which nothing would be put into use.

    Raises:
        ConfigError: If there are some.
    """
    for name in ONCE[:-1]:
        if getattr(loaded.config, name.replace("-", "_")):
            origin = loaded.origins.get(name, name)
            message = f"{origin}: with this setting, nothing would be put into use."
            raise ConfigError(message, hint="Remove it, then run `setup` again.")


def disable(
    scheduler: Scheduler, loaded: Loaded, root: Path, names: Sequence[str]
) -> None:
    """Disable tasks, and remember them for `setup --undo`.

    Raises:
        Error: If the scheduler refuses.
    """
    if not names:
        return
    with build.locked_state(loaded.config, root, loaded.file) as state:
        for name in names:
            memory = state.load()
            disabled = tuple(dict.fromkeys([*memory.disabled, name]))
            state.save(memory._replace(disabled=disabled))
            scheduler.switch(name, on=False)


def undo(scheduler: Scheduler, loaded: Loaded, root: Path) -> list[str]:
    """Remove our schedule, and enable the tasks that `setup` disabled.

    Returns:
        What was done.

    Raises:
        Error: If the scheduler refuses.
    """
    done = ["removed the schedule"] if scheduler.remove() else []
    with build.locked_state(loaded.config, root, loaded.file) as state:
        for name in state.load().disabled:
            scheduler.switch(name, on=True)
            memory = state.load()
            left = tuple(other for other in memory.disabled if other != name)
            state.save(memory._replace(disabled=left))
            done.append(f'enabled the task "{survey.title(name)}"')
    return done


def test_mail(config: Config, root: Path) -> Ended:
    """Send the mail that `notify-test` sends.

    Raises:
        Error: If it cannot be sent.
    """
    if not config.to:
        return Ended("skipped", "nobody is to be mailed (to)")
    *recipients, where = build.send_mail(config, lambda: root, *mail.trial())
    return Ended("sent", f"to {', '.join(recipients)} {where}")


def configured(
    file: Path | None,
    options: Mapping[str, Sequence[str]],
    answers: Mapping[str, str] | None = None,
) -> Loaded:
    """Return the configuration with the answers, before or after they are written.

    Raises:
        ConfigError: With every problem and its place.
    """
    given = {name: (text,) for name, text in (answers or {}).items()}
    return load.load({**options, **given}, os.environ, file)


def issued(outcome: Outcome) -> Ended:
    """Return how the certificate's step ended."""
    leaf = outcome.certificate
    until = f"valid until {day(leaf.not_valid_after_utc)}" if leaf else ""
    return Ended("in use" if outcome.renewed else "unchanged", until)


def values(config: Config, root: Path) -> str:
    """Return how many INI values name the certificate."""
    targets = open_installation(config, root, look=False).targets()
    return f"{len(targets)} INI value{'s' * (len(targets) != 1)}"


def ports(
    outcome: Outcome | None, config: Config, root: Path
) -> tuple[Ended, DeployError | None]:
    """Return what the ports show; look at them, unless the renewal did.

    Returns:
        How the step ended, and an error if a port that served the certificate does not
        any more.

    Raises:
        Error: If the state, the store or the server's files cannot be read.
    """
    if outcome is None:
        return Ended("skipped", "the certificate is not in use yet"), None
    if outcome.renewed or outcome.proof is not None:
        return Ended(outcome.proof.headline if outcome.proof else "not checked"), None
    installation = open_installation(config, root, look=False)
    proof, lost = health.ports(installation, now=now())
    if not lost:
        return Ended(proof.headline if proof.rows else "not checked"), None
    text = f"No longer served: {'; '.join(map(str, lost))}."
    hint = "Check that MDaemon runs. `letsencrypt-mdaemon reload` lets it reload."
    return Ended(proof.headline, text), DeployError(text, hint=hint)


def farewell(outcome: Outcome | None) -> str:
    """Return the last line."""
    due = outcome.next_at if outcome else None
    when_due = f" Next renewal: about {day(due)}." if due else ""
    return f"Ready.{when_due} `letsencrypt-mdaemon status` shows it."


def now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)
