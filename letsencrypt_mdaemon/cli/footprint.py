"""The hidden commands by which the setup program for Windows asks for its share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from letsencrypt_mdaemon.cli.options import Result, command
from letsencrypt_mdaemon.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from letsencrypt_mdaemon.cli.context import Context


@command("json", example="add-to-windows")
def add_to_windows(_: Context) -> Result:
    """Add this program to the machine's PATH.

    The setup program calls this.
    """
    from letsencrypt_mdaemon.app import footprint  # noqa: PLC0415 - slow

    return _result(footprint.add_to_path(footprint.folder()))


@command(
    *("mdaemon-dir", "state-dir", "json"),
    own=(
        click.Option(
            ["--delete-state"],
            is_flag=True,
            help="Also delete the history and the account's key.",
        ),
    ),
    example="remove-from-windows",
)
def remove_from_windows(context: Context, *, delete_state: bool) -> Result:
    """Remove the task, event source and PATH entry.

    The setup program calls this before it removes the program. A task that runs another
    installation of this program stays. So do certificates, the config file and logs.
    """
    from letsencrypt_mdaemon.app import footprint, scheduling  # noqa: PLC0415 - slow

    program = footprint.folder()
    scheduler = scheduling.of_this_system()
    done = footprint.remove_schedule(scheduler, Path(sys.executable))
    if delete_state:
        try:
            file = context.loaded.file
            done += footprint.delete_state(context.config, context.root, file)
        except ConfigError as exc:
            # Without an MDaemon, for example, nobody knows where it is.
            done.append(f"left the state folder: {exc.message}")
    done += footprint.remove_event_source()
    done += footprint.remove_from_path(program)
    return _result(done)


add_to_windows.hidden = remove_from_windows.hidden = True


def _result(done: Sequence[str]) -> Result:
    text = "; ".join(done) or "nothing to do"
    text = f"{text[:1].upper()}{text[1:]}."
    return Result({"verdict": text, "done": list(done)}, lambda _: click.echo(text))
