"""Options of the commands, made from the table of settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from letsencrypt_mdaemon._version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


if TYPE_CHECKING:
    Command = Callable[..., None]  # a Run, and the command's own options


PLACES = ("mdaemon-dir", "log-dir", "state-dir", "store")


WANTED = ("host-name", "alternate-host-names", "directory-url", "key-type", "staging")


# What fits the screen; `config show` tells all of them.
RENEW = (
    *("host-name", "alternate-host-names", "key-type", "directory-url", "ca-bundle"),
    *("agree-tos", "to", "remove-old-certificates", "skip-port-check"),
    *("no-reload", "staging", "dry-run", "force", "json"),
    *("mdaemon-dir", "webroot", "store"),
)


CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(context_settings=CONTEXT, no_args_is_help=True)
@click.option("-c", "--config", "config_file", metavar="FILE", help="The config file.")
@click.option("-v", "--verbose", is_flag=True, help="Say more.")
@click.version_option(__version__, prog_name="letsencrypt-mdaemon")
@click.pass_context
def cli(context: click.Context, /, **outer: object) -> None:
    """Keep the certificate of an MDaemon mail server fresh.

    The old script's switches (-AlternateHostNames a,b -To x@y …) work unchanged.
    """
    context.obj = outer


cli.epilog = "Example:  letsencrypt-mdaemon renew --agree-tos --to me@example.com"


class _Command(click.Command):
    """A command whose options are the settings, made when they are asked for.

    Attributes:
        shown: The settings that its help shows; the others work as well.
        own: Options of this command alone.
    """

    shown: tuple[str, ...] = ()
    own: Sequence[click.Option] = ()

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the options."""
        self.params = self.params or [*self.own, *_options(self.shown)]
        return super().get_params(ctx)


def run_command(
    parent: click.Group, *shown: str, example: str, own: Sequence[click.Option] = ()
) -> Callable[[Command], click.Command]:
    """Make a command of a function, with the settings as its options.

    Args:
        shown: The settings that its help shows; the others work as well.
        own: Options of this command alone; the function gets their values by name.
    """

    def decorate(function: Command) -> click.Command:
        def callback(**given: Any) -> None:  # noqa: ANN401 - as click gives them
            from letsencrypt_mdaemon.cli.run import Run  # noqa: PLC0415 - slow to import

            mine = {str(option.name): given.pop(str(option.name)) for option in own}
            context = click.get_current_context()
            outer = context.find_root().obj
            file = given.pop("config_file") or outer["config_file"]
            verbose = bool(given.pop("verbose") or outer["verbose"])
            options = {
                name.replace("_", "-"): (value,) if isinstance(value, str) else value
                for name, value in given.items()
                if value is not None and value != ()
            }
            name = context.command_path.split(" ", 1)[1]
            with Run(name, options, file=file, verbose=verbose) as run:
                function(run, **mine)

        command = _Command(
            function.__name__.removeprefix(f"{parent.name}_").replace("_", "-"),
            callback=callback,
            help=function.__doc__,
            epilog=f"Example:  letsencrypt-mdaemon {example}",
            context_settings=CONTEXT,
        )
        command.shown, command.own = shown, own
        parent.add_command(command)
        return command

    return decorate


def _options(shown: tuple[str, ...]) -> list[click.Parameter]:
    from letsencrypt_mdaemon.config import load  # noqa: PLC0415 - slow to import

    table = dict(load.settings())
    # -c and -v may stand before the command or behind it.
    options: list[click.Parameter] = [
        click.Option(["-c", "--config", "config_file"], metavar="FILE", hidden=True),
        click.Option(["-v", "--verbose"], is_flag=True, hidden=True),
    ]
    for name in dict.fromkeys([*shown, *table]):
        row = table[name]
        if not row.secret:
            # A flag's value on any other option would make its argument optional.
            kind: dict[str, Any] = {"metavar": row.metavar}
            if row.flag:
                kind = {"is_flag": True, "flag_value": "yes"}
            option = click.Option(
                [f"--{name}", name.replace("-", "_")],
                type=str,
                default=None,
                multiple=row.many,
                help=row.help,
                hidden=name not in shown,
                **kind,
            )
            options.append(option)
    return options
