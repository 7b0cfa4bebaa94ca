"""A folder of collected files, as a report: the worst first, and nothing is hidden."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from letsencrypt_mdaemon.app import fleet
from letsencrypt_mdaemon.app.collected import Server
from letsencrypt_mdaemon.app.health import Grade
from letsencrypt_mdaemon.errors import ConfigError
from tests.fleets import DAY, NOW, check, status, write


def collect(folder: Path, *without: Path) -> fleet.Fleet:
    return fleet.collect(folder, NOW, without=without)


def one(folder: Path) -> Server:
    (server,) = collect(folder).servers
    return server


def test_the_worst_comes_first_then_what_expires_first(tmp_path: Path) -> None:
    write(tmp_path, "1", status("ok-late.test", days=80))
    write(tmp_path, "2", status("ok-soon.test", days=40))
    write(tmp_path, "3", status("warning.test", state="WARNING", problem="x"))
    write(tmp_path, "4", status("critical.test", state="CRITICAL", problem="x"))
    (tmp_path / "5").write_text("no JSON")

    found = collect(tmp_path)

    names = ["critical.test", "5", "warning.test", "ok-soon.test", "ok-late.test"]
    assert [server.name for server in found.servers] == names
    assert found.grade is Grade.CRITICAL
    assert found.verdict == "5 servers: 1 CRITICAL, 1 UNKNOWN, 1 WARNING, 2 OK."


def test_a_large_file_is_unknown(tmp_path: Path) -> None:
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(50 << 20)

    assert one(tmp_path).why == "could not read the file: it is larger than 1 MB"


def test_a_folder_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()

    assert one(tmp_path).why == "could not read the file: it is a folder"


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_a_link_is_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "collected"
    folder.mkdir()
    secret = write(tmp_path, "secret.json", status())
    (folder / "a.json").symlink_to(secret)

    assert one(folder).why == "could not read the file: it is a link"


@pytest.mark.skipif(sys.platform == "win32", reason="no folder holds a pipe there")
def test_a_pipe_does_not_hold_the_report_up(tmp_path: Path) -> None:
    if sys.platform != "win32":
        os.mkfifo(tmp_path / "a.json")

    assert one(tmp_path).why == "could not read the file: it is a pipe"


@pytest.mark.skipif(sys.platform != "linux", reason="such names are refused")
def test_the_name_of_a_file_is_made_printable(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\x1b[2J\xff\xe2\x80\xae")).touch()

    assert one(tmp_path).name == "\\x1b[2J\\udcff\\u202e"


@pytest.mark.skipif(sys.platform == "win32", reason="blanks at the end are cut")
def test_a_file_whose_name_is_blank_has_one(tmp_path: Path) -> None:
    (tmp_path / " ").touch()

    assert one(tmp_path).name == "' '"


def test_hidden_files_and_the_reports_are_no_servers(tmp_path: Path) -> None:
    write(tmp_path, "a.json", status())
    (tmp_path / ".gitkeep").touch()
    page = tmp_path / "report.html"
    page.touch()

    assert len(collect(tmp_path, page).servers) == 1
    assert len(collect(tmp_path).servers) == 2


def test_an_empty_folder_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is empty"):
        collect(tmp_path)


def test_a_folder_that_is_none_is_no_report(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", write(tmp_path, "file", status())):
        with pytest.raises(ConfigError, match="Could not read"):
            collect(path)


def test_too_many_files_are_no_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "MAX_FILES", 1)
    for name in "ab":
        write(tmp_path, name, status())

    with pytest.raises(ConfigError, match="holds 2 files, more than 1"):
        collect(tmp_path)


def test_a_check_is_added_to_the_status_of_the_same_server(tmp_path: Path) -> None:
    write(tmp_path, "a", status("mail.a.test"))
    write(tmp_path, "b", check("mail.a.test", state="WARNING", problem="x", days=1))
    write(tmp_path, "c", check("mail.c.test"))

    found = collect(tmp_path)

    assert [(x.name, x.grade, x.sources) for x in found.servers] == [
        ("mail.a.test", Grade.CRITICAL, ("a", "b")),
        ("mail.c.test", Grade.OK, ("c",)),
    ]
    assert found.servers[0].end == NOW + 60 * DAY


def test_no_file_makes_another_server_look_better(tmp_path: Path) -> None:
    bad = status("mail.a.test", state="CRITICAL", problem="x")
    write(tmp_path, "a", bad)
    later = NOW + DAY / 48
    for name, document in {
        "b": status("mail.a.test", now=later),
        "c": check("mail.a.test", now=later),
    }.items():
        write(tmp_path, name, document)

    first, *_ = collect(tmp_path).servers

    assert (first.grade, first.why) == (Grade.CRITICAL, "x")


def test_the_weeks_name_what_is_due_and_what_expires(tmp_path: Path) -> None:
    write(tmp_path, "a", status("due-now.test", days=29))
    write(tmp_path, "b", status("later.test", days=45))
    write(tmp_path, "c", status("over.test", days=-1))
    write(tmp_path, "d", status("far.test", days=200))

    weeks = collect(tmp_path).weeks()

    assert len(weeks) == 12
    renewals = {n: set(week.renewals) for n, week in enumerate(weeks) if week.renewals}
    expiries = {n: week.expiries for n, week in enumerate(weeks) if week.expiries}
    assert renewals == {0: {"due-now.test", "over.test"}, 2: {"later.test"}}
    assert expiries == {4: ("due-now.test",), 6: ("later.test",)}
    assert (weeks[1].start - weeks[0].start).days == 7


def test_a_certificate_without_an_end_can_be_sorted(tmp_path: Path) -> None:
    document = status("mail.a.test")
    document["certificate"]["not_after"] = "9999-12-31T23:59:59+00:00"
    (tmp_path / "a").write_text(json.dumps(document))
    write(tmp_path, "b", status("mail.b.test"))

    found = collect(tmp_path)

    assert [server.name for server in found.servers] == ["mail.b.test", "mail.a.test"]
    assert found.weeks()
