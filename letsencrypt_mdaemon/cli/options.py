"""Commands whose options are settings, and what their help shows."""

from __future__ import annotations

import io
import sys
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import click

from letsencrypt_mdaemon.cli.parameters import (
    ALL,
    Command,
    close,
    identifiers,
    of_settings,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from letsencrypt_mdaemon.cli.document import Document
    from letsencrypt_mdaemon.errors import Error

    Action = Callable[..., "Result"]  # of a Context, and own options
    # Of a message and a command line.
    Failure = Callable[[str, Sequence[str]], tuple[int, Document]]

_HELP = ["-h", "--help"]
CONTEXT = {"help_option_names": _HELP}

# What the commands read: the first names everything that opens an installation.
INSTALLATION = (
    *("mdaemon-dir", "state-dir", "store", "key-policy", "key-storage"),
    *("key-exportable", "pfx-password-file", "smtp-address", "endpoint"),
)
NAMES = ("host-name", "alternate-host-names", "profile", "directory-url", "staging")
IIS = ("iis-site-name", "iis-add-binding")
SERVER = (*INSTALLATION, *NAMES, *IIS)
DUE = (
    *("key-type", "mail-domains", "renew-days", "on-name-failure", "rehearse"),
    "validation-dns",
)
ACCOUNT = (
    *("directory-url", "ca-bundle", "proxy", "staging", "mdaemon-dir", "state-dir"),
    "json",
)
PORT_80 = ("webroot", "skip-port-check", "validation-port", "validation-dns")
MAIL = ("to", "mail-from", "mail-server", "mail-user", "mail-password-file")
NOTIFY = ("notify-file", "notify-key-file", "heartbeat-url-file")
DEPLOY = (
    *INSTALLATION,
    *(name for name in NAMES if name != "staging"),
    *(
        *IIS,
        *DUE,
        *MAIL,
        *NOTIFY,
        *("notify-on", "metrics-file"),
        "log-dir",
        "keep-logs",
        "remove-old-certificates",
    ),
    *("reload-semaphores", "reload-timeout", "allow-restart", "verify-timeout"),
    *("after-activation", "after-activation-timeout"),
    *("no-reload", "proxy", "json"),
)
RENEW = (
    *(*DEPLOY, *PORT_80, "ca-bundle", "agree-tos", "contact", "eab-kid"),
    *("eab-key-file", "require-profile", "preferred-chain", "delay"),
    *("validation-timeout", "no-activate"),
)
ONCE = ("staging", "dry-run", "force", "ask-ca")
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
        self.words: list[str] = []  # the command line, while one is run
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
        self.words = words = _as_options(words)
        try:
            sys.exit(super().main(words, *arguments[1:], **options) or 0)
        except click.ClickException as exc:
            if isinstance(exc, click.NoSuchOption) and exc.possibilities:
                exc.possibilities[:] = close(exc.option_name, exc.possibilities)
            context = getattr(exc, "ctx", None)
            row = context and context.command
            if isinstance(row, _Command) and row.on_failure is not None:
                code, items = row.on_failure(exc.format_message(), words)
                if wants_json(words):
                    _print_as_json(exc, code, items)
                sys.exit(code)
            if "--json" in words:
                _print_as_json(exc, exc.exit_code, {})
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


def wants_json(words: Sequence[str]) -> bool:
    """Whether a command line asks for JSON, also as one format of several."""
    given = {"--json", "--format=json"}.intersection(words)
    return bool(given) or ("--format", "json") in pairwise(words)


def _print_as_json(
    error: click.ClickException, code: int, items: Mapping[str, object]
) -> None:
    """Print wrong usage as the JSON of any other failure."""
    from letsencrypt_mdaemon.cli import document  # noqa: PLC0415 - seldom needed

    context = getattr(error, "ctx", None)
    path = context.command_path.partition(" ")[2] if context else ""
    message = error.format_message()
    failure = document.failure(path, code, message, kind="UsageError")
    document.print_json({**failure, **items})


class _Command(Command):
    """A command whose options are settings, made when they are needed.

    Its attributes are the arguments of `command`.
    """

    shown: Sequence[str] = ()
    takes: Sequence[str] | None = ()
    own: Sequence[click.Parameter] = ()
    helps: Mapping[str, str] = {}
    example = ""
    on_failure: Failure | None = None

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the options."""
        if not self.params:
            rows = of_settings(self.shown, self.takes, self.helps)
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
        few = {*identifiers(self.shown), *(option.name for option in self.own)}
        seldom = {option.name for option in self.params} - few - {"help_all"}
        rows = [
            option.get_help_record(ctx)
            for option in self.get_params(ctx)
            if isinstance(option, click.Option)
            and (ctx.meta.get(ALL) or option.name not in seldom)
        ]
        with formatter.section("Options"):
            formatter.write_dl([row for row in rows if row])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write an example, and where the other options are."""
        with formatter.indentation():
            formatter.write_paragraph()
            formatter.write_text(f"Example:  letsencrypt-mdaemon {self.example}")
            if not ctx.meta.get(ALL):
                formatter.write_text(f"All options:  {ctx.command_path} --help-all")


def command(  # noqa: PLR0913 - what a command consists of
    *shown: str,
    takes: Sequence[str] | None = (),
    own: Sequence[click.Parameter] = (),
    helps: Mapping[str, str] | None = None,
    example: str,
    is_logged: bool = False,
    first: Callable[..., object] | None = None,
    on_failure: Failure | None = None,
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
        on_failure: Prints why it failed, unless as JSON; returns the exit code, and
            more items of the JSON. None = as usual.
    """

    def decorate(act: Action) -> click.Command:
        def callback(**given: Any) -> int:  # noqa: ANN401 - as click gives them
            from letsencrypt_mdaemon.cli.context import Context  # noqa: PLC0415 - slow
            from letsencrypt_mdaemon.cli.run import Run  # noqa: PLC0415 - slow

            mine = {str(option.name): given.pop(str(option.name)) for option in own}
            current = click.get_current_context()
            words = getattr(current.find_root().command, "words", ())
            fail = on_failure
            failed = (lambda said: fail(said, words)) if fail is not None else None
            outer = current.find_root().obj
            file = given.pop("config_file") or outer["config_file"]
            verbose = bool(given.pop("verbose") or outer["verbose"])
            options = {
                name.replace("_", "-"): (value,) if isinstance(value, str) else value
                for name, value in given.items()
                if value is not None and value != ()
            }
            name = current.command_path.split(" ", 1)[1]
            if fail is not None and wants_json(words):
                options.setdefault("json", ("yes",))
            is_marked = bool(mine.pop("is_marked", False))
            context = Context(name, options, file=file, is_marked=is_marked)
            with Run(
                context, verbose=verbose, is_logged=is_logged, on_failure=failed
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


def _summary(command: click.Command) -> str:
    """Return the first sentence of a command's help."""
    return (command.help or "").partition("\n")[0].removesuffix(".")
