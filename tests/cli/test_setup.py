"""`setup`: from nothing to renewed, scheduled and watched, in one command."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from letsencrypt_mdaemon.app import scheduling, selftest, survey, trust
from letsencrypt_mdaemon.app import setup as steps
from letsencrypt_mdaemon.config.load import FILE_NAME, SECTION
from letsencrypt_mdaemon.errors import ConfigError, DeployError
from letsencrypt_mdaemon.mdaemon import ini
from letsencrypt_mdaemon.pki.certificate import OURS
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from letsencrypt_mdaemon.sandbox.folder import TARGETS, bound
from letsencrypt_mdaemon.state.folder import State
from letsencrypt_mdaemon.system.locks import exclusive_lock
from letsencrypt_mdaemon.system.tasks import TaskScheduler, task
from tests.limits import HANG_SECONDS
from tests.program import HOST_NAME, Program, Ran, environment
from tests.schedulers import Jobs, Schtasks, in_memory
from tests.servers import free_port
from tests.wine import is_wine, windows_too, wine_differs

IMAP = "imap.example.test"
UNKNOWN = "AA" * 20


@pytest.fixture(autouse=True)
def where_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let SYSTEM trust the program of these tests, which is in no safe folder.

    Wine's Task Scheduler shows no task: that part of the self-test fails there, as
    `test_the_self_test_of_this_machine_succeeds` notes.
    """
    monkeypatch.setattr(trust, "program_doubts", lambda *_: [])
    if is_wine():
        monkeypatch.setattr(selftest, "scheduler", lambda _: "not under Wine")


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Jobs:
    """A scheduler without any job."""
    return in_memory(monkeypatch)


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> Schtasks:
    """A Task Scheduler with a task of the old script."""
    fake = Schtasks()
    command = ["powershell", "-File", r"C:\MDaemon\LetsEncrypt\LetsEncrypt.ps1"]
    command += ["-AlternateHostNames", f"{IMAP},not_a_name", "-To", "me@example.test"]
    xml = task(command, 1, 1, "S-1-5-18").decode("utf-16")
    fake.tasks["LetsEncrypt"] = re.sub(r"\A<\?xml.*?\?>\s*", "", xml)
    scheduler = TaskScheduler(Path("schtasks.exe"), fake, account="S-1-5-18")
    monkeypatch.setattr(scheduling, "of_this_system", lambda: scheduler)
    return fake


def setup(program: Program, *options: str) -> Ran:
    """Run `setup` without a terminal."""
    return program.here("setup", *options, as_json=False)


def config_of(program: Program) -> Path:
    """Return where the config file belongs."""
    return program.layout.letsencrypt / FILE_NAME


def choose(program: Program, digest: str) -> None:
    """Choose a certificate for everything, as in MDaemon's dialog."""
    for part, named in bound(program.layout.folder).items():
        file = program.layout.folder / TARGETS[part].file
        text = file.read_bytes()
        for form in (str.lower, str.upper, lambda x: " ".join(re.findall("..", x))):
            text = text.replace(form(named).encode(), form(digest).encode())
        file.write_bytes(text)


@wine_differs("Wine's Task Scheduler shows no task")
@windows_too
def test_the_self_test_of_this_machine_succeeds(
    secure: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()

    ran = secure.here("selftest")

    assert ran.exit_code == 0, ran.report


@windows_too
def test_a_server_is_set_up_in_one_command(secure: Program, jobs: Jobs) -> None:
    ran = setup(secure, "--yes", "--to", "me@example.test")

    assert ran.exit_code == 0, ran.messages
    steps_done = re.findall(r"(?m)^(\d) ", ran.output)
    assert steps_done == list("123456789")
    assert f"Names found: {HOST_NAME} (default domain)" in ran.output
    assert "9 of 9 ports proven" in ran.output
    assert "Ready. Next renewal: about" in ran.output
    assert len(set(secure.server.serving.values()) & secure.bound()) == 1
    assert jobs.text
    assert f"--config {config_of(secure)} renew" in jobs.text.replace('"', "")
    secure.server.wait_for(lambda: secure.server.delivered)


def test_the_config_file_holds_only_what_differs_with_comments(
    secure: Program, jobs: Jobs
) -> None:
    assert jobs.text is None
    ran = setup(secure, "--yes", "--keep-logs", "30", "--verify-timeout", "2")

    assert ran.exit_code == 0, ran.messages
    data = config_of(secure).read_bytes()
    found = {entry.key: entry.value for entry in ini.entries(data)}
    assert found["agree-tos"] == "yes"
    assert found["verify-timeout"] == "2"
    assert found["to"] == f"postmaster@{HOST_NAME.partition('.')[2]}"
    assert not {"keep-logs", "allow-restart", "json", "force", "staging"} & found.keys()
    for name in found:
        assert re.search(rf"(?m)^; \S.*\r\n{name}=", data.decode()), name


def test_what_the_environment_sets_goes_into_the_config_file(
    secure: Program, jobs: Jobs
) -> None:
    environ = {
        "LETSENCRYPT_MDAEMON_KEEP_LOGS": "7",
        "LETSENCRYPT_MDAEMON_LOG_DIR": "logs",
        "LETSENCRYPT_MDAEMON_TO": "env@example.test",
        "LETSENCRYPT_MDAEMON_ON_NAME_FAILURE": "fail",
        "LETSENCRYPT_MDAEMON_DRY_RUN": "no",
    }
    config_of(secure).write_bytes(b"[letsencrypt-mdaemon]\non-name-failure=drop\n")

    ran = secure.here("setup", "--yes", environ=environ, as_json=False)

    assert ran.exit_code == 0, ran.messages
    assert "warning" not in ran.messages
    assert jobs.text
    data = config_of(secure).read_bytes()
    found = {entry.key: entry.value for entry in ini.entries(data)}
    assert found["keep-logs"] == "7"
    assert found["log-dir"] == str(Path("logs").absolute())
    assert found["to"] == "env@example.test"
    assert found["on-name-failure"] == "fail"
    assert "dry-run" not in found


@pytest.mark.parametrize("options", [[], ["--no-schedule"]])
def test_a_secret_of_the_environment_goes_into_no_file_and_is_not_scheduled_without(
    secure: Program, jobs: Jobs, tmp_path: Path, options: list[str]
) -> None:
    environ = {"LETSENCRYPT_MDAEMON_MAIL_PASSWORD": "hidden"}

    ran = secure.here("setup", "--yes", *options, environ=environ, as_json=False)

    assert ran.exit_code == (0 if options else 2), ran.messages
    assert b"hidden" not in config_of(secure).read_bytes()
    assert "hidden" not in ran.output + ran.messages
    assert jobs.text is None
    if not options:
        assert re.search(r"(?m)^8 schedule +failed$", ran.output)
        assert "LETSENCRYPT_MDAEMON_MAIL_PASSWORD" in ran.messages
        assert "set mail-password-file" in ran.messages
        password = tmp_path / "password"
        password.write_text("hidden")
        again = setup(secure, "--yes", f"--mail-password-file={password}")
        assert again.exit_code == 0, again.messages
        assert jobs.text


def test_set_up_again_it_changes_nothing(secure: Program, jobs: Jobs) -> None:
    assert setup(secure, "--yes").exit_code == 0
    before = settled(secure), jobs.text, State(secure.state).load()

    ran = setup(secure, "--yes")

    assert ran.exit_code == 0, ran.messages
    assert re.search(r"4 configuration +unchanged", ran.output)
    assert re.search(r"5 certificate +unchanged", ran.output)
    assert re.search(r"7 ports +9 of 9 ports proven", ran.output)
    assert re.search(r"9 test mail +skipped +nothing changed", ran.output)
    assert "Ready." in ran.output
    assert (settled(secure), jobs.text, State(secure.state).load()) == before


@pytest.mark.parametrize("change", ["--test-mail", "--keep-logs=7", "schedule"])
def test_the_test_mail_is_sent_again_when_something_changed_or_by_request(
    secure: Program, jobs: Jobs, change: str
) -> None:
    assert setup(secure, "--yes").exit_code == 0
    if change == "schedule":
        assert jobs.text
        jobs.text = jobs.text.replace(" renew ", " renew --force ")

    ran = setup(secure, "--yes", *[change] * (change != "schedule"))

    assert ran.exit_code == 0, ran.messages
    assert re.search(r"9 test mail +sent", ran.output)


def test_a_test_mail_that_failed_is_sent_by_the_command_that_is_named(
    secure: Program, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise DeployError("no mail")

    with monkeypatch.context() as patch:
        patch.setattr(steps, "test_mail", refuse)
        ran = setup(secure, "--yes")
    assert ran.exit_code == 5
    assert "Then run `setup --test-mail`" in " ".join(ran.messages.split())
    assert jobs.text

    ran = setup(secure, "--yes", "--test-mail")

    assert re.search(r"9 test mail +sent", ran.output)


def test_a_port_that_serves_the_certificate_no_longer_is_found_without_a_renewal(
    secure: Program, jobs: Jobs
) -> None:
    assert setup(secure, "--yes").exit_code == 0
    assert jobs.text
    gone = next(at for at in State(secure.state).load().proven if "https" in at)
    secure.server.downtime = HANG_SECONDS
    secure.server.go_down("webmail")

    ran = setup(secure, "--yes")

    assert ran.exit_code == 5, ran.output
    assert re.search(r"5 certificate +unchanged", ran.output)
    assert re.search(r"7 ports +[0-8] of 9 ports proven", ran.output)
    assert "Ready." not in ran.output
    for text in (ran.output, ran.messages):
        assert "No longer served: " in text
        assert f"{gone} (" in text


def settled(program: Program) -> dict[str, bytes]:
    """Return the server's files and the config file, without mail."""
    files = program.snapshot()
    return {
        name: data
        for name, data in files.items()
        if ".eml" not in name and ".raw" not in name
    }


@windows_too
def test_an_existing_config_file_keeps_its_comments_order_and_line_ends(
    secure: Program, jobs: Jobs
) -> None:
    assert jobs.text is None
    before = (
        b"# ours\n[letsencrypt-mdaemon]\n; why\nkeep-logs = 7\nto=old@example.test\n"
        b"# end\n"
    )
    config_of(secure).write_bytes(before)

    assert setup(secure, "--yes", "--to", "new@example.test").exit_code == 0

    after = config_of(secure).read_bytes()
    assert b"\r" not in after
    kept = [line for line in after.splitlines() if line in before.splitlines()]
    assert kept == [x for x in before.splitlines() if not x.startswith(b"to=")]
    assert b"\nto=new@example.test\n" in after
    assert b"keep-logs = 7\n" in after


def test_print_shows_the_config_file_and_does_nothing(
    secure: Program, jobs: Jobs
) -> None:
    before = secure.snapshot()

    ran = setup(secure, "--print", "--to", "me@example.test")

    assert ran.exit_code == 0, ran.messages
    assert f"[{SECTION}]\n" in ran.output
    assert "to=me@example.test\n" in ran.output
    assert secure.snapshot() == before
    assert jobs.text is None


def test_print_needs_no_scheduler(
    secure: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> None:
        raise ConfigError("no cron")

    monkeypatch.setattr(scheduling, "of_this_system", absent)

    ran = setup(secure, "--print")

    assert ran.exit_code == 0, ran.messages
    assert f"[{SECTION}]\n" in ran.output
    assert setup(secure, "--yes").exit_code == 2


@windows_too
def test_without_a_terminal_it_asks_nothing_and_does_nothing(
    secure: Program, jobs: Jobs
) -> None:
    before = secure.snapshot()

    ran = setup(secure)

    assert ran.exit_code == 2
    assert "`setup` asks questions, and this is no terminal. Use --yes" in " ".join(
        ran.messages.split()
    )
    assert (secure.snapshot(), jobs.text) == (before, None)


@windows_too
def test_without_the_rights_it_says_so_before_anything_else(
    secure: Program, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(root: Path) -> None:
        raise ConfigError(f"not {root}")

    monkeypatch.setattr(steps, "require_rights", refuse)

    ran = setup(secure, "--yes")

    assert (ran.exit_code, ran.output, jobs.text) == (2, "", None)


@windows_too
def test_on_a_new_server_the_rest_is_done_and_the_next_run_goes_on(
    secure: Program, jobs: Jobs
) -> None:
    choose(secure, UNKNOWN)

    ran = setup(secure, "--yes")

    assert ran.exit_code == 5
    assert re.search(r"6 MDaemon's choice of certificate +missing", ran.output)
    assert re.search(r"8 schedule +\d", ran.output)
    assert re.search(r"9 test mail +sent", ran.output)
    assert f"select '{OURS} {HOST_NAME} " in ran.messages
    assert jobs.text
    (new,) = {item.thumbprint for item in State(secure.state).load().issued}
    choose(secure, new)
    assert secure.here("renew").exit_code == 0
    assert setup(secure, "--yes").exit_code == 0


@windows_too
def test_the_old_scripts_names_are_taken_and_its_task_disabled_until_undone(
    secure: Program, tasks: Schtasks
) -> None:
    ran = setup(secure, "--yes")

    assert ran.exit_code == 0, ran.messages
    assert f'{IMAP} (task "LetsEncrypt", to be replaced)' in ran.output
    assert "not_a_name" not in ran.output
    leaf = secure.here("status").report["certificate"]
    assert set(leaf["names"]) == {HOST_NAME, IMAP}
    assert tasks.is_disabled("LetsEncrypt")
    assert "letsencrypt-mdaemon" in tasks.tasks

    undone = setup(secure, "--undo")

    assert undone.exit_code == 0, undone.messages
    assert 'enabled the task "LetsEncrypt"' in undone.output
    assert not tasks.is_disabled("LetsEncrypt")
    assert "letsencrypt-mdaemon" not in tasks.tasks
    assert setup(secure, "--undo").output == "There was nothing to undo.\n"


def test_the_old_task_stays_when_it_should(secure: Program, tasks: Schtasks) -> None:
    ran = setup(secure, "--yes", "--keep-task", "--import", "none")

    assert ran.exit_code == 0, ran.messages
    assert IMAP not in ran.output
    assert not tasks.is_disabled("LetsEncrypt")


def test_a_name_that_fails_ends_it_and_what_is_done_is_kept(
    program: Program, ca: CertificateAuthority, jobs: Jobs
) -> None:
    find, ca.resolve = ca.resolve, lambda _: None

    ran = setup(program, "--yes")

    assert ran.exit_code == 4
    assert re.search(r"(?m)^5 certificate +failed$", ran.output)
    assert "Then run `setup` again: what is done is kept." in ran.messages
    assert config_of(program).is_file()
    assert jobs.text is None
    ca.resolve = find
    ran = setup(program, "--yes")
    assert ran.exit_code == 0, "a person who tries again does not wait"
    assert "Ready." in ran.output
    assert jobs.text


@pytest.mark.parametrize(
    "act", ["machine", "names", "rehearse", "write_config", "obtain", "ports"]
)
def test_interrupted_at_any_step_and_run_again_it_ends_the_same(
    secure: Program, jobs: Jobs, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(steps, act, interrupt)
        assert setup(secure, "--yes").exit_code != 0

    ran = setup(secure, "--yes")

    assert ran.exit_code == 0, ran.messages
    assert jobs.text
    assert len(State(secure.state).load().issued) == 1
    assert set(secure.server.serving.values()) == secure.bound()


def test_json_has_each_step(secure: Program, jobs: Jobs) -> None:
    assert jobs.text is None
    ran = setup(secure, "--yes", "--json")

    report = json.loads(ran.output)
    assert [row["number"] for row in report["steps"]] == list(range(1, 10))
    assert report["exit_code"] == 0


def test_simple_acmes_names_are_read_and_what_is_broken_is_skipped(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "simple-acme" / "acme-v02.example.test"
    folder.mkdir(parents=True)
    target = {"CommonName": HOST_NAME, "AlternativeNames": [HOST_NAME, IMAP, 7]}
    (folder / "a.renewal.json").write_text(json.dumps({"TargetPluginOptions": target}))
    (folder / "b.renewal.json").write_text("{")
    (folder / "c.renewal.json").write_text("[[[")
    (folder / "d.renewal.json").write_text('{"TargetPluginOptions": []}')

    assert survey.simple_acme_names(tmp_path) == [HOST_NAME, IMAP]


# At a terminal


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such terminal")
def test_a_person_is_asked_five_questions_at_most(secure: Program) -> None:
    import pexpect  # noqa: PLC0415 - not on Windows

    choose(secure, UNKNOWN)
    program, *words = secure.command("setup", "--no-schedule")
    words.remove("--json")
    words.remove("--agree-tos")
    terminal = pexpect.spawn(
        program, words, env=environment(), encoding="utf-8", timeout=HANG_SECONDS
    )
    terminal.expect_exact(f"Names of the certificate [{HOST_NAME}]: ")
    terminal.sendline("a b..c")
    terminal.expect_exact("A name ")
    terminal.expect_exact(f"Names of the certificate [{HOST_NAME}]: ")
    terminal.sendline(f"{HOST_NAME}, {IMAP}")
    terminal.expect_exact("Mail when something fails [postmaster@")
    terminal.sendline("me@example.test")
    terminal.expect_exact("The CA's terms of service: ")
    terminal.expect_exact("Agree? [y/N]: ")
    terminal.sendline("y")
    terminal.expect_exact("keeps the old certificate? [y/N]: ")
    terminal.sendline("")
    terminal.expect_exact("Then press Enter here")
    (new,) = {item.thumbprint for item in State(secure.state).load().issued}
    choose(secure, new)
    terminal.sendline("")
    terminal.expect_exact("3 INI values")
    terminal.expect_exact("Ready.")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    names = secure.here("status").report["certificate"]["names"]
    assert set(names) == {HOST_NAME, IMAP}
    assert b"to=me@example.test" in config_of(secure).read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such terminal")
def test_who_does_not_agree_to_the_terms_gets_nothing_done(secure: Program) -> None:
    import pexpect  # noqa: PLC0415 - not on Windows

    before = secure.snapshot()
    program, *words = secure.command("setup", "--no-schedule")
    words.remove("--json")
    words.remove("--agree-tos")
    terminal = pexpect.spawn(
        program, words, env=environment(), encoding="utf-8", timeout=HANG_SECONDS
    )
    for question in ("certificate [", "fails ["):
        terminal.expect_exact(question)
        terminal.sendline("")
    terminal.expect_exact("Agree? [y/N]: ")
    terminal.sendline("")
    terminal.expect_exact("Without agreement")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 2
    assert secure.snapshot() == before


# What a second look found


def test_what_renew_would_fail_for_setup_fails_for(secure: Program, jobs: Jobs) -> None:
    assert jobs.text is None
    port = free_port()
    ran = setup(secure, "--yes", "--endpoint", f"https://127.0.0.1:{port}")

    assert ran.exit_code == 5, ran.output
    assert "Ready." not in ran.output
    assert re.search(r"9 test mail +sent", ran.output)


def test_json_is_no_consent(secure: Program, jobs: Jobs) -> None:
    before = secure.snapshot()

    ran = setup(secure, "--json")

    assert ran.exit_code == 2
    assert "asks questions" in ran.report["error"]["message"]
    assert (secure.snapshot(), jobs.text) == (before, None)


def test_a_value_over_several_lines_is_refused_and_the_file_kept(
    secure: Program, jobs: Jobs
) -> None:
    file = config_of(secure)
    text = "[letsencrypt-mdaemon]\nalternate-host-names =\n  a.example.test,\n"
    file.write_text(f"{text}  b.example.test\n")
    before = file.read_bytes()

    ran = setup(secure, "--yes", "--import", "none")

    assert (ran.exit_code, jobs.text) == (2, None)
    assert "values over several lines" in ran.messages
    assert file.read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_an_existing_config_file_keeps_its_mode_and_its_link(
    secure: Program, jobs: Jobs, tmp_path: Path
) -> None:
    assert jobs.text is None
    real = tmp_path / "real.ini"
    real.write_text("[letsencrypt-mdaemon]\nkeep-logs = 7\n")
    real.chmod(0o640)
    config_of(secure).symlink_to(real)

    assert setup(secure, "--yes", "--keep-logs", "30").exit_code == 0

    assert config_of(secure).is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    # An option that is the default counts where the file says otherwise.
    assert "keep-logs = 30\n" in real.read_text()


def test_names_of_the_settings_are_never_dropped_for_what_is_seen_today(
    secure: Program, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert jobs.text is None
    config_of(secure).write_text(
        f"[letsencrypt-mdaemon]\nalternate-host-names = {IMAP}\n"
    )
    examine = survey.examine

    def doubt(*args: object, **more: object) -> tuple[survey.Offer, ...]:
        rows = examine(*args, **more)  # type: ignore[arg-type]
        return tuple(row._replace(chosen=row.name != IMAP) for row in rows)

    monkeypatch.setattr(survey, "examine", doubt)

    assert setup(secure, "--yes").exit_code == 0

    names = secure.here("status").report["certificate"]["names"]
    assert set(names) == {HOST_NAME, IMAP}
    assert IMAP in config_of(secure).read_text()


@pytest.mark.parametrize("name", ["staging", "dry-run", "no-activate"])
def test_a_setting_with_which_nothing_would_be_used_is_refused(
    secure: Program, jobs: Jobs, name: str
) -> None:
    config_of(secure).write_text(f"[letsencrypt-mdaemon]\n{name} = yes\n")

    ran = setup(secure, "--yes")

    assert (ran.exit_code, jobs.text) == (2, None)
    assert "nothing would be put into use" in ran.messages


def test_print_takes_no_lock_and_makes_nothing(secure: Program) -> None:
    with exclusive_lock(secure.layout.folder / "lock"):
        ran = setup(secure, "--print", "--no-schedule")

    assert ran.exit_code == 0, ran.messages
    assert not secure.state.exists()
    assert setup(secure, "--print", "--undo").exit_code == 2


def test_json_of_a_failure_has_the_steps_that_are_done(
    program: Program, ca: CertificateAuthority, jobs: Jobs
) -> None:
    assert jobs.text is None
    ca.resolve = lambda _: None

    ran = setup(program, "--yes", "--json")

    assert ran.exit_code == 4
    assert [row["number"] for row in ran.report["steps"]] == [1, 2, 3, 4]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such terminal")
def test_ctrl_c_at_a_question_is_no_bug(secure: Program) -> None:
    import pexpect  # noqa: PLC0415 - not on Windows

    program, *words = secure.command("setup", "--no-schedule")
    words.remove("--json")
    terminal = pexpect.spawn(
        program, words, env=environment(), encoding="utf-8", timeout=HANG_SECONDS
    )
    terminal.expect_exact("Names of the certificate [")
    terminal.sendcontrol("c")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 1
    assert "bug" not in (terminal.before or "")
