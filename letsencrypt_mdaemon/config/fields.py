"""How a setting is declared: its text, its help, its default."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, NamedTuple

from letsencrypt_mdaemon.config import parsers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from letsencrypt_mdaemon.config.parsers import Parsed


class Setting(NamedTuple):
    """How one setting is written, wherever it is written.

    Args:
        parse: Turns the text, and the folder that relative paths start from, into the
            value; raises ValueError with the problem.
        choices: The values that completion offers.
        usual: What counts while it is unset, in words; empty if nothing does.
        many: Whether it may be repeated; commas join the texts before parsing.
        secret: Whether its value is never shown; then it is not an option either.
    """

    help: str
    metavar: str
    parse: Callable[[str, Path], Parsed]
    flag: bool = False
    choices: tuple[str, ...] = ()
    usual: str = ""
    many: bool = False
    secret: bool = False


def setting(  # noqa: PLR0913 - a row of the table of settings
    what: str,
    parse: Callable[[str, Path], Parsed] = parsers.parse_text,
    metavar: str = "TEXT",
    *,
    default: Parsed = "",
    usual: str = "",
    choices: tuple[str, ...] = (),
    many: bool = False,
    secret: bool = False,
) -> Parsed:
    """Return the field of one setting; its help gets the default.

    Args:
        usual: What counts while it is unset, in words; by default the default.
    """
    if many:
        default = default or ()
    if usual or default:
        usual = usual or parsers.shown(default)
        what = f"{what}  [default: {usual}]"
    is_flag = parse is parsers.parse_flag
    row = Setting(what, metavar, parse, is_flag, choices, usual, many, secret)
    return field(default=default, metadata={"setting": row}, repr=not secret)


def flag(what: str) -> Parsed:
    """Return the field of a setting that is yes or no; unset, it is no."""
    return setting(what, parsers.parse_flag, default=False)


def folder(what: str, usual: str = "") -> Parsed:
    """Return the field of a setting that is a folder."""
    return setting(what, parsers.parse_path, "DIR", default=None, usual=usual)


def file(what: str) -> Parsed:
    """Return the field of a setting that is a file."""
    return setting(what, parsers.parse_path, "FILE", default=None)


def number(
    what: str,
    bounds: tuple[int, int],
    default: int | None,
    metavar: str = "SECONDS",
    usual: str = "",
) -> Parsed:
    """Return the field of a setting that is a whole number."""
    parse = parsers.parse_number(*bounds)
    return setting(what, parse, metavar, default=default, usual=usual)


def one_of(what: str, *choices: str, metavar: str = "RULE") -> Parsed:
    """Return the field of a setting that is one of some words, by default the first."""
    parse, default = parsers.parse_one_of(*choices), choices[0]
    return setting(what, parse, metavar, default=default, choices=choices)
