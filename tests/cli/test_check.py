"""`check`: one line and one exit code for every monitor."""

from __future__ import annotations

import json
import re
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from letsencrypt_mdaemon.app import scheduling
from letsencrypt_mdaemon.app.health import Limits
from letsencrypt_mdaemon.cli.monitoring import FORMATS
from letsencrypt_mdaemon.state.folder import State
from letsencrypt_mdaemon.state.ledger import Ledger
from letsencrypt_mdaemon.state.memory import Dropped, Memory, Restart
from letsencrypt_mdaemon.system.locks import exclusive_lock
from letsencrypt_mdaemon.system.schedule import NAME
from letsencrypt_mdaemon.system.tasks import TaskScheduler
from tests.limits import HANG_SECONDS
from tests.program import HOST_NAME, Program, Ran
from tests.schedulers import Crontab, Jobs, Schtasks, in_memory
from tests.wine import windows_too

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


@pytest.fixture
def jobs(secure: Program, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    """A scheduler with our job, and nothing else."""
    return in_memory(
        monkeypatch, sys.executable, "renew", f"--mdaemon-dir={secure.layout.folder}"
    )


@pytest.fixture
def healthy(secure: Program, jobs: Jobs) -> Program:
    """A server that was renewed, is scheduled, and whose last run was an hour ago."""
    assert jobs.text
    ran = secure.here("renew")
    assert ran.exit_code == 0, ran.messages
    change(secure, lambda memory: memory._replace(runs=(datetime.now(UTC) - HOUR,)))
    return secure


def change(program: Program, act: Callable[[Memory], Memory]) -> None:
    """Change what is remembered."""
    state = State(program.state)
    state.save(act(state.load()))


def check(program: Program, *options: str) -> Ran:
    """Run `check` as a monitor does."""
    return program.here("check", *options, as_json=False)


@windows_too
def test_a_good_server_is_ok_in_one_line_with_performance_data(
    healthy: Program,
) -> None:
    ran = check(healthy)

    assert ran.exit_code == 0, ran.output
    assert re.fullmatch(
        rf"OK - {HOST_NAME}: 8\d days left, (\d+) of \1 ports proven, last run "
        r"\d+ minutes ago \| days=8\d;21:;7:;0 ports_unproven=0 last_run=3\d\d\ds\n",
        ran.output,
    )


def test_a_check_changes_nothing_and_works_beside_a_run(healthy: Program) -> None:
    before = files(healthy.layout.folder)

    with exclusive_lock(State(healthy.state).lock):
        ran = check(healthy)

    assert ran.exit_code == 0, ran.output
    before.pop(str(State(healthy.state).lock), None)
    after = files(healthy.layout.folder)
    after.pop(str(State(healthy.state).lock), None)
    assert after == before


def files(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {str(at): at.read_bytes() for at in folder.rglob("*") if at.is_file()}


@windows_too
def test_a_port_that_served_the_certificate_and_is_off_is_critical(
    healthy: Program,
) -> None:
    proven = State(healthy.state).load().proven
    gone = next(at for at in proven if at.startswith("imaps"))
    healthy.server.downtime = HANG_SECONDS
    healthy.server.go_down("mail")

    ran = check(healthy)

    assert ran.exit_code == 2, ran.output
    assert ran.output.startswith("CRITICAL - ")
    (problem,) = re.findall(r"; ([^|;]*)", ran.output)
    assert problem.startswith("no longer served at ")
    assert gone in problem
    assert "not listening" in problem


def test_a_port_that_is_slow_is_unproven_in_time(healthy: Program) -> None:
    with silent_port() as (port, connections):
        ran = check(
            healthy, "--endpoint", f"imaps://127.0.0.1:{port}", "--timeout", "0.5"
        )

    assert ran.exit_code == 1, ran.output
    assert f"not proven at imaps://127.0.0.1:{port} (" in ran.output
    assert len(connections) <= 1


@contextmanager
def silent_port() -> Iterator[tuple[int, list[socket.socket]]]:
    """A port that lets connections wait."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connections: list[socket.socket] = []
        yield server.getsockname()[1], connections
        server.settimeout(0)
        try:
            while True:
                connections.append(server.accept()[0])
        except BlockingIOError:
            pass
        finally:
            for each in connections:
                each.close()


def test_no_port_is_asked_when_none_should_be(healthy: Program) -> None:
    healthy.server.go_down("mail", "webmail", "admin")

    ran = check(healthy, "--no-ports")

    assert ran.exit_code == 0, ran.output
    assert "ports" not in ran.output


def test_a_self_signed_certificate_in_use_is_critical(
    secure: Program, jobs: Jobs
) -> None:
    assert jobs.text

    ran = check(secure)

    assert ran.exit_code == 2, ran.output
    assert "the certificate in use is self-signed" in ran.output


@windows_too
def test_what_is_not_scheduled_is_a_warning(healthy: Program, jobs: Jobs) -> None:
    jobs.text = None
    began = (datetime.now(UTC) - 2 * DAY,)
    change(healthy, lambda memory: memory._replace(runs=began))

    ran = check(healthy)

    assert ran.exit_code == 1, ran.output
    assert "; no renewal is scheduled; " in ran.output


def test_another_scheduler_counts_while_it_runs(healthy: Program, jobs: Jobs) -> None:
    jobs.text = None

    assert check(healthy).exit_code == 0


def test_two_schedules_are_a_warning(healthy: Program, jobs: Jobs) -> None:
    jobs.add("letsencrypt-mdaemon renew")

    ran = check(healthy)

    assert ran.exit_code == 1, ran.output
    assert "several schedules run this program: " in ran.output


@windows_too
def test_a_scheduled_program_that_is_gone_is_a_warning(
    healthy: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    there, gone = tmp_path / "here it's.ini", tmp_path / "gone one" / "python"
    there.touch()
    in_memory(monkeypatch, str(gone), "--config", str(there), "renew")

    ran = check(healthy)

    assert ran.exit_code == 1, ran.output
    assert f"the scheduled command needs {gone}, which is not there" in ran.output
    shown = healthy.here("schedule show")
    (warning,) = shown.report["warnings"]
    assert warning == (
        f"The scheduled command needs {gone}, which is not there. Run `schedule "
        "install`."
    )


def test_a_scheduled_program_that_the_account_may_not_look_at_is_not_gone(
    healthy: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hidden = tmp_path / "hidden" / Path(sys.executable).name
    in_memory(monkeypatch, str(hidden), "renew")
    exists = Path.exists

    def refuse(self: Path) -> bool:
        if self == hidden:
            raise PermissionError(13, "Permission denied", str(self))
        return exists(self)

    monkeypatch.setattr(Path, "exists", refuse)

    ran = check(healthy)

    assert ran.exit_code == 1, ran.output
    assert f"the scheduled command runs {hidden}, not {sys.executable}" in ran.output
    assert "not there" not in ran.output


@pytest.mark.parametrize("what", ["program", "config", "no config", "folder", "none"])
def test_a_schedule_of_another_installation_is_a_warning(
    healthy: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str
) -> None:
    here, root = sys.executable, healthy.layout.folder
    there = tmp_path / "there"
    other = [there / Path(here).name, there / "settings.ini", there / "App"]
    there.mkdir()
    other[2].mkdir()
    for path in (*other[:2], other[2] / "MDaemon.ini", tmp_path / "settings.ini"):
        path.touch()
    ours = ["--config", str(tmp_path / "settings.ini")]
    command, text = {
        "program": ([str(other[0]), "renew", *ours], f"runs {other[0]}, not {here}"),
        "config": (
            [here, "renew", "--config", str(other[1])],
            f"reads {other[1]}, not {ours[1]}",
        ),
        "no config": ([here, "renew"], f"does not read {ours[1]}"),
        "folder": (
            [here, "renew", *ours, f"--mdaemon-dir={there}"],
            f"is for {there}, not for {root}",
        ),
        "none": ([here, "renew", *ours], "does not find MDaemon"),
    }[what]
    in_memory(monkeypatch, *command)

    ran = check(healthy, *ours)

    assert ran.exit_code == 1, ran.output
    assert f"the scheduled command {text}" in ran.output
    in_memory(monkeypatch, here, "renew", *ours, f"--mdaemon-dir={root}")
    assert check(healthy, *ours).exit_code == 0


def test_a_restart_that_has_not_ended_is_a_warning(healthy: Program) -> None:
    State(healthy.state).save(Restart("MDaemon", datetime.now(UTC)))

    ran = check(healthy)

    assert ran.exit_code == 1, ran.output
    assert "the service MDaemon did not start after a restart on " in ran.output


def test_a_task_that_did_not_end_well_is_a_warning(
    healthy: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = Schtasks()
    scheduler = TaskScheduler(Path("schtasks.exe"), tasks, account="S-1-5-18")
    root = healthy.layout.folder
    scheduler.install([sys.executable, "renew", f"--mdaemon-dir={root}"])
    monkeypatch.setattr(scheduling, "of_this_system", lambda: scheduler)
    for result in ("267011", "267009", "0"):
        tasks.results[NAME] = ("25.11.2026 15:17:01", result)
        assert check(healthy).exit_code == 0
    tasks.results[NAME] = ("25.11.2026 15:17:01", "267014")

    ran = check(healthy)

    assert ran.exit_code == 1, ran.output
    text = "was ended by somebody, or at the time limit (PT2H)"
    assert f"the scheduled task {text}" in ran.output
    shown = healthy.here("schedule show")
    assert shown.report["job"]["last_result"] == text
    assert text in healthy.here("schedule show", as_json=False).output


@pytest.mark.skipif(sys.platform == "win32", reason="schtasks has no such refusal")
def test_a_schedule_that_cannot_be_read_is_a_warning(
    healthy: Program, jobs: Jobs
) -> None:
    assert isinstance(jobs, Crontab)
    jobs.refuses = True

    ran = check(healthy)

    assert ran.exit_code == 1, ran.output
    assert "the schedule is unknown (Could not read the crontab" in ran.output


@pytest.mark.parametrize(
    ("runs", "said"),
    [((), "no scheduled run was seen yet"), ((2 * DAY,), "last scheduled run was")],
)
def test_no_run_for_36_hours_is_a_warning(
    healthy: Program, runs: tuple[timedelta, ...], said: str
) -> None:
    now = datetime.now(UTC)
    began = tuple(now - ago for ago in runs)
    change(
        healthy, lambda memory: renewed(memory, now - 37 * HOUR)._replace(runs=began)
    )

    ran = check(healthy)

    assert ran.exit_code == 1, ran.output
    assert said in ran.output


def renewed(memory: Memory, at: datetime) -> Memory:
    """Let the certificate in use be proven at a time."""
    item = memory.find(memory.in_use)
    assert item is not None
    return memory.remember(item._replace(verified=at))


def test_just_after_a_renewal_by_hand_the_first_scheduled_run_is_not_missed(
    healthy: Program, jobs: Jobs
) -> None:
    change(healthy, lambda memory: memory._replace(runs=()))

    ran = check(healthy)

    assert ran.exit_code == 0, ran.output
    assert re.search(", renewed by hand .* ago, no scheduled run yet", ran.output)
    jobs.text = None
    assert "; no renewal is scheduled" in check(healthy, "--no-ports").output


def test_names_that_fail_or_are_dropped_are_a_warning_since_when_and_why(
    healthy: Program,
) -> None:
    since = datetime(2026, 11, 3, tzinfo=UTC)
    names = ("imap.example.test", "pop.example.test")
    url = healthy.options[healthy.options.index("--directory-url") + 1]
    failed = Ledger().failed({names[0]: "no | answer\non port 80"}, since)
    # Nothing was due since, so that this is history: now a name is missing.
    State(healthy.state).ca(url, staging=False).save(failed)
    dropped = (Dropped(names[1], since, since, "CAA"),)
    change(healthy, lambda memory: memory._replace(dropped=dropped))

    ran = check(healthy, "--alternate-host-names", ",".join(names))

    assert ran.exit_code == 1, ran.output
    text, _, _ = ran.output.partition(" | ")
    assert f"{names[0]} fails since 2026-11-03 (no / answer on port 80)" in text
    assert f"{names[1]} is not in the certificate since 2026-11-03 (CAA)" in text


def test_few_days_left_are_a_warning_and_fewer_are_critical(healthy: Program) -> None:
    warned = check(healthy, "--warning", "100")
    alarmed = check(healthy, "--critical", "100")

    assert (warned.exit_code, alarmed.exit_code) == (1, 2)
    assert "; expires on 20" in warned.output
    assert ";100:;7:;0" in warned.output
    assert alarmed.output.startswith("CRITICAL - ")


def test_a_certificate_issued_and_not_in_use_is_a_warning(healthy: Program) -> None:
    assert healthy.here("renew", "--force", "--no-activate").exit_code == 0

    ran = check(healthy)

    assert ran.exit_code == 1, ran.output
    assert "a certificate is issued and not in use" in ran.output


@pytest.mark.parametrize(
    ("days", "warning", "critical"),
    [(90, 21, 7), (45, 11.25, 5.625), (6, 1.5, 0.75), (398, 21, 7)],
)
def test_a_short_lifetime_has_shorter_limits(
    days: int, warning: float, critical: float
) -> None:
    limits = timedelta(days=warning), timedelta(days=critical)
    assert Limits().of(timedelta(days=days)) == limits


@pytest.mark.parametrize(
    "options",
    [
        ("--bogus",),
        ("--timeout", "soon"),
        ("--timeout", "nan"),
        ("--warning", "inf"),
        ("--format", "xml"),
        ("--config", "/nowhere/at/all.ini"),
        ("--mdaemon-dir", "/nowhere/at/all"),
        ("--store", f"pem:{__file__}"),
        ("--warning", "5", "--critical", "10"),
    ],
)
def test_whatever_keeps_it_from_checking_is_unknown(
    healthy: Program, options: tuple[str, ...]
) -> None:
    ran = check(healthy, *options)

    assert ran.exit_code == 3, ran.output
    assert ran.output.startswith("UNKNOWN - ")
    assert (ran.output.count("\n"), ran.messages) == (1, "")


@pytest.mark.parametrize("wrong", [("--bogus",), ("--store", f"pem:{__file__}")])
@pytest.mark.parametrize("form", ["--json", "--format=json", "--format=prtg"])
def test_a_check_that_fails_keeps_its_format(
    healthy: Program, form: str, wrong: tuple[str, ...]
) -> None:
    ran = check(healthy, *wrong, form)

    assert ran.exit_code == 3
    if form == "--format=prtg":
        assert json.loads(ran.output)["prtg"]["error"] == 1
        return
    report = ran.report  # as the schema says
    assert (report["exit_code"], report["command"]) == (3, "check")
    assert report["state"] == report["problems"][0]["state"] == "UNKNOWN"
    assert report["error"]["message"] in report["problems"][0]["text"]


def test_a_damaged_state_is_a_warning_and_left_where_it_is(healthy: Program) -> None:
    file = healthy.state / "installation.json"
    file.write_bytes(b"{")

    for _ in range(2):
        ran = check(healthy)
        assert ran.exit_code == 1, ran.output
        assert f"{file} is damaged" in ran.output
        assert file.read_bytes() == b"{"


def test_a_bug_is_unknown(healthy: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("letsencrypt_mdaemon.app.health.check", fail)

    assert check(healthy).exit_code == 3


@pytest.mark.parametrize("option", ["--json", "--format=json"])
def test_json_has_every_problem_with_its_state(
    secure: Program, jobs: Jobs, option: str
) -> None:
    jobs.text = None

    ran = check(secure, option)

    report = json.loads(ran.output)
    assert (report["state"], report["exit_code"], ran.exit_code) == ("CRITICAL", 2, 2)
    assert [item["state"] for item in report["problems"]][:1] == ["CRITICAL"]
    text = "no renewal is scheduled"
    assert {"state": "WARNING", "text": text} in report["problems"]


def test_prtg_gets_channels_with_limits(healthy: Program) -> None:
    sensor = json.loads(check(healthy, "--format", "prtg").output)["prtg"]

    channels = {row["channel"]: row for row in sensor["result"]}
    assert channels["Days left"]["limitminerror"] == 7
    assert channels["Ports not proven"]["value"] == 0
    assert channels["State"]["value"] == 0
    assert sensor["text"].startswith("OK - ")


def test_prometheus_gets_a_gauge_for_each_value(healthy: Program) -> None:
    text = check(healthy, "--format", "prometheus").output

    rows = [line for line in text.splitlines() if not line.startswith("#")]
    names = [row.partition("{")[0] for row in rows]
    assert f'letsencrypt_mdaemon_state{{name="{HOST_NAME}"}} 0' in rows
    assert len(names) == len(set(names)) == 4
    for name in names:
        assert f"# TYPE {name} gauge" in text


def test_its_help_says_the_codes_and_formats(healthy: Program) -> None:
    ran = check(healthy, "--help")

    text = " ".join(ran.output.split())
    assert "0 OK, 1 warning, 2 critical, 3 unknown" in text
    assert all(form in text for form in FORMATS)
