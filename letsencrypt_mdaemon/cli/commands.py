"""The command line: options in, one use case, its result out.

Nothing but click is imported before a command is chosen, and only the table of settings
before it runs, so that `--help`, `--version` and a wrong option answer at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from letsencrypt_mdaemon.cli.options import (
    CONTEXT,
    PLACES,
    RENEW,
    WANTED,
    cli,
    run_command,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from letsencrypt_mdaemon.app.renewal import Prepared
    from letsencrypt_mdaemon.cli.run import Run
    from letsencrypt_mdaemon.renewal.adapters import Outcome


@run_command(cli, *RENEW, example="renew --agree-tos --to me@example.com")
def renew(run: Run) -> None:
    """Renew the certificate if it is due, and make the server use it."""
    from letsencrypt_mdaemon.app import renewal  # noqa: PLC0415

    _carry_out(run, renewal.renew)


@run_command(cli, *PLACES, *WANTED, "no-reload", "dry-run", "json", example="activate")
def activate(run: Run) -> None:
    """Put into use what `renew --no-activate` obtained, or what was rolled back."""
    from letsencrypt_mdaemon.app import renewal  # noqa: PLC0415

    _carry_out(run, renewal.activate)


@run_command(cli, *PLACES, *WANTED, "no-reload", "json", example="rollback")
def rollback(run: Run) -> None:
    """Go back to the last certificate that was seen to work on every port."""
    from letsencrypt_mdaemon.app import renewal  # noqa: PLC0415

    _carry_out(run, renewal.roll_back)


def _carry_out(run: Run, act: Callable[[Prepared, datetime], Outcome]) -> None:
    """Change the server: as the only run, with log and mail; print the outcome."""
    from datetime import UTC, datetime  # noqa: PLC0415

    from letsencrypt_mdaemon.app import renewal  # noqa: PLC0415
    from letsencrypt_mdaemon.cli import document as report  # noqa: PLC0415
    from letsencrypt_mdaemon.cli import status as overview  # noqa: PLC0415
    from letsencrypt_mdaemon.cli import text  # noqa: PLC0415
    from letsencrypt_mdaemon.pki.certificate import tlsa  # noqa: PLC0415

    now = datetime.now(UTC)
    settings = run.config
    run.begin(now)
    installation = run.installation()
    if run.is_scheduled:
        installation = installation.noted(now)
        run.is_noted = True
    run.names = names = installation.names()
    prepared = renewal.prepare(installation, names)
    run.in_use = report.in_use(prepared.named.values())
    overview.warn(installation, prepared.named.values())
    outcome = act(prepared, now)
    leaf = outcome.certificate
    pinned = settings.key_policy == "reuse" and leaf is not None
    document = run.document(
        **report.outcome(outcome),
        tlsa=tlsa(leaf, names[0]) if pinned and leaf else None,
        dry_run=settings.dry_run,
        staging=settings.staging,
        directory_url=settings.ca,
        targets=[report.target(item) for item in prepared.named],
    )
    if settings.json:
        report.print_json(document)
        return
    head = "Done" if outcome.renewed else "Nothing to do"
    if outcome.waits_until:
        head = "Due, and too early to try again"
    if settings.dry_run:
        head = "Dry run, nothing was changed"
    elif settings.staging:
        head = "Rehearsal, nothing in use was changed"
    text.print_outcome(document, head)


@run_command(cli, *PLACES, *WANTED, "json", example="status --json")
def status(run: Run) -> None:
    """Show which certificate is in use, until when, and when and why it is due."""
    from datetime import UTC, datetime  # noqa: PLC0415

    from letsencrypt_mdaemon.cli import document as report  # noqa: PLC0415
    from letsencrypt_mdaemon.cli import status as overview  # noqa: PLC0415
    from letsencrypt_mdaemon.cli import text  # noqa: PLC0415

    found = overview.examine(run.installation(), now=datetime.now(UTC))
    document = run.document(**found)
    show_as = report.print_json if run.config.json else text.print_status
    show_as(document)


@cli.group(
    "schedule",
    context_settings=CONTEXT,
    epilog="Example:  letsencrypt-mdaemon schedule install",
)
def schedule_group() -> None:
    """Let the system run `renew` twice a day: Task Scheduler, elsewhere cron."""


SCHEDULE = ("mdaemon-dir", "agree-tos", "to", "json")


@run_command(schedule_group, *SCHEDULE, example="schedule install")
def schedule_install(run: Run) -> None:
    """Run `renew` twice a day, with the config file and the options given here.

    At a time drawn once. On Windows it runs as SYSTEM, without a password, also after a
    start that was missed. Done again it brings the command up to date.
    """
    from letsencrypt_mdaemon.cli import document as report  # noqa: PLC0415
    from letsencrypt_mdaemon.cli import text  # noqa: PLC0415

    scheduler = run.scheduler()
    rivals = scheduler.rivals()
    job = scheduler.install(run.scheduled_command())
    document = run.document(job=report.job(job, run.last_scheduled()), rivals=rivals)
    if run.config.json:
        report.print_json(document)
        return
    text.print_job(document)
    for name in rivals:
        click.echo(f"The task {name} runs the old script: delete or disable it.")
    click.echo(
        "Switch off MDaemon's own scheduler: Security, Security Manager, SSL & TLS, "
        "Let's Encrypt."
    )


@run_command(schedule_group, "mdaemon-dir", "json", example="schedule show")
def schedule_show(run: Run) -> None:
    """Show whether and when it is run, when it ran last, and how that ended."""
    from letsencrypt_mdaemon.cli import document as report  # noqa: PLC0415
    from letsencrypt_mdaemon.cli import text  # noqa: PLC0415

    scheduler = run.scheduler()
    document = run.document(
        job=report.job(scheduler.show(), run.last_scheduled()),
        rivals=scheduler.rivals(),
    )
    show_as = report.print_json if run.config.json else text.print_job
    show_as(document)


@run_command(schedule_group, "json", example="schedule remove")
def schedule_remove(run: Run) -> None:
    """Do not run it any more; what others scheduled stays."""
    from letsencrypt_mdaemon.cli import document as report  # noqa: PLC0415

    removed = run.scheduler().remove()
    if run.config.json:
        report.print_json(run.document(removed=removed))
    else:
        click.echo("Not scheduled any more." if removed else "It was not scheduled.")


@cli.group(
    "config",
    context_settings=CONTEXT,
    epilog="Example:  letsencrypt-mdaemon config show",
)
def config_group() -> None:
    """Show the configuration."""


@run_command(config_group, *RENEW, example="config show")
def show(run: Run) -> None:
    """Show every setting, and where its value comes from."""
    from letsencrypt_mdaemon.cli import document as report  # noqa: PLC0415
    from letsencrypt_mdaemon.cli import text  # noqa: PLC0415

    loaded = run.loaded
    file = str(loaded.file) if loaded.file else None
    document = run.document(config_file=file, settings=loaded.shown())
    show_as = report.print_json if run.config.json else text.print_settings
    show_as(document)
