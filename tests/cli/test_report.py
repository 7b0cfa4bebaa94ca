"""`report`: on this server, and on many."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from letsencrypt_mdaemon.authorities import LETSENCRYPT
from tests import fleets
from tests.fleets import status, write
from tests.program import Program, here


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three servers: one good, one to warn of, and a file that is none."""
    folder = tmp_path / "collected"
    folder.mkdir()
    write(folder, "a.json", status("mail.a.test", now=now()))
    bad = status("mail.b.test", now=now(), state="WARNING", problem="not proven")
    write(folder, "b.json", bad)
    (folder / "c.json").write_text("{")
    return folder


def test_a_report_on_many_exits_as_the_worst(folder: Path) -> None:
    assert here(["report", "--from", str(folder)]).exit_code == 3
    (folder / "c.json").unlink()
    assert here(["report", "--from", str(folder)]).exit_code == 1
    (folder / "b.json").unlink()
    assert here(["report", "--from", str(folder)]).exit_code == 0
    over = status("mail.d.test", now=now(), days=-1)
    write(folder, "d.json", over)
    (folder / "c.json").write_text("{")
    assert here(["report", "--from", str(folder)]).exit_code == 2


def test_at_a_terminal_it_is_a_table(folder: Path) -> None:
    ran = here(["report", "--from", str(folder)])

    verdict, heads, *lines = ran.output.splitlines()
    assert verdict == "3 servers: 1 UNKNOWN, 1 WARNING, 1 OK."
    words = "Verdict Server Names Expires Days Ports Last run Version"
    assert " ".join(heads.split()) == words
    assert lines[0].split() == ["UNKNOWN", "c.json"]
    assert lines[1] == "    the file is not JSON"
    assert lines[2].startswith("WARNING  mail.b.test")
    assert lines[3] == "    not proven"
    assert lines[4].startswith("OK       mail.a.test")
    assert "The next twelve weeks:" in lines
    assert ran.output.isascii()


def test_json_has_every_server_and_week(folder: Path) -> None:
    ran = here(["report", "--from", str(folder), "--json"])

    report = ran.report
    assert (ran.exit_code, report["exit_code"], report["state"]) == (3, 3, "UNKNOWN")
    names = ["c.json", "mail.b.test", "mail.a.test"]
    assert [server["name"] for server in report["servers"]] == names
    assert report["servers"][2]["ports"] == 5
    assert len(report["weeks"]) == 12
    assert report["days_left"] == pytest.approx(60, abs=0.1)


def test_hostile_files_are_as_the_schema_says(tmp_path: Path) -> None:
    folder = fleets.make_mixed(tmp_path / "collected", now=now())

    ran = here(["report", "--from", str(folder), "--json"])

    assert len(ran.report["servers"]) == len(list(folder.iterdir()))


def test_html_and_csv_are_written_and_named(folder: Path) -> None:
    page, table = folder / "report.html", folder / "report.csv"
    for _ in range(2):  # The second time they are there, and are no servers.
        ran = here(
            ["report", "--from", str(folder), "--html", str(page), "--csv", str(table)]
        )

        assert ran.exit_code == 3
        verdict = "3 servers: 1 UNKNOWN, 1 WARNING, 1 OK."
        assert ran.output == f"{verdict}\nWritten: {page}\nWritten: {table}\n"
    assert page.read_bytes().startswith(b"<!DOCTYPE html>")
    assert "Certificates of 3 mail servers" in page.read_text("utf-8")
    assert table.read_bytes().count(b"\r\n") == 4


@pytest.mark.parametrize("option", ["--html", "--csv"])
def test_a_report_that_cannot_be_written_is_unknown(
    folder: Path, tmp_path: Path, option: str
) -> None:
    to = str(tmp_path / "nowhere" / "report")

    ran = here(["report", "--from", str(folder), option, to])

    assert ran.exit_code == 3
    assert ran.output.startswith(f"UNKNOWN - Could not write {to}: No such file")


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_a_report_is_not_written_through_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "report.html").symlink_to(tmp_path / "theirs")

    ran = here(["report", "--from", str(folder), "--html", f"{tmp_path}/report.html"])

    assert ran.exit_code == 3
    assert "it is a link" in ran.output
    assert not (tmp_path / "theirs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--from FOLDER/nowhere", "Could not read FOLDER/nowhere: No such file"),
        ("--from FOLDER --plan 5", "--plan is a command of its own"),
        ("--domains 5", "--domains is for --plan."),
        ("--plan 5 --domains 6", "--domains 6 is more than --plan 5."),
        ("--plan 0", "'0' is not valid; use a number from 1 to 100000."),
        ("--plan 5 --directory-url zerossl", "are not known."),
    ],
)
def test_wrong_usage_is_unknown(folder: Path, words: str, message: str) -> None:
    ran = here(["report", *words.replace("FOLDER", str(folder)).split()])

    assert ran.exit_code == 3
    assert message.replace("FOLDER", str(folder)) in ran.output


def test_the_plan_says_how_long_and_why() -> None:
    words = ["report", "--plan", "10000", "--directory-url", LETSENCRYPT.url]
    ran = here(words)

    lines = ran.output.splitlines()
    assert ran.exit_code == 0
    assert lines[0] == "First rollout of 10000 servers: at once to 1393 days."
    assert lines[2].split()[:3] == ["1", "1", "10000"]
    assert "36 seconds" in lines[2]
    assert "4 days" in lines[2]
    assert lines[2].endswith("orders per account")

    plan = here([*words, "--json"]).report["plan"]
    assert plan["cases"][0] == {
        "accounts": 1,
        "addresses": 1,
        "domains": 10000,
        "at_once": 300,
        "then_every_seconds": 36.0,
        "hours": 97.0,
        "limit": "orders per account",
    }


@pytest.mark.usefixtures("ca")
def test_this_server_is_judged_as_by_check(program: Program, tmp_path: Path) -> None:
    assert program.here("renew", "--no-reload").exit_code == 0
    page = tmp_path / "report.html"

    checked = program.here("check").report
    ran = program.here("report", "--html", str(page))

    (server,) = ran.report["servers"]
    assert ran.exit_code == checked["exit_code"]
    assert ran.report["state"] == server["state"] == checked["state"]
    assert server["name"] == checked["name"]
    assert server["problems"] == checked["problems"]
    assert server["ports"] == checked["ports"]
    assert server["files"] == []
    assert str(program.layout.folder) in page.read_text("utf-8")


@pytest.mark.usefixtures("ca")
def test_what_status_prints_can_be_collected(program: Program, tmp_path: Path) -> None:
    assert program.here("renew", "--no-reload").exit_code == 0
    folder = tmp_path / "collected"
    folder.mkdir()
    for name, words in {"a": ["status", "--ports"], "b": ["check"]}.items():
        ran = program.here(words[0], *words[1:])
        (folder / name).write_text(ran.output)

    here_ = program.here("report").report
    collected = here(["report", "--from", str(folder), "--json"]).report

    (this,), (that,) = here_["servers"], collected["servers"]
    assert that["files"] == ["a", "b"]
    for key in ("name", "names", "not_after", "due_at", "ports", "ports_proven"):
        assert this[key] == that[key], key
    assert this["state"] == that["state"]


def test_an_installation_that_is_not_there_is_unknown(tmp_path: Path) -> None:
    missing = ["report", "--mdaemon-dir", str(tmp_path / "nowhere")]

    assert here(missing).output.startswith("UNKNOWN - ")
    ran = here([*missing, "--json"])
    assert ran.exit_code == 3
    assert json.loads(ran.output)["error"]["message"]
