"""Every file that we tell people to copy is one that works."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from letsencrypt_mdaemon.app import notifications
from letsencrypt_mdaemon.cli import legacy
from letsencrypt_mdaemon.cli.main import cli
from letsencrypt_mdaemon.config import load
from letsencrypt_mdaemon.config.settings import Config
from letsencrypt_mdaemon.system.schedule import MARK
from tests import schemas

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
TASK = "{http://schemas.microsoft.com/windows/2004/02/mit/task}"


def _parses(arguments: list[str]) -> bool:
    """Whether the command line is understood; nothing is run."""
    context = cli.make_context("letsencrypt-mdaemon", list(arguments))
    rest = [*context._protected_args, *context.args]  # noqa: SLF001 - click has no other
    name, command, rest = cli.resolve_command(context, rest)
    assert command is not None
    return command.make_context(name, rest, parent=context) is not None


def test_no_example_is_untested() -> None:
    assert {path.name for path in EXAMPLES.iterdir()} == {
        "ansible",
        "crontab",
        "letsencrypt-mdaemon.ini",
        "monitoring",
        "renew.py",
        "scheduled-renew.cmd",
        "task.xml",
        "webhook.py",
    }


@pytest.mark.parametrize(
    ("index", "below"), [("README.md", "docs/"), ("docs/README.md", "")]
)
def test_every_page_is_in_the_tables_of_pages(index: str, below: str) -> None:
    pages = {page.name for page in (ROOT / "docs").glob("*.md")}
    # What the site makes of the two README.md, which are in no table of pages.
    pages -= {"README.md", "index.md", "installing.md", "ansible.md"}
    rows = re.findall(r"(?m)^\|.*$", (ROOT / index).read_text("utf-8"))
    listed = re.findall(rf"\({below}([a-z0-9-]+\.md)\)", "\n".join(rows))

    assert sorted(listed) == sorted(pages)


def test_the_example_config_is_loaded_as_it_is() -> None:
    loaded = load.load({}, {}, EXAMPLES / "letsencrypt-mdaemon.ini")

    assert loaded.config.agree_tos
    assert loaded.config.alternate_host_names == (
        "imap.example.com",
        "webmail.example.com",
    )
    assert loaded.config.to == ("postmaster@example.com",)


def test_every_remark_of_the_example_config_that_is_a_setting_works(
    tmp_path: Path,
) -> None:
    text = (EXAMPLES / "letsencrypt-mdaemon.ini").read_text("utf-8")
    file = tmp_path / "all.ini"
    file.write_text(re.sub(r"(?m)^;(?=[a-z\[])", "", text), "utf-8")

    loaded = load.load({}, {}, file)

    (target,) = loaded.config.targets
    assert target.file == r"App\MDaemon.ini"
    shown = {name for name, row in loaded.shown().items() if row["from"] != "default"}
    unshown = {name for name, _ in load.settings()} - shown
    # Left out are what belongs to one run only, and secrets.
    assert unshown == {
        *(
            "ask-ca",
            "dry-run",
            "force",
            "json",
            "staging",
            "no-reload",
            "skip-port-check",
        ),
        *("mail-password", "eab-key", "no-activate"),
        *("notify", "notify-key", "heartbeat-url"),
        *("public", "require-trusted"),
    }


@pytest.mark.parametrize("key", ["a key", "whsec_YWJj"])
def test_the_receiver_takes_what_is_signed_with_its_key_and_nothing_else(
    key: str, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_text(f"{key}\n", "utf-8")
    message = notifications.Message("", "", '{"event": "failed", "subject": "It did"}')
    with subprocess.Popen(
        [sys.executable, str(EXAMPLES / "webhook.py"), str(file), "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
    ) as receiver:
        assert receiver.stdout is not None
        port = receiver.stdout.readline().split()[-1]
        url = f"http://127.0.0.1:{port}/"
        problems = [
            notifications.send(Config(notify=url, notify_key=used), message)[0].problem
            for used in ("another", "", key)
        ]
        receiver.terminate()
        printed = receiver.stdout.read()

    assert ["answered 403" in problem for problem in problems] == [True, True, False]
    assert problems[-1] == ""
    assert printed == "failed It did\n"


def test_the_documented_notification_is_as_its_schema_says() -> None:
    page = (ROOT / "docs" / "notifications.md").read_text("utf-8")
    (text,) = re.findall("(?s)```json\n(.*?)```", page)

    schemas.check_as("notification", json.loads(text))


def test_the_crontab_line_is_a_command_line_of_ours() -> None:
    (line,) = (
        line
        for line in (EXAMPLES / "crontab").read_text("utf-8").splitlines()
        if line[:1].isdigit()
    )
    minute, hour, *_, user, _program = line.split(" >")[0].split(None, 6)
    _, *arguments = shlex.split(_program)

    assert (minute, hour, user) == ("17", "3,15", "root")
    assert arguments.pop(0) == "--config"
    arguments.pop(0)
    assert _parses(arguments)


def test_the_task_runs_twice_a_day_as_system_and_catches_up() -> None:
    task = ET.parse(EXAMPLES / "task.xml").getroot()  # noqa: S314 - our own file

    triggers = task.findall(f"{TASK}Triggers/{TASK}CalendarTrigger")
    assert len(triggers) == 2
    assert all(trigger.findtext(f"{TASK}RandomDelay") for trigger in triggers)
    assert task.findtext(f"{TASK}Principals/{TASK}Principal/{TASK}UserId") == "S-1-5-18"
    assert task.findtext(f"{TASK}Settings/{TASK}StartWhenAvailable") == "true"
    arguments = task.findtext(f"{TASK}Actions/{TASK}Exec/{TASK}Arguments")
    assert arguments is not None
    assert _parses(arguments.split())


def test_the_cmd_uses_the_switches_of_the_old_script() -> None:
    data = (EXAMPLES / "scheduled-renew.cmd").read_bytes()
    assert b"\n" not in data.replace(b"\r\n", b"")
    (line,) = (
        line for line in data.decode("ascii").splitlines() if line.startswith('"C:')
    )
    _, *arguments = shlex.split(line.replace("\\", "/"))

    assert legacy.is_legacy(arguments)
    assert _parses(legacy.translate(arguments))
    assert legacy.translate(arguments)[-1] == MARK


@pytest.mark.parametrize("name", [name for name, _ in load.settings()])
def test_the_documentation_explains_every_setting(name: str) -> None:
    assert f"`{name}`" in (ROOT / "docs" / "settings.md").read_text("utf-8")
