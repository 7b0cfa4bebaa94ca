"""Schedule `renew` on this system."""

from __future__ import annotations

import logging
import sys
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from letsencrypt_mdaemon.app import build, trust
from letsencrypt_mdaemon.config import load
from letsencrypt_mdaemon.errors import ConfigError, Error
from letsencrypt_mdaemon.mdaemon import folders
from letsencrypt_mdaemon.system import disk, process
from letsencrypt_mdaemon.system.schedule import MARK, RUNNING, Cron
from letsencrypt_mdaemon.system.tasks import TaskScheduler
from letsencrypt_mdaemon.text import days, printable
from letsencrypt_mdaemon.windows import access

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from letsencrypt_mdaemon.config.settings import Config
    from letsencrypt_mdaemon.system.schedule import Job

_log = logging.getLogger(__name__)

MAX_PAUSE = timedelta(hours=36)
"""Without a scheduled run: three times the usual interval."""

Scheduler = TaskScheduler | Cron


def of_this_system() -> Scheduler:
    """Return the system's scheduler.

    Raises:
        ConfigError: If there is none.
    """
    if sys.platform == "win32":
        schtasks = process.system_program("schtasks")
        return TaskScheduler(schtasks, account=access.SYSTEM)
    try:
        return Cron(process.system_program("crontab"))
    except ConfigError as exc:
        hint = "Install cron, or let another scheduler run `renew` twice a day."
        raise ConfigError(exc.message, hint=hint) from exc


def command(
    loaded: load.Loaded, options: Mapping[str, Sequence[str]], root: Path
) -> tuple[str, ...]:
    """Return the command that the scheduler runs: `renew` with these options.

    Args:
        options: Settings from the command line: texts by setting name.
        root: MDaemon's folder.

    Raises:
        ConfigError: If others can change the program, so that SYSTEM would refuse it,
            or if it is installed for this user or this folder only; or, on Windows,
            if something is on a drive that only this account has.
    """
    flags = (load.as_option(*item) for item in options.items())
    return (*program(loaded, root), "renew", MARK, *flags)


def program(loaded: load.Loaded, root: Path, *more: Path) -> tuple[str, ...]:
    """Return how SYSTEM runs this program, up to the name of a command.

    Args:
        more: See `trust.require_program`.

    Raises:
        ConfigError: As `command` does.
    """
    require_drives(paths(loaded.config, loaded.file, root))
    trust.require_program(loaded.file, root, *more)
    words = isolated()
    if not getattr(sys, "frozen", False):
        _require_isolated(Path(sys.executable))
    if loaded.file is not None:
        words += ["--config", str(loaded.file.absolute())]
    if not loaded.config.agree_tos:
        _log.warning(
            "The first run would fail, because agree-tos is not set. Set it in the "
            "config file to accept the CA's terms of service."
        )
    origins = loaded.origins.items()
    if lost := [name for name, where in origins if where.startswith("environment")]:
        _log.warning(
            "Scheduled runs do not get this environment. Set %s in the config file.",
            ", ".join(lost),
        )
    if not loaded.config.proxy and (proxy := lost_proxy(loaded.config.ca)):
        _log.warning(
            "Scheduled runs do not get this account's proxy %s. If they need it to "
            "reach the CA, set proxy in the config file.",
            proxy,
        )
    return tuple(words)


def isolated() -> list[str]:
    """Return how this program is run, whatever the folder and the environment."""
    if getattr(sys, "frozen", False):
        return [sys.executable]
    # Neither the working directory nor the environment says what is imported.
    return [sys.executable, "-I", "-m", "letsencrypt_mdaemon"]


def paths(config: Config, file: Path | None, root: Path) -> dict[str, Path]:
    """Return what a scheduled run needs, by what it is."""
    found = {"Python": Path(sys.executable), "MDaemon's folder": root}
    if file is not None:
        found["the config file"] = file.absolute()
    for name, _ in load.settings():
        value = getattr(config, name.replace("-", "_"))
        kind, _, folder = value.partition(":") if name == "store" else ("", "", "")
        if kind == "pem" and folder:
            value = Path(folder)
        if isinstance(value, Path):
            found[name] = value
    return found


def require_drives(places: Mapping[str, Path]) -> None:
    """Refuse what is on a mapped or subst drive: SYSTEM has no such drive.

    Args:
        places: Paths by what they are.

    Raises:
        ConfigError: If there are such paths, on Windows.
    """
    if sys.platform != "win32":
        return
    from letsencrypt_mdaemon.windows import drives  # noqa: PLC0415 - Windows only

    found = {
        what: why
        for what, path in places.items()
        if (why := drives.lacking(path, drives.look))
    }
    if found:
        lines = "".join(
            f"\n  - {what}: {places[what]}: {why}" for what, why in found.items()
        )
        raise ConfigError(
            f"SYSTEM, which runs the task, does not have the drive of:{lines}",
            hint="Use the real folder, on a local disk. For a share, use its "
            r"\\server\share name, and let this computer's account read it.",
        )


def lost_proxy(url: str) -> str:
    """Return this account's proxy for a URL, if a scheduled run does not get it.

    cron gives no proxy to its jobs. The Task Scheduler's SYSTEM has the variables of
    the machine, and its own settings, not those of an administrator.
    """
    from letsencrypt_mdaemon.acme import exchange  # noqa: PLC0415 - slow, and seldom

    proxy = exchange.proxy_of(url)
    if proxy and sys.platform == "win32":
        from letsencrypt_mdaemon.windows import registry  # noqa: PLC0415 - Windows only

        known = {"HTTPS_PROXY", "ALL_PROXY"}
        if any(name.upper() in known for name in registry.machine_variables()):
            return ""
    # Without the name and the password that may come before the host.
    return printable(proxy.rpartition("//")[2].rpartition("@")[2], 300)


def faults(job: Job, file: Path | None, root: Path) -> list[str]:
    """Return, as clauses, what a scheduled command lacks or has of another place.

    Args:
        file: The config file that is used now.
        root: MDaemon's folder as it is found now.
    """
    program, *words = job.words or (job.command,)
    options = _values(words)
    config = options.get("--config", "")
    folder = options.get("--mdaemon-dir", "")
    needed = (program, config, folder)
    missing = [path for path in needed if path and disk.is_gone(Path(path))]
    if missing:
        text = "the scheduled command needs {}, which is not there"
        return [text.format(path) for path in missing]
    found = []
    if job.last_result not in {"", RUNNING}:
        found.append(f"the scheduled task {job.last_result}")
    if not _is_same(Path(program), Path(sys.executable)):
        found.append(f"the scheduled command runs {program}, not {sys.executable}")
    usual = [
        folders.child(root, "LetsEncrypt", load.FILE_NAME),
        folders.child(root, load.FILE_NAME),
    ]
    if config and file and not _is_same(Path(config), file):
        found.append(f"the scheduled command reads {config}, not {file}")
    elif not config and file and not any(_is_same(file, each) for each in usual):
        found.append(f"the scheduled command does not read {file}")
    elif config and not file:
        found.append(f"the scheduled command reads {config}; this command does not")
    if not found:
        # Neither this environment nor this command line is that of the job.
        given = {"mdaemon-dir": [folder]} if folder else {}
        try:
            there = build.find_root(load.read(given, {}, file)[0])
        except Error:
            return ["the scheduled command does not find MDaemon"]
        if not _is_same(there, root):
            found.append(f"the scheduled command is for {there}, not for {root}")
    return found


def _values(words: Sequence[str]) -> dict[str, str]:
    """Return the options of a command line that have a value."""
    found = {}
    for word, following in pairwise([*words, ""]):
        name, equals, value = word.partition("=")
        found[name] = value if equals else following
    return found


def _is_same(one: Path, other: Path) -> bool:
    """Whether two paths are the same place; a link to a file is another one."""
    if one.name.lower() != other.name.lower():
        return False
    try:
        return one.parent.samefile(other.parent)
    except OSError:
        return False


def our_job() -> Job | None:
    """Return our job as the scheduler shows it; None if there is none, or unknown."""
    try:
        return of_this_system().show()
    except Error as exc:
        _log.debug("Could not read the schedule: %s", exc)
        return None


def is_scheduled(job: Job | None, runs: Sequence[datetime], now: datetime) -> bool:
    """Whether something runs `renew`: our job, or another scheduler not long ago."""
    return job is not None or any(timedelta() <= now - at < MAX_PAUSE for at in runs)


def _require_isolated(python: Path) -> None:
    tried = "import letsencrypt_mdaemon.cli.main, letsencrypt_mdaemon.app.renewal"
    ended = process.run(python, "-I", "-c", tried)
    if ended.code:
        last = printable(ended.output.strip().rpartition("\n")[2], 300)
        raise ConfigError(
            f"{python} -I cannot run this program, as the scheduled command does: "
            f"{last}",
            hint="Install it in a virtual environment or for all users, not with "
            "`pip install --user` and not by PYTHONPATH.",
        )


def last_run(config: Config, root: Path) -> tuple[datetime | None, int | None]:
    """Return when the last scheduled run began, and its exit code, if known.

    Raises:
        ConfigError: If the state folder is not trusted.
    """
    state = build.state_of(config, root)
    try:
        memory = state.load()
    except Error as exc:
        _log.debug("Could not read the state: %s", exc)
        return None, None
    return (memory.runs[-1] if memory.runs else None), memory.exit_code


def doubts(
    last: timedelta | None,
    renewed: timedelta | None,
    file: Path | None,
    root: Path,
    *,
    sparse: bool,
) -> Iterator[str]:
    """Yield what is not good about the schedule, as clauses.

    Args:
        last: The time since the last scheduled run began; None if there was none.
        renewed: The time since a renewal by hand, before the first such run.
        file: The config file that is used now.
        root: MDaemon's folder as it is found now.
        sparse: Whether runs are too infrequent for the certificate.
    """
    try:
        scheduler = of_this_system()
        job, rivals, twins = scheduler.show(), scheduler.rivals(), scheduler.twins()
    except Error as exc:
        yield f"the schedule is unknown ({exc.message})"
        return
    if job is None:
        # Another scheduler may run it.
        if last is None or last > MAX_PAUSE:
            yield "no renewal is scheduled"
    else:
        yield from faults(job, file, root)
        if last is None and renewed is None:
            yield "no scheduled run was seen yet"
    if last is not None and last > MAX_PAUSE:
        yield f"the last scheduled run was {days(last)} ago"
    if sparse:
        yield "the schedule is too infrequent"
    for name in rivals:
        yield f"the task {name} runs the old script, too"
    if twins:
        text = f"several schedules run this program: {'; '.join(twins)}"
        yield text
