"""The commands that renew, schedule, and show what is in use.

Only click is imported before a command is chosen, and only the table of settings before
it runs: `--help`, `--version` and a wrong option answer at once.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import click

from letsencrypt_mdaemon.cli import options
from letsencrypt_mdaemon.cli.options import Group, Result, command

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from letsencrypt_mdaemon.app.renewal import Prepared
    from letsencrypt_mdaemon.cli.context import Context
    from letsencrypt_mdaemon.cli.document import Document
    from letsencrypt_mdaemon.renewal.adapters import Outcome

_log = logging.getLogger(__name__)


@command(
    *("host-name", "alternate-host-names", "key-type", "directory-url", "agree-tos"),
    *("to", "remove-old-certificates", "no-activate", "no-reload", "skip-port-check"),
    *(*options.ONCE, "json", "mdaemon-dir", "webroot", "store"),
    takes=options.RENEW,
    own=(click.Option(["--scheduled", "is_marked"], is_flag=True, hidden=True),),
    example="renew --agree-tos --to me@example.com",
    is_logged=True,
)
def renew(context: Context) -> Result:
    """Renew the certificate if it is due.

    Then make MDaemon use it, and check that every port serves it.
    """
    from letsencrypt_mdaemon.app import rehearsal  # noqa: PLC0415 - slow

    result = carry_out(context, lambda run: run.renew(context.now))
    prepared, outcome = context.prepared, context.outcome
    if context.is_scheduled:
        if prepared and outcome and context.config.rehearse == "yes":
            rehearsal.rehearse(prepared.installation, outcome, context.now)
        return result
    from letsencrypt_mdaemon.app import scheduling  # noqa: PLC0415 - by hand only

    runs = prepared.installation.memory.runs if prepared else ()
    found = scheduling.is_scheduled(context.job, runs, context.now)
    return result._replace(items={**result.items, "scheduled": found})


@command(
    *("host-name", "alternate-host-names", "no-reload", "dry-run", "json"),
    *("mdaemon-dir", "store"),
    takes=options.DEPLOY,
    example="activate",
    is_logged=True,
)
def activate(context: Context) -> Result:
    """Use a certificate that is issued, but unused.

    One that `renew --no-activate` obtained, that was rolled back, or that waits because
    you chose another one with `use`.
    """
    return carry_out(context, lambda run: run.activate(context.now))


@command(
    *("host-name", "alternate-host-names", "no-reload", "dry-run", "json"),
    *("mdaemon-dir", "store"),
    takes=options.DEPLOY,
    example="rollback",
    is_logged=True,
)
def rollback(context: Context) -> Result:
    """Return to the last verified certificate.

    Runs keep it until it is nearly over; `activate` ends that.
    """
    return carry_out(context, lambda run: run.roll_back(context.now))


def carry_out(context: Context, act: Callable[[Prepared], Outcome]) -> Result:
    """Change which certificate the server uses."""
    from letsencrypt_mdaemon.app import status as overview  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.cli import document, verdict  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.cli.outcome import print_outcome  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.pki.certificate import tlsa  # noqa: PLC0415 - slow

    config = context.config
    prepared = context.prepare()
    overview.warn(prepared.installation, prepared.named.values())
    outcome = context.outcome = act(prepared)
    leaf = outcome.certificate
    pinned = config.key_policy != "new" and leaf is not None
    items = {
        **document.outcome(outcome),
        "tlsa": tlsa(leaf, context.names[0]) if pinned and leaf else None,
        "dry_run": config.dry_run,
        "staging": config.staging,
        "no_activate": config.no_activate,
        "directory_url": config.ca,
        "targets": [document.target(item) for item in prepared.named],
        "scheduled": True if context.is_scheduled else None,
        "days_left": document.days_left(
            prepared.named.values() if config.staging else [leaf]
        ),
        "command": context.command,
    }
    items["verdict"] = verdict.outcome(items, fails=outcome.error is not None)
    return Result(items, print_outcome, outcome.error)


@command(
    *("json", "mdaemon-dir", "store", "host-name", "alternate-host-names"),
    *("key-type", "directory-url"),
    takes=(*options.SERVER, *options.DUE, "after-activation"),
    helps=options.STAGING,
    own=(
        click.Option(["--ports"], is_flag=True, help="List each INI value and port."),
    ),
    example="status --ports",
)
def status(context: Context, *, ports: bool) -> Result:
    """Show the certificate, and when it is due.

    Shows the certificate in use, its expiry date, when and why it is due, and which
    ports do not serve it. Does not contact the CA.
    """
    from functools import partial  # noqa: PLC0415

    from letsencrypt_mdaemon.cli import status as shown  # noqa: PLC0415 - slow

    return Result(read_status(context), partial(shown.print_status, each=ports))


def read_status(context: Context) -> Document:
    """Return the JSON document of this server's status."""
    from letsencrypt_mdaemon.app import health, scheduling  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.app import status as overview  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.cli import document, verdict  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.cli import status as shown  # noqa: PLC0415 - slow

    installation = context.open(look=False, read_only=True)
    installation = installation.look(installation.names())
    found = overview.read(installation, now=context.now)
    judged = health.judge(
        installation, found, installation.observed, file=context.valid.file
    )
    runs = installation.memory.runs
    is_scheduled = scheduling.is_scheduled(context.job, runs, context.now)
    items = shown.status(found, installation, judged, is_scheduled=is_scheduled)
    items["days_left"] = document.days_left(found.snapshot.named.values())
    items["verdict"] = verdict.status(items)
    return items


@command(
    *("agree-tos", "to", "mdaemon-dir", "json"),
    takes=options.RENEW,
    example="schedule install",
)
def schedule_install(context: Context) -> Result:
    """Schedule `renew` twice a day.

    The scheduled command has the config file and the options given here. The time of
    day is chosen at random. On Windows the task runs as SYSTEM, without a password, and
    catches up on a missed start. Run it again to update the command.
    """
    from letsencrypt_mdaemon.app import scheduling  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.cli import document, text, verdict  # noqa: PLC0415 - slow

    scheduler = scheduling.of_this_system()
    given = {name: row for name, row in context.options.items() if name != "json"}
    rivals = scheduler.rivals()
    offer_to_keep_others_out(context)
    command = scheduling.command(context.loaded, given, context.root)
    job = scheduler.install(command)
    last = scheduling.last_run(context.config, context.root)
    items = verdict.schedule(document.job(job, last), rivals)
    return Result(items, text.print_installed)


def offer_to_keep_others_out(context: Context, *more: Path) -> None:
    """Offer to run the commands that make the config file's folder trusted.

    Args:
        more: See `trust.require_program`.
    """
    from letsencrypt_mdaemon.app import trust  # noqa: PLC0415 - slow

    doubts = trust.program_doubts(context.loaded.file, context.root, *more)
    text = trust.commands(doubts)
    if text and sys.stdin.isatty() and not context.config.json:
        for doubt in doubts:
            click.echo(f"{doubt.path}: {doubt.why}", err=True)
        question = f"Run these commands? {text}"
        if click.confirm(question, default=False, err=True):
            trust.mend(doubts)


@command("mdaemon-dir", "state-dir", "json", example="schedule show")
def schedule_show(context: Context) -> Result:
    """Show the schedule and the last run."""
    from letsencrypt_mdaemon.app import scheduling  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.cli import document, text, verdict  # noqa: PLC0415 - slow

    scheduler = scheduling.of_this_system()
    last = scheduling.last_run(context.config, context.root)
    job = scheduler.show()
    file = context.valid.file
    for fault in scheduling.faults(job, file, context.root) if job else ():
        _log.warning("%s%s. Run `schedule install`.", fault[:1].upper(), fault[1:])
    items = verdict.schedule(document.job(job, last), scheduler.rivals())
    return Result(items, text.print_job)


@command("mdaemon-dir", "state-dir", "json", example="schedule remove")
def schedule_remove(_: Context) -> Result:
    """Remove the scheduled task.

    Other tasks are left alone.
    """
    from letsencrypt_mdaemon.app import scheduling  # noqa: PLC0415 - slow

    removed = scheduling.of_this_system().remove()
    done = "Removed the scheduled task." if removed else "There was no scheduled task."
    items = {"removed": removed, "verdict": done}
    return Result(items, lambda _: click.echo(done))


schedule_group = Group(
    "schedule",
    {"Commands": [schedule_install, schedule_show, schedule_remove]},
    help="Let the system run `renew` twice a day.\n\nWith the Task Scheduler on "
    "Windows, with cron elsewhere.",
    epilog="Example:  letsencrypt-mdaemon schedule install",
)


@command(
    *("host-name", "directory-url", "to", "json", "mdaemon-dir", "store"),
    takes=None,
    example="config show",
)
def config_show(context: Context) -> Result:
    """Show every setting and its origin."""
    from letsencrypt_mdaemon.cli import text  # noqa: PLC0415 - slow

    loaded = context.loaded
    file = str(loaded.file) if loaded.file else None
    items = {"config_file": file, "settings": loaded.shown()}
    return Result(items, text.print_settings)


config_group = Group(
    "config",
    {"Commands": [config_show]},
    help="Show the configuration.",
    epilog="Example:  letsencrypt-mdaemon config show",
)
