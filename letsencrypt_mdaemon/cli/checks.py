"""The commands that check something."""

from __future__ import annotations

import json
import logging
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from letsencrypt_mdaemon.cli import options
from letsencrypt_mdaemon.cli.options import Result, command
from letsencrypt_mdaemon.cli.parameters import offer
from letsencrypt_mdaemon.errors import BusyError, ConfigError, Error

if TYPE_CHECKING:
    from letsencrypt_mdaemon.app.selftest import Report
    from letsencrypt_mdaemon.cli.context import Context

_log = logging.getLogger(__name__)

EVENTS = (
    *("failed", "again", "recovered", "expiring", "would-fail"),
    *("dropped", "returned", "renewed", "every-run"),
)
"""The events that are mailed."""

_FORGET = click.Option(
    ["--forget"],
    metavar="VALUE",
    help="Forget a known INI value that is gone: FILE [SECTION] KEY.",
)


_SHAPE = click.Option(
    ["--shape", "only_shape"],
    is_flag=True,
    help="Show names of files and keys, and forms of values: to publish.",
)


@command(
    *("json", "mdaemon-dir", "store"),
    takes=(*options.INSTALLATION, "host-name", "alternate-host-names"),
    own=(_FORGET, _SHAPE),
    example=r"discover --store pem:C:\Certificates",
)
def discover(context: Context, *, forget: str | None, only_shape: bool) -> Result:
    """Show the INI values that name a certificate.

    Searches the server's files for the certificates from the store and the ports.
    """
    from letsencrypt_mdaemon.cli import document, text  # noqa: PLC0415 - slow

    if only_shape:
        return _shape(context)
    if forget:
        context.lock()
    installation = context.open()
    if forget:
        installation = installation.forgotten(forget)
    known = installation.known.values()
    found = installation.discover()
    named = sum(item.target is not None for item in found)
    items = {
        "verdict": f"INI values that name a known certificate: {named}.",
        "mdaemon_dir": str(installation.root),
        "store": str(installation.store),
        "certificates": [document.certificate(item) for item in known],
        "served": installation.served,
        "found": [document.found(item) for item in found],
    }
    return Result(items, text.print_found)


def _shape(context: Context) -> Result:
    """Show what may be published of the server's files, and nothing else."""
    from letsencrypt_mdaemon.cli import document, text  # noqa: PLC0415 - slow

    logging.disable(logging.WARNING)  # warnings have paths
    try:
        found = context.open().shape()
    finally:
        logging.disable(logging.NOTSET)
    generator = document.common("", 0)["generator"] | {"host": None}
    items = {
        "generator": generator,
        "verdict": "Nothing here is a value, or a name of your own: publish it.",
        "files": found.files,
        "values": [value._asdict() for value in found.values],
        "semaphores": {"used": found.used, "present": found.present},
    }
    return Result(items, text.print_shape)


@command(
    *("endpoint", "public", "require-trusted", "json", "host-name"),
    *("alternate-host-names", "ca-bundle", "mdaemon-dir", "store"),
    takes=options.SERVER,
    helps={**options.STAGING, "ca-bundle": "PEM file with more roots to trust."},
    example="verify --endpoint imaps://mail.example.com",
)
def verify(context: Context) -> Result:
    """Check the certificate that each port serves.

    The expected certificate is the one named in the server's files. Exits with 5 if a
    listening port serves another one, if a certificate is expired or not yet valid, or
    if its chain lacks an intermediate. Also exits with 5 if a port named with
    --endpoint does not answer, or if no port listens while MDaemon runs. Exits with 0
    if the expected certificate is unknown and every port serves a valid one.

    By default, checks MDaemon's usual ports on every address of this machine, with the
    names of the certificate.
    """
    from letsencrypt_mdaemon.app import verification  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.cli import verification as shown  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.errors import DeployError  # noqa: PLC0415

    installation = context.open(look=False)
    found = verification.verify(installation, now=context.now)
    message, hint = found.failure()
    folder, store = str(installation.root), str(installation.store)
    return Result(
        {"mdaemon_dir": folder, "store": store, **shown.verification(found)},
        lambda _: shown.print_verification(found, store),
        DeployError(message, hint=hint) if message else None,
    )


@command(
    *("host-name", "alternate-host-names", "directory-url", "ca-bundle", "webroot"),
    *("skip-port-check", "json", "mdaemon-dir", "store"),
    takes=(
        *(*options.SERVER, *options.PORT_80, *options.ACCOUNT),
        *("to", "mail-server", "mail-domains"),
    ),
    helps=options.STAGING,
    own=(
        click.Option(
            ["--mail", "only_mail"],
            is_flag=True,
            help="Check instead what senders need: DNSSEC, DANE, MTA-STS, TLS-RPT.",
        ),
    ),
    example="doctor --alternate-host-names imap.example.com",
)
def doctor(context: Context, *, only_mail: bool) -> Result:
    """Check every name as the CA does.

    Shows why a name would fail validation, and what to do. Also shows which files a
    renewal could not write.
    """
    if only_mail:
        from letsencrypt_mdaemon.cli import senders  # noqa: PLC0415 - slow

        return senders.check(context)
    from letsencrypt_mdaemon.app import checkup  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.cli import document, text  # noqa: PLC0415 - slow

    unlocked = None
    try:
        context.lock()
    except BusyError:
        raise
    except Error as exc:
        unlocked = exc
    installation = context.open()
    found = checkup.check(
        installation,
        installation.wanted_names(),
        now=context.now,
        timeout=45,
        unlocked=unlocked,
    )
    error = found.error() if found.failures else found.refusal
    items = document.checkup(found)
    items["verdict"] = text.checkup_verdict(items)
    return Result(items, text.print_checkup, error)


@command(
    *("iis-site-name", "key-type", "json", "mdaemon-dir", "store"),
    takes=(*options.INSTALLATION, "reload-timeout"),
    own=(
        click.Option(
            ["--report"],
            metavar="FILE",
            help="Write a report for the authors, without names and secrets.",
        ),
    ),
    example="selftest --report report.json",
)
def selftest(context: Context, *, report: str | None) -> Result:
    """Test what this program needs on this machine.

    Tests the certificate store, keys, scheduler and semaphores with temporary objects.
    Run it once as the account that renews. Attach its output to a bug report.
    """
    from letsencrypt_mdaemon.app import selftest as trial  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.cli import document, text  # noqa: PLC0415 - slow

    try:
        context.lock()
        found = trial.run(list(trial.checks(context.open(look=False))))
    except BusyError:
        raise
    except Error as exc:
        if report is not None:
            _write_report(context, report, None, exc)
        raise
    error = found.error() if found.failed else None
    path = None if report is None else _write_report(context, report, found)
    items = {"verdict": "No test failed.", **document.selftest(found), "report": path}
    return Result(items, text.print_selftest, error)


def _write_report(
    context: Context,
    file: str,
    tests: Report | None,
    problem: Error | None = None,
) -> str:
    """Write what may be sent, as far as it can be read; return the file's path."""
    from pathlib import Path  # noqa: PLC0415

    from letsencrypt_mdaemon.app import report  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.system import disk  # noqa: PLC0415 - slow

    root = config_file = None
    with suppress(Error):
        root, config_file = context.root, context.valid.file
    found = report.gather(
        context.installation, root, config_file, tests, problem=problem
    )
    path = Path(file).absolute()
    with disk.explained(f"write {path}", failure=ConfigError):
        disk.write_private(path, f"{json.dumps(found, indent=2)}\n".encode("ascii"))
    if problem is not None:
        _log.warning("The report %s has only what could be read.", path)
    return str(path)


@command(
    *("to", "mail-server", "mdaemon-dir", "json"),
    takes=(*options.MAIL, *options.NOTIFY, "smtp-address"),
    own=(
        click.Option(
            ["--event"],
            metavar="EVENT",
            shell_complete=offer(EVENTS),
            help=f"Send what is sent about it: {', '.join(EVENTS)}.",
        ),
    ),
    example="notify-test --to me@example.com",
)
def notify_test(context: Context, event: str | None) -> Result:
    """Send a test by mail and all other ways."""
    from letsencrypt_mdaemon.app import notifications  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.cli import announcement, letter  # noqa: PLC0415

    if event is not None and event not in EVENTS:
        message = f"--event: {event!r} is not valid; use {', '.join(EVENTS)}."
        raise ConfigError(message)
    config = context.config
    if not (config.to or notifications.is_set(config) or notifications.beats(config)):
        hint = "Use --to ADDRESS, or set notify-file or heartbeat-url-file."
        raise ConfigError("No recipient is set.", hint=hint)
    to: list[str] = []
    where = ""
    failure: Error | None = None
    done: list[str] = []
    problems: list[str] = []
    if config.to:
        try:
            *to, where = context.mail(*letter.example(event))
            done.append(f"to {', '.join(to)} {where}")
        except Error as exc:
            failure = exc
    found = notifications.send(config, announcement.example(event))
    found += notifications.beat(config, "log", str(uuid.uuid4()), ["This is a test."])
    for row in found:
        if row.problem:
            problems.append(f"Could not send {row.what}: {row.problem}")
        else:
            done.append(row.what)
    sent = f"Sent {'; '.join(done)}."
    if failure is None and problems:
        failure = Error(problems.pop(0))
    if failure is not None:
        failure.message = "\n".join([failure.message, *problems])
        failure.hint = " ".join(filter(None, [failure.hint, sent * bool(done)]))
        raise failure
    notified = [{"kind": row.kind, "where": row.where} for row in found]
    items = {"verdict": sent, "to": to, "sent": where, "notified": notified}
    return Result(items, lambda _: click.echo(sent))
