"""Commands whose options are settings, and what their help shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import click

from letsencrypt_mdaemon.cli.parser import CONTEXT, Command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from click.shell_completion import CompletionItem

    from letsencrypt_mdaemon.cli.document import Document
    from letsencrypt_mdaemon.errors import Error

    Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
    Action = Callable[..., "Result"]  # of a Context, and own options

_ALL = f"{__name__}.all"

# What the commands read: the first names everything that opens an installation.
INSTALLATION = (
    *("mdaemon-dir", "state-dir", "store", "key-policy", "key-storage"),
    *("key-exportable", "pfx-password-file", "smtp-address", "endpoint"),
)
NAMES = ("host-name", "alternate-host-names", "profile", "directory-url", "staging")
IIS = ("iis-site-name", "iis-add-binding")
SERVER = (*INSTALLATION, *NAMES, *IIS)
DUE = ("key-type", "renew-days", "on-name-failure", "rehearse")
ACCOUNT = ("directory-url", "ca-bundle", "staging", "mdaemon-dir", "state-dir", "json")
PORT_80 = ("webroot", "skip-port-check", "validation-port", "validation-dns")
MAIL = ("to", "mail-from", "mail-server", "mail-user", "mail-password-file")
DEPLOY = (
    *INSTALLATION,
    *(name for name in NAMES if name != "staging"),
    *(
        *IIS,
        *DUE,
        *MAIL,
        "notify-on",
        "log-dir",
        "keep-logs",
        "remove-old-certificates",
    ),
    *("reload-semaphores", "reload-timeout", "allow-restart", "verify-timeout"),
    *("no-reload", "json"),
)
RENEW = (
    *(*DEPLOY, *PORT_80, "ca-bundle", "agree-tos", "contact", "eab-kid"),
    *("eab-key-file", "require-profile", "preferred-chain", "delay"),
    *("validation-timeout", "no-activate"),
)
ONCE = ("staging", "dry-run", "force")
"""For a run by hand; never for a scheduled one."""
YES = click.Option(["--yes"], is_flag=True, help="Do not ask.")
STAGING = {"staging": "Use the staging CA, and the account there."}
"""The help of that option where there is nothing to rehearse."""


class Result(NamedTuple):
    """What a command found or did.

    Args:
        items: What --json prints of it.
        print_text: Prints it for people; gets the JSON document.
        error: Why the command fails, after it has printed this.
        exit_code: That of a command that does not fail.
    """

    items: Mapping[str, object]
    print_text: Callable[[Document], object]
    error: Error | None = None
    exit_code: int = 0


class _Command(Command):
    """A command whose options are settings, made when they are needed.

    Its attributes are the arguments of `command`.
    """

    shown: Sequence[str] = ()
    takes: Sequence[str] | None = ()
    own: Sequence[click.Parameter] = ()
    helps: Mapping[str, str] = {}
    example = ""
    on_failure: Callable[[str], int] | None = None

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the options."""
        if not self.params:
            rows = _options(self.shown, self.takes, self.helps)
            self.params = [*self.own, *rows]
        return super().get_params(ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options; refuse those of other commands by name."""
        words = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as exc:
            from letsencrypt_mdaemon.cli import legacy  # noqa: PLC0415 - seldom needed
            from letsencrypt_mdaemon.config import load  # noqa: PLC0415 - slow to import

            for word in words:
                if right := legacy.spelling(word):
                    message = f"{word} is a switch of the old script; write {right}."
                    raise click.UsageError(message, ctx) from exc

            name = exc.option_name.removeprefix("--")
            if name in load.REMOVED:
                message = f"The setting {exc.option_name} was removed."
            elif name in (key for key, row in load.settings() if not row.secret):
                message = f"`{ctx.command_path}` does not take {exc.option_name}."
            else:
                raise
            raise click.UsageError(message, ctx) from exc

    def format_options(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write the options that matter most, or all of them."""
        few = {*_identifiers(self.shown), *(option.name for option in self.own)}
        seldom = {option.name for option in self.params} - few - {"help_all"}
        rows = [
            option.get_help_record(ctx)
            for option in self.get_params(ctx)
            if isinstance(option, click.Option)
            and (ctx.meta.get(_ALL) or option.name not in seldom)
        ]
        with formatter.section("Options"):
            formatter.write_dl([row for row in rows if row])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write an example, and where the other options are."""
        with formatter.indentation():
            formatter.write_paragraph()
            formatter.write_text(f"Example:  letsencrypt-mdaemon {self.example}")
            if not ctx.meta.get(_ALL):
                formatter.write_text(f"All options:  {ctx.command_path} --help-all")


def command(  # noqa: PLR0913 - what a command consists of
    *shown: str,
    takes: Sequence[str] | None = (),
    own: Sequence[click.Parameter] = (),
    helps: Mapping[str, str] | None = None,
    example: str,
    is_logged: bool = False,
    first: Callable[..., object] | None = None,
    on_failure: Callable[[str], int] | None = None,
) -> Callable[[Action], click.Command]:
    """Make a command of a function, with settings as its options.

    Args:
        shown: The settings that -h shows.
        takes: All settings that it takes, or the further ones; None = every setting.
        own: Options and arguments that are not settings; the function gets their
            values by name.
        helps: The help of settings that mean something else here.
        example: A command line without the name of the program.
        is_logged: Whether it writes a log, and mails a failure.
        first: Called like the function before the lock is taken: asks for consent.
        on_failure: Prints why it failed, and returns the exit code; None = as usual.
    """

    def decorate(act: Action) -> click.Command:
        def callback(**given: Any) -> int:  # noqa: ANN401 - as click gives them
            from letsencrypt_mdaemon.cli.context import Context  # noqa: PLC0415 - slow
            from letsencrypt_mdaemon.cli.run import Run  # noqa: PLC0415 - slow

            mine = {str(option.name): given.pop(str(option.name)) for option in own}
            current = click.get_current_context()
            outer = current.find_root().obj
            file = given.pop("config_file") or outer["config_file"]
            verbose = bool(given.pop("verbose") or outer["verbose"])
            options = {
                name.replace("_", "-"): (value,) if isinstance(value, str) else value
                for name, value in given.items()
                if value is not None and value != ()
            }
            name = current.command_path.split(" ", 1)[1]
            is_marked = bool(mine.pop("is_marked", False))
            context = Context(name, options, file=file, is_marked=is_marked)
            with Run(
                context, verbose=verbose, is_logged=is_logged, on_failure=on_failure
            ) as run:
                if first is not None:
                    first(context, **mine)
                run.begin()
                result = act(context, **mine)
                run.show(result)
            return result.exit_code

        made = _Command(
            act.__name__.replace("_", "-"),
            callback=callback,
            help=act.__doc__,
            context_settings=CONTEXT,
        )
        made.shown, made.takes, made.own, made.example = shown, takes, own, example
        made.helps, made.on_failure = helps or {}, on_failure
        return made

    return decorate


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


def _options(
    shown: Sequence[str], takes: Sequence[str] | None, helps: Mapping[str, str]
) -> Iterator[click.Option]:
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
            [f"--{name}", *_identifiers([name])],
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
        help="Config file.  [default: letsencrypt-mdaemon.ini in MDaemon's folder "
        "LetsEncrypt]",
    )
    yield click.Option(["-v", "--verbose"], is_flag=True, help="Show debug output.")


def _show_all(ctx: click.Context, _: click.Parameter, value: object) -> None:
    if value and not ctx.resilient_parsing:
        ctx.meta[_ALL] = True
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


def _identifiers(names: Sequence[str]) -> list[str]:
    return [name.replace("-", "_") for name in names]
