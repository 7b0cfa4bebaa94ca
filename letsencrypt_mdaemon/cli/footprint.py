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
    """Remove the task, script, event source and PATH entry.

    The setup program calls this before it removes the program. A task or a
    LetsEncrypt.ps1 that runs another installation of this program stays. So do
    certificates, the config file and logs.
    """
    from letsencrypt_mdaemon.app import footprint, scheduling  # noqa: PLC0415 - slow

    folder, program = footprint.folder(), Path(sys.executable)
    done = footprint.remove_schedule(scheduling.of_this_system(), program)
    try:
        loaded, root = context.loaded, context.root
        done += footprint.remove_script(loaded, root, program)
        if delete_state:
            done += footprint.delete_state(loaded.config, root, loaded.file)
    except ConfigError as exc:
        # Without an MDaemon, for example, nobody knows where they are.
        left = " and the state folder" if delete_state else ""
        done.append(f"left LetsEncrypt.ps1{left}: {exc.message}")
    done += footprint.remove_event_source()
    done += footprint.remove_from_path(folder)
    return _result(done)


add_to_windows.hidden = remove_from_windows.hidden = True


def _result(done: Sequence[str]) -> Result:
    text = "; ".join(done) or "nothing to do"
    text = f"{text[:1].upper()}{text[1:]}."
    return Result({"verdict": text, "done": list(done)}, lambda _: click.echo(text))
