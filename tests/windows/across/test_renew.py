"""The whole command on Windows: against a sandbox MDaemon, and a CA others wrote."""

from __future__ import annotations

from pathlib import Path

from tests.program import HOST_NAME, PREFIX, run
from tests.windows.across.conftest import DRIVE, PYTHON, WindowsProgram

ALTERNATES = "imap.example.test,pop.example.test"


def settings_of(options: list[str]) -> dict[str, str]:
    """Return options as the environment says them."""
    given: dict[str, str] = {}
    name = ""
    for word in options:
        if word.startswith("--"):
            name = PREFIX + word[2:].replace("-", "_").upper()
            given[name] = "yes"
        else:
            given[name] = word
    return given


def test_a_certificate_goes_through_the_windows_store_to_every_port(
    program: WindowsProgram,
) -> None:
    names = ("--alternate-host-names", ALTERNATES)
    first = program.renew(*names)
    assert first.exit_code == 0, first.messages
    one = first.report["certificate"]["thumbprint"]
    assert set(first.report["certificate"]["names"]) == {
        HOST_NAME,
        *ALTERNATES.split(","),
    }
    assert program.bound() == {one}
    assert set(program.server.serving.values()) == {one}
    assert program.tokens() == []
    assert b"\r\n" in program.raw_log
    assert b"\n" not in program.raw_log.replace(b"\r\n", b"")

    for kept in program.state.glob("*/*.json"):
        if kept.name in {"account.json", "order.json"}:
            assert b"kty" not in kept.read_bytes()

    again = program.renew(*names)
    assert again.exit_code == 0, again.messages
    assert not again.report["renewed"]
    assert "valid until" in again.report["reason"]

    seen = program.run("verify")
    assert seen.exit_code == 0, seen.messages

    status = program.run("status", *names)
    assert status.exit_code == 0, status.messages
    assert status.report["certificate"]["thumbprint"] == one
    assert not status.report["due"]

    forced = program.renew(*names, "--force")
    assert forced.exit_code == 0, forced.messages
    two = forced.report["certificate"]["thumbprint"]
    assert program.bound() == {two} != {one}

    back = program.run("rollback", *names)
    assert back.exit_code == 0, back.messages
    assert program.bound() == set(program.server.serving.values()) == {one}


def test_the_old_scripts_switches_do_the_same(program: WindowsProgram) -> None:
    ran = run(
        [
            *(PYTHON, "-P", "-m", "letsencrypt_mdaemon", "-AlternateHostNames"),
            *ALTERNATES.split(","),
            *("-To", "postmaster@example.test", "-RemoveOldCertificates"),
            *("-SkipPortCheck", "--json"),
        ],
        settings_of(program.options),
    )
    assert ran.exit_code == 0, ran.messages
    assert program.bound() == {ran.report["certificate"]["thumbprint"]}


def test_a_name_that_fails_is_mailed_and_changes_nothing(
    program: WindowsProgram, tmp_path: Path
) -> None:
    before = program.bound()
    ran = program.renew(
        *("--webroot", str(tmp_path), "--to", "postmaster@example.test")
    )
    assert ran.exit_code == 4, ran.messages
    assert list(ran.report["error"]["names"]) == [HOST_NAME]
    assert program.bound() == before
    program.server.wait_for(lambda: program.server.delivered)
    assert HOST_NAME in program.server.delivered[0].read_text("ascii")


def test_the_selftest_tells_what_works_and_leaves_nothing(
    program: WindowsProgram,
) -> None:
    ran = program.run("selftest")
    results = {check["name"]: check["result"] for check in ran.report["checks"]}
    # On Windows all but IIS should be "ok": see docs/known-limits.md.
    assert results == {
        "Python": "ok",
        "store, RSA key in a CSP": "failed",  # it cannot be used
        "store, RSA key in CNG": "failed",
        "store, ECDSA key": "failed",
        "Task Scheduler": "failed",  # schtasks /Query prints nothing
        "DPAPI": "ok",
        "IIS": "skipped",
        "semaphores": "ok",
    }
    assert ran.exit_code == 5
    shown = program.run("discover")
    names = [names for one in shown.report["certificates"] for names in one["names"]]
    assert not [name for name in names if "selftest" in name]
    tasks = DRIVE / "windows" / "system32" / "Tasks"
    assert not list(tasks.glob("*selftest*"))
