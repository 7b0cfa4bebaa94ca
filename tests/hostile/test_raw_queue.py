"""A RAW queue elsewhere, in which another user waits for the mail about a failure."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from letsencrypt_mdaemon.sandbox.ca.server import CertificateAuthority
from tests.hostile.attacker import Attacker, open_to_all
from tests.program import Program, Ran

TO = ("--to", "me@example.test")


def lead(program: Program, queue: Path) -> None:
    """Let MDaemon.ini name another RAW queue."""
    ini = program.layout.app / "MDaemon.ini"
    old, new = (str(path).encode() for path in (program.layout.raw, queue))
    data = ini.read_bytes()
    assert data.count(old) == 1
    ini.write_bytes(data.replace(old, new))


@pytest.fixture
def his(program: Program, attacker: Attacker, ground: Path) -> Path:
    """A folder of another user, which MDaemon.ini names as the RAW queue."""
    open_to_all(ground)
    attacker.run("os.mkdir(sys.argv[1], 0o777)", ground / "spool")
    ground.chmod(0o755)
    lead(program, ground / "spool")
    return ground / "spool"


def by_smtp(program: Program, ran: Ran) -> str:
    """Return the warning, once the sandbox has the mail by SMTP."""
    program.server.wait_for(lambda: program.server.delivered)
    (mail,) = program.server.delivered
    assert "Delivered-To: me@example.test" in mail.read_text("ascii")
    warning: str
    (warning,) = (line for line in ran.report["warnings"] if "The RAW queue" in line)
    assert f"smtp://127.0.0.1:{program.server.smtp_port} instead" in warning
    return warning


def test_the_mail_about_a_failure_goes_by_smtp_past_a_folder_of_another_user(
    program: Program, ca: CertificateAuthority, his: Path
) -> None:
    ca.resolve = lambda _: None

    ran = program.renew(*TO)

    assert ran.exit_code == 4, ran.messages
    assert f"{his}: belongs to nobody" in by_smtp(program, ran)
    assert list(his.iterdir()) == []


def test_a_queue_that_others_can_exchange_is_passed_by(
    program: Program, ground: Path
) -> None:
    (ground / "open" / "spool").mkdir(parents=True)
    open_to_all(ground / "open")
    lead(program, ground / "open" / "spool")

    ran = program.run(
        "notify-test", *TO, "--smtp-address", f"127.0.0.1:{program.server.smtp_port}"
    )

    assert ran.exit_code == 0, ran.messages
    assert f"{ground / 'open'}: others can write to it" in by_smtp(program, ran)
    # What makes the folder safe makes it the queue again.
    (ground / "open").chmod(0o755)
    assert "RAW queue" in program.run("notify-test", *TO).report["sent"]


def test_a_link_out_of_mdaemons_folder_leads_past_the_queue(
    program: Program, his: Path
) -> None:
    lead_back = program.layout.raw.with_name("Link")
    lead_back.symlink_to(his)
    ini = program.layout.app / "MDaemon.ini"
    ini.write_bytes(
        ini.read_bytes().replace(str(his).encode(), str(lead_back).encode())
    )

    ran = program.run(
        "notify-test", *TO, "--smtp-address", f"127.0.0.1:{program.server.smtp_port}"
    )

    by_smtp(program, ran)
    assert list(his.iterdir()) == []


def test_if_smtp_fails_too_both_are_said_and_nothing_is_written(
    program: Program, ca: CertificateAuthority, his: Path
) -> None:
    ca.resolve = lambda _: None

    ran = program.renew(*TO, "--smtp-address", "127.0.0.1:1")

    assert ran.exit_code == 4
    (warning,) = (line for line in ran.report["warnings"] if "Could not send" in line)
    assert f"{his}: belongs to nobody" in warning
    assert "smtp://127.0.0.1:1 did not accept the mail" in warning
    assert "Could not send" in program.log()
    assert list(his.iterdir()) == []
    none = program.run("notify-test", *TO, "--smtp-address", "none")
    assert none.exit_code == 2
    assert "mail-server = smtp://HOST:PORT" in none.report["error"]["hint"]


def test_doctor_says_so(program: Program, his: Path) -> None:
    ran = program.run("doctor", *TO)

    (finding,) = (
        row for row in ran.report["machine"] if row["code"] == "raw-queue-unusable"
    )
    assert f"{his}: belongs to nobody" in finding["seen"]
    shutil.chown(his, 0, 0)
    his.chmod(0o755)
    codes = [row["code"] for row in program.run("doctor", *TO).report["machine"]]
    assert "raw-queue-unusable" not in codes
