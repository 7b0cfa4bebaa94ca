"""What a person types a little differently, and what the first line says."""

from __future__ import annotations

import codecs
import json
import re
from pathlib import Path

import pytest

from letsencrypt_mdaemon._version import __version__
from letsencrypt_mdaemon.config.load import FILE_NAME, load_config
from letsencrypt_mdaemon.errors import ConfigError
from tests.program import HOST_NAME, Program, here

IMAP = "imap.example.test"


def test_a_renewal_says_each_thing_once(secure: Program) -> None:
    ran = secure.here("renew", as_json=False)
    again = secure.here("renew", as_json=False)

    text = f"{ran.messages}{ran.output}"
    assert ran.exit_code == again.exit_code == 0
    for said in ("self-signed", "MDaemon.ini", "RELOADCACHE.SEM", "valid until"):
        assert text.count(said) == (2 if said == "MDaemon.ini" else 1), said
    text = f"{again.messages}{again.output}"
    assert text.count("Nothing due until") == text.count("valid until") == 1
    assert "Nothing is due" in secure.log()
    assert secure.here("renew", "--force", "-v", as_json=False).messages.count("Due: ")


def headline(program: Program, *words: str) -> str:
    """Return the first line of what a command prints."""
    ran = program.here(*words, as_json=False)
    assert ran.exit_code == 0, ran.messages
    return ran.output.partition("\n")[0]


def test_the_first_line_of_a_run_is_its_result(program: Program) -> None:
    issued = headline(program, "renew", "--no-reload", "--no-activate")
    assert issued.startswith(f"Issued, not in use: {HOST_NAME}, valid until ")
    pending = program.here("status").report["pending"]["thumbprint"]
    assert issued.endswith(f", {pending}. The certificate in use is self-signed.")
    assert headline(program, "activate", "--no-reload").startswith(
        f"Activated: {HOST_NAME}, valid until "
    )
    assert re.match(r"Nothing due until \d{4}-", headline(program, "renew"))
    assert headline(
        program, "renew", "--no-reload", "--alternate-host-names", IMAP
    ).startswith(f"Renewed: {HOST_NAME} and 1 more, valid until ")


@pytest.mark.parametrize("words", [["renew"], ["schedule", "install"], []])
def test_help_is_a_word_too(words: list[str]) -> None:
    asked, usual = here(["help", *words]), here([*words, "--help"])

    assert (asked.exit_code, asked.output) == (0, usual.output)
    assert asked.output.startswith("Usage: ")


def test_help_for_what_is_no_command_says_so() -> None:
    assert here(["help", "nonsense"]).exit_code == 2


def test_version_is_a_word_too() -> None:
    assert here(["version"]).output == here(["--version"]).output
    assert __version__ in here(["version"]).output


@pytest.mark.parametrize(
    ("typed", "right"),
    [
        ("-To", "--to"),
        ("-to:me@example.test", "--to"),
        ("-AlternateHostNames", "--alternate-host-names"),
        ("-Skip", "--skip-port-check"),
    ],
)
def test_a_switch_of_the_old_script_behind_renew_gets_the_right_spelling(
    typed: str, right: str
) -> None:
    ran = here(["renew", typed, "x"])

    assert ran.exit_code == 2
    text = f"error: {typed} is a switch of the old script; write {right}."
    assert text in ran.messages


def test_wrong_usage_is_json_when_json_was_asked_for() -> None:
    ran = here(["renew", "--bogus", "--json"])

    report = json.loads(ran.output)
    assert ran.exit_code == report["exit_code"] == 2
    assert report["command"] == "renew"
    assert report["error"]["type"] == "UsageError"
    assert "--bogus" in report["error"]["message"]
    assert report["generator"]["version"] == __version__


# The config file


def config(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    """Write a config file."""
    file = folder / FILE_NAME
    file.write_bytes(text.encode(encoding))
    return file


@pytest.mark.parametrize("quoted", ['"me@example.test"', "'me@example.test'"])
def test_quotes_around_a_value_are_taken_off(tmp_path: Path, quoted: str) -> None:
    file = config(tmp_path, f"[letsencrypt-mdaemon]\nto = {quoted}\n")

    assert load_config(file).to == ("me@example.test",)


def test_a_single_quote_character_stays(tmp_path: Path) -> None:
    text = '[letsencrypt-mdaemon]\npreferred-chain = "\n'

    assert load_config(config(tmp_path, text)).preferred_chain == '"'


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-8"])
def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path, encoding: str) -> None:
    text = "\ufeff[letsencrypt-mdaemon]\npreferred-chain = Grüße\n"

    assert load_config(config(tmp_path, text, encoding)).preferred_chain == "Grüße"


def test_half_a_character_of_utf_16_is_a_problem_of_the_file(tmp_path: Path) -> None:
    file = config(tmp_path, "")
    file.write_bytes(codecs.BOM_UTF16_LE + b"[")

    with pytest.raises(ConfigError, match="save it as UTF-8"):
        load_config(file)


@pytest.mark.parametrize(
    "name", [f"{FILE_NAME}.txt", "letsencrypt_mdaemon.ini", "LetsEncrypt-MDaemon.conf"]
)
def test_a_config_file_under_a_near_name_is_noticed(
    program: Program, name: str
) -> None:
    near = program.layout.letsencrypt / name
    near.write_text("[letsencrypt-mdaemon]\nto = me@example.test\n")

    ran = program.here("config show")

    assert ran.report["config_file"] is None
    (warning,) = ran.report["warnings"]
    assert warning == (
        f"{near} is not read: the config file is named {FILE_NAME}. Rename it."
    )
