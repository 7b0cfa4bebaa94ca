"""Start the program."""

from __future__ import annotations

import atexit
import gc
import sys
from typing import TYPE_CHECKING, NoReturn

import click

from letsencrypt_mdaemon.cli import (  # noqa: F401 - they add their commands
    accounts,
    checks,
    commands,
    legacy,
)
from letsencrypt_mdaemon.cli.options import CONTEXT, cli
from letsencrypt_mdaemon.errors import ConfigError, Error

if TYPE_CHECKING:
    from collections.abc import Mapping


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
        from letsencrypt_mdaemon.cli import document as report  # noqa: PLC0415

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
