"""The command line: options in, one use case, its result out.

Nothing but click is imported before a command is chosen, and only the table of settings
before it runs, so that `--help`, `--version` and a wrong option answer at once.
"""

from __future__ import annotations

import atexit
import gc
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

from letsencrypt_mdaemon import legacy
from letsencrypt_mdaemon._version import __version__
from letsencrypt_mdaemon.errors import BusyError, ConfigError, Error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from letsencrypt_mdaemon.acme.account import Accounts
    from letsencrypt_mdaemon.app.installation import Installation
    from letsencrypt_mdaemon.renewal.adapters import Order, Outcome, Parts
    from letsencrypt_mdaemon.run import Run

    Command = Callable[..., None]  # a Run, and the command's own options

PLACES = ("mdaemon-dir", "log-dir", "state-dir", "store")
WANTED = ("host-name", "alternate-host-names", "directory-url", "key-type", "staging")
# What fits the screen; `config show` tells all of them.
RENEW = (
    *("host-name", "alternate-host-names", "key-type", "directory-url", "ca-bundle"),
    *("agree-tos", "to", "remove-old-certificates", "skip-port-check"),
    *("no-reload", "staging", "dry-run", "force", "json"),
    *("mdaemon-dir", "webroot", "store"),
)
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=CONTEXT, no_args_is_help=True)
@click.option("-c", "--config", "config_file", metavar="FILE", help="The config file.")
@click.option("-v", "--verbose", is_flag=True, help="Say more.")
@click.version_option(__version__, prog_name="letsencrypt-mdaemon")
@click.pass_context
def cli(context: click.Context, /, **outer: object) -> None:
    """Keep the certificate of an MDaemon mail server fresh.

    The old script's switches (-AlternateHostNames a,b -To x@y …) work unchanged.
    """
    context.obj = outer


cli.epilog = "Example:  letsencrypt-mdaemon renew --agree-tos --to me@example.com"


class _Command(click.Command):
    """A command whose options are the settings, made when they are asked for.

    Attributes:
        shown: The settings that its help shows; the others work as well.
        own: Options of this command alone.
    """

    shown: tuple[str, ...] = ()
    own: Sequence[click.Option] = ()

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the options."""
        self.params = self.params or [*self.own, *_options(self.shown)]
        return super().get_params(ctx)


def _command(
    parent: click.Group, *shown: str, example: str, own: Sequence[click.Option] = ()
) -> Callable[[Command], click.Command]:
    """Make a command of a function, with the settings as its options.

    Args:
        shown: The settings that its help shows; the others work as well.
        own: Options of this command alone; the function gets their values by name.
    """

    def decorate(function: Command) -> click.Command:
        def callback(**given: Any) -> None:  # noqa: ANN401 - as click gives them
            from letsencrypt_mdaemon.run import Run  # noqa: PLC0415 - slow to import

            mine = {str(option.name): given.pop(str(option.name)) for option in own}
            context = click.get_current_context()
            outer = context.find_root().obj
            file = given.pop("config_file") or outer["config_file"]
            verbose = bool(given.pop("verbose") or outer["verbose"])
            options = {
                name.replace("_", "-"): (value,) if isinstance(value, str) else value
                for name, value in given.items()
                if value is not None and value != ()
            }
            name = context.command_path.split(" ", 1)[1]
            with Run(name, options, file=file, verbose=verbose) as run:
                function(run, **mine)

        command = _Command(
            function.__name__.removeprefix(f"{parent.name}_").replace("_", "-"),
            callback=callback,
            help=function.__doc__,
            epilog=f"Example:  letsencrypt-mdaemon {example}",
            context_settings=CONTEXT,
        )
        command.shown, command.own = shown, own
        parent.add_command(command)
        return command

    return decorate


def _options(shown: tuple[str, ...]) -> list[click.Parameter]:
    from letsencrypt_mdaemon.config import load  # noqa: PLC0415 - slow to import

    table = dict(load.settings())
    # -c and -v may stand before the command or behind it.
    options: list[click.Parameter] = [
        click.Option(["-c", "--config", "config_file"], metavar="FILE", hidden=True),
        click.Option(["-v", "--verbose"], is_flag=True, hidden=True),
    ]
    for name in dict.fromkeys([*shown, *table]):
        row = table[name]
        if not row.secret:
            # A flag's value on any other option would make its argument optional.
            kind: dict[str, Any] = {"metavar": row.metavar}
            if row.flag:
                kind = {"is_flag": True, "flag_value": "yes"}
            option = click.Option(
                [f"--{name}", name.replace("-", "_")],
                type=str,
                default=None,
                multiple=row.many,
                help=row.help,
                hidden=name not in shown,
                **kind,
            )
            options.append(option)
    return options


@_command(cli, *RENEW, example="renew --agree-tos --to me@example.com")
def renew(run: Run) -> None:
    """Renew the certificate if it is due, and make the server use it."""
    from letsencrypt_mdaemon.renewal import run as workflow  # noqa: PLC0415

    _carry_out(
        run,
        lambda installation, order, parts, now: workflow.renew(
            order, parts, installation.issuer(), now=now
        ),
    )


@_command(cli, *PLACES, *WANTED, "no-reload", "dry-run", "json", example="activate")
def activate(run: Run) -> None:
    """Put into use what `renew --no-activate` obtained, or what was rolled back."""
    from dataclasses import replace  # noqa: PLC0415

    from letsencrypt_mdaemon.renewal import run as workflow  # noqa: PLC0415

    _carry_out(
        run,
        lambda installation, order, parts, now: workflow.renew(
            replace(order, activate_only=True, issue_only=False, force=False),
            parts,
            installation.issuer(),
            now=now,
        ),
    )


@_command(cli, *PLACES, *WANTED, "no-reload", "json", example="rollback")
def rollback(run: Run) -> None:
    """Go back to the last certificate that was seen to work on every port."""
    from letsencrypt_mdaemon.renewal import run as workflow  # noqa: PLC0415

    _carry_out(
        run, lambda _, order, parts, now: workflow.roll_back(order, parts, now=now)
    )


def _carry_out(
    run: Run, act: Callable[[Installation, Order, Parts, datetime], Outcome]
) -> None:
    """Change the server: as the only run, with log and mail; print the outcome."""
    from datetime import UTC, datetime  # noqa: PLC0415

    from letsencrypt_mdaemon import report  # noqa: PLC0415
    from letsencrypt_mdaemon import status as overview  # noqa: PLC0415
    from letsencrypt_mdaemon.pki.certificate import tlsa  # noqa: PLC0415

    now = datetime.now(UTC)
    settings = run.config
    run.begin(now)
    installation = run.installation()
    if run.is_scheduled:
        installation.note_run(now)
        run.is_noted = True
    installation.warn_of_what_is_missing()
    run.names = names = installation.names()
    # A rehearsal has nothing to do with what is in use.
    targets = () if settings.staging else installation.learn()
    server = installation.server(targets)
    named = server.named(names)
    run.in_use = report.in_use(named.values())
    overview.warn(installation, named.values())
    parts = installation.parts(server)
    outcome = act(installation, installation.order(names), parts, now)
    leaf = outcome.certificate
    pinned = settings.key_policy == "reuse" and leaf is not None
    document = run.document(
        **report.outcome(outcome),
        tlsa=tlsa(leaf, names[0]) if pinned and leaf else None,
        dry_run=settings.dry_run,
        staging=settings.staging,
        directory_url=settings.ca,
        targets=[report.target(item) for item in named],
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
    report.print_outcome(document, head)


@_command(cli, *PLACES, *WANTED, "json", example="status --json")
def status(run: Run) -> None:
    """Show which certificate is in use, until when, and when and why it is due."""
    from datetime import UTC, datetime  # noqa: PLC0415

    from letsencrypt_mdaemon import report  # noqa: PLC0415
    from letsencrypt_mdaemon import status as overview  # noqa: PLC0415

    found = overview.examine(run.installation(), now=datetime.now(UTC))
    document = run.document(**found)
    show_as = report.print_json if run.config.json else report.print_status
    show_as(document)


@_command(cli, *PLACES, "json", example=r"discover --store pem:C:\Certificates")
def discover(run: Run) -> None:
    """Show where the server's files name a certificate of the store or of a port."""
    from letsencrypt_mdaemon import report  # noqa: PLC0415

    installation = run.installation()
    document = run.document(
        mdaemon_dir=str(installation.root),
        certificates=[report.certificate(item) for item in installation.known.values()],
        served=installation.served,
        found=[report.found(item) for item in installation.discover()],
    )
    show_as = report.print_json if run.config.json else report.print_found
    show_as(document)


@_command(
    cli,
    *("endpoint", "public", "require-trusted", "json"),
    *("host-name", "alternate-host-names", "ca-bundle", "mdaemon-dir", "store"),
    example="verify --endpoint imaps://mail.example.com",
)
def verify(run: Run) -> None:
    """Show which certificate each port serves, and whether it is the right one.

    Right is the certificate that the server's files name. Exit code 5 unless every
    port that listens (with --endpoint: every one given) serves it; 0 if nobody
    listens, or where it is not known which one is right as long as each port serves
    one. Trusted are Mozilla's roots and those of --ca-bundle.

    Asked are the usual ports at all addresses of this machine, for the first name;
    for the second too, and for all of them where the answers differ. An --endpoint by
    name is asked for this name, at each of its addresses.
    """
    from datetime import UTC, datetime  # noqa: PLC0415

    from letsencrypt_mdaemon import report  # noqa: PLC0415
    from letsencrypt_mdaemon.errors import DeployError  # noqa: PLC0415
    from letsencrypt_mdaemon.verify import verdict  # noqa: PLC0415

    installation = run.installation(look=False)
    found = installation.verify(now=datetime.now(UTC))
    run.findings = {
        "mdaemon_dir": str(installation.root),
        **report.verification(found),
    }
    if not run.config.json:
        report.print_verification(found)
    message, hint = verdict.failure(found.ports)
    if message:
        raise DeployError(message, hint=hint)
    if run.config.json:
        report.print_json(run.document(0, **run.findings))


@_command(
    cli,
    *("host-name", "alternate-host-names", "directory-url", "ca-bundle", "webroot"),
    *(*PLACES, "skip-port-check", "json"),
    example="doctor --alternate-host-names imap.example.com",
)
def doctor(run: Run) -> None:
    """Tell whether the CA would validate every name, and if not, exactly why."""
    from datetime import UTC, datetime  # noqa: PLC0415

    from letsencrypt_mdaemon import report  # noqa: PLC0415
    from letsencrypt_mdaemon.app import checkup  # noqa: PLC0415

    alone = None
    try:
        run.be_alone()
    except BusyError:
        raise
    except Error as exc:
        alone = exc
    installation = run.installation()
    found = checkup.examine(
        installation,
        installation.wanted_names(),
        now=datetime.now(UTC),
        patience=45,
        alone=alone,
    )
    document = report.checkup(found)
    if not run.config.json:
        report.print_checkup(document)
    if found.failures:
        run.findings = document
        raise found.error()
    if run.config.json:
        report.print_json(run.document(**document))


@cli.group(
    "schedule",
    context_settings=CONTEXT,
    epilog="Example:  letsencrypt-mdaemon schedule install",
)
def schedule_group() -> None:
    """Let the system run `renew` twice a day: Task Scheduler, elsewhere cron."""


SCHEDULE = ("mdaemon-dir", "agree-tos", "to", "json")


@_command(schedule_group, *SCHEDULE, example="schedule install")
def schedule_install(run: Run) -> None:
    """Run `renew` twice a day, with the config file and the options given here.

    At a time drawn once. On Windows it runs as SYSTEM, without a password, also after a
    start that was missed. Done again it brings the command up to date.
    """
    from letsencrypt_mdaemon import report  # noqa: PLC0415

    scheduler = run.scheduler()
    rivals = scheduler.rivals()
    job = scheduler.install(run.scheduled_command())
    document = run.document(job=report.job(job, run.last_scheduled()), rivals=rivals)
    if run.config.json:
        report.print_json(document)
        return
    report.print_job(document)
    for name in rivals:
        click.echo(f"The task {name} runs the old script: delete or disable it.")
    click.echo(
        "Switch off MDaemon's own scheduler: Security, Security Manager, SSL & TLS, "
        "Let's Encrypt."
    )


@_command(schedule_group, "mdaemon-dir", "json", example="schedule show")
def schedule_show(run: Run) -> None:
    """Show whether and when it is run, when it ran last, and how that ended."""
    from letsencrypt_mdaemon import report  # noqa: PLC0415

    scheduler = run.scheduler()
    document = run.document(
        job=report.job(scheduler.show(), run.last_scheduled()),
        rivals=scheduler.rivals(),
    )
    show_as = report.print_json if run.config.json else report.print_job
    show_as(document)


@_command(schedule_group, "json", example="schedule remove")
def schedule_remove(run: Run) -> None:
    """Do not run it any more; what others scheduled stays."""
    from letsencrypt_mdaemon import report  # noqa: PLC0415

    removed = run.scheduler().remove()
    if run.config.json:
        report.print_json(run.document(removed=removed))
    else:
        click.echo("Not scheduled any more." if removed else "It was not scheduled.")


@_command(cli, *PLACES, "iis-site-name", "json", example="selftest")
def selftest(run: Run) -> None:
    """Try what the program relies on with throw-away things, and tell what works.

    A certificate goes into the store and out again, its key is used, a task is
    registered and removed, a semaphore is taken up that does nothing else. Run it once
    as the account that renews; its report is what belongs into a bug report.
    """
    from letsencrypt_mdaemon import report  # noqa: PLC0415
    from letsencrypt_mdaemon.app import selftest as trial  # noqa: PLC0415

    run.be_alone()
    found = trial.run(list(trial.of(run.installation(look=False))))
    document = report.selftest(found)
    if not run.config.json:
        report.print_selftest(document)
    if found.failed:
        run.findings = document
        raise found.error()
    if run.config.json:
        report.print_json(run.document(**document))


_THUMBPRINT = click.Option(
    ["--thumbprint"], metavar="HEX", help="Which certificate: its SHA-1, see `status`."
)
_REASON = click.Option(
    ["--reason"],
    metavar="WHY",
    default="unspecified",
    help="unspecified (default), keyCompromise, superseded, affiliationChanged or "
    "cessationOfOperation.",
)


@_command(
    cli,
    *("directory-url", "ca-bundle", *PLACES, "json"),
    own=(_THUMBPRINT, _REASON),
    example="revoke --thumbprint HEX --reason keyCompromise",
)
def revoke(run: Run, thumbprint: str | None, reason: str) -> None:
    """Tell the CA that a certificate must not be trusted any more.

    It stays in use until another one is: run `renew` afterwards, which finds it due.
    After keyCompromise its key is never used again, whatever key-policy says.
    """
    from datetime import UTC, datetime  # noqa: PLC0415

    from letsencrypt_mdaemon import report  # noqa: PLC0415
    from letsencrypt_mdaemon.pki.certificate import thumbprint as thumbprint_of  # noqa: PLC0415
    from letsencrypt_mdaemon.renewal import revoke as revocation  # noqa: PLC0415

    reasons = {name.lower(): name for name in revocation.REASONS}
    if reason.lower() not in reasons:
        message = (
            f"--reason is {reason!r}; choose one of {', '.join(reasons.values())}."
        )
        raise ConfigError(message)
    if not thumbprint:
        message = "It is not said which certificate is to be revoked."
        hint = "Say --thumbprint HEX; `status` and `discover` show thumbprints."
        raise ConfigError(message, hint=hint)
    run.be_alone()
    installation = run.installation(look=False)
    leaf = revocation.revoke(
        thumbprint.replace(":", "").replace(" ", "").upper(),
        reasons[reason.lower()],
        installation.parts(installation.server(())),
        installation.issuer(),
        directory_url=run.config.ca,
        now=datetime.now(UTC),
    )
    document = run.document(reason=reason, certificate=report.certificate(leaf))
    if run.config.json:
        report.print_json(document)
    else:
        click.echo(f"Revoked: {report.in_use([leaf])}.")
        if installation.memory.in_use == thumbprint_of(leaf):
            click.echo("It is still in use: run `letsencrypt-mdaemon renew` now.")


@cli.group(
    "account",
    context_settings=CONTEXT,
    epilog="Example:  letsencrypt-mdaemon account show",
)
def account_group() -> None:
    """Show or change the account at the CA."""


ACCOUNT = ("directory-url", "ca-bundle", "staging", "mdaemon-dir", "state-dir", "json")


@_command(account_group, *ACCOUNT, example="account show")
def account_show(run: Run) -> None:
    """Show the account as the CA has it, and the CAA record that names it."""
    from letsencrypt_mdaemon import report  # noqa: PLC0415

    run.be_alone()  # It may have to settle which key the CA knows.
    installation = run.installation(look=False)
    found = installation.accounts().document()
    document = run.document(
        directory_url=run.config.ca,
        **report.account(found, installation.ca.account()),
    )
    show_as = report.print_json if run.config.json else report.print_account
    show_as(document)


@_command(account_group, *ACCOUNT, example="account deactivate")
def account_deactivate(run: Run) -> None:
    """Close the account for good; the next `renew` makes another one."""
    _change_account(run, "is closed", lambda accounts: accounts.deactivate())


@_command(account_group, *ACCOUNT, example="account rollover")
def account_rollover(run: Run) -> None:
    """Give the account a new key."""
    _change_account(run, "has a new key", lambda accounts: accounts.roll_over())


def _change_account(run: Run, done: str, act: Callable[[Accounts], str]) -> None:
    from letsencrypt_mdaemon import report  # noqa: PLC0415
    from letsencrypt_mdaemon.text import words  # noqa: PLC0415

    run.be_alone()
    url = words(act(run.installation(look=False).accounts()), 300)
    if run.config.json:
        report.print_json(run.document(account=url))
    else:
        click.echo(f"The account {url} {done}.")


@cli.group(
    "config",
    context_settings=CONTEXT,
    epilog="Example:  letsencrypt-mdaemon config show",
)
def config_group() -> None:
    """Show the configuration."""


@_command(config_group, *RENEW, example="config show")
def show(run: Run) -> None:
    """Show every setting, and where its value comes from."""
    from letsencrypt_mdaemon import report  # noqa: PLC0415

    loaded = run.loaded
    file = str(loaded.file) if loaded.file else None
    document = run.document(config_file=file, settings=loaded.shown())
    show_as = report.print_json if run.config.json else report.print_settings
    show_as(document)


@_command(cli, "to", "mdaemon-dir", "json", example="notify-test --to me@example.com")
def notify_test(run: Run) -> None:
    """Send the kind of mail that a failed run sends."""
    from letsencrypt_mdaemon import report  # noqa: PLC0415
    from letsencrypt_mdaemon.app import build  # noqa: PLC0415
    from letsencrypt_mdaemon.system import mail as notify  # noqa: PLC0415

    if not run.config.to:
        raise ConfigError("There is nobody to mail.", hint="Say --to ADDRESS.")
    by_queue = run.config.mail_server.lower() == "raw"
    mail = build.mail(run.config, *notify.trial())
    where = build.transport(run.config, run.root if by_queue else None).send(mail)
    if run.config.json:
        report.print_json(run.document(to=list(mail.recipients), sent=where))
    else:
        click.echo(f"Sent to {', '.join(mail.recipients)} {where}.")


@cli.command(context_settings=CONTEXT, epilog="Example:  letsencrypt-mdaemon demo")
@click.option(
    "--directory", metavar="DIR", help="Where.  [default: a temporary folder]"
)
@click.option("--keep", is_flag=True, help="Leave everything there afterwards.")
@click.option("--break", "broken", is_flag=True, help="Show a run that is rolled back.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def demo(directory: str | None, *, keep: bool, broken: bool, as_json: bool) -> None:
    """Try all of it with a small MDaemon and a small CA on this machine."""
    try:
        from pathlib import Path  # noqa: PLC0415

        from letsencrypt_mdaemon.sandbox import demo as story  # noqa: PLC0415

        folder = Path(directory) if directory else None
        # With --json the story goes to stderr: stdout is the result alone.
        result = story.run(
            folder,
            keep=keep,
            broken=broken,
            say=lambda line: click.echo(line, err=as_json),
        )
    except Error as exc:
        _complain(exc)
    if as_json:
        from letsencrypt_mdaemon import report  # noqa: PLC0415

        document: Mapping[str, object] = {"schema": report.SCHEMA, "command": "demo"}
        report.print_json({**document, **result})
    sys.exit(result["exit_code"])


def main() -> None:
    """Run the program: `letsencrypt-mdaemon`."""
    arguments = sys.argv[1:]
    for stream in (sys.stdout, sys.stderr):
        # A redirected console on Windows knows some 250 characters only.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    # A run is short and makes little garbage: looking for it, during the run and in all
    # that is there at its end, would take a quarter of its time.
    gc.disable()
    atexit.register(gc.freeze)
    import signal  # noqa: PLC0415

    for name in ("SIGTERM", "SIGHUP", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _exit_on_signal)
    if legacy.is_legacy(arguments):
        try:
            arguments = legacy.translate(arguments)
        except ConfigError as exc:
            _complain(exc)
    cli.main(arguments, prog_name="letsencrypt-mdaemon")


def _complain(error: Error) -> NoReturn:
    click.echo(f"error: {error.message} {error.hint}".strip(), err=True)
    sys.exit(error.exit_code)


def _exit_on_signal(number: int, _: object) -> NoReturn:
    # As an exception, so that everything that has to be undone is: token files, locks.
    sys.exit(128 + number)
