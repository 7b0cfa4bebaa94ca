"""The JSON of every command, good or not, is as docs/schemas describes it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from jsonschema import Draft202012Validator, ValidationError

from letsencrypt_mdaemon.cli.main import cli
from tests import schemas
from tests.program import Program, here, options_of


def leaves(command: click.Command = cli, path: str = "") -> Iterator[str]:
    """Yield the name of every command that is no group."""
    if not isinstance(command, click.Group):
        yield path
        return
    for name, below in command.commands.items():
        yield from leaves(below, f"{path} {name}".strip())


COMMANDS = list(leaves())
FILES = {file.stem: file for file in schemas.FOLDER.glob("*.json")}


def test_every_command_has_a_schema_and_no_schema_is_left_over() -> None:
    known = {schemas.COMMON, *schemas.SENT, *map(schemas.name, COMMANDS)}
    assert FILES.keys() == known


@pytest.mark.parametrize("name", FILES)
def test_a_schema_is_one_and_short_enough_to_read(name: str) -> None:
    text = FILES[name].read_text("utf-8")

    Draft202012Validator.check_schema(json.loads(text))
    assert len(text.splitlines()) <= 300
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.usefixtures("ca")
def test_the_good_results_are_as_the_schemas_say(program: Program) -> None:
    to = ("--to", "a@example.test")
    first = program.here("renew", "--no-reload", "--no-activate").report
    rows = [
        *("activate --no-reload", "renew", "renew --force --no-reload"),
        *("renew --dry-run", "certificates list"),
        *("use --release", "self-signed", "status", "discover", "discover --shape"),
        *("check --no-ports", "check"),
        *("config show", "account show", "account rollover", "account deactivate"),
    ]
    for row in rows:
        name = next(name for name in COMMANDS if row.startswith(name))
        ran = program.here(name, *row.removeprefix(name).split())

        report = ran.report  # checked against the schema
        assert report["command"] == name
        assert "error" not in report, (row, report["error"])
        assert (report["verdict"] is None) == (name == "config show"), row
    sent = program.here("notify-test", *to).report
    assert sent["verdict"] == f"Sent to {to[1]} {sent['sent']}."
    assert first["verdict"].startswith("Issued, not in use: ")


@pytest.mark.usefixtures("ca")
def test_the_days_left_are_those_of_the_certificate_in_use(program: Program) -> None:
    renewed = program.here("renew", "--no-reload").report
    assert 80 < renewed["days_left"] < 91
    for name in ("status", "check", "verify"):
        report = program.here(name).report
        assert report["days_left"] == pytest.approx(renewed["days_left"], abs=0.1)


@pytest.mark.parametrize("name", COMMANDS)
def test_wrong_usage_and_failures_are_as_the_schemas_say(
    name: str, tmp_path: Path
) -> None:
    wrong = here([*name.split(), "--nonsense", "--json"])

    assert wrong.report["command"] == name
    assert wrong.report["verdict"].startswith("No such option")
    if "--mdaemon-dir" in options_of(name.split()):
        missing = str(tmp_path / "nowhere")
        words = ["--yes"] if "--yes" in options_of(name.split()) else []
        failed = here([*name.split(), *words, "--mdaemon-dir", missing, "--json"])
        if failed.exit_code:
            assert failed.report["error"]["message"]
            assert failed.report["verdict"]


@pytest.mark.parametrize(
    "change",
    [{"verdict": None}, {"more": 1}, {"verdict": 1}, {"days_left": "1"}, {"schema": 2}],
)
def test_what_no_schema_describes_is_refused(change: dict[str, object]) -> None:
    good = here(["schedule", "remove", "--nonsense", "--json"]).report

    schemas.check(good)
    with pytest.raises(ValidationError):
        schemas.check(good | change)
    with pytest.raises(ValidationError):
        schemas.check({key: good[key] for key in good if key != "generator"})
