"""What is mailed to whom, and when: nothing twice, and nothing to whom typed it."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email import message_from_string
from pathlib import Path

import pytest

from letsencrypt_mdaemon.app import scheduling, trust
from letsencrypt_mdaemon.cli.checks import EVENTS
from letsencrypt_mdaemon.cli.context import Context
from letsencrypt_mdaemon.sandbox import mdaemon
from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from letsencrypt_mdaemon.state.folder import State
from letsencrypt_mdaemon.state.memory import Memory
from letsencrypt_mdaemon.system.locks import exclusive_lock
from letsencrypt_mdaemon.system.schedule import MARK, NAME, Cron
from tests.cli.test_certificates import put
from tests.cli.test_verify_command import name_everywhere
from tests.program import HOST_NAME, Program, Ran, here
from tests.schedulers import Crontab
from tests.wine import windows_too

IMAP = "imap.example.test"
ANNA = ("--to", "anna@example.test")
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


@pytest.fixture(autouse=True)
def crontab(monkeypatch: pytest.MonkeyPatch) -> Crontab:
    """A crontab with nothing in it."""
    fake = Crontab()
    cron = Cron(Path("crontab"), fake)
    monkeypatch.setattr(scheduling, "of_this_system", lambda: cron)
    return fake


def a_job(crontab: Crontab) -> None:
    """Let there be a scheduled job of ours."""
    crontab.text = (
        f"5 3,15 * * * letsencrypt-mdaemon renew {MARK} >/dev/null # {NAME}\n"
    )


def job(program: Program, *options: str) -> Ran:
    """Run what the scheduler runs."""
    return program.here("renew", MARK, *ANNA, *options)


def typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every command be typed at a terminal."""
    monkeypatch.setattr(Context, "is_typed", property(lambda self: not self.is_marked))


def mails(program: Program) -> list[tuple[str, str]]:
    """Return the subjects and bodies of the mails since the last time, oldest first."""
    program.server.wait_for(lambda: not list(program.layout.raw.iterdir()))
    found = sorted(
        program.layout.delivered.iterdir(), key=lambda file: file.stat().st_mtime_ns
    )
    rows = []
    for file in found:
        text = file.read_text("ascii")
        subject = message_from_string(text)["Subject"]
        rows.append((subject, text.split("\n\n", 1)[-1]))
        file.unlink()
    return rows


def subjects(program: Program) -> list[str]:
    """Return the subjects of the mails since the last time."""
    return [subject for subject, _ in mails(program)]


def change(program: Program, act: Callable[[Memory], Memory]) -> None:
    """Change what is remembered."""
    state = State(program.state)
    state.save(act(state.load()))


def a_day_passes(program: Program) -> None:
    """Let the last mails be a day old, and the next failure be tried at once."""

    def older(memory: Memory) -> Memory:
        told = memory.told
        rows = tuple(row._replace(at=row.at - DAY) for row in told.mailed)
        since = told.since and told.since - DAY
        return memory._replace(told=told._replace(mailed=rows, since=since))

    change(program, older)
    forget_waits(program)


def forget_waits(program: Program) -> None:
    """Let the next run try again at once."""
    for file in program.state.rglob("ledger.json"):
        file.unlink()


@windows_too
def test_a_failure_is_mailed_once_a_day_and_its_end_once(
    program: Program, ca: CertificateAuthority
) -> None:
    assert job(program).exit_code == 0
    assert mails(program) == []
    names = ("--alternate-host-names", IMAP)
    ca.resolve = lambda name: None if name == IMAP else "127.0.0.1"

    assert job(program, *names).exit_code == 4
    ((subject, body),) = mails(program)
    assert re.fullmatch(
        rf"\[{HOST_NAME}\] certificate not renewed: {IMAP} \(dns-\w+\), 89 days left",
        subject,
    )
    assert "(exit 4)" in body
    forget_waits(program)
    assert job(program, *names).exit_code == 4
    assert mails(program) == []

    a_day_passes(program)
    assert job(program, *names).exit_code == 4
    (subject,) = subjects(program)
    assert "certificate still not renewed" in subject
    assert subject.endswith(", for 24 hours, 3rd run, 89 days left")

    ca.resolve = lambda _: "127.0.0.1"
    forget_waits(program)
    assert job(program, *names).exit_code == 0
    ((subject, body),) = mails(program)
    assert subject.startswith(f"[{HOST_NAME}] recovered: valid until ")
    assert "It had failed since" in body
    assert job(program, *names).exit_code == 0
    assert mails(program) == []


def test_a_run_that_waits_after_a_failure_is_no_recovery(
    program: Program, ca: CertificateAuthority
) -> None:
    assert job(program).exit_code == 0
    ca.resolve = lambda name: None if name == IMAP else "127.0.0.1"
    names = ("--alternate-host-names", IMAP)
    assert job(program, *names).exit_code == 4
    assert len(mails(program)) == 1

    ran = job(program, *names)

    assert ran.exit_code == 0
    assert ran.report["waiting_until"]
    assert mails(program) == []
    change(
        program,
        lambda memory: memory._replace(
            told=memory.told._replace(
                mailed=tuple(
                    row._replace(at=row.at - DAY) for row in memory.told.mailed
                )
            )
        ),
    )
    assert job(program, *names).exit_code == 0
    ((subject, body),) = mails(program)
    assert "certificate still not renewed" in subject
    assert f"{IMAP} could not be validated" in " ".join(body.split())


def test_what_is_issued_and_not_in_use_is_no_recovery(
    program: Program, ca: CertificateAuthority
) -> None:
    ca.resolve = lambda _: None
    assert job(program).exit_code == 4
    assert len(mails(program)) == 1
    ca.resolve = lambda _: "127.0.0.1"
    forget_waits(program)

    for _ in range(2):
        ran = job(program, "--no-activate")
        assert ran.exit_code == 0, ran.messages
        assert ran.report["fault"] == "is self-signed"
        assert mails(program) == [], "a self-signed certificate is in use"
    a_day_passes(program)
    assert job(program, "--no-activate").exit_code == 0
    ((subject, body),) = mails(program)
    assert "still not properly in use: the new certificate waits for" in subject
    assert "The certificate in use is self-signed." in body

    assert job(program).exit_code == 0
    (subject,) = subjects(program)
    assert "recovered" in subject


def test_a_good_certificate_in_the_store_is_no_recovery_of_an_expired_one(
    program: Program, ca: CertificateAuthority
) -> None:
    assert job(program).exit_code == 0
    (good,) = program.bound()
    expired = put(program, "expired", start=datetime.now(UTC) - 91 * DAY).thumbprint
    ca.resolve = lambda _: None
    assert job(program, "--alternate-host-names", IMAP).exit_code == 4
    assert len(mails(program)) == 1
    ca.resolve = lambda _: "127.0.0.1"
    forget_waits(program)
    name_everywhere(program.layout, good, expired)

    ran = job(program, "--no-activate")
    shown = program.here("renew", MARK, "--no-activate", as_json=False).output

    assert ran.exit_code == 0, ran.messages
    assert program.bound() == {expired}
    for subject, body in mails(program):
        assert "recovered" not in subject
        assert "The certificate in use expired on " in body
    headline = rf"Issued, not in use: .*, {good}\. The certificate in use expired on "
    assert re.match(headline, shown), shown


def test_a_run_that_waits_after_a_rollback_is_no_recovery(secure: Program) -> None:
    assert job(secure).exit_code == 0
    old = secure.bound()
    secure.server.spoil(mdaemon.Fault.NO_TLS, "webmail")
    assert job(secure, "--force").exit_code == 5
    assert len(mails(secure)) == 1

    ran = job(secure)
    shown = secure.here("renew", MARK, as_json=False).output

    assert ran.exit_code == 0, ran.messages
    assert "a new certificate was rolled back" in ran.report["reason"]
    assert ran.report["pending"]["thumbprint"] not in old == secure.bound()
    assert shown.startswith("Issued, not in use: ")
    assert mails(secure) == []
    checked = secure.here("check", as_json=False)
    assert checked.exit_code == 1, checked.output
    assert "a new certificate was rolled back on " in checked.output
    assert "issued and not in use" not in checked.output
    a_day_passes(secure)
    assert job(secure).exit_code == 0
    ((subject, body),) = mails(secure)
    assert "certificate still not properly in use: " in subject
    assert "A new certificate was rolled back on " in body

    secure.server.faults.clear()
    assert secure.here("activate").exit_code == 0
    assert job(secure).exit_code == 0
    (subject,) = subjects(secure)
    assert "recovered" in subject


def test_another_failure_is_mailed_at_once(
    program: Program, ca: CertificateAuthority
) -> None:
    ca.resolve = lambda _: None
    assert job(program).exit_code == 4
    assert job(program, "--store", f"pem:{__file__}").exit_code != 4

    first, second = subjects(program)

    assert first != second
    assert ", 2nd run" in second, "the trouble is the same"


def test_the_body_says_each_thing_once(
    program: Program, ca: CertificateAuthority
) -> None:
    ca.resolve = lambda _: None

    ran = job(program, "--alternate-host-names", IMAP)

    ((_, body),) = mails(program)
    stamp = r"^\s*(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d )?([A-Z]+: )?"
    lines = [re.sub(stamp, "", line).strip() for line in body.splitlines()]
    lines = [line for line in lines if line]
    assert len(lines) == len(set(lines))
    error = ran.report["error"]
    for said in (*error["message"].splitlines(), error["hint"]):
        assert body.count(said.strip()) == 1, said


def test_a_failure_that_is_typed_is_not_mailed_unless_asked(
    program: Program, ca: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca.resolve = lambda _: None
    environ = {"LETSENCRYPT_MDAEMON_TO": "anna@example.test"}
    with monkeypatch.context() as patch:
        typed(patch)
        assert program.here("renew", environ=environ).exit_code == 4
        assert program.here("activate", environ=environ).exit_code == 5
        assert mails(program) == []

        forget_waits(program)
        assert program.here("renew", *ANNA).exit_code == 4
        assert len(mails(program)) == 1

    forget_waits(program)
    assert program.here("renew", MARK, environ=environ).exit_code == 4
    assert mails(program) == [], "the typed run with --to told it"
    a_day_passes(program)
    assert program.here("renew", MARK, environ=environ).exit_code == 4
    assert len(mails(program)) == 1


def test_what_a_person_mends_is_told_by_the_next_scheduled_run(
    program: Program, ca: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca.resolve = lambda _: None
    assert job(program).exit_code == 4
    assert len(mails(program)) == 1
    ca.resolve = lambda _: "127.0.0.1"
    with monkeypatch.context() as patch:
        typed(patch)
        assert program.here("renew", "--force").exit_code == 0
    assert mails(program) == []

    assert job(program).exit_code == 0

    (subject,) = subjects(program)
    assert "recovered" in subject


def test_the_time_left_is_mailed_whatever_the_cause(
    program: Program, ca: CertificateAuthority
) -> None:
    ca.lifetime = 12 * DAY  # due when 4 days are left
    assert job(program).exit_code == 0

    def older(memory: Memory) -> Memory:
        ends = memory.told.ends
        assert ends is not None
        return memory._replace(told=memory.told._replace(ends=ends - 9.5 * DAY))

    change(program, older)
    # It cannot even be seen which certificate is in use.
    assert job(program, "--store", f"pem:{__file__}").exit_code != 0

    (subject,) = subjects(program)
    assert subject.endswith(", 2 days left")


def test_renewals_and_all_runs_are_mailed_if_that_is_asked_for(
    program: Program,
) -> None:
    both = ("--notify-on", "renewed,every-run")
    assert job(program, *both).exit_code == 0
    assert job(program, *both).exit_code == 0

    first, second = subjects(program)

    assert first.startswith(f"[{HOST_NAME}] certificate renewed: valid until ")
    assert second.startswith(f"[{HOST_NAME}] run ended: valid until ")


def test_a_mail_that_cannot_be_sent_is_sent_by_the_next_run(
    program: Program, ca: CertificateAuthority
) -> None:
    ca.resolve = lambda _: None
    assert job(program, "--mail-server", "smtp://127.0.0.1:1").exit_code == 4
    assert mails(program) == []

    forget_waits(program)
    assert job(program).exit_code == 4

    (subject,) = subjects(program)
    assert "certificate not renewed" in subject


@pytest.mark.parametrize(
    "text",
    [
        "[letsencrypt-mdaemon]\nto = anna@example.test\nkey-type = none\n",
        "[letsencrypt-mdaemon]\nto = anna@example.test\nthis is no INI\n",
        "to = anna@example.test\n",
        "[letsencrypt-mdaemon]\nto = anna@example.test\nto = anna@example.test\n",
    ],
)
def test_wrong_settings_are_mailed_to_whom_they_name(
    program: Program, text: str, tmp_path: Path
) -> None:
    file = tmp_path / "our.ini"
    file.write_text(text)
    root = ("--mdaemon-dir", str(program.layout.folder))
    command = ["renew", MARK, "--config", str(file), *root]

    ran = here([*command, "--json"])

    assert ran.exit_code == 2
    ((subject, body),) = mails(program)
    assert "certificate not renewed: The configuration is invalid" in subject
    assert ran.report["error"]["message"] in " ".join(body.split())
    assert here(command).exit_code == 2
    assert mails(program) == [], "not twice in a day"


def test_wrong_settings_that_name_nobody_are_mailed_to_nobody(
    program: Program, tmp_path: Path
) -> None:
    file = tmp_path / "our.ini"
    file.write_text("[letsencrypt-mdaemon]\nto = anna at example\n")
    root = ("--mdaemon-dir", str(program.layout.folder))

    assert here(["renew", MARK, "--config", str(file), *root]).exit_code == 2

    assert mails(program) == []


def test_a_name_is_mailed_once_when_it_is_dropped_and_once_when_it_is_back(
    program: Program, ca: CertificateAuthority
) -> None:
    names = ("--alternate-host-names", IMAP, "--on-name-failure", "drop")
    ca.resolve = lambda name: None if name == IMAP else "127.0.0.1"

    assert job(program, *names).exit_code == 0
    ((subject, body),) = mails(program)
    assert f"[{HOST_NAME}] certificate without {IMAP}: valid until " in subject
    assert f"issued without these names:\n  {IMAP}: " in body
    assert body.count("Run `doctor`") == 1
    forget_waits(program)
    assert job(program, *names).exit_code == 0
    assert mails(program) == []

    ca.resolve = lambda _: "127.0.0.1"
    forget_waits(program)
    change(program, tried_long_ago)
    assert job(program, *names).exit_code == 0
    ((subject, body),) = mails(program)
    assert f"certificate with {IMAP} again: valid until " in subject
    assert f"In the certificate again: {IMAP}." in body
    assert job(program, *names).exit_code == 0
    assert mails(program) == []


def tried_long_ago(memory: Memory) -> Memory:
    """Let the last try of the dropped names be days ago."""
    rows = [row._replace(tried=row.tried - 3 * DAY) for row in memory.dropped]
    return memory._replace(dropped=tuple(rows))


@pytest.mark.parametrize("event", EVENTS)
def test_an_example_of_every_event_can_be_sent(program: Program, event: str) -> None:
    ran = program.here("notify-test", *ANNA, "--event", event)

    assert ran.exit_code == 0, ran.messages
    ((subject, body),) = mails(program)
    assert subject.startswith("TEST [mail.example.com] ")
    assert body.startswith("This is a test.")


def test_an_unknown_event_is_refused_with_those_there_are(program: Program) -> None:
    ran = program.here("notify-test", *ANNA, "--event", "x")

    assert ran.exit_code == 2
    assert "use failed, again, " in ran.report["error"]["message"]


# Who started it, and whether anything does


def test_beside_a_marked_job_a_run_without_the_mark_is_a_persons(
    program: Program, crontab: Crontab
) -> None:
    a_job(crontab)

    ran = program.here("renew")
    assert ran.report["scheduled"]
    assert State(program.state).load().runs == ()

    assert program.here("renew", MARK).exit_code == 0
    assert len(State(program.state).load().runs) == 1


@pytest.mark.parametrize("text", ["", f"5 3,15 * * * renew >/dev/null # {NAME}\n"])
def test_without_a_marked_job_a_run_without_a_terminal_is_scheduled(
    program: Program, crontab: Crontab, text: str
) -> None:
    crontab.text = text or None

    assert program.here("renew").exit_code == 0

    assert len(State(program.state).load().runs) == 1


class Terminal(io.StringIO):
    """A console, as every task of Windows' Task Scheduler has one."""

    def isatty(self) -> bool:
        """Return that it is one."""
        return True


@pytest.mark.parametrize(
    ("is_marked", "is_system", "is_typed"),
    [(False, False, True), (True, False, False), (False, True, False)],
)
def test_a_console_is_no_person_if_the_mark_or_system_says_so(
    monkeypatch: pytest.MonkeyPatch, *, is_marked: bool, is_system: bool, is_typed: bool
) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(trust, "is_system", lambda: is_system)
    context = Context("renew", {}, file=None, is_marked=is_marked)
    assert context.is_typed is is_typed


def test_without_a_schedule_renew_and_status_say_so(
    program: Program, crontab: Crontab, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch)
    sentence = "Not scheduled. `schedule install` schedules `renew` twice a day."

    for command in ("renew", "status"):
        shown = program.here(command, as_json=False).output
        assert sentence in shown, command
    assert program.here("renew").report["scheduled"] is False
    assert program.here("status").report["schedule"]["scheduled"] is False

    a_job(crontab)
    for command in ("renew", "status"):
        assert sentence not in program.here(command, as_json=False).output


def test_what_another_scheduler_runs_is_scheduled(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert program.here("renew").exit_code == 0
    typed(monkeypatch)
    assert program.here("status").report["schedule"]["scheduled"]

    old = datetime.now(UTC) - 2 * DAY
    change(program, lambda memory: memory._replace(runs=(old,)))
    assert not program.here("status").report["schedule"]["scheduled"]


def test_a_mail_says_what_tries_again(
    program: Program,
    ca: CertificateAuthority,
    crontab: Crontab,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    again, nothing = (
        "The next scheduled run tries again.",
        "Nothing is scheduled: run `renew`, or `setup`.",
    )
    ca.resolve = lambda _: None
    typed(monkeypatch)

    def body(*words: str) -> str:
        forget_waits(program)
        a_day_passes(program)
        assert program.here(*words, *ANNA).exit_code in (4, 5)
        ((_, text),) = mails(program)
        return text

    assert nothing in body("renew")
    assert again not in body("activate")
    a_job(crontab)
    assert again in body("renew")
    crontab.text = None
    assert again in body("renew", MARK)
    assert again in body("renew"), "another scheduler ran it not long ago"
    with exclusive_lock(State(program.state).lock):
        assert program.here("renew", *ANNA).exit_code != 0
    ((_, text),) = mails(program)
    assert again in text, "beside another run, too"


def test_the_mark_is_hidden() -> None:
    assert MARK not in here(["renew", "--help-all"]).output
