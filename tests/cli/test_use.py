"""A certificate chosen by hand: put into use with proof, held, and given back."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from letsencrypt_mdaemon.cli.context import Context
from letsencrypt_mdaemon.pki.certificate import dns_names, is_self_signed, key_type
from letsencrypt_mdaemon.sandbox import folder as sandbox
from letsencrypt_mdaemon.sandbox.mdaemon import Fault
from letsencrypt_mdaemon.state.folder import State
from letsencrypt_mdaemon.state.memory import Checked, Hold
from tests.certificates import root
from tests.cli.test_certificates import listed, put
from tests.limits import HANG_SECONDS
from tests.program import HOST_NAME, Program, environment
from tests.wine import windows_too

DAY = timedelta(days=1)


@pytest.fixture
def renewed(secure: Program) -> Program:
    """A server with a certificate of the CA, and a bought one in its store."""
    ran = secure.here("renew")
    assert ran.exit_code == 0, ran.messages
    return secure


def hold_of(program: Program) -> Hold | None:
    """Return the hold that is remembered."""
    return State(program.state).load().hold


def served(program: Program) -> set[str]:
    """Return the thumbprints that the ports serve."""
    ran = program.here("verify")
    return {port["certificate"]["thumbprint"] for port in ran.report["ports"]}


# use


@windows_too
def test_a_bought_certificate_is_used_by_every_port_and_held(renewed: Program) -> None:
    bought = put(renewed)
    before = renewed.bound()

    ran = renewed.here("use", bought.thumbprint[:8])

    assert ran.exit_code == 0, ran.messages
    assert ran.report["renewed"]
    assert len(ran.report["proof"]["new"]) == len(renewed.server.endpoints)
    assert renewed.bound() == served(renewed) == {bought.thumbprint} != before
    held = hold_of(renewed)
    assert held
    assert held.until == bought.leaf.not_valid_after_utc - 7 * DAY
    assert ran.report["held"] == {
        "thumbprint": bought.thumbprint,
        "since": held.since.isoformat(),
        "until": held.until.isoformat(),
        "by": "use",
    }
    assert list(State(renewed.state).backups.iterdir())


def test_renew_status_and_check_tell_of_the_hold(renewed: Program) -> None:
    bought = put(renewed)
    ran = renewed.here("use", bought.thumbprint, as_json=False)
    assert ran.output.startswith(f"In use: {HOST_NAME}, valid until")
    assert "; `use --release` ends that" in ran.output

    again = renewed.here("renew", as_json=False)
    status = renewed.here("status", as_json=False)
    check = renewed.here("check", "--no-ports", as_json=False)

    assert again.exit_code == 0, again.messages
    assert again.output.startswith("Held by you since ")
    assert "held         by you since " in status.output
    assert f"; held by you since {datetime.now(UTC):%Y-%m-%d}" in check.output
    assert check.output.startswith("WARNING")
    assert renewed.bound() == {bought.thumbprint}
    shown = renewed.here("status").report
    assert shown["held"]["thumbprint"] == bought.thumbprint
    assert shown["due"] is False


def test_a_hold_can_have_another_end_and_be_released(renewed: Program) -> None:
    (ours,) = renewed.bound()
    bought = put(renewed)
    day = (datetime.now() + 3 * DAY).date()  # noqa: DTZ005 - as it is typed

    ran = renewed.here("use", bought.thumbprint, "--until", day.isoformat())
    held = hold_of(renewed)
    released = renewed.here("use", "--release")
    again = renewed.here("use", "--release", as_json=False)

    assert ran.exit_code == 0, ran.messages
    assert held
    midnight = datetime(day.year, day.month, day.day).astimezone()
    assert held.until == midnight
    assert released.report["released"]["thumbprint"] == bought.thumbprint
    assert again.output == "Nothing was held.\n"
    assert hold_of(renewed) is None
    assert renewed.here("renew").report["certificate"]["thumbprint"] == ours
    assert renewed.bound() == {ours}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "No certificate given"),
        (["--until", "2000-01-01"], "--until: 2000-01-01 is not between now and"),
        (["--until", "2100-01-01"], "--until: 2100-01-01 is not between now and"),
        (["--until", "soon"], "--until: 'soon' is not valid"),
        (["--release"], "--release takes neither"),
    ],
)
def test_a_senseless_command_line_changes_nothing(
    renewed: Program, options: list[str], said: str
) -> None:
    bought = put(renewed)
    before = renewed.snapshot()

    ran = renewed.here("use", *([bought.thumbprint] if options else []), *options)

    assert ran.exit_code == 2
    assert said in ran.report["error"]["message"]
    assert renewed.snapshot() == before
    assert hold_of(renewed) is None


@windows_too
def test_a_certificate_that_breaks_a_port_is_rolled_back(renewed: Program) -> None:
    before = renewed.bound()
    bought = put(renewed)
    renewed.server.spoil(Fault.DEAD, "mail")

    ran = renewed.here("use", bought.thumbprint)

    assert ran.exit_code == 5, ran.messages
    assert "Rolled back" in ran.report["error"]["message"]
    assert renewed.bound() == before
    assert hold_of(renewed) is None
    assert not listed(renewed)[bought.thumbprint]["ours"]


def test_status_says_that_a_new_certificate_was_rolled_back(secure: Program) -> None:
    secure.server.spoil(Fault.DEAD, "mail")
    assert secure.here("renew").exit_code == 5

    shown = secure.here("status", as_json=False).output
    report = secure.here("status").report

    assert report["rolled_back"]
    assert "; a new certificate was rolled back 2" in report["verdict"]
    assert shown.count("was rolled back") == 1
    digest = report["pending"]["thumbprint"]
    assert re.search(rf"rolled back  {digest}\n +runs try it again daily", shown)
    assert "not in use" not in shown


def test_a_revoked_certificate_is_refused(renewed: Program) -> None:
    bought = put(renewed)
    state, now = State(renewed.state), datetime.now(UTC)
    row = Checked(bought.thumbprint, now, now)
    state.save(state.load()._replace(checked=(row,)))

    ran = renewed.here("use", bought.thumbprint)

    assert ran.exit_code == 2
    assert "it was revoked" in ran.report["error"]["message"]


def test_an_untrusted_certificate_needs_consent_and_says_what_clients_miss(
    renewed: Program,
) -> None:
    bought = put(renewed, "elsewhere", names=["mail.example.org"])
    renewed.agrees = False

    ran = renewed.here("use", bought.thumbprint)

    assert ran.exit_code == 2
    message = ran.report["error"]["message"]
    assert "Clients do not trust it" in message
    assert f"It does not cover {HOST_NAME}" in message
    assert "No service and no port uses it." in message
    assert hold_of(renewed) is None


def test_one_that_clients_trust_needs_no_consent(
    renewed: Program, tmp_path: Path
) -> None:
    bought = put(renewed)
    renewed.agrees = False
    roots = tmp_path / "roots.pem"
    roots.write_bytes(root().certificate.public_bytes(Encoding.PEM))

    ran = renewed.here("use", bought.thumbprint, "--ca-bundle", str(roots))

    assert ran.exit_code == 0, ran.messages


def test_one_that_is_nearly_over_is_not_held_and_nothing_is_dated_in_the_past(
    renewed: Program,
) -> None:
    start = datetime.now(UTC).replace(microsecond=0) - 85 * DAY
    bought = put(renewed, start=start, lifetime=90 * DAY)
    said = "The next run of renew replaces it."
    renewed.agrees = False
    asked = renewed.here("use", bought.thumbprint)
    renewed.agrees = True

    ran = renewed.here("use", bought.thumbprint, as_json=False)

    assert asked.report["error"]["message"].endswith(said)
    assert ran.exit_code == 0, ran.messages
    assert "; the next run of renew replaces it" in renewed.log()
    assert "  due          now: the next run of `renew` replaces it\n" in ran.output
    assert " ago)" not in ran.output + ran.messages
    assert hold_of(renewed) is None
    assert renewed.here("renew").report["renewed"]


def test_one_that_is_due_and_held_is_said_to_be_kept(renewed: Program) -> None:
    start = datetime.now(UTC).replace(microsecond=0) - 70 * DAY
    bought = put(renewed, start=start, lifetime=90 * DAY)

    ran = renewed.here("use", bought.thumbprint, as_json=False)

    held = hold_of(renewed)
    assert held
    until = f"{held.until.astimezone():%Y-%m-%d}"
    assert f"; runs keep it until {until}" in renewed.log()
    assert ran.output.count(f"runs keep it until {until}") == 1
    assert "  due " not in ran.output
    assert " ago)" not in ran.output + ran.messages


# At a terminal


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such terminal")
@pytest.mark.parametrize(("typed", "code"), [("y\n", 0), ("n\n", 2), ("\x04", 2)])
def test_consent_is_asked_at_a_terminal_while_nothing_is_locked(
    renewed: Program, typed: str, code: int
) -> None:
    import pexpect  # noqa: PLC0415 - not on Windows

    bought = put(renewed)
    renewed.agrees = False
    program, *words = renewed.command("use", bought.thumbprint)
    terminal = pexpect.spawn(
        program, words, env=environment(), encoding="utf-8", timeout=HANG_SECONDS
    )
    terminal.expect_exact(bought.thumbprint)
    terminal.expect_exact("Clients do not trust it")
    terminal.expect_exact("Go on? [y/N]: ")
    beside = renewed.here("renew")
    terminal.send(typed)
    terminal.expect_exact(f'"exit_code": {code}')
    terminal.expect(pexpect.EOF)
    terminal.close()

    assert beside.exit_code == 0, beside.messages
    assert terminal.exitstatus == code
    assert (renewed.bound() == {bought.thumbprint}) is (code == 0)


# What else begins and ends a hold


def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs be those of a person."""
    monkeypatch.setattr(Context, "is_scheduled", False)


def test_no_activate_by_hand_is_held_until_activate(
    renewed: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = renewed.bound()
    by_hand(monkeypatch)
    issued = renewed.here("renew", "--force", "--no-activate")
    monkeypatch.undo()

    scheduled = renewed.here("renew")
    activated = renewed.here("activate")

    assert issued.report["held"]["by"] == "no-activate"
    assert scheduled.exit_code == 0, scheduled.messages
    assert not scheduled.report["renewed"]
    assert activated.report["renewed"], activated.messages
    assert renewed.bound().isdisjoint(before)
    assert hold_of(renewed) is None


def test_a_rollback_is_held_until_activate(renewed: Program) -> None:
    (first,) = renewed.bound()
    assert renewed.here("renew", "--force").exit_code == 0
    (second,) = renewed.bound()

    back = renewed.here("rollback")
    scheduled = renewed.here("renew")
    after = renewed.bound()
    activated = renewed.here("activate")

    assert back.report["held"]["by"] == "rollback"
    assert not scheduled.report["renewed"]
    assert scheduled.report["held"] == back.report["held"]
    assert after == {first}
    assert activated.report["certificate"]["thumbprint"] == second
    assert hold_of(renewed) is None


def test_activate_ends_a_hold_though_nothing_waits(renewed: Program) -> None:
    (ours,) = renewed.bound()
    assert renewed.here("use", ours).exit_code == 0
    assert hold_of(renewed)

    assert renewed.here("activate").exit_code == 0

    assert hold_of(renewed) is None


def test_a_self_signed_certificate_is_not_held_until_a_day(secure: Program) -> None:
    made = secure.here("self-signed").report["certificate"]["thumbprint"]
    before = secure.snapshot()
    day = datetime.now(UTC) + 3 * DAY

    ran = secure.here("use", made, "--until", f"{day:%Y-%m-%d}")

    assert ran.exit_code == 2
    message = ran.report["error"]["message"]
    assert "--until: a self-signed certificate is not held" in message
    assert "the next run of `renew` replaces" in message
    assert secure.snapshot() == before


# self-signed


@windows_too
def test_a_self_signed_certificate_is_made_as_it_is_asked_for(secure: Program) -> None:
    ran = secure.here(
        "self-signed",
        *("--names", "mail.example.test, *.example.test", "--country", "de"),
        *("--organisation", "Müller & Söhne", "--days", "30", "--hash", "sha384"),
        *("--key-type", "p384"),
    )

    assert ran.exit_code == 0, ran.messages
    (folder,) = secure.layout.certificates.glob("letsencrypt-mdaemon *")
    leaf = x509.load_pem_x509_certificate((folder / "cert.pem").read_bytes())
    assert is_self_signed(leaf)
    assert dns_names(leaf) == ("mail.example.test", "*.example.test")
    assert leaf.subject.rfc4514_string() == (
        "CN=mail.example.test,O=Müller & Söhne,C=DE"
    )
    assert key_type(leaf) == "p384"
    assert isinstance(leaf.signature_hash_algorithm, hashes.SHA384)
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == 30 * DAY
    assert ran.report["certificate"]["thumbprint"] not in secure.bound()
    assert (folder / "privkey.pem").exists()


def test_its_names_are_those_of_renew(secure: Program) -> None:
    ran = secure.here("self-signed", "--alternate-host-names", "imap.example.test")

    assert ran.report["certificate"]["names"] == [HOST_NAME, "imap.example.test"]


def test_a_wildcard_first_has_a_folder_that_windows_allows(secure: Program) -> None:
    ran = secure.here("self-signed", "--names", "*.example.test")

    assert ran.exit_code == 0, ran.messages
    (folder,) = secure.layout.certificates.glob("letsencrypt-mdaemon *")
    assert "*" not in folder.name


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--key-type", "rsa1024"), "RSA keys below 2048 bits can be broken"),
        (("--hash", "SHA-1"), "its signatures can be forged"),
        (("--hash", "sha1"), "its signatures can be forged"),
        (("--hash", "x"), "--hash: 'x' is not valid; use sha256 or sha384."),
        (("--country", "Germany"), "two letters"),
        (("--names", "a b"), "has no dot"),
        (("--names", "*.*.example.test"), "wildcard"),
    ],
)
def test_what_is_weak_or_wrong_is_refused_with_the_reason(
    secure: Program, options: tuple[str, ...], said: str
) -> None:
    ran = secure.here("self-signed", *options)

    assert ran.exit_code == 2
    assert said in ran.report["error"]["message"]
    assert len(listed(secure)) == 1


def test_one_in_use_is_proven_and_the_first_real_one_replaces_it(
    renewed: Program,
) -> None:
    (ours,) = renewed.bound()

    ran = renewed.here("self-signed", "--use")
    made = renewed.bound()
    again = renewed.here("renew")

    assert ran.exit_code == 0, ran.messages
    assert len(ran.report["proof"]["new"]) == len(renewed.server.endpoints)
    assert ran.report["held"] is None
    assert made == {ran.report["certificate"]["thumbprint"]}
    assert made != {ours}
    assert again.exit_code == 0, again.messages
    assert renewed.bound() == {ours}


@pytest.mark.parametrize("days", ["5", "365"])
def test_of_one_in_use_no_later_renewal_is_promised(
    renewed: Program, days: str
) -> None:
    said = "The next run of renew replaces it."
    renewed.agrees = False
    asked = renewed.here("self-signed", "--use", "--days", days)
    renewed.agrees = True

    ran = renewed.here("self-signed", "--use", "--days", days, as_json=False)

    assert asked.report["error"]["message"].endswith(said)
    assert ran.exit_code == 0, ran.messages
    assert "; the next run of renew replaces it" in renewed.log()
    assert "  due          now: the next run of `renew` replaces it\n" in ran.output
    assert renewed.here("status").report["due"]


def test_one_in_use_needs_consent(secure: Program) -> None:
    before = secure.bound()
    secure.agrees = False

    ran = secure.here("self-signed", "--use")

    assert ran.exit_code == 2
    assert "Every client warns" in ran.report["error"]["message"]
    assert len(listed(secure)) == 1
    assert secure.bound() == before


# reload


def chosen_in_a_dialog(program: Program) -> str:
    """Let another certificate be named by the files, as MDaemon's dialog does."""
    bought = put(program)
    (former,) = program.bound()
    for target in sandbox.TARGETS.values():
        file = program.layout.folder / target.file
        data = file.read_bytes()
        for form in (str, str.lower, spaced):
            data = data.replace(form(former).encode(), form(bought.thumbprint).encode())
        file.write_bytes(data)
    assert program.bound() == {bought.thumbprint}
    return bought.thumbprint


def spaced(digest: str) -> str:
    return " ".join(digest[at : at + 2] for at in range(0, 40, 2))


@windows_too
def test_a_reload_makes_the_ports_serve_what_the_files_name(secure: Program) -> None:
    digest = chosen_in_a_dialog(secure)
    before = secure.snapshot()

    ran = secure.here("reload")

    assert ran.exit_code == 0, ran.messages
    assert ran.report["reloaded"] == ["RELOADCACHE.SEM", "RESTARTWC.SEM"]
    assert len(ran.report["proof"]["new"]) == len(secure.server.endpoints)
    assert served(secure) == {digest}
    assert secure.snapshot() == before
    assert secure.here("reload", as_json=False).output.startswith(
        "Reloaded: RELOADCACHE.SEM, RESTARTWC.SEM\n  verified at "
    )


def test_a_restart_is_made_only_when_it_is_asked_for(secure: Program) -> None:
    digest = chosen_in_a_dialog(secure)
    secure.server.reloads = {
        "RELOADCACHE.SEM": (),
        "RESTARTWC.SEM": (),
        "RESTART.SEM": ("mail", "webmail", "admin"),
    }
    secure.server.downtime = 1.0

    gentle = secure.here("reload", environ={"LETSENCRYPT_MDAEMON_ALLOW_RESTART": "yes"})
    harsh = secure.here("reload", "--restart", "--verify-timeout", "30")

    assert gentle.exit_code == 5
    assert "RESTART.SEM" not in gentle.report["reloaded"]
    assert (
        "do not serve the certificate that the server's files name"
        in (gentle.report["error"]["message"])
    )
    assert harsh.exit_code == 0, harsh.messages
    assert harsh.report["reloaded"][-1] == "RESTART.SEM"
    assert served(secure) == {digest}
    assert State(secure.state).load().restarted


def test_a_server_that_does_not_run_is_not_reloaded(secure: Program) -> None:
    secure.server.ignore |= {"RELOADCACHE.SEM", "RESTARTWC.SEM", "WATCHDOG.SEM"}

    ran = secure.here("reload", "--reload-timeout", "1")

    assert ran.exit_code == 5
    assert "did not process any semaphore" in ran.report["error"]["message"]
    warnings = " ".join(ran.report["warnings"])
    assert "uses the certificate that its files name after its next" in warnings
    assert "new certificate" not in warnings


def test_files_that_name_several_certificates_prove_nothing(secure: Program) -> None:
    bought = put(secure)
    (former,) = secure.bound()
    file = secure.layout.app / "MDaemon.ini"
    data = file.read_bytes().replace(former.encode(), bought.thumbprint.encode())
    file.write_bytes(data)

    ran = secure.here("reload")

    assert ran.exit_code == 0, ran.messages
    assert ran.report["proof"]["new"] == []
    assert len(ran.report["proof"]["unproven"]) == len(secure.server.endpoints)
