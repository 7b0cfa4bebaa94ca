"""What command lines are parsed with, and how their help is laid out."""

from __future__ import annotations

import io
import math
import sys
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

_HELP = ["-h", "--help"]
_NO_BREAK = "\N{NON-BREAKING HYPHEN}"
CONTEXT = {"help_option_names": _HELP}

CLOSE = 0.8
"""How alike an option must be to be suggested, from 0 to 1."""


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
    low: float, high: float = math.inf, kind: type[float] = float
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
            if math.isfinite(found) and low <= found <= high:
                return found
        bounds = f"of {low:g} or more"
        if math.isfinite(high):
            bounds = f"from {low:g} to {high:g}"
        message = f"{text!r} is not valid; use a number {bounds}."
        raise click.BadParameter(message, ctx, param)

    return parse


class Group(click.Group):
    """A group of commands, listed in sections.

    Args:
        sections: The commands by title of their section. A command's name loses the
            group's: `schedule-show` becomes `show`.
        default: The command that runs if none is given; "" = show the help.
    """

    context_class = Command.context_class

    def __init__(
        self,
        name: str,
        sections: Mapping[str, Sequence[click.Command]],
        *,
        default: str = "",
        **attributes: Any,  # noqa: ANN401 - click's own
    ) -> None:
        super().__init__(
            name,
            context_settings=CONTEXT,
            no_args_is_help=True,
            subcommand_metavar="COMMAND [OPTIONS]",
            **attributes,
        )
        self.sections, self.default = sections, default
        for command in chain.from_iterable(sections.values()):
            self.add_command(command, str(command.name).removeprefix(f"{name}-"))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options; add the default command."""
        is_option = args[:1] and args[0].startswith("-") and args[0] not in _HELP
        if self.default and (not args or is_option):
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def main(self, *arguments: Any, **options: Any) -> NoReturn:  # noqa: ANN401
        """Run a command line; its mistakes are shown as all other errors are."""
        options["standalone_mode"] = False
        words = options.pop("args", None) or (arguments or [sys.argv[1:]])[0]
        words = _as_options(words)
        try:
            sys.exit(super().main(words, *arguments[1:], **options) or 0)
        except click.ClickException as exc:
            if isinstance(exc, click.NoSuchOption) and exc.possibilities:
                exc.possibilities[:] = _close(exc.option_name, exc.possibilities)
            context = getattr(exc, "ctx", None)
            row = context and context.command
            if on_failure := getattr(row, "on_failure", None):
                sys.exit(on_failure(exc.format_message()))
            if "--json" in words:
                _print_as_json(exc)
                sys.exit(exc.exit_code)
            shown = io.StringIO()
            exc.show(shown)
            text = shown.getvalue().replace("Error: ", "error: ", 1)
            click.echo(text, nl=False, err=True)
            sys.exit(exc.exit_code)
        except click.Abort:
            click.echo("Aborted!", err=True)
            sys.exit(1)

    def format_commands(self, _: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands with the first sentences of their help."""
        names = {command: name for name, command in self.commands.items()}
        width = max(map(len, self.commands))
        for title, commands in self.sections.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(f"{names[row]:<{width}}", _summary(row)) for row in commands]
                )


def _as_options(words: Sequence[str]) -> list[str]:
    """Return a command line with `help` and `version` as the options they stand for."""
    if words[:1] == ["help"]:
        return [*words[1:], "--help"]
    return ["--version"] if words == ["version"] else list(words)


def _print_as_json(error: click.ClickException) -> None:
    """Print wrong usage as the JSON of any other failure."""
    from letsencrypt_mdaemon.cli import document  # noqa: PLC0415 - seldom needed

    context = getattr(error, "ctx", None)
    path = context.command_path.partition(" ")[2] if context else ""
    details = {"type": "UsageError", "message": error.format_message(), "hint": ""}
    document.print_json(
        {
            **document.common(path, error.exit_code),
            "error": details,
            "warnings": [],
            "log": None,
        }
    )


def _close(name: str, options: Sequence[str]) -> list[str]:
    """Return the options that somebody may have meant by a name."""
    from difflib import get_close_matches  # noqa: PLC0415 - seldom needed

    begun = [option for option in options if option.startswith(name)]
    return begun or get_close_matches(name, options, cutoff=CLOSE)


def _whole(text: str) -> str:
    """Return a text whose hyphens break no line."""
    return text.replace("-", _NO_BREAK)


def _summary(command: click.Command) -> str:
    """Return the first sentence of a command's help."""
    return (command.help or "").partition("\n")[0].removesuffix(".")
