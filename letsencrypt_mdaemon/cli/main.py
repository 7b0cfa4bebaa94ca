"""Start the program."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from typing import Any, NoReturn

import click

from letsencrypt_mdaemon._version import __version__
from letsencrypt_mdaemon.cli import (
    accounts,
    certificates,
    checks,
    commands,
    footprint,
    legacy,
    monitoring,
    reporting,
    script,
    self_signed,
    streams,
)
from letsencrypt_mdaemon.cli import setup as setting_up
from letsencrypt_mdaemon.cli.options import CONTEXT, Group
from letsencrypt_mdaemon.cli.parameters import Command, general_options
from letsencrypt_mdaemon.errors import ConfigError, Error


@click.command(
    cls=Command, context_settings=CONTEXT, epilog="Example:  letsencrypt-mdaemon demo"
)
@click.option(
    "--directory",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="Folder to use.  [default: a temporary folder]",
)
@click.option("--keep", is_flag=True, help="Leave the files there afterwards.")
@click.option("--break", "broken", is_flag=True, help="Show a run that is rolled back.")
@click.option("--serve", is_flag=True, help="Let both run until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def demo(
    directory: str | None, *, keep: bool, broken: bool, serve: bool, as_json: bool
) -> None:
    """Try a renewal with a small MDaemon and CA.

    Both run on this machine, in a folder of their own. As SYSTEM or root, name the
    folder if this machine has an MDaemon.
    """

    def show(result: dict[str, Any]) -> None:
        if as_json:
            from letsencrypt_mdaemon.cli import document  # noqa: PLC0415 - slow

            code = int(result["exit_code"])
            document.print_json({**document.common("demo", code), **result})

    def stay(result: dict[str, Any]) -> None:
        import signal  # noqa: PLC0415
        import time  # noqa: PLC0415

        # An exception would be lost in a destructor.
        asked: list[int] = []
        signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
        show(result)
        gc.enable()  # it may run for days
        while not asked:
            time.sleep(0.2)

    try:
        from pathlib import Path  # noqa: PLC0415 - slow to import

        from letsencrypt_mdaemon.app import build  # noqa: PLC0415 - slow
        from letsencrypt_mdaemon.config import load  # noqa: PLC0415
        from letsencrypt_mdaemon.sandbox import demo as story  # noqa: PLC0415 - slow

        folder = Path(directory) if directory else None
        if folder is None:
            there = os.environ.get(f"{load.PREFIX}MDAEMON_DIR")
            build.refuse_demo(Path(there) if there else None)
        # With --json the story goes to stderr: stdout is the result alone.
        result = story.run(
            folder,
            keep=keep,
            broken=broken,
            say=lambda line: click.echo(line, err=as_json),
            serve=stay if serve else None,
        )
    except Error as exc:
        if as_json:
            from letsencrypt_mdaemon.cli import document  # noqa: PLC0415 - slow

            kind, (code, message) = type(exc).__name__, (exc.exit_code, exc.message)
            document.print_json(
                document.failure("demo", code, message, kind=kind, hint=exc.hint)
            )
        _fail(exc)
    if not serve:
        show(result)
    sys.exit(result["exit_code"])


def _keep_options(**options: object) -> None:
    """Keep the certificate of an MDaemon mail server up to date.

    The old script's switches (-AlternateHostNames a,b -To x@y ...) still work.
    """
    click.get_current_context().obj = options


cli = Group(
    "letsencrypt-mdaemon",
    {
        "Every day": [
            commands.renew,
            commands.status,
            checks.verify,
            monitoring.check,
            reporting.report,
        ],
        "Setting up": [
            setting_up.setup,
            demo,
            checks.selftest,
            checks.discover,
            commands.config_group,
            checks.notify_test,
            commands.schedule_group,
            script.script_group,
        ],
        "When something is wrong": [
            checks.doctor,
            commands.activate,
            commands.rollback,
            certificates.reload,
        ],
        "Certificates and the account": [
            certificates.certificates_group,
            certificates.use,
            self_signed.self_signed,
            accounts.revoke,
            accounts.account_group,
        ],
    },
    callback=_keep_options,
    help=_keep_options.__doc__,
    params=[*general_options()],
    epilog="Options of a command:  letsencrypt-mdaemon COMMAND -h",
)
# Hidden: they are in no section.
for _command in (footprint.add_to_windows, footprint.remove_from_windows):
    cli.add_command(_command)
click.version_option(__version__, prog_name="letsencrypt-mdaemon")(cli)


def main() -> None:
    """Run the program: `letsencrypt-mdaemon`."""
    arguments = sys.argv[1:]
    streams.prepare()
    # A run is short and makes little garbage. To collect it, during the run and at its
    # end, would take a quarter of the time.
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
            _fail(exc)
    if "_LETSENCRYPT_MDAEMON_COMPLETE" in os.environ:
        import letsencrypt_mdaemon.cli.completion  # noqa: F401, PLC0415 - registers
    cli.main(arguments, prog_name="letsencrypt-mdaemon")


def _fail(error: Error) -> NoReturn:
    click.echo(f"error: {error.message} {error.hint}".strip(), err=True)
    sys.exit(error.exit_code)


def _exit_on_signal(number: int, _: object) -> NoReturn:
    # An exception, so that token files and locks are removed.
    sys.exit(128 + number)
