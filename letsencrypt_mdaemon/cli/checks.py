"""The commands that only look."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from letsencrypt_mdaemon.cli.options import PLACES, cli, run_command
from letsencrypt_mdaemon.errors import BusyError, ConfigError, Error

if TYPE_CHECKING:
    from letsencrypt_mdaemon.cli.run import Run


@run_command(cli, *PLACES, "json", example=r"discover --store pem:C:\Certificates")
def discover(run: Run) -> None:
    """Show where the server's files name a certificate of the store or of a port."""
    from letsencrypt_mdaemon.cli import document as report  # noqa: PLC0415
    from letsencrypt_mdaemon.cli import text  # noqa: PLC0415

    installation = run.installation()
    document = run.document(
        mdaemon_dir=str(installation.root),
        certificates=[report.certificate(item) for item in installation.known.values()],
        served=installation.served,
        found=[report.found(item) for item in installation.discover()],
    )
    show_as = report.print_json if run.config.json else text.print_found
    show_as(document)


@run_command(
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

    from letsencrypt_mdaemon.app import verification  # noqa: PLC0415
    from letsencrypt_mdaemon.cli import document as report  # noqa: PLC0415
    from letsencrypt_mdaemon.cli import text  # noqa: PLC0415
    from letsencrypt_mdaemon.errors import DeployError  # noqa: PLC0415
    from letsencrypt_mdaemon.verify import verdict  # noqa: PLC0415

    installation = run.installation(look=False)
    found = verification.verify(installation, now=datetime.now(UTC))
    run.findings = {
        "mdaemon_dir": str(installation.root),
        **report.verification(found),
    }
    if not run.config.json:
        text.print_verification(found)
    message, hint = verdict.failure(found.ports)
    if message:
        raise DeployError(message, hint=hint)
    if run.config.json:
        report.print_json(run.document(0, **run.findings))


@run_command(
    cli,
    *("host-name", "alternate-host-names", "directory-url", "ca-bundle", "webroot"),
    *(*PLACES, "skip-port-check", "json"),
    example="doctor --alternate-host-names imap.example.com",
)
def doctor(run: Run) -> None:
    """Tell whether the CA would validate every name, and if not, exactly why."""
    from datetime import UTC, datetime  # noqa: PLC0415

    from letsencrypt_mdaemon.app import checkup  # noqa: PLC0415
    from letsencrypt_mdaemon.cli import document as report  # noqa: PLC0415
    from letsencrypt_mdaemon.cli import text  # noqa: PLC0415

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
        text.print_checkup(document)
    if found.failures:
        run.findings = document
        raise found.error()
    if run.config.json:
        report.print_json(run.document(**document))


@run_command(cli, *PLACES, "iis-site-name", "json", example="selftest")
def selftest(run: Run) -> None:
    """Try what the program relies on with throw-away things, and tell what works.

    A certificate goes into the store and out again, its key is used, a task is
    registered and removed, a semaphore is taken up that does nothing else. Run it once
    as the account that renews; its report is what belongs into a bug report.
    """
    from letsencrypt_mdaemon.app import selftest as trial  # noqa: PLC0415
    from letsencrypt_mdaemon.cli import document as report  # noqa: PLC0415
    from letsencrypt_mdaemon.cli import text  # noqa: PLC0415

    run.be_alone()
    found = trial.run(list(trial.of(run.installation(look=False))))
    document = report.selftest(found)
    if not run.config.json:
        text.print_selftest(document)
    if found.failed:
        run.findings = document
        raise found.error()
    if run.config.json:
        report.print_json(run.document(**document))


@run_command(
    cli, "to", "mdaemon-dir", "json", example="notify-test --to me@example.com"
)
def notify_test(run: Run) -> None:
    """Send the kind of mail that a failed run sends."""
    from letsencrypt_mdaemon.app import build  # noqa: PLC0415
    from letsencrypt_mdaemon.cli import document as report  # noqa: PLC0415
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
