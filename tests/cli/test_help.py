"""What help and wrong options say."""

from __future__ import annotations

import pytest

from letsencrypt_mdaemon.cli.parameters import Formatter
from tests.program import here


@pytest.mark.parametrize("width", [40, 50, 60])
def test_help_breaks_no_name_at_its_hyphen(width: int) -> None:
    formatter = Formatter(width=width)
    words = "a bb ccc letsencrypt-mdaemon.ini dddd --mdaemon-dir eeeee --state-dir"

    formatter.write_dl([("--x", words)])
    formatter.write_text(words)

    shown = formatter.getvalue()
    assert shown.replace("--x", "").split() == words.split() * 2
    assert max(map(len, shown.splitlines())) <= width


def test_help_names_the_config_file_and_where_the_options_are() -> None:
    ran = here(["-h"])

    assert "letsencrypt-mdaemon.ini in" in ran.output
    assert "letsencrypt-mdaemon COMMAND -h" in ran.output


@pytest.mark.parametrize(
    "command", ["check", "self-signed", "renew", "certificates list"]
)
def test_help_shows_no_range_in_the_notation_of_a_program(command: str) -> None:
    text = here([*command.split(), "--help-all"]).output

    assert "[x" not in text
    assert "<=" not in text
    assert ">=" not in text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("self-signed --days 900", "'900' is not valid; use a number from 1 to 825."),
        ("self-signed --days 1.5", "'1.5' is not valid; use a number from 1 to 825."),
        ("self-signed --days x", "'x' is not valid; use a number from 1 to 825."),
        ("check --warning -1", "'-1' is not valid; use a number from 0 to 10000."),
        ("check --critical nan", "'nan' is not valid; use a number from 0 to 10000."),
        ("check --timeout 601", "'601' is not valid; use a number from 0.1 to 600."),
    ],
)
def test_a_number_out_of_bounds_is_refused_in_plain_words(
    line: str, message: str
) -> None:
    ran = here(line.split())

    assert ran.exit_code in {2, 3}
    assert message in ran.output + ran.messages


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("--dryrun", "--dry-run"),
        ("--host", "--host-name"),
        ("--mail-fom", "--mail-from"),
        ("--email", ""),
        ("--weboot-files", ""),
        ("--test", ""),
    ],
)
def test_an_option_is_suggested_only_if_it_is_close(word: str, meant: str) -> None:
    ran = here(["renew", word])

    assert ran.exit_code == 2
    assert f"No such option '{word}'." in ran.messages
    assert ("Did you mean" in ran.messages) == bool(meant)
    assert meant in ran.messages
