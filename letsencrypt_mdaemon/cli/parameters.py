"""Make options of settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from click.shell_completion import CompletionItem

    Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

ALL = f"{__name__}.all"
"""Where a click context notes that the help shows all options."""


def offer(values: Sequence[str], *, path: str = "") -> Complete:
    """Return what completes an option's value.

    Args:
        path: "dir" or "file" if the shell completes a path.
    """

    def complete(
        _: click.Context, __: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - seldom

        if path:
            return [CompletionItem(incomplete, type=path)]
        fitting = [value for value in values if value.startswith(incomplete)]
        return [CompletionItem(value) for value in fitting]

    return complete


def of_settings(
    shown: Sequence[str], takes: Sequence[str] | None, helps: Mapping[str, str]
) -> Iterator[click.Option]:
    """Yield the options of a command, of those settings and of every command.

    Args:
        takes: The further settings; None = every setting.
        helps: The help of settings that mean something else there.
    """
    from letsencrypt_mdaemon.config import load  # noqa: PLC0415 - slow to import

    table = {name: row for name, row in load.settings() if not row.secret}
    more = [name for name in table if takes is None or name in takes]
    for name in dict.fromkeys([*shown, *more]):
        row = table[name]
        # A flag's value on any other option would make its argument optional.
        kind: dict[str, Any] = {"is_flag": True, "flag_value": "yes"}
        if not row.flag:
            path = {"DIR": "dir", "FILE": "file"}.get(row.metavar, "")
            complete = offer(row.choices, path=path)
            kind = {"metavar": row.metavar, "shell_complete": complete}
        yield click.Option(
            [f"--{name}", *identifiers([name])],
            type=str,
            default=None,
            multiple=row.many,
            help=helps.get(name, row.help),
            **kind,
        )
    yield from general_options()
    yield click.Option(
        ["--help-all"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_show_all,
        help="Show all options and exit.",
    )


def general_options() -> Iterator[click.Option]:
    """Return the options that may stand before the command or behind it."""
    yield click.Option(
        ["-c", "--config", "config_file"],
        metavar="FILE",
        help="Config file.  [default: MDaemon\\LetsEncrypt\\letsencrypt-mdaemon.ini]",
    )
    yield click.Option(["-v", "--verbose"], is_flag=True, help="Show debug output.")


def _show_all(ctx: click.Context, _: click.Parameter, value: object) -> None:
    if value and not ctx.resilient_parsing:
        ctx.meta[ALL] = True
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


def identifiers(names: Sequence[str]) -> list[str]:
    """Return the names as those of arguments."""
    return [name.replace("-", "_") for name in names]
