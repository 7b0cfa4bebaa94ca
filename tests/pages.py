"""What the pages show: commands, outputs and options, in fences and inline."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from letsencrypt_mdaemon.cli import legacy
from letsencrypt_mdaemon.cli.main import cli

ROOT = Path(__file__).parents[1]
NAME = "letsencrypt-mdaemon"
_PROMPT = re.compile(r"(\$ |C:\\>)(.*)")
_PROGRAM = re.compile(rf'"?([\w:. -]*[\\/])*{NAME}(\.exe)?"?(?=\s|$)')
_FENCED = re.compile(r"(?ms)^ *(```+)[^`\n]*\n.*?^ *\1$")
_SPAN = re.compile(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)")


def pages() -> list[str]:
    """Return the paths of all pages, as they stand in links from the checkout."""
    found = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("packaging/**/*.md"),
    ]
    found += [*ROOT.glob("examples/**/*.md"), *ROOT.glob(".github/**/*.md")]
    # What was shown once is no promise.
    return sorted(
        page.relative_to(ROOT).as_posix()
        for page in found
        if page.name != "CHANGELOG.md"
    )


class Block(NamedTuple):
    """A fenced or an indented block; `start` is the line of its content, from 0."""

    page: str
    start: int
    language: str
    indent: str
    lines: tuple[str, ...]

    @property
    def is_shell(self) -> bool:
        """Whether each line is a command line."""
        return self.language in {"sh", "bat", "powershell"}

    @property
    def is_dialogue(self) -> bool:
        """Whether commands stand behind prompts, above what they print."""
        return self.language == "console"


class Shown(NamedTuple):
    """A command line of a block, and what stands below it.

    Args:
        start: The line of the page where its output begins, from 0.
    """

    block: Block
    typed: str
    output: tuple[str, ...]
    start: int

    @property
    def page(self) -> str:
        """The page."""
        return self.block.page

    @property
    def is_ours(self) -> bool:
        """Whether it starts this program."""
        return _PROGRAM.match(self.typed) is not None


def blocks(page: str) -> list[Block]:
    """Return the blocks of a page in their order."""
    lines = (ROOT / page).read_text("utf-8").splitlines()
    found: list[Block] = []
    inside: tuple[int, str, str, str] | None = None
    for number, line in enumerate(lines):
        fence = re.fullmatch(r"( *)(```+)(\S*).*", line)
        if inside is None and fence:
            inside = number + 1, fence[3], fence[1], fence[2]
        elif inside is not None and line.strip() == inside[3]:
            start, language, indent, _ = inside
            content = tuple(x.removeprefix(indent) for x in lines[start:number])
            found.append(Block(page, start, language, indent, content))
            inside = None
    return found


def shown(block: Block) -> Iterator[Shown]:
    """Yield the command lines of a block, each with its output."""
    if block.is_shell:
        for number, line in enumerate(block.lines, block.start + 1):
            if line.strip():
                yield Shown(block, line.strip(), (), number)
    if not block.is_dialogue:
        return
    starts = [i for i, line in enumerate(block.lines) if _PROMPT.match(line)]
    for start, end in zip(starts, [*starts[1:], len(block.lines)], strict=True):
        prompted = _PROMPT.fullmatch(block.lines[start])
        assert prompted, block
        after = block.lines[start + 1 : end]
        yield Shown(block, prompted[2], after, block.start + start + 1)


def spans(page: str) -> Iterator[str]:
    """Yield what stands between backticks outside of blocks."""
    text = (ROOT / page).read_text("utf-8")
    text = _FENCED.sub("", text)
    for span in _SPAN.findall(text):
        yield " ".join(span.replace("\\|", "|").split())


def indented(page: str) -> list[str]:
    """Return the lines that Markdown shows as a block because they are indented."""
    text = (ROOT / page).read_text("utf-8")
    text = _FENCED.sub("", text)
    return re.findall(r"(?m)^\n(?:    )([^\s*-].*)$", text)


def words(typed: str) -> list[str]:
    """Split a command line; what is behind a pipe or a redirection is left out."""
    if program := _PROGRAM.match(typed):
        typed = NAME + typed[program.end() :]
    typed = re.split(r" \|| >|&&|;", typed)[0]
    return shlex.split(typed.replace("\\", "\\\\"))


def is_command(span: str) -> bool:
    """Whether a span is a command line of this program, with its name or without."""
    if program := _PROGRAM.match(span):
        return span[program.end() :].strip() != ""
    first, _, rest = span.partition(" ")
    if first not in cli.commands or not rest:
        return False
    is_group = isinstance(cli.commands[first], click.Group)
    return is_group or rest.startswith("-") or rest.split()[0].isupper()


def parse(typed: str) -> None:
    """Parse a command line as the program does, without running it.

    Raises:
        click.ClickException: If the program would refuse it.
    """
    given = words(typed)
    if given[0] == NAME:
        given = given[1:]
    if legacy.is_legacy(given):
        given = legacy.translate(given)
    try:
        context = cli.make_context(NAME, list(given))
    except click.exceptions.Exit:  # --version, --help
        return
    while isinstance(context.command, click.Group):
        group = context.command
        rest = [*context._protected_args, *context.args]  # noqa: SLF001 - click has no other
        if not rest and group is not cli:
            return
        name, command, rest = group.resolve_command(context, rest)
        assert command is not None
        try:
            context = command.make_context(name, rest, parent=context)
        except click.exceptions.Exit:  # --version, --help
            return
        except (click.MissingParameter, click.BadOptionUsage) as exc:
            # Named, not shown: `use`, `discover --forget`.
            if isinstance(exc, click.BadOptionUsage) and exc.option_name != given[-1]:
                raise
            return


def options() -> set[str]:
    """Return every option of every command, with its dashes."""

    def of(command: click.Command) -> Iterator[str]:
        context = click.Context(command, help_option_names=["-h", "--help"])
        for parameter in command.get_params(context):
            yield from [*parameter.opts, *parameter.secondary_opts]
        if isinstance(command, click.Group):
            for each in command.commands.values():
                yield from of(each)

    return {name for name in of(cli) if name.startswith("-")}
