"""The other commands, the help texts, the exit codes, and what is imported when."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import Mock

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from letsencrypt_mdaemon import errors
from letsencrypt_mdaemon.acme import transport
from letsencrypt_mdaemon.cli import legacy
from letsencrypt_mdaemon.cli.main import cli
from letsencrypt_mdaemon.cli.options import Group
from letsencrypt_mdaemon.cli.text import day, when
from letsencrypt_mdaemon.config import load
from letsencrypt_mdaemon.config.settings import Config
from letsencrypt_mdaemon.renewal import revoke as revocation
from letsencrypt_mdaemon.sandbox import demo as story
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from letsencrypt_mdaemon.sandbox.folder import TARGETS, bound
from letsencrypt_mdaemon.system import disk, files
from letsencrypt_mdaemon.system.locks import exclusive_lock
from tests.fakes import read_only
from tests.limits import HANG_SECONDS
from tests.program import (
    HOST_NAME,
    PREFIX,
    Program,
    here,
    options_of,
    run,
    taken,
    unmeasured,
)

COMMON = {
    *("schema", "command", "generator", "exit_code", "days_left", "verdict"),
    *("warnings", "log"),
}
THIS = [sys.executable, "-m", "letsencrypt_mdaemon"]
EXIT_CODES = Path(__file__).parents[2] / "docs" / "exit-codes.md"


# status


STATUS = COMMON | {
    *("mdaemon_dir", "store", "directory_url", "names", "due", "reason", "due_at"),
    *("certificate", "pending", "rolled_back", "targets", "served", "proof", "dropped"),
    *("rule", "advice", "waiting", "tlsa", "ledger", "schedule"),
    *("key_provider", "key_readers"),
    *("would_fail", "held", "script", "state", "problems"),
    *("next_tlsa", "tlsa_ports"),
}


def test_status_tells_what_is_in_use_and_why_it_is_due(program: Program) -> None:
    (in_use,) = program.bound()

    ran = program.run("status")

    assert ran.exit_code == 0, ran.messages
    report = ran.report
    assert report.keys() == STATUS
    assert (report["schema"], report["command"]) == (1, "status")
    assert report["due"]
    assert report["reason"] == "the certificate in use is self-signed"
    assert report["names"] == [HOST_NAME]
    assert report["certificate"]["thumbprint"] == in_use
    assert report["certificate"].keys() == {
        *("thumbprint", "names", "issuer", "not_before", "not_after")
    }
    assert report["pending"] is None
    assert len(report["targets"]) == 3
    for target in report["targets"]:
        assert target.keys() == {"file", "section", "key", "certificate"}
        assert target["certificate"] == report["certificate"]


def test_status_tells_when_it_will_be_due_without_asking_the_ca(
    program: Program, ca: CertificateAuthority
) -> None:
    new = program.here("renew", "--no-reload").report["certificate"]
    asked = len(ca.requests)

    report = program.here("status").report
    shown = program.here("status", as_json=False).output

    assert not report["due"]
    assert report["certificate"] == new
    assert report["due_at"] < new["not_after"]
    assert len(ca.requests) == asked
    assert new["thumbprint"] in shown
    third = "a third or less of the certificate's lifetime is left"
    assert report["rule"] == third
    assert f"{when(report['due_at'])}: {third}" in shown
    assert shown.count(day(new["not_after"])) == 2, "in the verdict, and in its row"
    assert "  named by     3 INI values\n" in shown
    each = program.here("status", "--ports", as_json=False).output
    assert f"App/MDaemon.ini [SSL] Certificate: {new['thumbprint']}" in each


def test_status_shows_a_certificate_that_is_not_in_use_yet(program: Program) -> None:
    with read_only(program.layout.app, allowed=1, refused=3):
        assert program.here("renew", "--no-reload").exit_code == 5

    pending = program.here("status").report["pending"]

    assert pending["names"] == [HOST_NAME]
    assert pending["thumbprint"] not in program.bound()
    shown = program.here("status", as_json=False).output
    assert f"{pending['thumbprint']}, issued and not in use yet" in shown


def test_status_changes_nothing(program: Program) -> None:
    before = program.snapshot()

    assert program.here("status").exit_code == 0

    assert program.snapshot() == before
    assert not program.state.exists()


# discover


def test_discover_shows_every_place_that_names_a_certificate(program: Program) -> None:
    (in_use,) = program.bound()
    notes = program.layout.app / "Notes.dat"
    notes.write_text(f"used to be {in_use}\n")

    ran = program.run("discover")

    assert ran.exit_code == 0, ran.messages
    report = ran.report
    keys = {"mdaemon_dir", "store", "certificates", "served", "found"}
    assert report.keys() == COMMON | keys
    assert report["store"] == f"pem:{program.layout.certificates}"
    assert [item["thumbprint"] for item in report["certificates"]] == [in_use]
    found = {(item["file"], item["section"], item["key"]) for item in report["found"]}
    assert found == {*TARGETS.values(), ("App/Notes.dat", None, None)}
    for item in report["found"]:
        assert item.keys() == {"file", "section", "key", "line", "form", "thumbprint"}
    forms = {item["file"]: item["form"] for item in report["found"]}
    assert forms["WebAdmin/WebAdmin.ini"] == "sha1:upper:space"


def test_discover_shows_the_places_to_people_as_well(program: Program) -> None:
    shown = program.here("discover", as_json=False).output

    assert shown.startswith(f"Places in {program.layout.folder} that name a cert")
    store = program.layout.certificates
    assert f"\nSearched for the certificates from the store pem:{store} and" in shown
    assert "No place" not in shown
    assert "App/MDaemon.ini [SSL] Certificate, line 13, as sha1:upper: " in shown


def test_discover_without_a_place_says_what_to_do(
    program: Program, tmp_path: Path
) -> None:
    store = f"pem:{tmp_path / 'empty'}"
    advice = "Choose any certificate of the store once in MDaemon's SSL & TLS dialog, "
    advice += "then run this again. Or name the INI values in the config file."

    shown = program.here("discover", "--store", store, as_json=False)

    assert shown.exit_code == 0
    assert shown.output.splitlines() == [
        f"There is no certificate in the store {store}, and no port serves one.",
        f"No place in {program.layout.folder} names a known certificate. {advice}",
    ]


def test_what_names_no_certificate_is_said_with_the_store_that_was_searched(
    program: Program, tmp_path: Path
) -> None:
    store = f"pem:{tmp_path / 'empty'}"

    ran = program.here("status", "--store", store)

    assert ran.exit_code == 0
    assert ran.report["targets"] == []
    text = program.here("status", "--store", store, as_json=False).output
    assert "  INI value    none names a certificate of the store yet\n" in text
    assert f"  store        {store}\n" in text


def test_the_status_shows_the_store_to_people_as_well(program: Program) -> None:
    shown = program.here("status", as_json=False).output

    assert f"  store        pem:{program.layout.certificates}\n" in shown


# config show


def test_config_show_tells_each_value_and_where_it_comes_from(
    program: Program, tmp_path: Path
) -> None:
    file = tmp_path / "settings.ini"
    file.write_text("[letsencrypt-mdaemon]\nkeep-logs = 7\nto = a@example.test\n")
    environ = {f"{PREFIX}TO": "b@example.test", f"{PREFIX}MAIL_PASSWORD": "geheim"}

    ran = program.run("config show", "-c", str(file), environ=environ)

    assert ran.exit_code == 0, ran.messages
    assert ran.report.keys() == COMMON | {"config_file", "settings"}
    assert ran.report["config_file"] == str(file)
    rows = ran.report["settings"]
    assert rows["keep-logs"]["value"] == "7"
    assert rows["keep-logs"]["from"].endswith(
        "settings.ini [letsencrypt-mdaemon] keep-logs"
    )
    assert rows["to"] == {
        "value": "b@example.test",
        "from": f"environment {PREFIX}TO",
    }
    assert rows["store"]["from"] == "command line --store"
    assert rows["delay"] == {"value": "", "from": "default", "default": "0"}
    assert rows["contact"] == {"value": "", "from": "default"}
    assert rows["mail-password"]["value"] == "(set)"
    assert rows.keys() == dict(load.settings()).keys()


def test_config_show_shows_it_to_people_as_well(program: Program) -> None:
    options = ("--log-dir", "logs")
    shown = program.here("config show", *options, as_json=False).output

    assert re.search(r"(?m)^key-type +p256 +command line --key-type$", shown)
    assert re.search(r"(?m)^host-name +MDaemon's +default$", shown)
    assert re.search(r"(?m)^renew-days +off +default$", shown)
    assert re.search(r"(?m)^log-dir +\S+ +command line --log-dir$", shown)
    assert re.search(r"(?m)^contact +- +default$", shown)


def test_config_show_shows_the_ca_that_counts_while_none_is_set() -> None:
    shown = here(["config", "show"]).output

    assert re.search(r"(?m)^directory-url +letsencrypt +default$", shown)


def test_a_wrong_setting_is_said_with_its_place_also_by_config_show(
    program: Program,
) -> None:
    ran = program.here("config show", environ={f"{PREFIX}KEEP_LOG": "3"})

    assert ran.exit_code == 2
    message = ran.report["error"]["message"]
    assert f"{PREFIX}KEEP_LOG: unknown; did you mean {PREFIX}KEEP_LOGS?" in message


# notify-test


def test_notify_test_sends_a_mail_by_the_raw_queue(program: Program) -> None:
    ran = program.run("notify-test", "--to", "a@example.test,b@example.test")

    assert ran.exit_code == 0, ran.messages
    assert ran.report.keys() == COMMON | {"to", "sent", "notified"}
    assert ran.report["to"] == ["a@example.test", "b@example.test"]
    program.server.wait_for(lambda: program.server.delivered)
    text = program.server.delivered[0].read_text("ascii")
    assert "To: a@example.test,b@example.test" in text
    assert "a test of the mail" in text
    assert list(program.layout.bad.iterdir()) == []


def test_notify_test_sends_a_mail_by_smtp_without_any_mdaemon(program: Program) -> None:
    url = f"smtp://127.0.0.1:{program.server.smtp_port}"

    ran = here(["notify-test", "--to", "a@example.test", "--mail-server", url])

    assert ran.exit_code == 0, ran.messages
    assert ran.output == f"Sent to a@example.test by {url}.\n"
    program.server.wait_for(lambda: program.server.delivered)
    assert "Delivered-To: a@example.test" in (
        program.server.delivered[0].read_text("ascii")
    )


def test_notify_test_without_an_address_is_refused(program: Program) -> None:
    ran = program.here("notify-test")

    assert ran.exit_code == 2
    hint = "Use --to ADDRESS, or set notify-file or heartbeat-url-file."
    assert ran.report["error"]["hint"] == hint


def test_notify_test_fails_if_the_mail_server_is_down(program: Program) -> None:
    ran = program.here(
        "notify-test", "--to", "a@example.test", "--mail-server", "smtp://127.0.0.1:1"
    )

    assert ran.exit_code == 1
    assert (
        "smtp://127.0.0.1:1 did not accept the mail" in ran.report["error"]["message"]
    )


# demo


@pytest.fixture
def temporary(tmp_path: Path) -> Iterator[Path]:
    """A folder for temporary files, seen by the programs that a test starts."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("TMPDIR", "TEMP", "TMP"):
            patch.setenv(variable, str(folder))
        yield folder


def test_demo_does_all_of_it_and_leaves_only_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")

    ran = run([*THIS, "demo", "--directory", str(tmp_path)])

    assert ran.exit_code == 0, ran.output + ran.messages
    assert "All checks passed." in ran.output
    assert "   NO " not in ran.output
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_demo_shows_its_result_as_json_and_keeps_the_folder_if_asked(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "Vorführung – 1"

    ran = run([*THIS, "demo", "--json", "--directory", str(folder), "--keep"])

    assert ran.exit_code == 0, ran.messages
    report = ran.report
    assert report.keys() == {
        *("schema", "command", "generator", "exit_code", "days_left", "verdict"),
        *("directory", "command_line", "first", "second", "checks", "log"),
    }
    assert (report["schema"], report["command"]) == (1, "demo")
    assert report["directory"] == str(folder)
    assert report["verdict"] == "All checks passed."
    typed = [*THIS, "renew", "--mdaemon-dir", str(folder / "mdaemon")]
    assert report["command_line"] == typed
    assert report["first"]["renewed"]
    assert not report["second"]["renewed"]
    assert all(check["seen"] for check in report["checks"])
    assert report["log"]
    (named,) = set(bound(folder / "mdaemon").values())
    assert named == report["first"]["certificate"]["thumbprint"]
    assert "All checks passed." in ran.messages


def test_demo_shows_a_run_that_is_rolled_back_if_asked(tmp_path: Path) -> None:
    ran = run([*THIS, "demo", "--break", "--json", "--directory", str(tmp_path / "x")])

    assert ran.exit_code == 0, ran.messages
    report = ran.report
    assert report["first"]["exit_code"] == 5
    assert "Rolled back" in report["first"]["error"]["message"]
    assert not report["second"]["renewed"]
    assert all(check["seen"] for check in report["checks"])
    assert any("byte for byte" in check["what"] for check in report["checks"])


def test_demo_leaves_alone_what_is_in_its_way(tmp_path: Path) -> None:
    (tmp_path / "mdaemon").mkdir()
    (tmp_path / "mdaemon" / "notes.txt").write_text("mine")

    ran = run([*THIS, "demo", "--directory", str(tmp_path)])

    assert ran.exit_code == 2
    assert f"{tmp_path / 'mdaemon'} already exists" in ran.messages
    assert ran.output == ""
    report = run([*THIS, "demo", "--directory", str(tmp_path), "--json"]).report
    assert (report["exit_code"], report["error"]["type"]) == (2, "ConfigError")
    assert report["verdict"] == f"{tmp_path / 'mdaemon'} already exists."
    assert (tmp_path / "mdaemon" / "notes.txt").read_text() == "mine"


def test_demo_says_that_a_folder_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")

    ran = run([*THIS, "demo", "--directory", str(tmp_path / "file" / "x")])

    assert ran.exit_code == 2
    assert "error: Could not create " in ran.messages
    assert "Traceback" not in ran.messages


@pytest.mark.skipif(sys.platform == "win32", reason="tests/windows has it")
@pytest.mark.parametrize("uid", [0, 1000])
@pytest.mark.parametrize("there", [True, False])
def test_demo_refuses_root_beside_an_mdaemon_unless_told_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uid: int, *, there: bool
) -> None:
    (tmp_path / "App").mkdir()
    if there:
        (tmp_path / "App" / "MDaemon.ini").touch()
    ran: list[Path | None] = []
    monkeypatch.setattr(os, "geteuid", lambda: uid)

    def run(folder: Path | None, **_: object) -> dict[str, int]:
        ran.append(folder)
        return {"exit_code": 0}

    monkeypatch.setattr(story, "run", run)
    monkeypatch.setenv(f"{PREFIX}MDAEMON_DIR", str(tmp_path))

    found = CliRunner().invoke(cli, ["demo"])

    if there and uid == 0:
        assert (found.exit_code, ran) == (2, [])
        assert f"because {tmp_path} is an MDaemon" in found.stderr
        assert "demo --directory DIR" in found.stderr
    else:
        assert (found.exit_code, ran) == (0, [None])
    folder = tmp_path / "demo"
    found = CliRunner().invoke(cli, ["demo", "--directory", str(folder)])
    assert (found.exit_code, ran[-1]) == (0, folder)


@pytest.mark.parametrize("part", ["WebAdmin.ini", "attempt.json"])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_demo_that_is_interrupted_leaves_no_process_and_no_folder(
    name: str, part: str, temporary: Path
) -> None:
    where = ["--directory", str(temporary / "new")] if name == "SIGINT" else []
    with subprocess.Popen(
        [*THIS, "demo", *where],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=unmeasured(),
        encoding="utf-8",
        start_new_session=True,
    ) as process:
        # While the sandbox starts, and while the program is at work on it. Folders may
        # go away while they are looked at, which os.walk takes as it comes.
        assert comes(lambda: any(part in files for *_, files in os.walk(temporary)))
        process.send_signal(getattr(signal, name))
        try:
            _, messages = process.communicate(timeout=HANG_SECONDS)
        finally:
            process.kill()

    assert process.returncode == (143 if name == "SIGTERM" else 1), messages
    assert "Traceback" not in messages
    assert list(temporary.iterdir()) == []
    assert comes(lambda: is_gone(process.pid))


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_demo_that_serves_takes_the_commands_that_it_shows_until_a_signal(
    name: str, temporary: Path
) -> None:
    with subprocess.Popen(
        [*THIS, "demo", "--serve"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=unmeasured(),
        encoding="utf-8",
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout
            shown: list[str] = []
            while sum("   $ " in line for line in shown) < 4:
                shown.append(next(process.stdout))
            text = "".join(shown)
            typed = re.findall(r"(?m)^   \$ (.*)$", text)
            (file,) = re.findall(r"(?m)^   The config file is (.*)\.$", text)
            settings = Path(file).read_text()
            # As pasted into another window.
            ran = [run(["/bin/sh", "-c", f"cd / && {line}"]) for line in typed]
            process.send_signal(getattr(signal, name))
            left, messages = process.communicate(timeout=HANG_SECONDS)
        finally:
            process.kill()

    assert [each.exit_code for each in ran] == [0, 0, 0, 0], ran
    nothing, status, verify, forced = (each.output for each in ran)
    assert nothing.startswith("Nothing due until ")
    assert status.startswith(f"{HOST_NAME}: valid until ")
    assert verify.count(" expected ") == 9
    assert forced.startswith(f"Renewed: {HOST_NAME} and 2 more, valid until ")
    assert all(len(shlex.split(line)) <= len([*THIS, *"123 "]) for line in typed)
    assert "\nagree-tos = yes\n" in settings
    assert process.returncode == (143 if name == "SIGTERM" else 0), messages
    assert "Traceback" not in messages
    if name == "SIGINT":
        assert left.startswith("The demo removes its files.")
    assert list(temporary.iterdir()) == []
    assert comes(lambda: is_gone(process.pid))


def test_demo_that_serves_shows_its_result_as_json_at_once(temporary: Path) -> None:
    with subprocess.Popen(
        [*THIS, "demo", "--serve", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=unmeasured(),
        encoding="utf-8",
    ) as process:
        try:
            assert process.stdout
            text = next(process.stdout)
            while not text.endswith("\n}\n"):
                text += next(process.stdout)
            directory = json.loads(text)["directory"]
            there = [path.name for path in Path(directory).iterdir()]
            process.send_signal(signal.SIGINT)
            left, _ = process.communicate(timeout=HANG_SECONDS)
        finally:
            process.kill()

    assert {"mdaemon", "ca"} <= set(there)
    assert (process.returncode, left) == (0, "")
    assert list(temporary.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="pip makes another program there")
@pytest.mark.parametrize("is_on_path", [True, False])
def test_demo_shows_the_command_line_as_it_works_where_it_was_started(
    tmp_path: Path, *, is_on_path: bool
) -> None:
    program = tmp_path / "bin" / "letsencrypt-mdaemon"
    program.parent.mkdir()
    start = "from letsencrypt_mdaemon.cli.main import main\nmain()\n"
    program.write_text(f"#!{sys.executable}\n{start}")
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    environ = {"PATH": path} if is_on_path else {}

    ran = run(
        [str(program), "demo", "--json", "--directory", str(tmp_path / "x")], environ
    )

    assert ran.exit_code == 0, ran.messages
    first = "letsencrypt-mdaemon" if is_on_path else str(program)
    assert ran.report["command_line"][:2] == [first, "renew"]
    assert f"   $ {shlex.join(ran.report['command_line'])}\n" in ran.messages


def comes(what: Callable[[], object]) -> bool:
    """Whether something becomes true."""
    deadline = time.monotonic() + HANG_SECONDS
    while time.monotonic() < deadline:
        if what():
            return True
        time.sleep(0.01)
    return False


def is_gone(group: int) -> bool:
    """Whether a group of processes has ended: a dead one may wait for `init`."""
    if sys.platform == "win32":
        raise AssertionError("there are no groups of processes")
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


# Exit codes


Arrange = Callable[[Program, CertificateAuthority, pytest.MonkeyPatch], list[str]]


def nothing(*_: object) -> list[str]:
    return []


def a_full_disk(
    _: Program, __: CertificateAuthority, patch: pytest.MonkeyPatch
) -> list[str]:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    patch.setattr(disk, "_ask", Mock(side_effect=full))
    return []


def a_profile_that_is_missing(*_: object) -> list[str]:
    return ["--require-profile"]


def a_ca_that_is_down(
    _: Program, __: CertificateAuthority, patch: pytest.MonkeyPatch
) -> list[str]:
    patch.setattr(transport, "ATTEMPTS", 1)
    return ["--directory-url", "https://127.0.0.1:1/directory"]


def a_name_that_is_nowhere(
    _: Program, ca: CertificateAuthority, __: object
) -> list[str]:
    ca.resolve = lambda _: None
    return []


def a_file_that_cannot_be_replaced(
    _: Program, __: CertificateAuthority, patch: pytest.MonkeyPatch
) -> list[str]:
    error = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    patch.setattr(files, "swap", Mock(side_effect=error))
    return []


REACHED: dict[int, Arrange] = {
    0: nothing,
    1: a_full_disk,
    2: a_profile_that_is_missing,
    3: a_ca_that_is_down,
    4: a_name_that_is_nowhere,
    5: a_file_that_cannot_be_replaced,
    6: nothing,
}


@pytest.mark.parametrize("code", REACHED)
def test_every_exit_code_is_reached_and_every_failure_mailed(
    code: int,
    program: Program,
    ca: CertificateAuthority,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = REACHED[code](program, ca, monkeypatch)
    # Another run is going on.
    lock = exclusive_lock(program.state / "lock") if code == 6 else nullcontext()

    with lock:
        ran = program.here(
            "renew", "--no-reload", "--to", "root@example.test", *options
        )

    assert ran.exit_code == ran.report["exit_code"] == code, ran.messages
    if code:
        assert ran.report.keys() == COMMON | {"error"}
        assert ran.report["error"]["message"] in ran.messages
        assert ran.report["error"]["hint"]
        program.server.wait_for(lambda: program.server.delivered)
        assert f"(exit {code})" in program.server.delivered[0].read_text("ascii")
    else:
        assert program.server.delivered == []


def test_a_failure_is_reported_as_json_wherever_json_is_asked_for(
    program: Program,
) -> None:
    environ = {f"{PREFIX}JSON": "yes"}

    ran = program.here("notify-test", environ=environ, as_json=False)

    assert ran.report["exit_code"] == ran.exit_code == 2
    assert ran.report["error"]["type"] == "ConfigError"


def test_the_documented_exit_codes_are_those_of_the_errors() -> None:
    text = EXIT_CODES.read_text("utf-8")
    documented = {int(code) for code in re.findall(r"(?m)^\|\s*(\d+)\s*\|", text)}

    assert documented == {0, *(kind.exit_code for kind in kinds(errors.Error))}
    assert documented == REACHED.keys()


def kinds(kind: type[errors.Error]) -> Iterator[type[errors.Error]]:
    """Yield a kind of error and those below it."""
    yield kind
    for below in kind.__subclasses__():
        yield from kinds(below)


# Help


def commands(
    command: click.Command = cli, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command with the words that lead to it."""
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*path, name))


COMMANDS = dict(commands())
LEAVES = [
    path for path, command in COMMANDS.items() if not hasattr(command, "commands")
]
OURS = [path for path in LEAVES if path != ("demo",)]
SETTINGS = {f"--{name}" for name, row in load.settings() if not row.secret}
WIDE = {"COLUMNS": "80"}


def options(path: tuple[str, ...]) -> set[str]:
    """Return the settings that a command takes, with their dashes."""
    return SETTINGS & options_of(path)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_help_fits_the_screen(path: tuple[str, ...]) -> None:
    ran = here([*path, "-h"], WIDE)

    lines = ran.output.splitlines()
    assert ran.exit_code == 0
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 45
    assert not any(line.endswith("...") for line in lines)
    assert ran.output.isascii()


@pytest.mark.parametrize("path", OURS, ids=" ".join)
def test_the_help_shows_an_example_that_works(
    path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []

    class Taken:
        """Takes the place of `Context`."""

        def __init__(
            self, name: str, options: dict[str, tuple[str, ...]], **_: object
        ) -> None:
            load.load(options, {}, None)
            taken.append(tuple(name.split()))
            raise SystemExit(0)

    monkeypatch.setattr("letsencrypt_mdaemon.cli.context.Context", Taken)
    (line,) = re.findall("(?m)^  Example:  (.*)$", here([*path, "-h"], WIDE).output)

    program, *example = shlex.split(line, posix=False)
    assert program == "letsencrypt-mdaemon"
    assert here(example).exit_code == 0
    assert taken == [path]


@pytest.mark.parametrize("path", OURS, ids=" ".join)
def test_the_help_ends_with_where_all_options_are(path: tuple[str, ...]) -> None:
    few, more = here([*path, "-h"], WIDE), here([*path, "--help-all"], WIDE)

    name = f"letsencrypt-mdaemon {' '.join(path)}"
    assert few.output.splitlines()[-1] == f"  All options:  {name} --help-all"
    assert more.exit_code == 0
    shown = set(re.findall(r"(?m)^  (--[a-z-]+)", more.output))
    assert options(path) <= shown
    assert {"--help-all", "--verbose"} <= set(re.findall("--[a-z-]+", more.output))
    assert set(re.findall(r"(?m)^  (--[a-z-]+)", few.output)) <= shown


def test_the_help_of_renew_shows_the_few_options_that_matter() -> None:
    few = here(["renew", "--help"], WIDE).output
    all_of_them = here(["renew", "--help-all"], WIDE).output

    assert "--agree-tos" in few
    assert "--validation-dns" not in few
    assert "--validation-dns" in all_of_them
    # What was shown once is not remembered.
    assert here(["renew", "--help"], WIDE).output == few


def test_the_help_of_an_option_says_what_it_does_in_that_command() -> None:
    def shown(name: str, option: str) -> str:
        text = here([*name.split(), "--help-all"], WIDE).output
        (line,) = re.findall(rf"(?m)^  {option}\b(?: [A-Z]+)? +(\S.*)$", text)
        return str(line)

    assert shown("renew", "--staging").startswith("Rehearse with the staging CA")
    for name in ("show", "rollover", "deactivate"):
        assert shown(f"account {name}", "--staging") == (
            "Use the staging CA, and the account there."
        )
    assert shown("renew", "--ca-bundle").startswith("PEM file with the only roots")
    assert shown("verify", "--ca-bundle") == ("PEM file with more roots to trust.")


def test_the_program_lists_its_commands_in_sections() -> None:
    lines = here(["--help"], WIDE).output.splitlines()

    titles = [line for line in lines if re.fullmatch(r"\w[^:]*:", line)]
    assert titles == [
        *("Options:", "Every day:", "Setting up:", "When something is wrong:"),
        "Certificates and the account:",
    ]
    everyday = lines[lines.index("Every day:") + 1 :][:3]
    assert [line.split()[0] for line in everyday] == ["renew", "status", "verify"]
    listed = {line.split()[0] for line in lines if re.match(r"  [a-z]", line)}
    shown = {name for name, row in cli.commands.items() if not row.hidden}
    assert shown <= listed


@pytest.mark.parametrize(
    "group", [path for path in COMMANDS if path not in LEAVES], ids=" ".join
)
def test_the_short_help_of_a_command_is_a_short_phrase(group: tuple[str, ...]) -> None:
    command = COMMANDS[group]
    assert isinstance(command, Group)

    text = here([*group, "--help"], WIDE).output

    for name, row in command.commands.items():
        if row.hidden:
            continue
        (summary,) = re.findall(rf"(?m)^  {name} +(\S.*)$", text)
        assert len(summary) <= 45
        assert re.fullmatch(r"[A-Z].*[^.]", summary)


# Options


@pytest.mark.parametrize(
    ("path", "option"),
    [
        ("schedule remove", "--key-type=p384"),
        ("schedule remove", "--eab-kid=z"),
        ("schedule show", "--store=windows"),
        ("schedule install", "--force"),
        ("schedule install", "--dry-run"),
        ("schedule install", "--staging"),
        ("activate", "--force"),
        ("activate", "--agree-tos"),
        ("rollback", "--force"),
        ("status", "--force"),
        ("renew", "--public"),
        ("account show", "--host-name=a.example.test"),
        ("notify-test", "--key-type=p256"),
    ],
)
def test_an_option_that_a_command_does_not_read_is_refused(
    path: str, option: str
) -> None:
    ran = here([*path.split(), option])

    assert ran.exit_code == 2
    assert ran.output == ""
    assert ran.messages.splitlines()[-1] == (
        f"error: `letsencrypt-mdaemon {path}` does not take {option.partition('=')[0]}."
    )


@pytest.mark.parametrize("option", ["--max-names=5", "--keep-backups=5"])
def test_a_removed_option_is_refused_as_such(option: str) -> None:
    ran = here(["renew", option])

    assert ran.exit_code == 2
    name = option.partition("=")[0]
    assert f"The setting {name} was removed." in ran.messages


def test_every_setting_is_an_option_of_a_command_that_reads_it() -> None:
    assert options(("config", "show")) == SETTINGS
    others = [options(path) for path in OURS if path != ("config", "show")]
    assert set().union(*others) == SETTINGS
    assert options(("renew",)) == SETTINGS - {"--public", "--require-trusted"}


def test_what_is_scheduled_may_be_any_option_of_renew_but_those_for_one_run() -> None:
    for_one_run = {"--force", "--ask-ca", "--dry-run", "--staging"}

    assert options(("schedule", "install")) == options(("renew",)) - for_one_run


@pytest.mark.parametrize(
    "path",
    ["status", "discover", "verify", "doctor", "selftest", "schedule show"],
)
def test_a_command_takes_the_settings_that_it_reads(
    path: str, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: set[str] = set()

    class Recording(Config):
        """Remembers which settings are read."""

        def __getattribute__(self, name: str) -> object:
            read.add(f"--{name.replace('_', '-')}")
            return super().__getattribute__(name)

    monkeypatch.setattr(load, "Config", Recording)
    # It has to be looked up, and nothing is to be found in the file.
    program.here(path)

    allowed = options(tuple(path.split())) | UNREAD
    assert (read & SETTINGS) - allowed == set()


UNREAD = {
    *(
        "--ask-ca",
        "--dry-run",
        "--force",
        "--staging",
    ),  # whether this is a scheduled run
    *("--allow-restart", "--no-reload"),  # the server is put together, and not told
    *("--reload-semaphores", "--reload-timeout", "--verify-timeout"),
    *("--no-activate", "--remove-old-certificates"),
}
"""Read by what the commands have in common, but without any effect on these."""


# Completion


def completed(*words: str) -> list[tuple[str, str]]:
    """Return what the shell offers for the last word."""
    *before, last = words
    shell = ShellComplete(cli, {}, "letsencrypt-mdaemon", "_COMPLETE")
    return [(item.value, item.type) for item in shell.get_completions(before, last)]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("renew", "--key-type", "rsa"), ["rsa2048", "rsa3072", "rsa4096"]),
        (
            ("renew", "--directory-url", ""),
            ["letsencrypt", "letsencrypt-staging", "zerossl", "google"],
        ),
        (("renew", "--store", ""), ["windows", "pem:"]),
        (("renew", "--on-name-failure", "d"), ["drop"]),
        (("notify-test", "--mail-server", "s"), ["smtp://", "smtps://"]),
        (
            ("revoke", "--reason", ""),
            list(revocation.REASONS),
        ),
        (("schedule", "re"), ["remove"]),
        (
            ("schedule", "remove", "--"),
            ["--mdaemon-dir", "--state-dir", "--json", "--config", "--verbose"],
        ),
    ],
)
def test_completion_offers_values(words: tuple[str, ...], offered: list[str]) -> None:
    found = [value for value, kind in completed(*words) if kind == "plain"]

    assert sorted(set(offered) - set(found)) == []
    assert [value for value in found if value not in offered] in (
        [],
        ["--help-all", "--help"],
    )


@pytest.mark.parametrize(
    ("option", "kind"), [("--webroot", "dir"), ("--ca-bundle", "file")]
)
def test_completion_leaves_paths_to_the_shell(option: str, kind: str) -> None:
    assert completed("renew", option, "/et") == [("/et", kind)]


def test_the_old_scripts_parameters_lead_to_settings() -> None:
    table = {f"--{name}" for name, _ in load.settings()}

    assert set(legacy.PARAMETERS.values()) < table


def test_secrets_are_no_options() -> None:
    hidden = [name for name, row in load.settings() if row.secret]

    assert hidden == [
        *("eab-key", "mail-password", "notify", "notify-key", "heartbeat-url")
    ]
    for name in hidden:
        assert here(["renew", f"--{name}", "x"]).exit_code == 2


# Start


SLOW = {"acme", "josepy", "cryptography", "requests"}
IMPORTED = """\
import json, sys
from letsencrypt_mdaemon.cli.main import main
try:
    main()
except SystemExit as end:
    print(json.dumps([end.code, sorted(sys.modules)]), file=sys.stderr)
"""
PACKAGE = "letsencrypt_mdaemon."
HELP = {
    *("_version", "cli", "cli.accounts", "cli.checks", "cli.commands", "cli.legacy"),
    *("cli.certificates", "cli.footprint", "cli.monitoring", "cli.script"),
    *("cli.reporting", "cli.self_signed", "cli.setup", "cli.streams"),
    *("cli.main", "cli.options", "cli.parameters", "errors"),
}
"""The modules of the package that --help imports."""
STATUS_MODULES = HELP | {
    *("app", "app.adapters", "app.build", "app.credentials", "app.installation"),
    "app.status",
    *("app.health", "app.mail_policy", "app.rehearsal", "app.trust", "authorities"),
    *("cli.context", "cli.document", "cli.run", "cli.status", "cli.text"),
    "cli.verdict",
    *("config", "config.fields", "config.load", "config.parsers"),
    "config.settings",
    *("mdaemon", "mdaemon.bindings", "mdaemon.discovery", "mdaemon.folders"),
    *("mdaemon.forms", "mdaemon.host_name"),
    *("mdaemon.ini", "mdaemon.server"),
    *("pki", "pki.certificate", "pki.chain", "pki.names", "pki.tlsa"),
    *("renewal", "renewal.adapters", "renewal.by_hand", "renewal.climb"),
    *("renewal.dane", "renewal.deploy", "renewal.guard", "renewal.hold"),
    *("renewal.due", "renewal.ladder", "renewal.obtain", "renewal.proof"),
    *("renewal.removal", "renewal.revoke", "renewal.run", "renewal.snapshot"),
    "renewal.spare",
    *("state", "state.codec", "state.folder", "state.ledger"),
    *("state.memory", "state.pins", "state.told", "stores", "stores.pem"),
    *("system", "system.disk", "system.files", "system.locks", "system.log"),
    *(
        "system.backups",
        "system.handles",
        "system.identity",
        "system.owners",
        "system.swap",
    ),
    *("system.parallel", "text"),
    *("verify", "verify.endpoints", "verify.handshake", "verify.observe"),
    *("verify.served", "verify.starttls", "verify.verdict"),
}
"""The modules that `status` imports, and those for the schedule."""
SCHEDULE_MODULES = {"app.scheduling", "system.process", "system.schedule"}
SCHEDULE_MODULES |= {"app.script", "system.drop_in", "system.tasks"}
SCHEDULE_MODULES |= {"windows", "windows.access"}
RENEW_MODULES = STATUS_MODULES - {"app.health", "cli.status"} | {
    *("app.hook", "app.renewal", "cli.measured", "cli.outcome", "mdaemon.webroot"),
    *("policy", "policy.anchors", "system.hook"),
}
"""The modules that a scheduled `renew` imports if nothing is due."""
HEAVY = {
    *("acme", "josepy", "cryptography", "requests", "urllib3", "dns", "ctypes"),
    *("asyncio", "concurrent", "configparser", "http", "smtplib", "sqlite3", "ssl"),
    *("unittest", "urllib.request", "xml"),
}


def imports(
    *arguments: str, environ: dict[str, str] | None = None
) -> tuple[int, set[str]]:
    """Run the program; return how it ended, and the modules that it imported."""
    # coverage.py would import modules of its own.
    unmeasured = {"COVERAGE_PROCESS_START": "", "COVERAGE_PROCESS_CONFIG": ""}
    done = run(
        [sys.executable, "-c", IMPORTED, *arguments], (environ or {}) | unmeasured
    )
    code, modules = json.loads(done.messages.splitlines()[-1])
    return code, set(modules)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("--help", 0),
        ("--version", 0),
        ("renew -h", 0),
        ("config show --help", 0),
        ("demo --help", 0),
        ("", 2),
        ("nonsense", 2),
        ("renew --nonsense", 2),
        ("renew --to", 2),
        ("-Nonsense", 2),
    ],
)
def test_help_and_wrong_usage_answer_at_once(arguments: str, code: int) -> None:
    ended, modules = imports(*arguments.split())

    assert ended == code
    assert "click" in modules
    assert not SLOW & modules


def test_nothing_is_imported_by_accident(program: Program) -> None:
    for _ in range(2):  # The second run asks for the CA's suggested window.
        assert program.here("renew", "--no-reload").exit_code == 0

    for name, ours, heavy in (
        ("--help", HELP, set()),
        ("status", STATUS_MODULES | SCHEDULE_MODULES, {"cryptography", "xml"}),
        ("renew", RENEW_MODULES, {"cryptography"}),
    ):
        words = name.split()
        options = [] if name == "--help" else taken(words, program.options)
        options += ["--scheduled"] if name == "renew" else []
        code, modules = imports(*words, *options)
        assert code == 0
        found = {item for item in modules if item.startswith(PACKAGE)}
        assert {item.removeprefix(PACKAGE) for item in found} == ours
        assert HEAVY & modules == heavy


def test_a_wrong_option_is_said_with_the_nearest_right_one() -> None:
    ran = run([*THIS, "renew", "--alternate-host-name", "a.example.test"])

    assert ran.exit_code == 2
    assert "--alternate-host-names" in ran.messages
