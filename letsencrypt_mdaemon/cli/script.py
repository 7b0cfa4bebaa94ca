"""The commands that put a LetsEncrypt.ps1 of ours in the vendor's place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from letsencrypt_mdaemon.cli.options import Group, Result, command

if TYPE_CHECKING:
    from letsencrypt_mdaemon.app.script import Placed
    from letsencrypt_mdaemon.cli.context import Context

_TAKES = ("mdaemon-dir", "state-dir", "dry-run", "json")


@command(*_TAKES, example="script install")
def script_install(context: Context) -> Result:
    """Put our script in the old script's place.

    MDaemon's Let's Encrypt page, and tasks that run LetsEncrypt.ps1, then run this
    program with the same parameters. The old script is kept beside it. Run it again
    after an update of MDaemon, or when this program has moved.
    """
    from letsencrypt_mdaemon.app import script  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.cli import legacy  # noqa: PLC0415 - slow
    from letsencrypt_mdaemon.cli.commands import (  # noqa: PLC0415
        offer_to_keep_others_out,
    )

    once = {"json", "dry-run"}
    given = {name: row for name, row in context.options.items() if name not in once}
    is_trial = context.config.dry_run
    if not is_trial:
        offer_to_keep_others_out(context, *script.trusted(context.root))
    found = script.install(
        context.loaded, context.root, given, legacy.script, dry_run=is_trial
    )
    done = f"{found.script} runs this program."
    if not found.changed:
        done = f"{found.script} runs this program already."
    elif is_trial:
        done = f"Dry run: {found.script} would run this program."
    lines = [f"The old script is kept as {found.kept.name}."] if found.kept else []
    return _result(found, done, [] if is_trial else lines, dry_run=is_trial)


@command(*_TAKES, example="script remove")
def script_remove(context: Context) -> Result:
    """Put the old script back in its place.

    A LetsEncrypt.ps1 that is not ours stays.
    """
    from letsencrypt_mdaemon.app import script  # noqa: PLC0415 - slow

    is_trial = context.config.dry_run
    found = script.remove(context.loaded, context.root, dry_run=is_trial)
    done = f"{found.script} is not this program's: nothing to remove."
    if found.changed:
        done = f"Removed this program's script from {found.script.parent}."
        if is_trial:
            done = f"Dry run: {found.script} would be replaced or removed."
    lines = []
    if found.changed and not is_trial and found.script.exists():
        lines = [f"{found.script} is the old script again."]
    if found.kept and not found.changed:
        lines = [f"An earlier old script is in {found.kept.name}. You can delete it."]
    return _result(found, done, lines, dry_run=is_trial)


def _result(found: Placed, done: str, lines: list[str], *, dry_run: bool) -> Result:
    items = {
        "verdict": done,
        "script": str(found.script),
        "ours": found.is_ours,
        "kept": str(found.kept) if found.kept else None,
        "changed": found.changed,
        "dry_run": dry_run,
    }
    text = "\n".join([done, *lines])
    return Result(items, lambda _: click.echo(text))


script_group = Group(
    "script",
    {"Commands": [script_install, script_remove]},
    help="Let LetsEncrypt.ps1 run this program.\n\nFor MDaemon's Let's Encrypt page, "
    "and for tasks that run the old script.",
    epilog="Example:  letsencrypt-mdaemon script install",
)
