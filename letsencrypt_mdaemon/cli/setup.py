"""The command that sets up a server: it asks, acts step by step, and says how it went.

It may be run again as often as wanted: what is done stays done.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import click

from letsencrypt_mdaemon.cli.options import RENEW, Result, command
from letsencrypt_mdaemon.cli.parameters import offer
from letsencrypt_mdaemon.errors import ConfigError, Error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from letsencrypt_mdaemon.app.scheduling import Scheduler
    from letsencrypt_mdaemon.app.survey import Offer, Survey
    from letsencrypt_mdaemon.cli.context import Context
    from letsencrypt_mdaemon.cli.document import Document
    from letsencrypt_mdaemon.config.load import Loaded

SOURCES = ("auto", "script", "simple-acme", "none")
_OWN = (
    click.Option(
        ["--yes"],
        is_flag=True,
        help="Ask nothing: take every default, and agree to the CA's terms.",
    ),
    click.Option(
        ["--print", "only_print"],
        is_flag=True,
        help="Print the config file; do nothing.",
    ),
    click.Option(["--no-schedule"], is_flag=True, help="Do not schedule `renew`."),
    click.Option(["--no-rehearsal"], is_flag=True, help="Do not rehearse."),
    click.Option(
        ["--import", "source"],
        metavar="FROM",
        default=SOURCES[0],
        shell_complete=offer(SOURCES),
        help=f"Where to look for names: {', '.join(SOURCES)}.  [default: auto]",
    ),
    click.Option(
        ["--test-mail"], is_flag=True, help="Send a test mail even if nothing changed."
    ),
    click.Option(["--keep-task"], is_flag=True, help="Leave the old script's task."),
    click.Option(
        ["--undo"],
        is_flag=True,
        help="Remove the schedule; enable the task that `setup` disabled.",
    ),
)


@command(
    *("host-name", "alternate-host-names", "to", "allow-restart", "directory-url"),
    *("mdaemon-dir", "store", "json"),
    takes=RENEW,
    own=_OWN,
    example="setup --yes --to me@example.com",
)
def setup(  # noqa: PLR0913 - its options
    context: Context,
    *,
    yes: bool,
    only_print: bool,
    no_schedule: bool,
    no_rehearsal: bool,
    test_mail: bool,
    source: str,
    keep_task: bool,
    undo: bool,
) -> Result:
    """Set up everything, step by step.

    Finds the server, asks at most five questions, and ends with a server that is
    renewed, verified, scheduled, and has sent a test mail. Run it again whenever you
    want: it changes only what differs.
    """
    from letsencrypt_mdaemon.app import config_file, scheduling  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.app import setup as steps  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.cli.steps import Steps  # noqa: PLC0415 - slow

    if source not in SOURCES:
        message = f"--import: {source!r} is not valid; use {', '.join(SOURCES)}."
        raise ConfigError(message)
    if only_print and undo:
        raise ConfigError("--print and --undo exclude each other.", hint="Use one.")
    if not only_print:
        steps.require_rights(context.root)
    if undo:
        done = steps.undo(scheduling.of_this_system(), context.loaded, context.root)
        text = f"{'; '.join(done) or 'There was nothing to undo'}."
        return Result({"verdict": text, "undone": done}, lambda _: click.echo(text))
    steps.refuse_once(context.loaded)
    is_asking = not (yes or only_print)
    if is_asking and (context.config.json or not sys.stdin.isatty()):
        message = "`setup` asks questions, and this is no terminal."
        if context.config.json:
            message = "`setup` asks questions, which JSON cannot show."
        raise ConfigError(message, hint="Use --yes to take every default.")
    scheduler = None if no_schedule else _scheduler(is_needed=not only_print)
    found = _survey(context, scheduler, source, examines=not only_print)
    say = _mute if context.config.json or only_print else _say
    _introduce(found, say)
    answers, disable = _ask(context.loaded, found, is_asking=is_asking)
    if keep_task:
        disable = ()
    values = config_file.wanted(context.loaded, context.options, answers)
    file = config_file.place(context.loaded, context.root)
    data = config_file.content(file, values)
    if only_print:
        return Result({"config_file": data.decode()}, lambda _: _show(data))
    say("")
    run = Steps(context, scheduler, disable, say, is_asking=is_asking)
    run.is_mailing = test_mail
    try:
        run.go(found, answers, data, no_rehearsal=no_rehearsal)
    except Error as exc:
        run.error = exc
    items: Document = {
        "days_left": run.days_left,
        "verdict": run.verdict,
        "mdaemon_dir": str(context.root),
        "names": answers,
        "steps": run.done,
    }
    return Result(items, lambda _: None, run.error)


def _say(line: str) -> None:
    """Print a line, in place of the progress line."""
    from letsencrypt_mdaemon.cli import text  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.system import log  # noqa: PLC0415 - slow

    log.erase_progress()
    text.say(line, indent=len(line) - len(line.lstrip()))


def _mute(_: str) -> None:
    pass


def _show(data: bytes) -> None:
    click.echo(data.decode().replace("\r\n", "\n"), nl=False)


def _scheduler(*, is_needed: bool) -> Scheduler | None:
    """Return the system's scheduler; None if there is none, and none is needed."""
    from letsencrypt_mdaemon.app import scheduling  # noqa: PLC0415 - slow

    try:
        return scheduling.of_this_system()
    except ConfigError:
        if is_needed:
            raise
        return None


def _survey(
    context: Context, scheduler: Scheduler | None, source: str, *, examines: bool
) -> Survey:
    from letsencrypt_mdaemon.app import build, survey  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.app import setup as steps  # noqa: PLC0415 - slow

    installation = context.open(look=False, read_only=not examines)
    lock: AbstractContextManager[object] = nullcontext()
    if examines:
        lock = build.locked_state(context.config, context.root, context.loaded.file)
    with lock:
        return survey.look(
            installation,
            context.loaded,
            scheduler,
            source,
            now=steps.now(),
            examines=examines,
        )


def _introduce(found: Survey, say: Callable[[str], object]) -> None:
    running = {True: " It is running.", False: " It is not running."}
    state = running.get(found.running, "") if found.running is not None else ""
    say(f"MDaemon in {found.root} ({found.origin}).{state}")
    for other in found.others:
        say(f"Another MDaemon is in {other}; --mdaemon-dir DIR sets that one up.")
    heading = "Names found:"
    for item in found.offers:
        say(f"{heading:<12} {item.name} ({item.origin})")
        if item.verdict:
            what = "may fail" if item.chosen else "would fail"
            say(f"{'':<12}     {what}: {item.verdict}")
        heading = ""


def _ask(
    loaded: Loaded, found: Survey, *, is_asking: bool
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the answers as settings, and the tasks to disable.

    Raises:
        ConfigError: If the CA's terms of service are not agreed to.
    """
    from letsencrypt_mdaemon.app import survey  # noqa: PLC0415 - slow

    config = loaded.config
    answers: dict[str, str] = {}
    names = [item.name for item in found.offers if item.chosen]
    to, restart, disable = found.mail, config.allow_restart, found.rivals
    if is_asking:
        if found.others and not click.confirm(f"Set up {found.root}?", default=True):
            raise ConfigError("Nothing was done.", hint="Use --mdaemon-dir DIR.")
        names = _names(names, found.offers)
        to = click.prompt("Mail when something fails", default=to).strip()
        if found.terms:
            click.echo(f"The CA's terms of service: {found.terms}")
            if not click.confirm("Agree?", default=False):
                message = "Without agreement to its terms, the CA issues nothing."
                raise ConfigError(message, hint="Read them, then run `setup` again.")
        question = "May MDaemon be restarted when a port keeps the old certificate?"
        restart = click.confirm(question, default=restart)
        if disable:
            tasks = " and ".join(f'"{survey.title(name)}"' for name in disable)
            if not click.confirm(f"Disable the task {tasks}?", default=True):
                disable = ()
    first, *more = names
    own = next(item.name for item in found.offers)
    if first != own:
        answers["host-name"] = first
    answers["alternate-host-names"] = ", ".join(more)
    answers["to"] = to
    if found.terms or config.agree_tos:  # asked, or --yes
        answers["agree-tos"] = "yes"
    answers["allow-restart"] = "yes" if restart else "no"
    return answers, disable


def _names(default: Sequence[str], offers: Sequence[Offer]) -> list[str]:
    """Ask for the names until all of them can be names."""
    from letsencrypt_mdaemon.pki.names import normalise  # noqa: PLC0415

    while True:
        text = click.prompt("Names of the certificate", default=", ".join(default))
        try:
            names = [normalise(word) for word in text.replace(",", " ").split()]
        except ValueError as exc:
            click.echo(f"A name {exc}.")
            continue
        if names:
            return list(dict.fromkeys(names))
        click.echo(f"At least one is needed, such as {offers[0].name}.")
