"""Twice a day, by whatever scheduler there is."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from letsencrypt_mdaemon.errors import ConfigError, DeployError
from letsencrypt_mdaemon.system import process, tasks
from letsencrypt_mdaemon.system.schedule import NAME, Cron, split
from letsencrypt_mdaemon.system.tasks import NAMESPACE, TaskScheduler
from letsencrypt_mdaemon.windows.access import SYSTEM
from tests.limits import HANG_SECONDS
from tests.program import Program, here
from tests.schedulers import Crontab, Schtasks

COMMAND = [
    r"C:\Program Files\x\python.exe",
    *("-I", "-m", "letsencrypt_mdaemon", "renew"),
]
THEIRS = "MAILTO=x\r\n# remarks\n*/5 * * * * other \udcff\n"
THEIRS += f"#7 3,15 * * * ours, and taken out by hand # {NAME}\n@reboot last"


def read(data: bytes) -> ET.Element:
    """Parse XML of our own."""
    return ET.fromstring(data)  # noqa: S314


def text_of(root: ET.Element, path: str) -> list[str | None]:
    """Return the text of all elements at a path."""
    spelled = "/".join(f"{{{NAMESPACE}}}{step}" for step in path.split("/"))
    return [found.text for found in root.iterfind(spelled)]


def test_a_task_is_what_task_scheduler_wants() -> None:
    data = tasks.task(COMMAND, 3, 7, SYSTEM)
    assert data[:2] == b"\xff\xfe"
    root = read(data)
    assert root.tag == f"{{{NAMESPACE}}}Task"
    assert root.get("version") == "1.2"
    parts = ["RegistrationInfo", "Triggers", "Principals", "Settings", "Actions"]
    assert [child.tag for child in root] == [f"{{{NAMESPACE}}}{part}" for part in parts]
    starts = text_of(root, "Triggers/CalendarTrigger/StartBoundary")
    assert starts == ["2026-01-01T03:07:00", "2026-01-01T15:07:00"]
    assert text_of(root, "Triggers/CalendarTrigger/RandomDelay") == ["PT1H"] * 2
    days = "Triggers/CalendarTrigger/ScheduleByDay/DaysInterval"
    assert text_of(root, days) == ["1"] * 2
    assert text_of(root, "Principals/Principal/UserId") == ["S-1-5-18"]
    assert text_of(root, "Principals/Principal/RunLevel") == ["HighestAvailable"]
    assert text_of(root, "Principals/Principal/LogonType") == []
    for name, value in {
        "MultipleInstancesPolicy": "IgnoreNew",
        "StartWhenAvailable": "true",
        "StopIfGoingOnBatteries": "false",
        "DisallowStartIfOnBatteries": "false",
        "ExecutionTimeLimit": "PT2H",
        "Enabled": "true",
    }.items():
        assert text_of(root, f"Settings/{name}") == [value]
    # Windows may take a network that works for none, and the program does without.
    assert text_of(root, "Settings/RunOnlyIfNetworkAvailable") == []
    actions = root.find(f"{{{NAMESPACE}}}Actions")
    principal = root.find(f"{{{NAMESPACE}}}Principals/{{{NAMESPACE}}}Principal")
    assert actions is not None
    assert principal is not None
    assert actions.get("Context") == principal.get("id") == "Author"
    assert text_of(root, "Actions/Exec/Command") == [COMMAND[0]]
    assert text_of(root, "Actions/Exec/Arguments") == [
        "-I -m letsencrypt_mdaemon renew"
    ]


printable_text = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"]), min_size=1
)


@pytest.mark.parametrize("word", [r"a\%b", r"a\\b"])
def test_a_backslash_that_each_cron_reads_in_its_own_way_is_refused(word: str) -> None:
    crontab = Crontab()

    with pytest.raises(ConfigError, match="backslash"):
        Cron(Path("crontab"), crontab).install(["renew", word])

    assert crontab.text is None


@given(st.lists(printable_text, min_size=1, max_size=4))
def test_whatever_the_command_is_called_it_comes_out_as_it_went_in(
    command: list[str],
) -> None:
    texts = (command[0], subprocess.list2cmdline(command[1:]))
    if any(re.search("%[^%]+%", text) for text in texts):
        with pytest.raises(ConfigError, match="between % signs"):
            tasks.task(command, 0, 1, SYSTEM)
        return
    root = read(tasks.task(command, 0, 1, SYSTEM))
    assert text_of(root, "Actions/Exec/Command") == [command[0]]
    (arguments,) = text_of(root, "Actions/Exec/Arguments")
    assert (arguments or "") == subprocess.list2cmdline(command[1:])


def as_cron_runs(line: str) -> str:
    """Return what cron gives to the shell: cron(8)'s own loop over the command."""
    command, escaped = "", False
    for char in line.split(" ", 5)[5]:
        if escaped and char in "%\\":
            command = command[:-1] + char
        elif char == "%" and not escaped:
            break
        else:
            command += char
        escaped = char == "\\" and not escaped
    return command


@given(
    st.lists(st.text(st.sampled_from("a %\\'\"$\n\x0b\u2028#"), min_size=1), min_size=1)
)
def test_cron_runs_the_very_command_or_it_is_refused(command: list[str]) -> None:
    crontab = Crontab(THEIRS)
    try:
        Cron(Path("crontab"), crontab).install(command)
    except ConfigError:
        assert crontab.text == THEIRS
        assert re.search(r"[\n\x0b\u2028]|\\[\\%]", shlex.join(command))
        return
    assert crontab.text is not None
    (line,) = crontab.text.removeprefix(THEIRS + "\n").splitlines()
    ran = as_cron_runs(line).partition(" >/dev/null")[0]
    assert shlex.split(ran) == command


@pytest.mark.parametrize("odd", ["\n", "\r", "\0", "\x1b", "\x85", "\u2028"])
def test_a_line_break_in_whatever_part_of_a_command_is_refused(odd: str) -> None:
    crontab, schtasks = Crontab(THEIRS), Schtasks()
    evil = f"/x{odd}* * * * * touch y"
    for command in ([evil, "renew"], ["/python", f"--webroot={evil}"]):
        with pytest.raises(ConfigError, match="line break") as caught:
            Cron(Path("crontab"), crontab).install(command)
        assert odd not in str(caught.value)
        tasks = TaskScheduler(Path("schtasks.exe"), schtasks, account=SYSTEM)
        with pytest.raises(ConfigError, match="line break"):
            tasks.install(command)
    assert crontab.text == THEIRS
    assert not schtasks.tasks


def test_a_task_with_a_name_that_windows_would_replace_is_refused() -> None:
    command = ["C:\\python.exe", "--webroot=C:\\%TEMP%\\web"]
    schtasks = Schtasks()
    tasks = TaskScheduler(Path("schtasks.exe"), schtasks, account=SYSTEM)
    with pytest.raises(ConfigError, match="between % signs"):
        tasks.install(command)
    assert not schtasks.tasks


def test_the_example_is_what_is_installed() -> None:
    file = Path(__file__).parents[2] / "examples" / "task.xml"
    example = read(file.read_bytes())
    (program,) = text_of(example, "Actions/Exec/Command")
    (arguments,) = text_of(example, "Actions/Exec/Arguments")
    assert program
    assert arguments
    made = read(tasks.task([program, *arguments.split()], 3, 17, SYSTEM))
    assert ET.canonicalize(ET.tostring(example), strip_text=True) == ET.canonicalize(
        ET.tostring(made), strip_text=True
    )


def test_a_task_tells_when_it_ran_and_how_it_ended() -> None:
    schtasks = Schtasks()
    scheduler = TaskScheduler(Path("schtasks.exe"), schtasks, account=SYSTEM)
    scheduler.install(COMMAND)
    fresh = scheduler.show()
    assert fresh is not None
    assert (fresh.last_run, fresh.last_code) == ("", None)
    assert fresh.next_run == "26.11.2026 03:17:00"
    schtasks.results[NAME] = ("25.11.2026 15:17:01", "5")
    ran = scheduler.show()
    assert ran is not None
    assert (ran.last_run, ran.last_code) == ("25.11.2026 15:17:01", 5)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ("267009", "is running now"),
        ("267014", "was ended by somebody, or at the time limit (PT2H)"),
        ("267045", "waits for a start that was put off"),
        ("-2147020576", "did not start, because the Task Scheduler refused it"),
        ("-2147024894", "did not start, because its program is not there"),
        ("-1073741510", "was ended by Ctrl-C, a logoff or a shutdown"),
    ],
)
def test_a_result_that_is_no_exit_code_is_told_in_words(
    result: str, words: str
) -> None:
    schtasks = Schtasks()
    scheduler = TaskScheduler(Path("schtasks.exe"), schtasks, account=SYSTEM)
    scheduler.install(COMMAND)
    schtasks.results[NAME] = ("25.11.2026 15:17:01", result)
    shown = scheduler.show()
    assert shown is not None
    assert (shown.last_code, shown.last_result) == (None, words)
    assert shown.last_run == "25.11.2026 15:17:01"


@given(st.lists(st.text('ab\\" \t'), min_size=1, max_size=5))
def test_a_command_line_of_windows_is_split_as_it_was_joined(words: list[str]) -> None:
    assert split(subprocess.list2cmdline(words)) == words


def test_a_task_that_this_account_cannot_see_is_not_replaced() -> None:
    schtasks = Schtasks()
    schtasks.tasks[NAME] = "<Task>theirs</Task>"
    schtasks.hidden.add(NAME)
    scheduler = TaskScheduler(Path("schtasks.exe"), schtasks, account=SYSTEM)
    with pytest.raises(DeployError, match="Could not register"):
        scheduler.install(COMMAND)
    assert schtasks.tasks == {NAME: "<Task>theirs</Task>"}


def test_a_task_that_cannot_be_read_does_not_hide_the_others() -> None:
    schtasks = Schtasks()
    old = r"<Task><Arguments>C:\MDaemon\LetsEncrypt\LETSENCRYPT.PS1</Arguments></Task>"
    schtasks.tasks = {"First": old, "Broken": "?", "A\\Last": old}
    schtasks.broken.add("Broken")
    scheduler = TaskScheduler(Path("schtasks.exe"), schtasks, account=SYSTEM)
    assert sorted(scheduler.rivals()) == ["\\A\\Last", "\\First"]
    assert scheduler.old_names().keys() == {"\\A\\Last", "\\First"}


def test_a_task_of_ours_that_is_no_xml_is_told_as_that() -> None:
    schtasks = Schtasks()
    schtasks.tasks[NAME] = "<Task>"
    scheduler = TaskScheduler(Path("schtasks.exe"), schtasks, account=SYSTEM)
    with pytest.raises(ConfigError, match="Could not read the scheduled task"):
        scheduler.show()


def test_a_task_of_somebody_else_is_never_touched() -> None:
    schtasks = Schtasks()
    scheduler = TaskScheduler(Path("schtasks.exe"), schtasks, account=SYSTEM)
    scheduler.install(COMMAND)
    theirs = schtasks.tasks[NAME].replace(f">{NAME}</", ">theirs</")
    schtasks.tasks[NAME] = theirs
    for act in (lambda: scheduler.install(COMMAND), scheduler.show, scheduler.remove):
        with pytest.raises(ConfigError, match="Another program made"):
            act()
    assert schtasks.tasks == {NAME: theirs}


def test_tasks_that_run_the_old_script_are_named_and_left_alone() -> None:
    schtasks = Schtasks()
    old = r"<Task><Arguments>C:\MDaemon\LetsEncrypt\LETSENCRYPT.PS1</Arguments></Task>"
    cmd = r"<Task><Exec><Command>C:\x\scheduled-renew.cmd</Command></Exec></Task>"
    schtasks.tasks = {"Zertifikat": old, "Backup": "<Task>x</Task>", "A\\B": cmd}
    before = dict(schtasks.tasks)
    scheduler = TaskScheduler(Path("schtasks.exe"), schtasks, account=SYSTEM)
    assert scheduler.rivals() == ["\\Zertifikat", "\\A\\B"]
    scheduler.install(COMMAND)
    scheduler.remove()
    assert schtasks.tasks == before


def test_several_tasks_of_this_program_are_named_and_one_is_the_usual_one() -> None:
    schtasks = Schtasks()
    scheduler = TaskScheduler(Path("schtasks.exe"), schtasks, account=SYSTEM)
    scheduler.install(COMMAND)
    schtasks.tasks["Backup"] = "<Task>x</Task>"
    assert scheduler.twins() == []
    own = r"<Task><Command>C:\x\LetsEncrypt-MDaemon.exe</Command></Task>"
    schtasks.tasks["A\\B"] = own
    assert scheduler.twins() == [f"\\{NAME}", "\\A\\B"]
    assert scheduler.rivals() == []


def test_several_lines_of_this_program_are_named_and_one_is_the_usual_one() -> None:
    crontab = Crontab(THEIRS)
    scheduler = Cron(Path("crontab"), crontab)
    scheduler.install(COMMAND)
    assert scheduler.twins() == []
    assert crontab.text is not None
    crontab.text += "# 1 2 * * * letsencrypt-mdaemon renew\n"
    assert scheduler.twins() == []
    crontab.text += "1 2 * * * letsencrypt-mdaemon renew\n"
    ours, theirs = scheduler.twins()
    assert ours.endswith(f"# {NAME}")
    assert theirs == "1 2 * * * letsencrypt-mdaemon renew"
    assert scheduler.rivals() == []


def test_what_windows_refuses_is_told_in_its_words() -> None:
    schtasks = Schtasks()
    scheduler = TaskScheduler(Path("schtasks.exe"), schtasks, account=SYSTEM)
    scheduler.install(COMMAND)
    schtasks.refuses = True
    for act in (lambda: scheduler.install(COMMAND), scheduler.remove):
        with pytest.raises(DeployError, match="Zugriff verweigert") as caught:
            act()
        assert "administrator" in caught.value.hint


def test_the_other_lines_of_a_crontab_stay_as_they_are() -> None:
    crontab = Crontab(THEIRS)
    scheduler = Cron(Path("crontab"), crontab)
    scheduler.install(["/x y/python", "a%b"])
    assert crontab.text is not None
    assert crontab.text.startswith(THEIRS + "\n")
    (ours,) = crontab.text[len(THEIRS) + 1 :].splitlines()
    assert ours.endswith(r" '/x y/python' a\%b >/dev/null 2>&1 # letsencrypt-mdaemon")
    assert scheduler.remove()
    assert crontab.text == THEIRS + "\n"


@pytest.mark.parametrize(
    ("fields", "when"),
    [
        ("48 3,15 * * *", "03:48, 15:48"),
        ("7 0,8,16 * * *", "7 0,8,16 * * *"),
        ("48 3,15 * * 1", "48 3,15 * * 1"),
    ],
)
def test_a_line_of_a_crontab_is_shown_as_times_of_day(fields: str, when: str) -> None:
    crontab = Crontab(f"{fields} renew >/dev/null 2>&1 # {NAME}\n")

    shown = Cron(Path("crontab"), crontab).show()

    assert shown is not None
    assert shown.when == when


@pytest.mark.parametrize("act", ["install", "show", "remove"])
def test_a_crontab_that_may_not_be_used_is_told_in_its_words(act: str) -> None:
    crontab = Crontab(THEIRS)
    crontab.refuses = True
    scheduler = Cron(Path("crontab"), crontab)
    with pytest.raises(DeployError, match="not allowed to use"):
        getattr(scheduler, act)(*([COMMAND] if act == "install" else []))


@pytest.fixture
def crontab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program crontab of the system that keeps its lines in a file."""
    folder = tmp_path / "bin"
    folder.mkdir()
    kept = tmp_path / "kept"
    program = folder / "crontab"
    program.write_text(
        f"""#!/bin/sh
case "$1" in
-l) cat "{kept}" 2>/dev/null || {{ echo "no crontab for you" >&2; exit 1; }} ;;
-) cat > "{kept}" ;;
esac
"""
    )
    program.chmod(0o755)
    monkeypatch.setattr(process, "FOLDERS", (str(folder),))
    return kept


def test_the_command_installs_itself_with_its_options_and_shows_how_it_ran(
    program: Program, crontab: Path
) -> None:
    ran = program.here("schedule install")
    assert ran.exit_code == 0, ran.messages
    line = crontab.read_text()
    assert " -I -m letsencrypt_mdaemon renew --scheduled " in line
    assert f"--mdaemon-dir={program.layout.folder}" in line
    assert "--agree-tos " in line
    assert "json" not in line
    assert ran.report["job"]["last_run"] is None

    command = line.split(" ", 5)[5].partition(" >")[0]
    done = subprocess.run(
        ["/bin/sh", "-c", command.replace(r"\%", "%")],
        check=False,
        capture_output=True,
        timeout=HANG_SECONDS,
    )
    assert done.returncode == 0, done.stderr

    shown = program.here("schedule show")
    assert shown.report["job"]["last_exit_code"] == 0
    assert shown.report["job"]["last_run"]
    text = program.here("schedule show", as_json=False).output
    assert "exit code 0" in text

    assert program.here("schedule remove").report["removed"]
    places = ["--mdaemon-dir", "/nowhere", "--state-dir", "/nowhere"]
    wrong = {"LETSENCRYPT_MDAEMON_KEY_TYPE": "wrong"}
    ran = here(["schedule", "remove", *places, "--json"], wrong)
    assert (ran.exit_code, ran.report["removed"]) == (0, False), ran.messages
    assert crontab.read_text() == ""
    assert program.here("schedule show").report["job"] is None


def test_what_is_scheduled_means_the_same_in_whatever_folder(
    program: Program, crontab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = program.layout.folder
    monkeypatch.chdir(folder.parent)
    ran = program.here(
        "schedule install", "--mdaemon-dir", folder.name, "--store", "pem:kept here"
    )
    assert ran.exit_code == 0, ran.messages
    line = crontab.read_text()
    assert f"--mdaemon-dir={folder} " in line
    assert f"--store=pem:{folder.parent / 'kept here'}'" in line


@pytest.mark.usefixtures("crontab")
def test_what_only_the_environment_says_is_warned_of(beside: Program) -> None:
    ran = beside.here(
        "schedule install", environ={"LETSENCRYPT_MDAEMON_AGREE_TOS": "yes"}
    )
    assert ran.exit_code == 0, ran.messages
    (warning,) = ran.report["warnings"]
    assert "Set agree-tos in the config file" in warning


def test_a_scheduled_run_that_fails_leaves_its_exit_code(
    program: Program, crontab: Path
) -> None:
    program.here("schedule install")
    failed = program.renew("--scheduled", "--webroot", str(crontab.parent))
    assert failed.exit_code == 4
    job = program.here("schedule show").report["job"]
    assert job["last_exit_code"] == 4
    state = json.loads((program.state / "installation.json").read_text())
    assert state["exit_code"] == 4


def test_without_agreement_to_the_terms_it_is_warned_of(
    beside: Program, crontab: Path
) -> None:
    ran = beside.here("schedule install")
    assert ran.exit_code == 0
    assert any("agree-tos" in warning for warning in ran.report["warnings"])
    assert crontab.exists()
