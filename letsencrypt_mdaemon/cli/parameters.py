"""Make options, and lay out their help."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from click.shell_completion import CompletionItem

    Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

ALL = f"{__name__}.all"
"""Where a click context notes that the help shows all options."""

CLOSE = 0.8
"""How alike an option must be to be suggested, from 0 to 1."""

_NO_BREAK = "\N{NON-BREAKING HYPHEN}"


class Formatter(click.HelpFormatter):
    """Writes help without a line break at a hyphen, as in the name of a file."""

    def write_text(self, text: str) -> None:
        """Write a text."""
        super().write_text(_whole(text))

    def write_dl(
        self,
        rows: Iterable[tuple[str, str]],
        col_max: int = 30,
        col_spacing: int = 2,
    ) -> None:
        """Write a list of options or commands."""
        whole = [(first, _whole(second)) for first, second in rows]
        super().write_dl(whole, col_max, col_spacing)

    def getvalue(self) -> str:
        """Return the help."""
        return super().getvalue().replace(_NO_BREAK, "-")


class Command(click.Command):
    """A command whose help breaks no line at a hyphen."""

    class context_class(click.Context):  # noqa: N801 - click's name
        """Makes the help."""

        formatter_class = Formatter


def number(
    low: float, high: float, kind: type[float] = float
) -> Callable[[click.Context, click.Parameter, str | None], float | None]:
    """Return an option's callback: it makes a number between two bounds of the text.

    Args:
        low: The bounds are included.
        kind: int, or float for a number with decimals.
    """

    def parse(
        ctx: click.Context, param: click.Parameter, text: str | None
    ) -> float | None:
        if text is None:
            return None
        with suppress(ValueError):
            found = kind(text)
            if low <= found <= high:
                return found
        message = f"{text!r} is not valid; use a number from {low:g} to {high:g}."
        raise click.BadParameter(message, ctx, param)

    return parse


def close(name: str, options: Sequence[str]) -> list[str]:
    """Return the options that somebody may have meant by a name."""
    from difflib import get_close_matches  # noqa: PLC0415 - seldom needed

    begun = [option for option in options if option.startswith(name)]
    return begun or get_close_matches(name, options, cutoff=CLOSE)


def _whole(text: str) -> str:
    """Return a text whose hyphens break no line."""
    return text.replace("-", _NO_BREAK)


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
    # What an earlier version scheduled still runs.
    for name in load.REMOVED:
        yield click.Option([f"--{name}", *identifiers([name])], hidden=True)
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
        help="Config file.  [default: letsencrypt-mdaemon.ini in MDaemon's folder "
        "LetsEncrypt]",
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
