"""`selftest --report`: how a server is made, in a file that names nobody."""

from __future__ import annotations

import getpass
import json
import re
import socket
import stat
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from letsencrypt_mdaemon.app import build, masks, report, scheduling
from letsencrypt_mdaemon.errors import ConfigError, DeployError
from letsencrypt_mdaemon.mdaemon.iis import Site
from letsencrypt_mdaemon.sandbox.folder import FOREIGN
from letsencrypt_mdaemon.state.folder import State
from letsencrypt_mdaemon.state.memory import Rung
from letsencrypt_mdaemon.system.locks import exclusive_lock
from letsencrypt_mdaemon.system.schedule import NAME, Cron
from letsencrypt_mdaemon.windows import access
from tests import schemas
from tests.iis import Iis
from tests.program import HOST_NAME, Program, beside_sandbox
from tests.schedulers import Crontab

HEX = re.compile(r"(?i)[0-9a-f]{16,}")


@pytest.fixture
def crontab(monkeypatch: pytest.MonkeyPatch) -> Crontab:
    """A crontab with our line."""
    command = "/p/zqprogram -I -m x --config /zq --to=z"
    fake = Crontab(f"1 2,14 * * * {command} >/dev/null 2>&1 # {NAME}\n")
    cron = Cron(Path("crontab"), fake)
    monkeypatch.setattr(scheduling, "of_this_system", lambda: cron)
    return fake


def written(program: Program, file: Path, *options: str, code: int = 0) -> str:
    """Run the self-test with a report, which is as its schema says; return its text."""
    ran = program.here("selftest", "--report", str(file), *options)
    assert ran.exit_code == code, ran.messages
    text = file.read_text("ascii")
    schemas.check_as("selftest-report", json.loads(text))
    if not code:
        assert ran.report["report"] == str(file)
    return text


def read(program: Program, file: Path, *options: str, code: int = 0) -> dict[str, Any]:
    """Return the report."""
    found: dict[str, Any] = json.loads(written(program, file, *options, code=code))
    return found


@pytest.mark.usefixtures("crontab")
def test_the_report_says_how_the_server_is_made(
    secure: Program, tmp_path: Path
) -> None:
    assert secure.here("renew").exit_code == 0
    found = read(secure, tmp_path / "report.json")

    assert found["unread"] == {}
    assert {row["name"]: row["result"] for row in found["tests"]}["store"] == "ok"
    assert "App/MDaemon.ini" in found["shape"]["files"]
    assert any("<sha1" in row["form"] for row in found["shape"]["values"])
    assert {row["certificate"] for row in found["ports"]} == {"ours, in use"}
    assert {row["outcome"] for row in found["ports"]} == {"served"}
    assert {row["address"] for row in found["ports"]} == {"loopback, IPv4"}
    rungs = found["reloads"]["rungs"]
    assert rungs[0]["name"] == "RELOADCACHE.SEM"
    assert "mail" in rungs[0]["kinds"]
    assert [row["type"] for row in found["keys"] if row["in_use"]] == ["p256"]
    places = [row["place"] for row in found["access"]]
    assert {"MDaemon", "App", "MDaemon.ini", "state", "program 1"} <= set(places)
    assert found["schedule"]["job"]["options"] == ["--config", "--to"]
    assert found["script"] == {"there": False, "ours": False, "installed": False}


@pytest.mark.usefixtures("crontab")
def test_nothing_in_the_report_names_anybody(tmp_path: Path) -> None:
    folder = tmp_path / "zqfolder" / "Users" / "zquser"
    folder.mkdir(parents=True)
    with beside_sandbox(folder / "MDaemon", host_name="mail.zqhost.test") as program:
        layout = program.layout
        config = layout.letsencrypt / "letsencrypt-mdaemon.ini"
        config.write_text(
            "[letsencrypt-mdaemon]\nto = zqmail@zqcompany.test\n"
            "alternate-host-names = zqother.test\n"
        )
        (layout.app / "zqsecret.ini").write_text(
            f"[zqsection]\nzqkey=zqvalue\nPassword=zqpassword\nCertificate={FOREIGN}\n"
        )
        (layout.app / "ZQSEM.SEM").touch()
        (layout.letsencrypt / "zq.ps1").write_text("zq")
        state = State(program.state)
        program.here("status")
        disk_state = state.load()._replace(
            rungs=(Rung("ZQSEM.SEM", ("mail",), 1), Rung("zqservice", ("web",), 2)),
            in_use="AB" * 20,
            host_name="zqname.test",
            script=("/zq/program", "renew"),
            disabled=("zqtask",),
            restarted=datetime.now(UTC),
        )
        program.state.mkdir(mode=0o700, exist_ok=True)
        state.save(disk_state)
        program.server.ignore.add("WATCHDOG.SEM")

        text = written(
            program,
            tmp_path / "report.json",
            *("--config", str(config), "--reload-timeout", "1"),
            code=5,
        )

    found = json.loads(text)
    assert "zq" not in text.lower()
    assert "@" not in text
    assert not HEX.search(text), HEX.search(text)
    for secret in (
        str(tmp_path),
        tmp_path.name,
        str(Path.home()),
        socket.gethostname(),
    ):
        assert secret not in text
    if getpass.getuser() != "root":  # which is a word of its own here
        assert getpass.getuser() not in text
    assert found["reloads"]["rungs"] == [
        {"name": "<name>.SEM", "kinds": ["mail"], "seconds": 1},
        {"name": "service", "kinds": ["web"], "seconds": 2},
    ]
    (failed,) = [row for row in found["tests"] if row["result"] == "failed"]
    assert failed["name"] == "semaphores"
    assert failed["codes"] == ["DeployError"]


@pytest.mark.usefixtures("crontab")
def test_what_cannot_be_read_is_listed_with_its_kind_and_not_with_its_words(
    beside: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise DeployError("zqsecret (Windows error 5)") from OSError(13, "zqsecret")

    monkeypatch.setattr(report, "_keys", refuse)
    monkeypatch.setattr(masks, "permissions", refuse)
    text = written(beside, tmp_path / "report.json")

    found = json.loads(text)
    assert "zqsecret" not in text
    assert found["keys"] is None
    codes = ["DeployError", "Windows error 5", "PermissionError", "Errno 13"]
    assert found["unread"] == {"keys": codes, "access": codes}
    assert found["shape"] is not None


@pytest.mark.usefixtures("crontab")
def test_one_place_that_cannot_be_read_does_not_hide_the_others(
    beside: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = masks.permissions

    def refuse(path: Path) -> dict[str, Any]:
        if path.name == "App":
            raise PermissionError(13, "zqsecret", str(path))
        return right(path)

    monkeypatch.setattr(masks, "permissions", refuse)
    found = read(beside, tmp_path / "report.json")
    rows = {row["place"]: row for row in found["access"]}
    assert rows["App"] == {"place": "App", "unread": ["PermissionError", "Errno 13"]}
    assert "owner" in rows["MDaemon"]


@pytest.mark.usefixtures("crontab")
def test_a_server_that_cannot_be_opened_is_reported_as_far_as_it_goes(
    beside: Program, tmp_path: Path
) -> None:
    file = tmp_path / "report.json"
    found = read(beside, file, "--store", "pem:/zq/\0", code=2)
    assert found["tests"] is None
    assert found["unread"]["installation"][0] == "ConfigError"
    assert found["shape"] is None
    assert found["unread"]["shape"] == []
    assert found["machine"]["python"]
    assert found["schedule"]["rivals"] == 0


def test_beside_a_running_renewal_nothing_is_tested_or_reported(
    beside: Program, tmp_path: Path
) -> None:
    beside.state.mkdir(mode=0o700)
    with exclusive_lock(beside.state / "lock"):
        ran = beside.here("selftest", "--report", str(tmp_path / "report.json"))
    assert ran.exit_code != 0
    assert ran.report["error"]["type"] == "BusyError"
    assert not (tmp_path / "report.json").exists()


@pytest.mark.usefixtures("crontab")
def test_the_report_is_private_and_its_place_is_said(
    beside: Program, tmp_path: Path
) -> None:
    file = tmp_path / "report.json"
    ran = beside.here("selftest", "--report", str(file), as_json=False)
    assert f"The report is in {file}. Read it before you send it." in ran.output
    if sys.platform != "win32":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_report_that_cannot_be_written_is_an_error_with_its_path(
    beside: Program, tmp_path: Path
) -> None:
    file = tmp_path / "missing" / "report.json"
    ran = beside.here("selftest", "--report", str(file))
    assert ran.exit_code == 2
    assert f"Could not write {file}" in ran.report["error"]["message"]


def test_without_the_option_there_is_no_report(beside: Program) -> None:
    assert beside.here("selftest").report["report"] is None


@pytest.mark.parametrize(
    ("sid", "shown"),
    [
        (access.SYSTEM, access.SYSTEM),
        (access.ADMINISTRATORS, access.ADMINISTRATORS),
        (access.EVERYONE, access.EVERYONE),
        (access.CREATOR_OWNER, access.CREATOR_OWNER),
        (access.TRUSTED_INSTALLER, access.TRUSTED_INSTALLER),
        ("S-1-16-12288", "S-1-16-12288"),
        ("S-1-5-21-1111111111-2222222222-3333333333-500", "S-1-5-21-<domain>-500"),
        ("S-1-5-21-1111111111-2222222222-3333333333-513", "S-1-5-21-<domain>-513"),
        ("S-1-5-21-1111111111-2222222222-3333333333-1105", masks.ACCOUNT),
        ("S-1-5-80-1-2-3-4-5", "<service>"),
        ("S-1-12-1-1-2-3-4", masks.ACCOUNT),
        ("S-1-5-32-544x", masks.ACCOUNT),
        ("LA", masks.ACCOUNT),
    ],
)
def test_only_a_sid_that_is_the_same_everywhere_is_shown(sid: str, shown: str) -> None:
    assert masks.sid(sid) == shown


def test_an_access_list_is_shown_without_accounts() -> None:
    listed = "O:SYD:PAI(A;OICI;FA;;;BA)(D;;FW;;;S-1-5-21-1-2-3-1105)(A;OICIIO;FR;;;BU)"
    assert masks.entries(listed) == [
        {
            "allows": True,
            "rights": "0x1f01ff",
            "sid": "S-1-5-32-544",
            "for_content": False,
        },
        {
            "allows": False,
            "rights": "0x120116",
            "sid": masks.ACCOUNT,
            "for_content": False,
        },
        {
            "allows": True,
            "rights": "0x1f01ff",
            "sid": "S-1-5-32-544",
            "for_content": True,
        },
        {
            "allows": True,
            "rights": "0x120089",
            "sid": "S-1-5-32-545",
            "for_content": True,
        },
    ]


@given(st.text())
def test_no_word_of_an_error_is_shown(text: str) -> None:
    found = masks.codes(ConfigError(text))
    assert found[0] == "ConfigError"
    numbers = (
        r"0x[0-9A-Fa-f]{4,8}|(?i:win(dows )?error|errno|exited with|exit code) -?\d+"
    )
    assert all(re.fullmatch(numbers, code) for code in found[1:])


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("127.0.0.1", "loopback, IPv4"),
        ("::1", "loopback, IPv6"),
        ("10.1.2.3", "private, IPv4"),
        ("fd00::1", "private, IPv6"),
        ("8.8.8.8", "public, IPv4"),
        (HOST_NAME, "name"),
    ],
)
def test_of_an_address_only_its_kind_is_shown(host: str, kind: str) -> None:
    assert masks.address(host) == kind


def test_bindings_of_iis_are_told_with_their_flags(
    beside: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    iis = Iis({"S": [("https", "*:443:", 0), ("https", "*:443:zq.test", 1)]})
    site = Site("S", {}, run=iis)
    monkeypatch.setattr(build, "web_site", lambda *_: site)
    found = read(beside, tmp_path / "report.json")["iis"]["bindings"]
    assert [(row["host"], row["ssl_flags"]) for row in found] == [(False, 0), (True, 1)]
